"""Receptive fields where the arithmetic of convolutions ends: other paddings, phases, gates, cut graphs."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer, SeewhyWarning, samples
from seewhy.engine.borrow import borrowed
from seewhy.engine.inputs import ModelInputs
from seewhy.inside.receptive import Side, _fit, receptive_field
from seewhy.inside.top_images import top_images
from seewhy.inside.winners import clipped, cut, fitted
from seewhy.layers import find_layers
from seewhy.testing import small_cnn, unchanged


def measured(model, layer, sides=(64, 80), count=2, seed=0):
    batch = torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(seed))
    with borrowed(model):
        return receptive_field(model, find_layers(model, layer)[0], batch, None, ModelInputs())


def pooled(*layers):
    """A network that ends as classifiers do."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_sides_of_their_own():
    model = pooled(
        nn.Conv2d(3, 8, (3, 7), (1, 2), (1, 0)), nn.ReLU(), nn.Conv2d(8, 8, (1, 3), padding=(0, 2), dilation=(1, 2))
    )
    field = measured(model, "2")
    assert not field.effective
    assert field.size == (3, 15)
    assert field.box(4, 5) == (6, 3, 21, 6)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_paddings_leave_the_field_of_the_inner_positions(mode):
    field = measured(pooled(nn.Conv2d(3, 8, 5, padding=2, padding_mode=mode)), "0")
    assert (field.effective, field.size, field.box(9, 11)) == (False, (5, 5), (9, 7, 14, 12))


@pytest.mark.parametrize("kernel", [2, 3])
def test_pools_straight_on_the_image(kernel):
    """A maximum hands its gradient to one pixel only, and here there are but three channels."""
    field = measured(pooled(nn.MaxPool2d(kernel), nn.MaxPool2d(kernel)), "1")
    assert field.size == (kernel**2, kernel**2)
    assert field.box(2, 3) == (3 * kernel**2, 2 * kernel**2, 4 * kernel**2, 3 * kernel**2)


@pytest.mark.parametrize("seed", range(4))
def test_the_last_window_of_a_pool_that_rounds_up(seed):
    field = measured(pooled(nn.Conv2d(3, 6, 3), nn.MaxPool2d(3, 2, ceil_mode=True)), "1", (40, 41), seed=seed)
    assert (field.size, field.box(1, 2)) == ((5, 5), (4, 2, 9, 7))


def test_patches_of_only_two_a_side():
    field = measured(pooled(nn.Conv2d(3, 8, 16, 16)), "0", (32, 32))
    assert (field.size, field.box(1, 0)) == ((16, 16), (0, 16, 16, 32))


def test_the_stages_of_the_sample_network():
    """By hand: each k x k convolution adds (k - 1) times the strides before it."""
    model = samples.network()
    sizes = {"_conv_stem": 3, "_blocks.0": 7, "_blocks.1": 11, "_blocks.2": 19, "_blocks.3": 35}
    for layer, size in sizes.items():
        field = measured(model, layer, (96, 112))
        assert (field.effective, field.size) == (False, (size, size)), layer


def test_the_effective_field_is_the_smallest_square_that_holds_nine_tenths():
    """Half of the weights is in the middle, 0.35 in a ring 3 pixels from it, the rest in one 5 pixels from it."""
    convolution = nn.Conv2d(3, 64, 17, padding=8, bias=False)
    distance = torch.maximum((torch.arange(17) - 8).abs()[:, None], (torch.arange(17) - 8).abs()[None])
    convolution.weight.data[:] = sum(share * (distance == ring) / (distance == ring).sum()
                                     for ring, share in [(0, 0.5), (3, 0.35), (5, 0.15)])  # fmt: skip
    field = measured(pooled(convolution), "0", (20, 20))
    assert field.effective
    assert field.size == (11, 11)
    x0, y0, x1, y1 = field.box(10, 10)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (10.5, 10.5)


def test_positions_that_see_different_widths_have_no_exact_field():
    """After upsampling, neighbours share a coarse position: no one map fits them all."""
    model = pooled(nn.Conv2d(3, 8, 8, 8), nn.Upsample(scale_factor=8), nn.Conv2d(8, 8, 1))
    field = measured(model, "2")
    assert field.effective


def test_ends_that_no_line_goes_through_have_no_exact_field():
    seen = np.zeros((3, 60), bool)
    for row, (first, last) in zip(seen, [(20, 30), (20, 40), (40, 50)], strict=True):
        row[first:last] = True
    assert _fit([3, 4, 5], seen, 8) is None


class Edge(nn.Module):
    """The first column of its convolution also sees the mean of much of the image."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        y = self.conv(x)
        first = y[..., :1] + x[:, :1, :, :30].mean(3, keepdim=True)
        return self.out(torch.cat([first, y[..., 1:]], 3)).mean((2, 3))


def test_one_position_that_sees_more_than_the_others_forbids_an_exact_field():
    assert measured(Edge(), "conv").effective is False
    assert measured(Edge(), "out").effective is True


class Frozen(nn.Module):
    """A backbone that runs without autograd, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features.mean((2, 3)))


def test_without_a_gradient_crops_are_whole_images_and_that_is_said():
    images = torch.rand(5, 3, 16, 20)
    with pytest.warns(SeewhyWarning, match="No gradient of 'backbone' arrives at the input"):
        found = top_images(Explainer(Frozen()), images, "backbone", k=2)
    assert found.receptive_field == (16, 20)
    assert (found.boxes == [0, 0, 20, 16]).all()


def test_it_is_measured_the_same_each_time_and_leaves_no_trace():
    model = small_cnn()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with unchanged(model):
        first, second = measured(model, "body"), measured(model, "body")
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupt_while_it_is_measured():
    model, images = small_cnn(), torch.rand(6, 3, 16, 16)
    calls = []

    def interrupt(module, args, output):
        calls.append(len(output))
        if output.requires_grad:
            raise KeyboardInterrupt

    handle = model.left.register_forward_hook(interrupt)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        top_images(Explainer(model), images, "left")
    handle.remove()
    assert len(calls) > 1  # the images went by first


def test_images_of_two_sizes_have_fields_of_their_own():
    """SAME padding depends on the size: an odd side is padded on both ends, an even one at the right only."""
    images = [torch.rand(3, 64, 64), torch.rand(3, 65, 65)]
    found = top_images(Explainer(samples.network()), (image for image in images), "_conv_stem", [0], k=2, batch_size=1)
    for index, (row, column), box in zip(found.indices[0], found.positions[0], found.boxes[0], strict=True):
        shift = int(index)  # of the image of 65 pixels
        expected = (2 * column - shift, 2 * row - shift, 2 * column - shift + 3, 2 * row - shift + 3)
        assert tuple(box) == clipped(expected, (64 + shift, 64 + shift))


def test_ends_allow_for_rounding():
    assert Side(-2 + 1e-9, 4 - 1e-9, 11 + 2e-9).ends(10) == (38, 49)
    assert Side(-0.5, 2, 4).ends(0) == (-1, 4)


def test_what_is_beyond_the_image_is_grey():
    picture = np.full((8, 12, 3), 255, np.uint8)
    found = cut(picture, (-2, 6, 2, 10))
    assert found.shape == (4, 4, 3)
    assert (found[:2, 2:] == 255).all()
    assert (found[2:] == 224).all()
    assert (found[:, :2] == 224).all()


@pytest.mark.parametrize(
    ("shape", "margin"), [((8, 16, 3), (slice(None, 6), slice(None))), ((16, 8, 3), (slice(None), slice(None, 6)))]
)
def test_pictures_keep_their_shape_in_a_square(shape, margin):
    found = fitted(np.zeros(shape, np.uint8), 24)
    assert found.shape == (24, 24, 3)
    assert (found[margin] == 224).all()
    assert (found == 0).any(2).sum() == 24 * 12


def test_a_few_pixels_stay_squares():
    checks = np.indices((3, 3)).sum(0) % 2 * np.uint8(255)
    found = fitted(np.repeat(checks[..., None], 3, 2).astype(np.uint8), 30)
    assert (found[..., 0] == np.kron(checks, np.ones((10, 10)))).all()
