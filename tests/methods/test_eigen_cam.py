"""Eigen-CAM: a singular vector with a sign."""

from __future__ import annotations

import time

import numpy as np
import pytest
import pytorch_grad_cam.utils.svd_on_activations as theirs
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor

from seewhy import Explainer
from seewhy.engine.record import LayerRecord
from seewhy.errors import LayerError
from seewhy.methods import EigenCAM, EigenGradCAM
from seewhy.testing import check_method, small_cnn

from .test_gradient_cam import caught

pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def main(activation: Tensor) -> Tensor:
    """The first right singular vector's part, by the whole decomposition."""
    rows = activation.flatten(1).T.numpy()
    _, _, vectors = np.linalg.svd(rows, full_matrices=True)
    found = torch.tensor(rows @ vectors[0]).view(activation.shape[1:])
    return found * (found * found.abs()).sum().sign()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_singular_vector(kind: str) -> None:
    x = images(size=SIZE)
    pairs = [caught(kind, x[i : i + 1], target) for i, target in enumerate(TARGETS)]
    explainer, layer = explainer_of(network(kind)), KINDS[kind].layer
    found = explainer.explain(x, "eigen_cam", target=list(TARGETS), layer=layer)
    wanted = [main(a[0]) for a, _ in pairs]
    assert_equal(found.values, torch.stack(wanted))
    found = explainer.explain(x, "eigen_grad_cam", target=list(TARGETS), layer=layer)
    wanted = [main((a * g)[0]) for a, g in pairs]
    signs = [(one * (a * g)[0].sum(0)).sum().sign() for one, (a, g) in zip(wanted, pairs, strict=True)]
    assert_equal(found.values, torch.stack([one * sign for one, sign in zip(wanted, signs, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["eigen_cam", "eigen_grad_cam"])
def test_equal_to_pytorch_grad_cam_but_for_the_sign(name: str, kind: str) -> None:
    x = images(size=SIZE)
    pairs = [caught(kind, x[i : i + 1], target) for i, target in enumerate(TARGETS)]
    explainer, layer = explainer_of(network(kind)), KINDS[kind].layer
    found = explainer.explain(x, name, target=list(TARGETS), layer=layer, centre=True).values
    for one, (a, g) in zip(found, pairs, strict=True):
        (other,) = theirs.get_2d_projection((a if name == "eigen_cam" else a * g).numpy())
        sign = np.sign((one * other).sum())
        np.testing.assert_allclose(sign * one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 40, 3, 4), (2, 7, 12)])
def test_more_channels_or_more_positions(shape: tuple[int, ...]) -> None:
    activation = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = EigenCAM().compute(LayerRecord(activation=activation))
    for one, a in zip(found, activation, strict=True):
        torch.testing.assert_close(one.double(), main(a.double()), rtol=1e-4, atol=1e-5)


def test_the_sign_is_that_of_what_there_is_most_of() -> None:
    activation = torch.zeros(1, 2, 2, 3)
    activation[0, 0] = torch.tensor([[5.0, 0, 0], [0, 0, 0]])
    for turned in (1, -1):
        assert EigenCAM().compute(LayerRecord(activation=turned * activation))[0, 0, 0] == pytest.approx(5)
        gradient = torch.ones_like(activation)
        record = LayerRecord(activation=turned * activation, gradient=gradient)
        assert EigenGradCAM().compute(record)[0, 0, 0] == pytest.approx(5 * turned)


def test_nothing_is_0_and_large_grids_are_cheap() -> None:
    assert not EigenCAM().compute(LayerRecord(activation=torch.zeros(1, 3, 4, 4))).any()
    activation = torch.rand(1, 16, 112, 112)
    began = time.perf_counter()
    EigenCAM().compute(LayerRecord(activation=activation))
    assert time.perf_counter() - began < 5  # all singular vectors would take half a minute and 2 GB


def test_no_class_is_involved() -> None:
    x = images(1, (16, 24)).float()
    one, other = (Explainer(small_cnn()).explain(x, "eigen_cam", target=t, layer="body").values for t in (1, 2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["eigen_cam", "eigen_grad_cam"])
def test_it_keeps_what_is_promised_of_every_method(name: str) -> None:
    check_method(name)


def test_a_sign_is_found_where_no_part_is_larger() -> None:
    """A singular vector times 0 would be no map at all."""
    activation = torch.tensor([[[[3.0, -3.0]], [[0.0, 0.0]]]])
    found = EigenCAM().compute(LayerRecord(activation=activation)).abs()
    torch.testing.assert_close(found, torch.full((1, 1, 2), 3.0).double())


def test_where_the_product_adds_up_to_nothing_rounding_does_not_turn_it() -> None:
    """As before a layer norm, whose gradient is at right angles to what it gets."""
    product = torch.tensor([[[[5.0, 1.0, -1.0]], [[-5.0, -1.0, 1.0]]]])
    for rounding in (1e-7, -1e-7):
        record = LayerRecord(activation=product + rounding, gradient=torch.ones(1, 2, 1, 3))
        assert EigenGradCAM().compute(record)[0, 0, 0] > 5


def test_a_layer_without_positions_is_refused() -> None:
    with pytest.raises(LayerError, match="'head' has no positions"):
        Explainer(small_cnn()).explain(images(1, (16, 24)).float(), "eigen_cam", layer="head")


@pytest.mark.parametrize("sides", [(30,), (4, 5, 6)])
def test_signals_and_volumes(sides: tuple[int, ...]) -> None:
    activation = torch.randn(2, 7, *sides, generator=torch.Generator().manual_seed(2)).double()
    found = EigenCAM().compute(LayerRecord(activation=activation))
    torch.testing.assert_close(found, torch.stack([main(a) for a in activation]))
