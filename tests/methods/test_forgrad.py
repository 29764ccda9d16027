"""FORGrad: what is left of a gradient without its high frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn

from seewhy import Explainer
from seewhy.errors import InputError, InputTypeError
from seewhy.methods import ForGrad, SmoothGrad
from seewhy.testing import small_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown:seewhy.SeewhyWarning")


def low(values: np.ndarray, cutoff: float) -> Tensor:
    """By a mask on the shifted spectrum."""
    spectrum = np.fft.fftshift(np.fft.fft2(values), axes=(-2, -1))
    for axis in (-2, -1):
        frequency = np.abs(np.fft.fftshift(np.fft.fftfreq(values.shape[axis])))
        mask = (frequency <= cutoff / 2).astype(float)
        spectrum = spectrum * (mask[:, None] if axis == -2 else mask)
    return torch.tensor(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1))).real)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cutoff", [0.15, 0.5])
def test_equal_to_a_masked_spectrum(kind: str, cutoff: float) -> None:
    x, explainer = images(size=SIZE), explainer_of(network(kind))
    plain = explainer.explain(x, "saliency", target=list(TARGETS))
    found = explainer.explain(x, ForGrad(cutoff=cutoff), target=list(TARGETS))
    assert_equal(found.values, low(plain.values, cutoff))
    np.testing.assert_allclose(found.maps, np.abs(found.values).max(1))


def test_a_wave_stays_or_goes() -> None:
    """Of a linear network the gradient is its weight: a slow wave and a fast one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 1, bias=False))
    column = torch.arange(24.0)
    slow, fast = torch.cos(2 * np.pi * column / 24), torch.cos(2 * np.pi * column * 8 / 24)
    with torch.no_grad():
        model[1].weight.copy_((slow + fast).expand(3, 16, 24).reshape(1, -1))
    found = Explainer(model, activation="none").explain(images(1, (16, 24)).float(), ForGrad(cutoff=0.3), target=0)
    np.testing.assert_allclose(found.values, slow.expand(1, 3, 16, 24), atol=1e-5)
    whole = Explainer(model, activation="none").explain(images(1, (16, 24)).float(), ForGrad(cutoff=1), target=0)
    np.testing.assert_allclose(whole.values, (slow + fast).expand(1, 3, 16, 24), atol=1e-5)


def test_around_others() -> None:
    x = images(1, (16, 24)).float()
    explainer = Explainer(small_cnn())
    for base in ("guided_backprop", SmoothGrad(samples=2), "input_x_gradient"):
        found = explainer.explain(x, ForGrad(base), target=1)
        assert_equal(found.values, low(explainer.explain(x, base, target=1).values, 0.15))
    assert explainer.explain(x, ForGrad("input_x_gradient"), target=1).signed


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"cutoff": 0}, InputError, "cutoff"),
    ({"cutoff": 1.1}, InputError, "cutoff"),
    ({"base": "grad_cam"}, InputError, "explains a layer"),
    ({"base": "cam"}, InputError, "explains a layer"),
    ({"base": SmoothGrad("legrad")}, InputError, "explains a layer"),
    ({"base": ["saliency"]}, InputTypeError, "one method"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ForGrad(**options)
