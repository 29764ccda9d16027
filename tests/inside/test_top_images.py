"""Top images against a full sort, and receptive fields against arithmetic."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from seewhy import Explainer, samples
from seewhy.engine.borrow import borrowed
from seewhy.engine.inputs import ModelInputs
from seewhy.errors import InputError, InputTypeError, NonFiniteError, UnknownNameError
from seewhy.inside.receptive import receptive_field
from seewhy.inside.top_images import TopImages, top_images
from seewhy.layers import find_layers
from seewhy.testing import small_cnn, unchanged

IMAGES = torch.rand(50, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def activations(model, images, name):
    """What the layer returned, by a hook of our own."""
    kept = []
    handle = dict(model.eval().named_modules())[name].register_forward_hook(lambda *a: kept.append(a[2].clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0].numpy()


@pytest.mark.parametrize("by", ["max", "mean"])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_a_full_sort(by, batch_size):
    model = small_cnn()
    values = activations(model, IMAGES, "left")
    scores = values.max((2, 3)) if by == "max" else values.mean((2, 3))
    order = np.argsort(-scores, axis=0, kind="stable")[:5].T
    found = top_images(Explainer(model), IMAGES, "left", k=5, by=by, batch_size=batch_size)
    assert (found.indices == order).all()
    np.testing.assert_allclose(found.values, np.take_along_axis(scores, order.T, 0).T, rtol=1e-5)
    places = values.reshape(*values.shape[:2], -1).argmax(2)
    for row, channel in enumerate(found.channels):
        expected = [divmod(int(places[i, channel]), values.shape[3]) for i in found.indices[row]]
        assert found.positions[row].tolist() == [list(place) for place in expected]
    assert found.count == 50


def test_of_equals_the_first_is_the_best():
    twins = IMAGES[:4].repeat(6, 1, 1, 1)
    for size in (3, 5, 24):
        found = top_images(Explainer(small_cnn()), twins, "left", k=7, batch_size=size)
        assert (found.indices[:, :6] % 4 == found.indices[:, :1]).all()
        assert (found.indices[:, :6] // 4 == np.arange(6)).all()


def test_picked_channels_in_the_order_asked():
    explainer = Explainer(small_cnn())
    whole = top_images(explainer, IMAGES, "left", k=3)
    part = top_images(explainer, IMAGES, "left", [5, 2], k=3)
    assert part.channels.tolist() == [5, 2]
    assert (part.indices == whole.indices[[5, 2]]).all()
    assert top_images(explainer, IMAGES, "left", 5, k=3).channels.tolist() == [5]


def test_fewer_images_than_asked():
    assert top_images(Explainer(small_cnn()), IMAGES[:4], "left", k=9).values.shape == (8, 4)


def test_a_layer_without_positions_gives_whole_images():
    found = top_images(Explainer(small_cnn()), IMAGES, "head", k=2)
    assert found.positions is None
    assert (found.boxes == [0, 0, 24, 16]).all()
    assert found.values.shape == (5, 2)


def test_the_crop_holds_what_excites_the_channel():
    """A bright spot at a place of its own in each image is in the crop, and at its middle."""
    net = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1, bias=False), nn.MaxPool2d(2))
    nn.init.constant_(net[0].weight, 1.0)
    images = torch.zeros(6, 3, 32, 40)
    spots = [(4 + 4 * i, 6 + 5 * i) for i in range(6)]
    for image, (y, x) in zip(images, spots, strict=True):
        image[:, y, x] = 0.5 + y / 100
    found = top_images(Explainer(net), images, "1", k=6, size=16)
    assert found.receptive_field == (4, 4)
    assert not found.effective
    for index, (x0, y0, x1, y1) in zip(found.indices[0], found.boxes[0], strict=True):
        y, x = spots[index]
        assert y0 <= y < y1
        assert x0 <= x < x1
    assert found.indices[0].tolist() == [5, 4, 3, 2, 1, 0]
    brightest = found.crops[0].max((1, 2, 3))
    assert (brightest > found.crops[0].min((1, 2, 3)) + 20).all()


def test_a_network_that_changes_its_input_in_place():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x -= 0.5
            x.mul_(2)
            return self.conv(x).mean((2, 3))

    found = top_images(Explainer(Own()), IMAGES, "conv", k=2)
    assert found.receptive_field == (3, 3)


def test_labels_are_passed_by():
    odd = [(image, {"mask": torch.zeros(3, 3)}) for image in IMAGES]
    assert top_images(Explainer(small_cnn()), odd, "left", k=2).count == 50


@pytest.mark.parametrize("kind", ["list", "generator", "loader", "pairs"])
def test_any_stream(kind):
    images = {
        "list": list(IMAGES),
        "generator": (image for image in IMAGES),
        "loader": DataLoader(TensorDataset(IMAGES), batch_size=9),
        "pairs": [(image, 1) for image in IMAGES],
    }[kind]
    expected = top_images(Explainer(small_cnn()), IMAGES, "left", k=4)
    assert (top_images(Explainer(small_cnn()), images, "left", k=4).indices == expected.indices).all()


def test_the_network_is_as_it_was():
    model = small_cnn().train()

    def broken():
        yield from IMAGES[:20]
        raise RuntimeError("no more")

    with unchanged(model):
        top_images(Explainer(model), IMAGES, "left")
    with unchanged(model), pytest.raises(RuntimeError, match="no more"):
        top_images(Explainer(model), broken(), "left")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"layer": "lefd"}, UnknownNameError, "Did you mean 'left'"),
        ({"layer": ["left", "body"]}, InputError, "one layer"),
        ({"channels": [8]}, InputError, "8 channels"),
        ({"channels": [-1]}, InputError, "8 channels"),
        ({"channels": []}, InputError, "empty"),
        ({"channels": "a"}, InputTypeError, "whole numbers"),
        ({"channels": [True, False]}, InputTypeError, "whole numbers"),
        ({"k": 0}, InputError, "k must be"),
        ({"size": 0}, InputError, "size must be"),
        ({"by": "men"}, InputError, "Did you mean 'mean'"),
        ({"images": []}, InputError, "no images|empty"),
    ],
)
def test_mistakes(asked, error, message):
    given = {"images": IMAGES, "layer": "left", **asked}
    model = small_cnn()
    with unchanged(model), pytest.raises(error, match=message):
        top_images(Explainer(model), given.pop("images"), given.pop("layer"), **given)


def test_what_is_not_finite_is_refused():
    broken = small_cnn()
    broken.left.bias.data[0] = torch.nan
    with pytest.raises(NonFiniteError, match="image 0"):
        top_images(Explainer(broken), IMAGES, "left")


def test_pictures_and_files(tmp_path):
    found = top_images(Explainer(small_cnn()), IMAGES, "left", k=3, size=20)
    assert found.crops.shape == found.pictures.shape == (8, 3, 20, 20, 3)
    assert found._repr_png_()
    found.plot(crops=False, rows=2)
    found.save(tmp_path / "top")
    again = TopImages.load(tmp_path / "top")
    assert (again.crops == found.crops).all()
    assert again.sources == found.sources
    assert repr(again) == repr(found)


# ------------------------------------------------------------------------------------------------- receptive fields


def by_arithmetic(steps):
    """Size, stride and first pixel of the receptive field of (kernel, stride, padding, dilation) one after another."""
    size, jump, start = 1, 1, 0
    for kernel, stride, padding, dilation in steps:
        start -= padding * jump
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return size, jump, start


STACKS = [
    [(3, 1, 1, 1)],
    [(3, 1, 0, 1), (3, 2, 0, 1)],
    [(5, 2, 2, 1), (3, 2, 1, 1)],
    [(3, 1, 2, 2), (3, 2, 1, 1), (1, 1, 0, 1)],
    [(7, 3, 0, 1)],
    [(2, 2, 0, 1), (2, 2, 0, 1)],
]


def measured(model, layer, shape):
    batch = torch.rand(2, *shape)
    with borrowed(model):
        return receptive_field(model, find_layers(model, layer)[0], batch, None, ModelInputs())


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("steps", STACKS)
def test_the_arithmetic_of_convolutions_and_pools(steps, pooled):
    layers, width = [], 3
    for kernel, stride, padding, dilation in steps:
        layers += [nn.Conv2d(width, 8, kernel, stride, padding, dilation), nn.ReLU()]
        width = 8
    if pooled:
        layers.append(nn.MaxPool2d(3, 2, 1))
        steps = [*steps, (3, 2, 1, 1)]
    size, stride, start = by_arithmetic(steps)
    field = measured(nn.Sequential(*layers), str(len(layers) - 1), (3, 64, 80))
    assert not field.effective
    assert field.size == (size, size)
    for row, column in [(0, 0), (2, 3), (5, 1)]:
        x0, y0 = start + stride * column, start + stride * row
        assert field.box(row, column) == (x0, y0, x0 + size, y0 + size)


def test_branches_see_the_widest():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 5, padding=2)
            self.both = nn.Identity()
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.last(self.narrow(x) + self.wide(x)).mean((2, 3))

    field = measured(Branches(), "last", (3, 32, 32))
    assert field.size == (5, 5)
    assert field.box(4, 6) == (4, 2, 9, 7)


def test_the_padding_of_the_sample_network():
    """TensorFlow's SAME: a stride of 2 on an even side pads at the right and the bottom only."""
    field = measured(samples.network(), "_conv_stem", (3, 64, 64))
    assert field.box(3, 5) == (10, 6, 13, 9)


def test_what_sees_everything_has_an_effective_field():
    class Global(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
            self.out = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.out(y * self.gate(y.mean((2, 3))).sigmoid()[..., None, None]).mean((2, 3))

    field = measured(Global(), "out", (3, 32, 32))
    assert field.effective
    assert max(field.size) < 32
