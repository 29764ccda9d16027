"""The one door: every input, target, layer and option, and every mistake that a user can make with them."""

import functools
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torchvision import transforms

import seewhy
from seewhy import Explainer, SeewhyError, SeewhyWarning
from seewhy.testing import small_cnn, unchanged

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
NAMES = ["tabby, tabby cat", "tiger cat", "Egyptian cat", "crane", "crane, machine"]
TRANSFORM = transforms.Compose(
    [transforms.Resize((24, 32)), transforms.ToTensor(), transforms.Normalize([0.5], [0.25])]
)


@functools.cache
def shared():
    return Explainer(small_cnn(), transform=TRANSFORM, class_names=NAMES)


def tensor(count=2):
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(5))


def photo(size=(40, 30)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


# ---- inputs


def test_every_form_of_the_same_picture_gives_the_same_map(tmp_path):
    picture = photo()
    picture.save(tmp_path / "photo.png")
    array = np.asarray(picture)
    forms = [
        picture, tmp_path / "photo.png", str(tmp_path / "photo.png"), array, array / 255.0, array[None],
        torch.from_numpy(array.copy()).permute(2, 0, 1), torch.from_numpy(array.copy()).permute(2, 0, 1)[None],
        [picture], TRANSFORM(picture), TRANSFORM(picture)[None], picture.convert("RGBA"),
    ]  # fmt: skip
    expected = shared().explain(picture, "saliency", target=1)
    assert expected.images.shape == (1, 24, 32, 3)
    for form in forms:
        found = shared().explain(form, "saliency", target=1)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found.images, expected.images)
    mixed = shared().explain([tmp_path / "photo.png", array, TRANSFORM(picture)], "saliency", target=1)
    assert len(mixed) == 3
    assert mixed.sources == (str(tmp_path / "photo.png"), None, None)


def test_what_the_model_saw_is_the_photo_with_the_normalisation_undone():
    picture = photo((32, 24))
    found = shared().explain(picture, "saliency")
    np.testing.assert_array_equal(found.images[0], np.asarray(picture))


def test_without_a_transform_imagenets_is_assumed_and_said_once():
    explainer = Explainer(small_cnn())
    assert "assumed" in repr(explainer)
    with pytest.warns(SeewhyWarning, match="ImageNet"):
        found = explainer(photo((300, 260)))
    assert found.maps.shape == (1, 224, 224)
    explainer(photo((300, 260)))  # a second warning would be an error here


def test_stretched_pictures_are_said_once():
    explainer = Explainer(small_cnn())
    odd = 7 * torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(0))
    with pytest.warns(SeewhyWarning, match="stretched"):
        explainer.explain(odd, "saliency", target=1)
    explainer.explain(odd, "saliency", target=1)


def test_one_and_five_channels():
    for channels in (1, 5):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
        images = torch.rand(2, channels, 16, 20)
        explainer = Explainer(model, transform=TRANSFORM)
        if channels == 5:
            with pytest.warns(SeewhyWarning, match="5 channels"):
                found = explainer.explain(images, "saliency", target=1)
        else:
            found = explainer.explain(images, "saliency", target=1)
        assert found.values.shape == (2, channels, 16, 20)
        assert found.images.shape == (2, 16, 20, 3)


@pytest.mark.filterwarnings("ignore:Pictures are shown stretched")
def test_the_wrong_number_of_channels_is_said_with_both_numbers():
    images = torch.rand(1, 4, 24, 32)
    with unchanged(shared().model), pytest.raises(SeewhyError, match=r"4 channels.*takes 3") as caught:
        shared().explain(images, "grad_cam")
    assert isinstance(caught.value, ValueError)


def test_a_model_without_parameters():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    found = Explainer(Mean()).explain(tensor(), "saliency", target=2)
    np.testing.assert_allclose(found.values[:, 2], 1 / (24 * 32), rtol=1e-6)
    assert not found.values[:, :2].any()


def test_inputs_are_cast_to_the_models_precision():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        found = Explainer(small_cnn().to(dtype)).explain(tensor(), ["saliency", "grad_cam"], target=[1, 2])
        assert found["saliency"].values.dtype == np.float32
        reference = Explainer(small_cnn()).explain(tensor(), "saliency", target=[1, 2]).values
        close = 1e-4 if dtype == torch.float64 else 0.2
        assert np.abs(found["saliency"].values - reference).max() <= close * np.abs(reference).max()


def test_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        found = shared().explain(
            tensor(), ["saliency", "grad_cam", "guided_backprop", "cam"], target=[1, 2], layer="body"
        )
    assert all(np.isfinite(explanation.values).all() for explanation in found.values())


# ---- targets


def test_targets_by_index_name_and_callable_agree():
    expected = shared().explain(tensor(), "saliency", target=1)
    for target in ("tiger cat", "TIGER CAT ", np.int64(1), torch.tensor(1), [1, 1], (1, "tiger cat"), np.array([1, 1]),
                   torch.tensor([1, 1]), lambda scores: scores[:, 1]):  # fmt: skip
        found = shared().explain(tensor(), "saliency", target=target)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert expected.target_names == ("tiger cat", "tiger cat")
    assert expected.targets.tolist() == [1, 1]


def test_the_predicted_class_is_each_images_own():
    model = small_cnn()
    found = shared().explain(tensor(6), "grad_cam", layer="stem", batch_size=4)
    logits = model(tensor(6)).detach()
    assert found.targets.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(found.scores, logits.amax(1), rtol=1e-5)
    np.testing.assert_allclose(found.probabilities, logits.softmax(1).amax(1), rtol=1e-5)


def test_targets_per_image_of_any_kind():
    def contrast(scores):
        return scores[:, 0] - scores[:, 1]

    found = shared().explain(tensor(4), "saliency", target=[None, 3, "tabby", contrast], batch_size=3)
    assert found.targets.tolist()[1:] == [3, 0, -1]
    assert found.target_names[2:] == ("tabby, tabby cat", "contrast")
    assert np.isnan(found.probabilities[3])
    one = shared().explain(tensor(4)[3], "saliency", target=contrast)
    np.testing.assert_allclose(found.values[3], one.values[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("target", "builtin", "message"),
    [
        (5, IndexError, r"out of range.*0 to 4"),
        (-1, ValueError, "negative"),
        ([0, 1, 2], ValueError, "3 targets for 2 images"),
        ([], ValueError, "0 targets for 2 images"),
        ("tiger cta", KeyError, "tiger cat"),
        (1.5, TypeError, "float"),
        (True, TypeError, "bool"),
        (lambda scores: scores, ValueError, "one number per image"),
        (lambda scores: scores.sum(), ValueError, "one number per image"),
        (lambda scores: 1, ValueError, "one number per image"),
    ],
)
def test_wrong_targets(target, builtin, message):
    with unchanged(shared().model), pytest.raises(SeewhyError, match=message) as caught:
        shared().explain(tensor(), "saliency", target=target)
    assert isinstance(caught.value, builtin)


def test_class_names_ambiguous_unknown_and_missing():
    explainer = Explainer(small_cnn(), class_names={0: "crane, bird", 3: "crane, machine"})
    with pytest.raises(SeewhyError, match=r"Several.*: 0, 3\."):
        explainer.explain(tensor(), target="crane")
    assert explainer.explain(tensor(), "cam", target="bird").target_names == ("crane, bird",) * 2
    assert explainer.explain(tensor(), "cam", target=2).target_names == ("class 2",) * 2
    with pytest.raises(SeewhyError, match="class_names"):
        Explainer(small_cnn()).explain(tensor(), target="bird")
    with pytest.raises(TypeError, match="one string"):
        Explainer(small_cnn(), class_names="bird")


# ---- outputs


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = small_cnn(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: (s, None),
        lambda s: [s, s[:, :1]],
        lambda s: {"logits": s, "loss": s.sum()},
        lambda s: {"aux": s[:, :2], "out": s},
        lambda s: s[:, :, None, None],
    ],
)
def test_odd_outputs_are_read(wrap):
    expected = Explainer(small_cnn()).explain(tensor(), "saliency", target=1).values
    np.testing.assert_array_equal(Explainer(Returns(wrap)).explain(tensor(), "saliency", target=1).values, expected)


def test_output_picks_the_scores():
    model = Returns(lambda s: {"a": {"b": s}, "c": s[:, :2] * 0})
    expected = Explainer(small_cnn()).explain(tensor(), "saliency", target=1).values
    found = Explainer(model, output=lambda out: out["a"]["b"]).explain(tensor(), "saliency", target=1)
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda s: s.sum(0, keepdim=True), "first dimension is not the batch"),
        (lambda s: s.sum(), "first dimension is not the batch"),
        (lambda s: s[..., None].expand(-1, -1, 4), r"not scores \(N, K\)"),
        (lambda s: s.argmax(1), "int64"),
        (lambda s: "nothing", "str"),
        (lambda s: None, "NoneType"),
    ],
)
def test_outputs_that_cannot_be_read_are_said_and_activations_never_read_them(wrap, message):
    model = Returns(wrap)
    with unchanged(model), pytest.raises(SeewhyError, match=message):
        Explainer(model).explain(tensor(), "saliency", target=0)
    found = Explainer(model).explain(tensor(), "activations", layer="net.body")
    assert np.isnan(found.scores).all()
    assert found.targets.tolist() == [-1, -1]


def test_binary_heads_and_ready_probabilities():
    binary = Explainer(Returns(lambda s: s[:, 0]))
    found = binary.explain(tensor(), "saliency")
    assert found.targets.tolist() == [0, 0]
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.scores)), rtol=1e-5)
    ready = Explainer(Returns(lambda s: s.softmax(1)))
    with pytest.warns(SeewhyWarning, match="sum to 1"):
        found = ready.explain(tensor(), "saliency", target=1)
    np.testing.assert_allclose(found.probabilities, found.scores, rtol=1e-6)
    ready.predict(tensor())  # said once
    sigmoid = Explainer(small_cnn(), activation="sigmoid").explain(tensor(), "saliency", target=1)
    np.testing.assert_allclose(sigmoid.probabilities, 1 / (1 + np.exp(-sigmoid.scores)), rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_scores_are_refused(bad):
    with pytest.raises(SeewhyError, match=r"score of image 0 is (nan|-?inf)"):
        Explainer(Returns(lambda s: s * bad)).explain(tensor(), "saliency", target=1)


# ---- gradients that are not there


def test_a_score_that_does_not_depend_on_the_input():
    for wrap in (lambda s: torch.ones(2, 3), lambda s: s * 0):
        model = Returns(wrap)
        for method in ("saliency", "grad_cam"):
            with unchanged(model), pytest.raises(SeewhyError, match=r"does not|No gradient"):
                Explainer(model).explain(tensor(), method, target=1)


def test_the_module_where_the_gradient_ends_is_named():
    class Cuts(nn.Module):
        def forward(self, x):
            return x.detach()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Cuts(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for arguments in ({"method": "saliency"}, {"method": "grad_cam", "layer": "0"}):
        with unchanged(model), pytest.raises(SeewhyError, match=r"'1' \(Cuts\)"):
            Explainer(model).explain(tensor(), target=1, **arguments)
    assert Explainer(model).explain(tensor(), "grad_cam", target=1).layer == "2"


def test_a_grad_cam_that_is_zero_is_zeros_with_one_warning_and_the_others_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].weight.data.fill_(1)
    images = torch.stack([torch.ones(3, 8, 10), -torch.ones(3, 8, 10), torch.ones(3, 8, 10)])
    with pytest.warns(SeewhyWarning, match="0 everywhere for image 1") as caught:
        found = Explainer(model, transform=TRANSFORM).explain(images, "grad_cam", target=0, layer="0")
    assert len(caught) == 1
    assert [bool(m.any()) for m in found.maps] == [True, False, True]
    np.testing.assert_allclose(found.maps[0], 3 / 80, rtol=1e-6)


def test_an_empty_map_is_told_by_its_file(tmp_path):
    files = []
    for i, grey in enumerate((255, 0)):
        files.append(str(tmp_path / f"photo{i}.png"))
        PIL.Image.new("RGB", (8, 8), (grey,) * 3).save(files[-1])
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].weight.data.fill_(1)
    with pytest.warns(SeewhyWarning, match=r"0 everywhere for image 1 \('.*photo1.png'\): nothing"):
        Explainer(model, transform=transforms.ToTensor()).explain(files, "grad_cam", target=0, layer="0")


def test_what_is_signed_by_its_method_is_marked_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model[-1].weight.data.abs_()
    found = Explainer(model).explain(torch.rand(1, 3, 8, 8), ["cam", "grad_cam"], target=1)
    assert [(one.method, one.signed) for one in found.values()] == [("cam", True), ("grad_cam", False)]


# ---- layers


def test_layers_by_name_module_and_list():
    one = shared().explain(tensor(), "grad_cam", target=[1, 2], layer="stem.0")
    other = shared().explain(tensor(), "grad_cam", target=[1, 2], layer=shared().model.stem[0])
    np.testing.assert_array_equal(one.values, other.values)
    both = shared().explain(tensor(), "grad_cam", target=[1, 2], layer=["stem.0", shared().model.left, "stem.0"])
    assert list(both) == [("grad_cam", "stem.0"), ("grad_cam", "left")]


@pytest.mark.parametrize(
    ("layer", "builtin", "message"),
    [
        ("stem.o", KeyError, r"no layer 'stem.o'.*'stem.0'"),
        ("head", ValueError, r"'head' has no positions.*\(2, 5\)"),
        (nn.Linear(2, 2), KeyError, "not part of this model"),
        (3, TypeError, "not int"),
        ("", ValueError, "whole model"),
    ],
)
def test_wrong_layers(layer, builtin, message):
    with unchanged(shared().model), pytest.raises(SeewhyError, match=message) as caught:
        shared().explain(tensor(), "grad_cam", target=1, layer=layer)
    assert isinstance(caught.value, builtin)


def test_activations_at_a_layer_without_positions():
    found = shared().explain(tensor(), "activations", layer="head")
    assert found.values.shape == (2, 5)
    np.testing.assert_allclose(found.maps[:, 3, 4], found.values.mean(1), rtol=1e-5)
    assert found.maps.shape == (2, 24, 32)


def test_the_layers_table():
    table = shared().layers(tensor())
    assert [layer.name for layer in table if layer.chosen] == ["body"]
    by_name = {layer.name: layer for layer in table}
    assert by_name["body"].shape == (1, 16, 6, 8)
    assert by_name["head"].layout == "-"
    assert by_name["stem.0"].type == "Conv2d"
    assert "<- chosen" in repr(table)
    assert repr(table[-2:]).splitlines()[1].startswith(table[-2].name)
    assert [layer.name for layer in Explainer(small_cnn(), transform=TRANSFORM).layers()] == [
        layer.name for layer in table
    ]


def test_the_layers_of_a_model_without_readable_scores():
    table = Explainer(Returns(lambda s: None)).layers(tensor())
    assert "net.body" in [layer.name for layer in table]
    assert not any(layer.chosen for layer in table)


def test_a_remembered_layer_without_gradient_is_chosen_again():
    class Switch(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.late = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), False

        def forward(self, x):
            one, two = self.one(x), self.two(x)
            return (two if self.late else one).mean((2, 3))

    model = Switch()
    explainer = Explainer(model)
    assert explainer.explain(tensor(), "grad_cam", target=0).layer == "one"
    model.late = True
    assert explainer.explain(tensor(), "grad_cam", target=0).layer == "two"


# ---- methods and options


def test_one_gives_an_explanation_and_a_list_explanations():
    assert isinstance(shared()(tensor()), seewhy.Explanation)
    assert isinstance(shared().explain(tensor(), ["grad_cam"]), seewhy.Explanations)
    assert isinstance(shared().explain(tensor(), layer=["body"]), seewhy.Explanations)


def test_methods_by_name_class_and_instance():
    from seewhy.methods.gradient import GuidedBackprop, Saliency

    for method in ("saliency", Saliency, Saliency()):
        assert shared().explain(tensor(), method, target=1).method == "saliency"
    two = shared().explain(tensor(), [GuidedBackprop(name="one"), GuidedBackprop(name="two")], target=1)
    assert list(two) == ["one", "two"]


@pytest.mark.parametrize(
    ("method", "options", "builtin", "message"),
    [
        ("grad_cm", {}, KeyError, r"no method 'grad_cm'.*'grad_cam'"),
        (3, {}, TypeError, "not 3"),
        ([], {}, ValueError, "No method"),
        (["saliency", "saliency"], {}, ValueError, "name="),
        ("guided_backprop", {"als": ()}, TypeError, r"option 'als'.*'also'"),
        ("activations", {"window": 3}, TypeError, "no options"),
        ("guided_backprop", {"also": ("LeakyRelu",)}, ValueError, "'LeakyReLU'"),
    ],
)
def test_wrong_methods_and_options(method, options, builtin, message):
    with unchanged(shared().model), pytest.raises(SeewhyError, match=message) as caught:
        shared().explain(tensor(), method, target=1, **options)
    assert isinstance(caught.value, builtin)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2"])
def test_a_wrong_batch_size(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        shared().explain(tensor(), batch_size=batch_size)


def test_truth_is_kept_as_names():
    found = shared().explain(tensor(), "cam", truth=["tabby", 2])
    assert found.truth == ("tabby, tabby cat", "Egyptian cat")
    with pytest.raises(SeewhyError, match="truth"):
        shared().explain(tensor(), "cam", truth=lambda scores: scores[:, 0])


# ---- the model


@pytest.mark.parametrize("model", [3, None, nn.Linear, lambda x: x])
def test_a_model_that_is_no_module(model):
    with pytest.raises(TypeError, match=r"torch.nn.Module") as caught:
        Explainer(model)
    assert isinstance(caught.value, SeewhyError)


def test_wrong_settings():
    with pytest.raises(ValueError, match="cuda"):
        Explainer(small_cnn(), device="cuda")
    with pytest.raises(ValueError, match="activation"):
        Explainer(small_cnn(), activation="relu")
    assert "cpu" in repr(Explainer(small_cnn(), device="cpu"))


def test_wrappers_are_looked_through():
    inner = small_cnn()
    expected = Explainer(inner).explain(tensor(), ["grad_cam", "guided_backprop"], target=[1, 2])
    for wrapped in (nn.DataParallel(inner), torch.compile(inner, backend="eager")):
        found = Explainer(wrapped).explain(tensor(), ["grad_cam", "guided_backprop"], target=[1, 2], layer=["body"])
        np.testing.assert_array_equal(found["grad_cam"].values, expected["grad_cam"].values)
        np.testing.assert_array_equal(found["guided_backprop"].values, expected["guided_backprop"].values)


def test_batch_norm_without_statistics_is_refused_for_a_batch_and_named():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with pytest.raises(SeewhyError, match=r"'1' \(BatchNorm2d\).*batch_size=1"):
        Explainer(model).explain(tensor(), "grad_cam", target=1, layer="0")
    assert len(Explainer(model).explain(tensor(), "saliency", target=1, batch_size=1)) == 2


def test_predict():
    rows = shared().predict(tensor(3), top=2, batch_size=2)
    probabilities = small_cnn()(tensor(3)).softmax(1)
    assert [len(row) for row in rows] == [2, 2, 2]
    for row, expected in zip(rows, probabilities, strict=True):
        best = expected.topk(2)
        assert [p.index for p in row] == best.indices.tolist()
        assert [p.probability for p in row] == pytest.approx(best.values.tolist(), rel=1e-5)
        assert row[0].name == NAMES[row[0].index]
    assert len(shared().predict(tensor(1), top=99)[0]) == 5
    with unchanged(shared().model), pytest.raises(ValueError, match="top"):
        shared().predict(tensor(), top=0)
    train = small_cnn().train()
    with unchanged(train):
        Explainer(train).predict(tensor())


def test_calls_are_independent():
    images = tensor()
    first = shared().explain(images, "saliency", target=1)
    kept = first.values.copy()
    second = shared().explain(images, "saliency", target=1)
    np.testing.assert_array_equal(first.values, kept)
    np.testing.assert_array_equal(second.values, kept)


def dying():
    """A network whose only ReLU is dead for dark images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.uniform_(model[0].weight, 0.1, 1)
    nn.init.constant_(model[0].bias, -0.1)
    return model


@pytest.mark.filterwarnings("ignore:.*0 everywhere")
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize(("method", "layer"), [("saliency", None), ("grad_cam", "0")])
def test_an_image_without_gradient_is_zeros_whatever_the_batch_size(batch_size, method, layer):
    images = torch.stack([torch.zeros(3, 8, 10), torch.rand(3, 8, 10), torch.rand(3, 8, 10)])
    found = Explainer(dying()).explain(images, method, target=1, layer=layer, batch_size=batch_size)
    assert found.values[1].any() or method == "grad_cam"
    assert not found.values[0].any()
    with pytest.raises(SeewhyError, match="No gradient of the score arrives"):
        Explainer(dying()).explain(images[:1], method, target=1, layer=layer, batch_size=batch_size)


def test_a_model_that_runs_differently_for_some_images():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return (self.one if x.mean() > 0.5 else self.two)(x).mean((2, 3))

    images = torch.stack([torch.full((3, 8, 10), 0.9), torch.full((3, 8, 10), 0.1)])
    for method in ("grad_cam", "cam"):
        with pytest.raises(SeewhyError, match=r"'two'|'one'"):
            Explainer(Branching()).explain(images, method, target=1, batch_size=1)


def test_the_scores_are_those_with_a_column_for_each_class_name():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, x):
            return x.mean(3).flatten(1)[:, :7], self.net(x)

    found = Explainer(Both(), class_names=NAMES).explain(tensor(), "saliency", target=1)
    expected = Explainer(small_cnn()).explain(tensor(), "saliency", target=1)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("names", [np.array(NAMES), tuple(NAMES), dict(enumerate(NAMES))])
def test_class_names_of_any_sequence(names):
    assert Explainer(small_cnn(), class_names=names).explain(tensor(1), "cam", target="tiger cat").targets.tolist() == [
        1
    ]


@pytest.mark.parametrize("arguments", [{"class_names": 3}, {"class_names": {"cat": 0}}, {"output": "logits"}])
def test_arguments_of_a_wrong_type(arguments):
    with pytest.raises(TypeError) as caught:
        Explainer(small_cnn(), **arguments)
    assert isinstance(caught.value, SeewhyError)


def test_an_empty_list_of_layers_and_a_model_without_layers():
    with pytest.raises(ValueError, match="list of layers is empty"):
        shared().explain(tensor(), layer=[])

    class Bare(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(SeewhyError, match="No layer of this model has positions"):
        Explainer(Bare()).explain(tensor(), "grad_cam", target=1)


def test_a_target_object_is_checked_like_a_function():
    class Wrong(seewhy.Target):
        def score(self, outputs):
            return outputs[:, :1]

    with pytest.raises(SeewhyError, match=r"'Wrong'.*\(2, 1\)"):
        shared().explain(tensor(), "saliency", target=Wrong())
    with pytest.raises(SeewhyError, match="int64"):
        shared().explain(tensor(), "saliency", target=lambda scores: scores.argmax(1))


def test_scripted_code_shows_its_gradients_but_no_layers():
    scripted = torch.jit.script(small_cnn())
    expected = shared().explain(tensor(), "saliency", target=1)
    np.testing.assert_allclose(
        Explainer(scripted).explain(tensor(), "saliency", target=1).values, expected.values, rtol=1e-5
    )
    with unchanged(scripted), pytest.raises(SeewhyError, match="scripted code"):
        Explainer(scripted).explain(tensor(), "grad_cam", target=1, layer="body")
    with pytest.raises(SeewhyError, match=r"none can be chosen.*Scripted"):
        Explainer(scripted).explain(tensor(), "grad_cam", target=1)


def test_the_whole_model_is_no_layer():
    with pytest.raises(SeewhyError, match="whole model"):
        shared().explain(tensor(), "grad_cam", layer=shared().model)


def test_non_finite_scores_are_refused_by_predict_too():
    with pytest.raises(SeewhyError, match="score of image 0 is nan"):
        Explainer(Returns(lambda s: s * float("nan"))).predict(tensor())


def test_truth_beyond_the_classes_is_refused():
    with pytest.raises(IndexError, match="truth 9 is out of range"):
        shared().explain(tensor(), "cam", truth=[9, 0])


def test_too_many_class_names_are_said_once():
    explainer = Explainer(small_cnn(), class_names=[f"class {i}" for i in range(1000)])
    with pytest.warns(SeewhyWarning, match="1000 class names were given, and the model has 5"):
        explainer.predict(tensor())
    explainer.predict(tensor())


def test_layers_without_an_image_of_a_network_for_other_channels():
    for channels in (1, 5):
        model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeewhyWarning)
            assert [layer.name for layer in Explainer(model).layers() if layer.chosen] == ["1"]


@pytest.mark.parametrize(
    ("call", "builtin", "message"),
    [
        (lambda e: e.explain(tensor(), "cam")[7], IndexError, "image 7"),
        (lambda e: Explainer(e.model, device="nonsense"), ValueError, "nonsense"),
        (lambda e: e.predict(tensor(), top="3"), ValueError, "top must be"),
        (lambda e: e.explain(tensor(), batch_size=True), ValueError, "batch_size"),
        (lambda e: e.explain(tensor(), target=seewhy.Target), TypeError, "make an instance"),
        (lambda e: e.explain(tensor(), seewhy.Method(name="m")), AttributeError, "must set `needs"),
        (
            lambda e: e.explain(tensor(), "saliency", target=lambda s: torch.ones(len(s))),
            RuntimeError,
            "target does not",
        ),
        (lambda e: e.explain(tensor(), [seewhy.methods.Saliency()], also=()), TypeError, "where the instance is made"),
    ],
)
def test_more_mistakes(call, builtin, message):
    with pytest.raises(SeewhyError, match=message) as caught:
        call(shared())
    assert isinstance(caught.value, builtin)


def test_a_batch_size_of_numpy():
    assert len(shared().explain(tensor(), "cam", batch_size=np.int64(1))) == 2
