"""The interactive view's Python side: what it computes, offers, sends and refuses. The browser has its own test."""

import io
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import seewhy
from seewhy import Explainer, errors
from seewhy.methods import GradCAM
from seewhy.render import colorize
from seewhy.testing import small_cnn

pytest.importorskip("anywidget")
from seewhy.notebook import maps, view

NAMES = ["goldfish", "tabby, tabby cat", "espresso", "tripod", "moped"]


@pytest.fixture
def explainer():
    return Explainer(small_cnn(), transform=to_tensor, class_names=NAMES)


@pytest.fixture
def photos():
    return np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)


def to_tensor(photo):
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255


def sent(shown):
    heat = shown._heat
    return np.frombuffer(heat["map"], "<f4").reshape(heat["height"], heat["width"])


def pick(shown, **what):
    """What the browser sends when something is picked there."""
    shown._handle_custom_msg(what, [])


def options(shown, name):
    return [tuple(option) for option in shown._pickers[name]["options"]]


def selected(shown, name):
    return options(shown, name)[shown._pickers[name]["selected"]]


def traits(shown):
    return shown.image, shown.method, shown.layer, shown.target


def test_it_opens_with_the_first_method_at_the_chosen_layer_for_the_predicted_class(explainer, photos):
    shown = view(explainer, photos)
    expected = explainer.explain(photos[0])
    assert traits(shown) == (0, "grad_cam", None, None)
    assert (sent(shown) == expected.map).all()
    assert (np.asarray(PIL.Image.open(io.BytesIO(shown._photo))) == photos[0]).all()
    assert shown._heat["title"] == f"grad_cam at {expected.layer}"
    assert selected(shown, "layer") == (None, f"automatic: {expected.layer}")
    assert repr(shown).startswith("View(Explanation(grad_cam, ")
    assert not shown._busy


def test_what_is_picked_in_the_browser_is_computed_and_read_back(explainer, photos):
    shown = view(explainer, photos)
    pick(shown, method="saliency")
    assert (sent(shown) == explainer.explain(photos[0], "saliency").map).all()
    pick(shown, method="grad_cam", layer="left")
    pick(shown, typed=" moped ")
    pick(shown, image=2)
    assert traits(shown) == (2, "grad_cam", "left", "moped")
    expected = explainer.explain(photos[2], layer="left", target="moped")
    assert (sent(shown) == expected.map).all()
    assert (shown.explanation.map == expected.map).all()
    assert selected(shown, "target")[0] == 4
    assert selected(shown, "layer") == ("left", "left (Conv2d)")
    pick(shown, target=None)
    assert shown.target is None
    assert (sent(shown) == explainer.explain(photos[2], layer="left").map).all()


def test_what_python_sets_is_shown(explainer, photos):
    shown = view(explainer, photos)
    shown.method, shown.target = "activations", np.int64(3)
    shown.layer = explainer.model.left
    shown.image = 1
    assert traits(shown) == (1, "activations", "left", 3)
    assert type(shown.target) is int
    assert (sent(shown) == explainer.explain(photos[1], "activations", layer="left", target=3).map).all()
    shown.method = GradCAM(name="mine")
    assert selected(shown, "method") == ("mine", "mine")


def test_several_traits_set_together_are_one_change(explainer, photos, monkeypatch):
    shown = view(explainer, photos)
    calls = counted(explainer, monkeypatch)
    with shown.hold_trait_notifications():
        shown.method, shown.layer, shown.target = "grad_cam", "left", "espresso"
    assert len(calls) == 1
    assert (sent(shown) == explainer.explain(photos[0], layer="left", target=2).map).all()


def counted(explainer, monkeypatch):
    calls, explain = [], explainer.explain
    monkeypatch.setattr(explainer, "explain", lambda *a, **k: calls.append(a) or explain(*a, **k))
    return calls


def test_a_map_is_computed_once_and_the_last_ones_are_kept(explainer, photos, monkeypatch):
    shown = view(explainer, photos, methods=["saliency", "grad_cam"])
    calls = counted(explainer, monkeypatch)
    for method in ["grad_cam", "saliency", "grad_cam"]:
        shown.method = method
    assert len(calls) == 1
    for layer in [name for name, _ in options(shown, "layer")]:
        for target in range(5):
            pick(shown, layer=layer, target=target)
    assert shown._maps.explain.cache_info().currsize == maps.KEPT
    calls.clear()
    shown.method = "saliency"
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("picked", "told"),
    [
        ({"typed": "expresso"}, "No class is called 'expresso'. Did you mean 'espresso'?"),
        ({"typed": "7"}, "Target 7 is out of range: the model has 5 classes, 0 to 4."),
        ({"layer": "head"}, "head"),
        ({"layer": "stemm"}, "The model has no layer 'stemm'. Did you mean 'stem'"),
        ({"method": "grad_cm"}, "There is no method 'grad_cm'. Did you mean 'grad_cam'"),
        ({"image": 3}, "There is no image 3: the view has 3, from 0."),
        ({"image": None}, "image is the number of an image, not None."),
    ],
)
def test_what_cannot_be_shown_is_told_and_changes_nothing(explainer, photos, picked, told):
    shown = view(explainer, photos)
    before = traits(shown), sent(shown).copy(), shown._pickers, shown.explanation
    pick(shown, **picked)
    assert told in shown._error
    assert not shown._busy
    assert (traits(shown), shown._pickers, shown.explanation) == (before[0], before[2], before[3])
    assert (sent(shown) == before[1]).all()
    pick(shown, method="saliency")
    assert shown._error == ""
    assert shown.method == "saliency"


def test_a_method_that_does_not_fit_the_model_is_told(photos):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    shown = view(Explainer(model, transform=to_tensor), photos[0])
    for method, told in (("guided_backprop", "defined for ReLU, and this model has none"), ("cam", "CAM")):
        pick(shown, method=method)
        assert told in shown._error
        assert shown.method == "grad_cam"


@pytest.mark.parametrize("raised", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_other_errors_and_an_interrupt_leave_the_view_usable(explainer, photos, monkeypatch, raised):
    shown = view(explainer, photos)

    def fail(*_, **__):
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(explainer, "explain", fail)
        pick(shown, method="saliency")
    assert shown._error in ("RuntimeError: out of memory", "Interrupted.")
    assert (shown.method, shown._busy) == ("grad_cam", False)
    pick(shown, method="saliency")
    assert (shown.method, shown._error) == ("saliency", "")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("method", "grad_cm", errors.UnknownNameError),
        ("method", ["saliency"], errors.InputTypeError),
        ("layer", "stemm", errors.UnknownNameError),
        ("layer", "head", errors.LayerError),
        ("target", "expresso", errors.UnknownNameError),
        ("target", 99, errors.TargetIndexError),
        ("target", [1], errors.InputTypeError),
        ("target", True, errors.InputTypeError),
        ("image", 3, errors.ImageIndexError),
        ("image", None, errors.InputTypeError),
        ("opacity", 1.5, errors.InputError),
        ("opacity", None, errors.InputError),
        ("opacity", "half", errors.InputError),
    ],
)
def test_what_python_sets_wrongly_is_raised_and_taken_back(explainer, photos, name, value, kind):
    shown = view(explainer, photos)
    before = traits(shown), shown.opacity, shown._heat
    with pytest.raises(kind):
        setattr(shown, name, value)
    assert (traits(shown), shown.opacity, shown._heat) == before
    assert not shown._busy
    shown.method = "saliency"
    assert (sent(shown) == explainer.explain(photos[0], "saliency").map).all()


def never():
    """A network in which nothing argues for class 0."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(0.1)
        model[4].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    return Explainer(model, transform=to_tensor)


def test_warnings_are_told_in_the_view_and_only_there_if_picked_there(photos):
    shown = view(never(), photos[0])
    assert shown._warnings == []
    pick(shown, target=0)  # a SeewhyWarning would fail this test
    assert len(shown._warnings) == 1
    assert "nothing there argues for the target" in shown._warnings[0]
    assert not sent(shown).any()
    assert (shown._heat["low"], shown._heat["high"]) == (0, 0)
    pick(shown, target=1)
    assert shown._warnings == []


def test_warnings_for_python_are_given_there_as_well(photos):
    shown = view(never(), photos[0])
    with pytest.warns(seewhy.SeewhyWarning, match="nothing there argues"):
        shown.target = 0
    assert shown._warnings
    with pytest.warns(seewhy.SeewhyWarning, match="transform"):
        assert "transform" in view(Explainer(small_cnn()), photos[0])._warnings[0]


def test_other_warnings_go_where_they_always_go(photos):
    def warning(photo):
        import warnings

        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return to_tensor(photo)

    with pytest.warns(DeprecationWarning, match="old"):
        assert view(Explainer(small_cnn(), transform=warning), photos[0])._warnings == []


def test_the_colours_and_ends_are_those_of_the_overlay(explainer, photos):
    shown = view(explainer, photos[0], methods=["cam", "saliency"])
    shown.target = 3
    for signed in (True, False):
        heat = shown._heat
        values = np.linspace(heat["low"], heat["high"], 256)[None]
        table = np.frombuffer(heat["table"], np.uint8).reshape(1, 256, 3)
        drawn = colorize(values, "RdBu_r" if signed else "inferno", (heat["low"], heat["high"]))
        assert (table[0, [0, 255]] == drawn[0, [0, 255]]).all()
        assert (heat["low"] == -heat["high"]) if signed else (heat["low"] == 0)
        assert len(np.unique(table[0], axis=0)) > 200
        shown.method = "saliency"
    assert shown._heat["ticks"][-1][1].startswith("≥ ")
    assert shown._heat["end"] == "scaled to the 99th percentile of |map|"
    assert heat["high"] < sent(shown).max()


def test_only_what_is_of_use_is_offered(explainer, photos):
    shown = view(explainer, photos[0], methods=["saliency", "cam", "grad_cam"])
    assert [value for value, _ in options(shown, "method")] == ["saliency", "cam", "grad_cam"]
    assert not shown._pickers["layer"]["enabled"]
    shown.method = "cam"
    assert not shown._pickers["layer"]["enabled"]
    assert selected(shown, "layer")[1] == "body+relu (where it is defined)"
    shown.method = "grad_cam"
    assert shown._pickers["layer"]["enabled"]
    offered = [value for value, _ in options(shown, "layer")]
    assert offered[0] is None
    assert "stem.0" in offered
    assert "head" not in offered


def test_a_layer_stays_picked_while_a_method_does_not_use_it(explainer, photos):
    shown = view(explainer, photos[0])
    pick(shown, layer="left")
    pick(shown, method="cam")
    assert (shown.method, shown.layer, shown.explanation.layer) == ("cam", "left", "body+relu")
    pick(shown, method="grad_cam")
    assert (sent(shown) == explainer.explain(photos[0], layer="left").map).all()


def test_the_user_says_what_is_offered(explainer, photos):
    methods = [GradCAM, GradCAM(name="again")]
    shown = view(explainer, photos[0], methods=methods, layers=["stem", explainer.model.left], targets=["moped", 1])
    assert [value for value, _ in options(shown, "method")] == ["grad_cam", "again"]
    assert options(shown, "layer")[1:] == [("stem", "stem (Sequential)"), ("left", "left (Conv2d)")]
    assert [value for value, _ in options(shown, "target")] == [None, 4, 1]
    pick(shown, typed="tripod")
    shown.layer = "body"
    assert [value for value, _ in options(shown, "target")] == [None, 4, 1, 3]
    assert selected(shown, "layer") == ("body", "body")


def test_the_most_probable_classes_are_offered_with_their_probabilities(explainer, photos):
    shown = view(explainer, photos)
    best = explainer.predict(photos[0])[0]
    assert options(shown, "target")[0] == (None, f"predicted: {best[0].name}  {best[0].probability:.2f}")
    assert [index for index, _ in options(shown, "target")[1:]] == [one.index for one in best]
    assert shown._heat["label"] == f"{best[0].name}  {best[0].probability:.2f}"
    assert shown._names == NAMES


def test_a_class_called_by_a_number_is_found_by_its_name_first(photos):
    digits = Explainer(small_cnn(), transform=to_tensor, class_names=["4", "3", "2", "1", "0"])
    shown = view(digits, photos[0])
    pick(shown, typed="4")
    assert (shown.target, int(shown.explanation.targets[0])) == ("4", 0)
    unnamed = view(Explainer(small_cnn(), transform=to_tensor), photos[0])
    pick(unnamed, typed="4")
    assert unnamed.target == 4
    pick(unnamed, typed="moped")
    assert "no class names are known" in unnamed._error


def test_truth_is_told(explainer, photos):
    predicted = [row[0].index for row in explainer.predict(photos)]
    truth = [predicted[0], (predicted[1] + 1) % 5, predicted[2]]
    shown = view(explainer, photos, truth=truth)
    assert (shown._heat["right"], shown._heat["truth"]) == (True, f"true: {NAMES[truth[0]]}")
    shown.image = 1
    assert (shown._heat["right"], shown._heat["truth"]) == (False, f"true: {NAMES[truth[1]]}")


def test_images_may_differ_in_size_and_kind(explainer, photos, tmp_path):
    PIL.Image.fromarray(photos[0]).save(tmp_path / "cat.png")
    tensors = torch.rand(2, 3, 16, 20)
    shown = view(explainer, iter([tmp_path / "cat.png", photos[1][:20], tensors, photos]))
    assert [text for _, text in options(shown, "image")] == ["cat.png", *(f"image {i}" for i in range(1, 7))]
    for image, expected in enumerate([photos[0], photos[1][:20], *tensors, *photos]):
        shown.image = image
        assert (sent(shown) == explainer.explain(expected).map).all()
        assert (shown.explanation.images == explainer.explain(expected).images).all()


def test_views_are_independent(explainer, photos):
    one, other = view(explainer, photos), view(explainer, photos)
    pick(one, method="saliency", image=1)
    one.opacity = 0.2
    assert traits(other) == (0, "grad_cam", None, None)
    assert other.opacity == 0.85
    assert one.model_id != other.model_id


def test_a_model_without_scores_shows_its_activations(photos):
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.body(x).flatten(2)

    shown = view(Explainer(Features(), transform=to_tensor), photos[0], methods="activations", layers="body")
    assert options(shown, "target") == [(None, "predicted")]
    assert shown._heat["label"] == ""
    pick(shown, method="grad_cam")
    assert "not scores (N, K)" in shown._error


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"methods": "grad_cm"}, errors.UnknownNameError, "Did you mean 'grad_cam'"),
        ({"methods": []}, errors.InputError, "No method is given"),
        ({"layers": ["stemm"]}, errors.UnknownNameError, "Did you mean 'stem'"),
        ({"layers": []}, errors.InputError, "The list of layers is empty"),
        ({"targets": ["expresso"]}, errors.UnknownNameError, "Did you mean 'espresso'"),
        ({"targets": [None]}, errors.InputTypeError, "an index or a name, not None"),
        ({"truth": ["moped"]}, errors.TargetError, "1 targets for 3 images"),
        ({"images": []}, errors.InputError, "empty"),
        ({"images": "nowhere.png"}, errors.ImageNotFoundError, "nowhere.png"),
        ({"explainer": small_cnn()}, errors.InputTypeError, "seewhy.Explainer(model)"),
    ],
)
def test_bad_arguments_are_told_at_once(explainer, photos, arguments, kind, told):
    given = {"explainer": explainer, "images": photos, **arguments}
    with pytest.raises(kind) as raised:
        view(given.pop("explainer"), given.pop("images"), **given)
    assert told in str(raised.value)


def test_without_anywidget_the_message_says_how_to_install_it(explainer, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(errors.MissingDependencyError, match=r'pip install "seewhy\[notebook\]"'):
        view(explainer, photos)


@pytest.mark.sweep
def test_importing_the_module_imports_no_widgets():
    code = "import sys, seewhy.notebook; print([m for m in ('anywidget', 'ipywidgets', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_classes_may_be_an_array_and_must_be_of_the_model(explainer, photos):
    shown = view(explainer, photos[0], targets=np.array([1, 2]))
    assert [index for index, _ in options(shown, "target")] == [None, 1, 2]
    shown.opacity = np.float32(0.5)
    assert shown.opacity == 0.5
    with pytest.raises(errors.TargetIndexError, match="99 is out of range: the model has 5 classes"):
        view(explainer, photos[0], targets=[0, 99])


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv3d])
def test_it_is_of_images_only(conv):
    net = nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU())
    with pytest.raises(errors.InputError, match=rf"The view shows images.*Conv{net[0].weight.ndim - 2}d"):
        view(Explainer(net), torch.rand(1, 2, *[8] * (net[0].weight.ndim - 2)))
