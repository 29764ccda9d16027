"""What the model is called with besides the images."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer, SeewhyError
from seewhy.engine.inputs import make_inputs
from seewhy.testing import SmallCNN, small_cnn, unchanged

METHODS = ["saliency", "grad_cam"]


def images(count=3, seed=0):
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(seed))


class Twins(nn.Module):
    """How alike two images are, by one backbone that runs twice."""

    def __init__(self):
        super().__init__()
        self.backbone = small_cnn()

    def forward(self, first, second, *, weight=1.0):
        return weight * (self.backbone(first) * self.backbone(second)).sum(1, keepdim=True)


class Fixed(nn.Module):
    """The same with the other image fixed, so that nothing but the one explained is an input."""

    def __init__(self, twins, other, place):
        super().__init__()
        self.twins, self.place = twins, place
        self.other = other

    def forward(self, x):
        other = self.other.expand(len(x), -1, -1, -1)
        scores = self.twins.backbone(other).detach()
        return (self.twins.backbone(x) * scores).sum(1, keepdim=True)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_of_two_images_the_one_that_is_explained_is(method, place):
    twins, x, other = Twins(), images(), images(1, 5)
    given = (..., other.expand(3, -1, -1, -1)) if place == 0 else (other.expand(3, -1, -1, -1), ...)
    with unchanged(twins):
        found = Explainer(twins).explain(x, method, target=0, model_args=given, batch_size=2)
    layer = None if method == "saliency" else "twins." + found.layer.replace(f"#{place + 1}", "#2")
    expected = Explainer(Fixed(twins, other, place)).explain(x, method, target=0, layer=layer)
    assert np.abs(expected.values).max() > 0
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5 * np.abs(expected.values).max())
    if method == "grad_cam":
        assert found.layer.endswith(f"#{place + 1}")


@pytest.mark.parametrize(("layer", "explained"), [("backbone.body#2", 0), ("backbone.body#1", 1)])
@pytest.mark.parametrize("method", ["grad_cam", "activations"])
def test_a_layer_of_the_other_image_is_refused(method, layer, explained):
    x = images()
    given = (..., x.flip(0)) if explained == 0 else (x.flip(0), ...)
    with pytest.raises(SeewhyError, match=rf"{layer}.*does not depend on the images explained"):
        Explainer(Twins()).explain(x, method, target=0, layer=layer, model_args=given)


class Named(nn.Module):
    """Takes its images by name, as a list, or with a mask for each."""

    def __init__(self):
        super().__init__()
        self.net = small_cnn()

    def forward(self, ids=None, pixel_values=None, masks=None, pictures=None):
        assert ids is None or isinstance(ids, str)
        if pictures is not None:
            assert isinstance(pictures, list)
            pixel_values = torch.stack(pictures)
        if masks is not None:
            pixel_values = pixel_values * masks["each"].mul_(2)  # in place, and the user's stay theirs
        return self.net(pixel_values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("args", "kwargs"), [((None, ...), None), (("text",), {"pixel_values": ...}), ((), {"pictures": [...]})]
)
def test_the_images_may_have_any_place(args, kwargs, method):
    if args == ("text",):
        args = ()
        kwargs = {"ids": "text", **kwargs}
    x, model = images(), Named()
    found = Explainer(model).explain(x, method, target=4, model_args=args, model_kwargs=kwargs, batch_size=2)
    expected = Explainer(small_cnn()).explain(x, method, target=4)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)
    predicted = Explainer(model).predict(x, model_args=args, model_kwargs=kwargs)
    assert predicted == Explainer(small_cnn()).predict(x)
    names = [row.name for row in Explainer(model).layers(x, model_args=args, model_kwargs=kwargs)]
    assert "net.body" in names


def test_tensors_with_an_entry_for_each_image_are_cut_with_the_images_and_stay_the_users():
    x, masks = images(), torch.rand(3, 1, 24, 32)
    before = masks.clone()
    extra = {"pixel_values": ..., "masks": {"each": masks}}
    explainer = Explainer(Named())
    both = explainer.explain(x, "saliency", target=1, model_kwargs=extra)
    parts = explainer.explain(x, "saliency", target=1, model_kwargs=extra, batch_size=2)
    expected = 2 * Explainer(small_cnn()).explain(2 * x * masks, "saliency", target=1).values * masks.numpy()
    np.testing.assert_allclose(both.values, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts.values, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(masks, before)


def test_inputs_that_are_missing_are_named():
    with pytest.raises(SeewhyError, match=r"further inputs: .*'second'.*model_args="):
        Explainer(Twins()).explain(images(), "saliency", target=0)


def test_a_models_own_errors_get_a_note_and_ours_do_not():
    with pytest.raises(RuntimeError) as own:
        Explainer(nn.Sequential(nn.Flatten(), nn.Linear(5, 2))).explain(images(), "saliency")
    assert "Raised by the model itself" in own.value.__notes__[0]
    with pytest.raises(SeewhyError) as ours:
        Explainer(Twins()).explain(images(), "grad_cam", target=0, layer="backbone.body#2", model_args=(images(),))
    assert not getattr(ours.value, "__notes__", [])


def test_what_is_no_input_is_refused():
    for args in (torch.zeros(1), "text", 3):
        with pytest.raises(SeewhyError, match="model_args is a tuple"):
            make_inputs(args, None)
    for kwargs in ([1], {1: 2}):
        with pytest.raises(SeewhyError, match="model_kwargs is a dict"):
            make_inputs((), kwargs)


def test_a_named_tuple_stays_one():
    from collections import namedtuple

    pair = namedtuple("pair", "a b")
    args, _ = make_inputs((pair(1, torch.ones(2)),), None).part(0, 1, 2).arguments(torch.zeros(1, 3, 4, 4))
    assert args[1].a == 1
    assert args[1].b.tolist() == [1.0]


class Table(nn.Module):
    """Has a layer whose output is a table of its own, of the shape that channels-last activations have."""

    def __init__(self):
        super().__init__()
        self.conv, self.table, self.norm, self.head = (
            nn.Conv2d(3, 4, 2, 2),
            nn.Linear(2, 4),
            nn.LayerNorm(4),
            SmallCNN(),
        )
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = self.norm(self.conv(x).movedim(1, -1))
        places = torch.stack(torch.meshgrid(torch.arange(x.shape[1]), torch.arange(x.shape[2]), indexing="ij"), -1)
        return self.last(F.gelu(x + self.table(places[None] / 8.0)).mean((1, 2)))


@pytest.mark.parametrize("method", ["grad_cam", "activations"])
def test_a_table_is_no_activation_also_of_a_single_image(method):
    torch.manual_seed(0)
    explainer = Explainer(Table())
    with pytest.raises(SeewhyError, match=r"'table'.*does not depend on the images"):
        explainer.explain(images(1), method, target=0, layer="table")
    assert explainer.explain(images(1), "grad_cam", target=1).layer == "norm"


def test_a_layer_without_an_entry_for_each_image_is_said():
    torch.manual_seed(0)
    with pytest.raises(SeewhyError, match=r"'table' returned .* for 2 images: its first dimension is not the batch"):
        Explainer(Table()).explain(images(2), "activations", layer="table")


def test_under_no_grad_inside_the_model_layers_of_one_image_can_still_be_seen():
    class Frozen(Table):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    torch.manual_seed(0)
    explainer = Explainer(Frozen())
    found = explainer.explain(images(1), "activations", layer="norm")
    assert found.values.shape == (1, 4, 12, 16)
