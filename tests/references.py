"""The methods again, slow and plain: one image at a time, straight from the papers, sharing no code with seewhy.

Each takes a network in eval mode, transformed images (N, 3, H, W) and one class index per image, and gives what an
explanation's `.values` must be. Networks are used as they are; only `replace_inplace` and what is Captum's copy them.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import captum.attr  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Explain = Callable[[Tensor, int], Tensor]


def one_by_one(x: Tensor, targets: Sequence[int], explain: Explain) -> Tensor:
    """What `explain` gives for each image alone, put together."""
    return torch.cat([explain(x[i : i + 1].clone(), t) for i, t in enumerate(targets)]).detach()


# --- the gradient of the score with respect to the input


def saliency(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """dS/dx (N, 3, H, W), signed (Simonyan 2013)."""

    def explain(image: Tensor, target: int) -> Tensor:
        image.requires_grad_()
        return torch.autograd.grad(net(image)[0, target], image)[0]

    return one_by_one(x, targets, explain)


class GuidedReLU(Function):
    """ReLU or ReLU6 whose backward's result is clamped at 0 (Springenberg 2014)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < high))
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors
        return (grads[0] * passed).clamp(min=0), None


class DeconvReLU(Function):
    """ReLU or ReLU6 whose backward is a ReLU of the gradient, whatever the activation was (Zeiler 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float) -> Tensor:
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].clamp(min=0), None


def relu_ceiling(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> float | None:
    """The upper end of the ReLU that a torch function is when called with these arguments; None where it is none."""

    def argument(place: int, key: str) -> Any:
        return args[place] if len(args) > place else kwargs.get(key)

    match name.strip("_"):
        case "relu":
            low, high = 0, None
        case "relu6":
            low, high = 0, 6
        case "hardtanh":
            low, high = argument(1, "min_val"), argument(2, "max_val")
        case "clamp":
            low, high = argument(1, "min"), argument(2, "max")
        case "clamp_min":
            low, high = argument(1, "min"), None
        case "threshold" if argument(2, "value") == 0:
            low, high = argument(1, "threshold"), None
        case _:
            return None
    return (math.inf if high is None else float(high)) if low == 0 and high in (None, 6) else None


class ReLUsAs(TorchFunctionMode):
    """Within it every ReLU and ReLU6, however it is spelled, is the given one."""

    def __init__(self, rule: type[Function]) -> None:
        super().__init__()
        self.rule = rule

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        ceiling = relu_ceiling(name, args, kwargs)
        if ceiling is None:
            return func(*args, **kwargs)
        x = args[0]
        in_place = name.endswith("_") or kwargs.get("inplace", False)
        result = self.rule.apply(x.clone() if in_place else x, ceiling)
        return x.copy_(result) if in_place else result


def guided_backprop(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """dS/dx (N, 3, H, W) with each ReLU's result in the backward clamped at 0."""
    with ReLUsAs(GuidedReLU):
        return saliency(net, x, targets)


def deconvnet(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """dS/dx (N, 3, H, W) with each ReLU's backward replaced by the clamped incoming gradient."""
    with ReLUsAs(DeconvReLU):
        return saliency(net, x, targets)


# --- what a layer gave, and the gradient there


@contextlib.contextmanager
def kept_output(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The layer's outputs while it runs: the network goes on with a clone, so that what it does in place harms none."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.clone() if output.requires_grad else output.clone().requires_grad_())
        return kept[-1].clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def activations(net: nn.Module, x: Tensor, layer: str) -> Tensor:
    """The layer's own output (N, C, h, w)."""

    def explain(image: Tensor, target: int) -> Tensor:
        with kept_output(net.get_submodule(layer)) as kept:
            net(image)
        return kept[0]

    return one_by_one(x, [0] * len(x), explain)


def grad_cam(net: nn.Module, x: Tensor, targets: Sequence[int], layer: str) -> Tensor:
    """ReLU(sum over k of mean(dS/dA_k) A_k) (N, h, w) (Selvaraju 2016, equations 1 and 2)."""

    def explain(image: Tensor, target: int) -> Tensor:
        with kept_output(net.get_submodule(layer)) as kept:
            score = net(image)[0, target]
        (gradient,) = torch.autograd.grad(score, kept[0])
        weights = gradient.mean((2, 3), keepdim=True)
        return (weights * kept[0]).sum(1).clamp(min=0)

    return one_by_one(x, targets, explain)


def cam(net: nn.Module, x: Tensor, targets: Sequence[int], layer: str, linear: str, then_relu: bool = False) -> Tensor:
    """sum over k of w_k A_k (N, h, w), with the weights of the last linear layer (Zhou 2015, equation 2)."""
    weights = net.get_submodule(linear).get_parameter("weight").detach()

    def explain(image: Tensor, target: int) -> Tensor:
        pooled = activations(net, image, layer)
        pooled = pooled.clamp(min=0) if then_relu else pooled
        return torch.einsum("k,nkhw->nhw", weights[target], pooled)

    return one_by_one(x, targets, explain)


def guided_grad_cam(net: nn.Module, x: Tensor, targets: Sequence[int], layer: str) -> Tensor:
    """Guided backprop times the enlarged Grad-CAM (N, 3, H, W)."""
    enlarged = layer_map(grad_cam(net, x, targets, layer), x.shape[-2:])
    return guided_backprop(net, x, targets) * enlarged[:, None]


# --- from values to maps


def input_map(values: Tensor) -> Tensor:
    """Of (N, C, H, W) the largest absolute value over the colours (N, H, W)."""
    return values.abs().amax(1)


def layer_map(values: Tensor, size: Sequence[int]) -> Tensor:
    """Of (N, h, w) the bilinear enlargement (N, H, W)."""
    return F.interpolate(values[:, None], list(size), mode="bilinear", align_corners=False)[:, 0]


# --- Captum, for where it is right


def replace_inplace(net: nn.Module) -> nn.Module:
    """A copy whose modules change nothing in place."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 (mypy takes a module's attribute for a tensor)
    return net


def _captum(
    make: Callable[[nn.Module], Any], net: nn.Module, x: Tensor, targets: Sequence[int], **options: Any
) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of its hooks and of requires_grad at each call
        method = make(replace_inplace(net))
        result: Tensor = method.attribute(x.clone(), target=torch.tensor(targets), **options)
    return result.detach()


def captum_saliency(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """Captum's signed gradient (N, 3, H, W)."""
    return _captum(captum.attr.Saliency, net, x, targets, abs=False)


def captum_guided_backprop(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """Captum's guided backprop (N, 3, H, W): right only where each ReLU is a module with a path of its own."""
    return _captum(captum.attr.GuidedBackprop, net, x, targets)


def captum_deconvnet(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """Captum's deconvnet (N, 3, H, W): right only where each ReLU is a module with a path of its own."""
    return _captum(captum.attr.Deconvolution, net, x, targets)


def captum_grad_cam(net: nn.Module, x: Tensor, targets: Sequence[int], layer: str) -> Tensor:
    """Captum's Grad-CAM (N, h, w): right where no function changes the layer's output in place."""

    def make(net: nn.Module) -> Any:
        return captum.attr.LayerGradCam(net, net.get_submodule(layer))

    return _captum(make, net, x, targets, relu_attributions=True)[:, 0]
