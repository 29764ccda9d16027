"""Precisions and layouts of memory: each map is what autograd gives in that precision, worked out by hand."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Net, chain, close, explain, images, saliency_and_grad_cam
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

from seewhy import Explainer
from seewhy.errors import GradientError, LayerError, ModelError, NonFiniteError
from seewhy.testing import small_cnn, unchanged

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated.*:UserWarning")

METHODS = ["saliency", "guided_backprop", "deconvnet", "grad_cam", "guided_grad_cam", "activations", "cam"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here"))]
HALVES = [torch.float16, torch.bfloat16]


def by_hand(model: nn.Module, x: Tensor, autocast: AbstractContextManager[Any] | None = None) -> Any:
    with autocast or nullcontext():
        return saliency_and_grad_cam(copy.deepcopy(model), "body", x)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_maps_in_every_precision_are_those_of_autograd(dtype: torch.dtype, device: str):
    model = small_cnn().to(device, dtype).train()
    saliency, grad_cam = by_hand(model, images().to(device, dtype))
    with unchanged(model):
        both = explain(model, ["saliency", "grad_cam"], images().double())
    tolerance = 8 * torch.finfo(dtype).eps
    assert both["grad_cam"].values.dtype == both["grad_cam"].maps.dtype == np.float32
    close(both["saliency"].values, saliency)
    np.testing.assert_allclose(both["grad_cam"].values, grad_cam, atol=max(tolerance, 1e-5) * grad_cam.max(), rtol=0)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_maps_in_every_precision_resemble_those_of_float32(method: str, dtype: torch.dtype):
    """Not equal: a ReLU near 0 can flip."""
    found = explain(small_cnn().to(dtype), method)
    expected = explain(small_cnn(), method)
    assert np.isfinite(found.maps).all()
    assert correlation(found.maps, expected.maps) > (0.9 if dtype == torch.bfloat16 else 0.999)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)


@pytest.mark.parametrize("dtype", HALVES)
def test_under_the_users_autocast(dtype: torch.dtype):
    """The maps are those of the model as it runs there, and autocast is as before."""
    model = small_cnn()
    saliency, grad_cam = by_hand(model, images(), torch.autocast("cpu", dtype))
    with torch.autocast("cpu", dtype), unchanged(model):
        both = explain(model, ["saliency", "grad_cam"])
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == dtype
    close(both["saliency"].values, saliency)
    np.testing.assert_allclose(both["grad_cam"].values, grad_cam, atol=0.02 * grad_cam.max(), rtol=0)
    with torch.autocast("cpu", dtype):
        for method in METHODS:
            assert np.isfinite(explain(model, method).maps).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_that_autocasts_itself(dtype: torch.dtype):
    def run(net: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return net.rest(net.body(x).relu())

    model = Net(run, body=nn.Conv2d(3, 8, 3), rest=nn.Sequential(*chain()[1:])).eval()
    saliency, grad_cam = by_hand(model, images())
    close(explain(model, "saliency").values, saliency)
    found = explain(model, layer="body").values
    np.testing.assert_allclose(found, grad_cam, atol=0.02 * grad_cam.max(), rtol=0)
    try:
        cam = explain(model, "cam")
    except ModelError:
        return  # the score misses the mean of the map by the rounding of 16 bits
    np.testing.assert_allclose(cam.values.mean((1, 2)) + model.rest[-1].bias[1].item(), cam.scores, atol=0.02)


def test_a_model_of_several_precisions():
    """As mixed in by hand: a half-precision body with a float32 head."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.fc(net.body(x.to(torch.bfloat16)).relu().float().mean((2, 3)))

    model = Net(run, fc=nn.Linear(8, 5), body=nn.Conv2d(3, 8, 3).bfloat16()).eval()
    saliency, grad_cam = by_hand(model, images())
    close(explain(model, "saliency").values, saliency)
    found = explain(model, layer="body").values
    np.testing.assert_allclose(found, grad_cam, atol=0.02 * grad_cam.max(), rtol=0)


def test_an_overflow_in_half_precision_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).half()
    with torch.no_grad():
        model[0].weight.fill_(6e4)
        model[3].weight.fill_(6e4)
    with pytest.raises(NonFiniteError, match="float16"):
        explain(model, "saliency")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arrange", [torch.channels_last, torch.contiguous_format])
def test_channels_last_memory(method: str, arrange: torch.memory_format):
    model, x = small_cnn().to(memory_format=torch.channels_last), images().to(memory_format=arrange)
    strides = {name: p.stride() for name, p in model.named_parameters()}
    with unchanged(model):
        close(explain(model, method, x).values, explain(small_cnn(), method).values)
    assert {name: p.stride() for name, p in model.named_parameters()} == strides
    assert x.is_contiguous(memory_format=arrange)


def _dynamic(model: nn.Module) -> nn.Module:
    return quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def _static(model: nn.Module) -> nn.Module:
    model = nn.Sequential(quantization.QuantStub(), model, quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
    quantization.prepare(model, inplace=True)(images())
    return quantization.convert(model)


def _by_fx(model: nn.Module) -> nn.Module:
    mapping = quantization.get_default_qconfig_mapping(torch.backends.quantized.engine)
    prepared = quantize_fx.prepare_fx(model.eval(), mapping, (images(),))
    prepared(images())
    return quantize_fx.convert_fx(prepared)


def quietly(quantise: Callable[[nn.Module], nn.Module], model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantise(model.eval())


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "grad_cam"])
@pytest.mark.parametrize("quantise", [_dynamic, _static, _by_fx])
def test_a_quantised_model_has_no_gradient_and_is_refused(quantise: Callable[[nn.Module], nn.Module], method: str):
    model = quietly(quantise, chain())
    with pytest.raises((GradientError, LayerError), match=r"quantised|Quantize|the path is cut|positions"):
        explain(model, method)
    assert len(Explainer(model).predict(images())) == 3


def test_a_quantised_branch_is_refused_though_the_rest_has_a_gradient():
    """Autograd leaves the branch's part of the gradient out, with a warning of its own at most."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.fc(net.a(x).relu().mean((2, 3))) + net.q(x.mean((2, 3)))

    quantised = quietly(_dynamic, nn.Sequential(nn.Linear(3, 5)))
    model = Net(run, a=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 5), q=quantised)
    with pytest.raises(GradientError, match="quantised"):
        explain(model, "saliency")


def test_what_comes_before_quantised_layers_can_be_looked_at():
    model = chain().eval()
    close(
        explain(quietly(_dynamic, model), "activations", layer="1").values,
        explain(model, "activations", layer="1").values,
    )


def test_quantisation_aware_training_goes_on_undisturbed():
    """Its observers write down what they see, in eval mode too: the statistics are put back."""
    model = nn.Sequential(quantization.QuantStub(), chain(), quantization.DeQuantStub()).train()
    model.qconfig = quantization.get_default_qat_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
    quantization.prepare_qat(model, inplace=True)
    model(images())
    with unchanged(model):
        assert explain(model, "saliency", images() / 2).values.any()
