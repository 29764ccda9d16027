"""In every layout, square and not, explanations equal what is written by hand for the architecture."""

from __future__ import annotations

import functools

import layout_references as by_hand
import numpy as np
import pytest
import torch
from layout_references import CASES, Grid, Spot
from torch import Tensor

from seewhy import Explainer, Explanations

pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")
EACH = [pytest.param(name, size, id=f"{name} {size}") for name, case in CASES.items() for size in case.sizes]
AT_LAYERS = [
    pytest.param(name, size, spot, id=f"{name} {size} {spot.layer}")
    for name, case in CASES.items()
    for size in case.sizes
    for spot in case.spots
]
WITH_CAM = [
    pytest.param(name, size, id=f"{name} {size}") for name, case in CASES.items() if case.cam for size in case.sizes
]


@functools.cache
def explained(name: str, size: Grid) -> Explanations:
    """Everything about two images at all layers, in one call."""
    case = CASES[name]
    methods = ["saliency", "activations", "grad_cam", *(["cam"] if case.cam else [])]
    layers = [spot.layer for spot in case.spots]
    explainer = Explainer(by_hand.network(name, size))
    return explainer.explain(by_hand.inputs(name, size), methods, target=list(case.targets), layer=layers)


@functools.cache
def right_grad_cam(name: str, size: Grid, spot: Spot) -> Tensor:
    return by_hand.grad_cam(by_hand.network(name, size), by_hand.inputs(name, size), CASES[name].targets, spot)


def spot_of(name: str, layer: str) -> Spot:
    return next(spot for spot in CASES[name].spots if spot.layer == layer)


def assert_equal(ours: np.ndarray, right: Tensor) -> None:
    """Equal, for each image, to 1e-4 of the image's largest absolute value; and not for being zero."""
    assert ours.shape == tuple(right.shape)
    assert ours.dtype == np.float32
    for one, other in zip(ours, right.numpy(), strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        assert np.abs(one - other).max() <= 1e-4 * scale


@pytest.mark.parametrize(("name", "size", "spot"), AT_LAYERS)
def test_positions_written_by_hand_are_those_of_the_image(name: str, size: Grid, spot: Spot) -> None:
    """Noise on one part of the image, off the centre, changes the layer most at that part."""
    x = by_hand.inputs(name, size, 1)
    grid = by_hand.grid_of(size, spot)
    strides = [max(strides) for strides in zip(*(s.stride for s in CASES[name].spots), strict=True)]
    first = [0, *([stride * (side > stride) for side, stride in zip(size[1:], strides[1:], strict=True)])]
    part = tuple(slice(start, start + stride) for start, stride in zip(first, strides, strict=True))
    changed = x.clone()
    changed[(..., *part)] += 3 * torch.randn(x[(..., *part)].shape, dtype=x.dtype)
    net = by_hand.network(name, size)
    difference = (by_hand.activations(net, changed, spot) - by_hand.activations(net, x, spot)).norm(dim=1)[0]
    peak = np.unravel_index(int(difference.argmax()), grid)
    for place, stride, within in zip(peak, spot.stride, part, strict=True):
        assert within.start - stride <= place * stride < within.stop + stride  # one further, for 3x3 convolutions


@pytest.mark.parametrize(("name", "size", "spot"), AT_LAYERS)
def test_grad_cam(name: str, size: Grid, spot: Spot) -> None:
    found, right = explained(name, size)["grad_cam", spot.layer], right_grad_cam(name, size, spot)
    assert_equal(found.values, right)
    assert_equal(found.maps, by_hand.enlarged(right, size))


@pytest.mark.parametrize(("name", "size", "spot"), AT_LAYERS)
def test_activations(name: str, size: Grid, spot: Spot) -> None:
    found = explained(name, size)["activations", spot.layer]
    right = by_hand.activations(by_hand.network(name, size), by_hand.inputs(name, size), spot)
    assert_equal(found.values, right)
    assert_equal(found.maps, by_hand.enlarged(right.mean(1), size))


@pytest.mark.parametrize(("name", "size"), EACH)
def test_saliency(name: str, size: Grid) -> None:
    found = explained(name, size)["saliency"]
    right = by_hand.saliency(by_hand.network(name, size), by_hand.inputs(name, size), CASES[name].targets)
    assert_equal(found.values, right)
    assert_equal(found.maps, right.abs().amax(1))


@pytest.mark.parametrize(("name", "size"), WITH_CAM)
def test_cam(name: str, size: Grid) -> None:
    case = CASES[name]
    assert case.cam
    layer, linear = case.cam
    found, net = explained(name, size)["cam"], by_hand.network(name, size)
    right = by_hand.cam(net, by_hand.inputs(name, size), case.targets, spot_of(name, layer), linear)
    assert found.layer == layer
    assert_equal(found.values, right)
    assert_equal(found.maps, by_hand.enlarged(right, size))


@pytest.mark.parametrize(("name", "size"), EACH)
def test_the_automatic_layer(name: str, size: Grid) -> None:
    """The last with positions of which the score reads, and the same values there."""
    case = CASES[name]
    explainer = Explainer(by_hand.network(name, size))
    found = explainer.explain(by_hand.inputs(name, size), target=list(case.targets))
    assert found.layer == case.automatic
    assert_equal(found.values, right_grad_cam(name, size, spot_of(name, case.automatic)))
