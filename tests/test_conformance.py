"""Every method keeps its promises on a CNN, a ViT and a Swin whose channels are last, or is refused there clearly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import seewhy
from seewhy import Explainer, methods
from seewhy.errors import ModelError, SeewhyError
from seewhy.testing import check_method, small_cnn, small_swin, small_vit, unchanged

ZERO = torch.zeros(1)
NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": small_cnn, "vit": small_vit, "swin": small_swin}
OPTIONS: dict[str, dict[str, Any]] = {
    "blur_ig": {"steps": 4},
    "extremal_perturbation": {"steps": 4},
    "forgrad": {},
    "gradient_shap": {"samples": 4},
    "guided_ig": {"steps": 4},
    "idgi": {"steps": 4},
    "integrated_gradients": {"steps": 4, "baseline": ZERO},
    "kernel_shap": {"segments": 6, "samples": 40},
    "lime": {"segments": 6, "samples": 40},
    "occlusion": {"window": 12, "stride": 8},
    "rise": {"masks": 24},
    "smooth_grad": {"samples": 3},
    "smooth_grad_cam_pp": {"samples": 3},
    "sobol": {"grid": 3, "designs": 4},
    "square_grad": {"samples": 3},
    "var_grad": {"samples": 3},
    "xrai": {"steps": 4},
}
SLOW = {"ablation_cam", "extremal_perturbation", "guided_ig", "kernel_shap", "lime", "recipro_cam", "rise", "score_cam",
        "sobol", "xrai"}  # fmt: skip
SOME = ("saliency", "grad_cam", "hires_cam", "shapley_cam", "full_grad", "occlusion")  # on the ViT at once, too
ATTENTION = ["raw_attention", "attention_rollout", "grad_attention_rollout", "attention_cam", "legrad"]
_NONE = "no attention between the tokens"
REFUSED = {
    **{(name, "cnn"): _NONE for name in ATTENTION},
    **{(name, "swin"): _NONE for name in ATTENTION},  # all of it is within windows
    **{(name, "vit"): "has none" for name in ("guided_backprop", "guided_grad_cam", "deconvnet")},
    **{(name, "swin"): "has none" for name in ("guided_backprop", "guided_grad_cam", "deconvnet")},
    ("cam", "vit"): "'grad_cam'",
}
BUILT_IN = sorted(name for name in seewhy.list_methods() if name in {
    cls.registered_name for cls in vars(methods).values() if isinstance(cls, type) and issubclass(cls, seewhy.Method)
})  # fmt: skip


def pairs(slow: bool) -> list[tuple[str, str]]:
    every = [(name, network) for name in BUILT_IN for network in NETWORKS]
    quick = {(name, "cnn") for name in BUILT_IN if name not in SLOW} | {(name, "vit") for name in (*ATTENTION, *SOME)}
    return [pair for pair in every if pair not in REFUSED and slow == (pair not in quick)]


def checked(name: str, network: str) -> None:
    check_method(name, NETWORKS[network], **OPTIONS.get(name, {}))


@pytest.mark.parametrize(("name", "network"), pairs(slow=False))
def test_it_keeps_what_is_promised(name: str, network: str) -> None:
    checked(name, network)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "network"), pairs(slow=True))
def test_it_keeps_what_is_promised_here_too(name: str, network: str) -> None:
    checked(name, network)


@pytest.mark.parametrize(("name", "network"), REFUSED)
def test_it_is_refused_where_it_is_not_defined(name: str, network: str) -> None:
    """With the reason, and with what to take instead."""
    images = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with unchanged(model := NETWORKS[network]()), pytest.raises(ModelError, match=REFUSED[name, network]) as refused:
        Explainer(model).explain(images, name, target=1)
    assert isinstance(refused.value, SeewhyError)
    assert "'grad_cam'" in str(refused.value) or "'saliency'" in str(refused.value)


def test_options_name_methods_and_each_has_a_line_that_says_what_it_is() -> None:
    assert set(OPTIONS) <= set(BUILT_IN)
    listed = seewhy.list_methods()
    assert all(listed[name].endswith(".") and ": " in listed[name] for name in BUILT_IN)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_the_same_at_each_call_and_leave_the_random_state(network: str) -> None:
    before = torch.get_rng_state()
    one, two = (NETWORKS[network]() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not one.training
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one(torch.rand(2, 3, 24, 32)).shape == (2, 5)
