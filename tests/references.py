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
from typing import Any, NamedTuple

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


# --- methods that ask again


class Form(NamedTuple):
    """How a layer holds its positions: from its output to (N, C, h, w), and that output with others in their place."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]


CHANNELS_FIRST = Form(lambda output: output, lambda output, changed: changed)
CHANNELS_LAST = Form(lambda output: output.permute(0, 3, 1, 2), lambda output, changed: changed.permute(0, 2, 3, 1))


def tokens(grid: tuple[int, int], prefix: int) -> Form:
    """(N, prefix + h * w, C), the positions row by row."""

    def there(output: Tensor) -> Tensor:
        return output[:, prefix:].transpose(1, 2).unflatten(2, grid)

    def back(output: Tensor, changed: Tensor) -> Tensor:
        before = output[:, :prefix].expand(len(changed), -1, -1)
        return torch.cat([before, changed.flatten(2).transpose(1, 2)], 1)

    return Form(there, back)


def whole_run(net: nn.Module, x: Tensor, layer: str, changed: Tensor) -> Tensor:
    """The scores of a whole run in which `layer` returns something else."""
    with torch.no_grad():
        handle = net.get_submodule(layer).register_forward_hook(lambda *_: changed.clone())
        try:
            scores: Tensor = net(x)
        finally:
            handle.remove()
    return scores


def ablation_cam(net: nn.Module, x: Tensor, targets: Sequence[int], layer: str, form: Form = CHANNELS_FIRST) -> Tensor:
    """ReLU(sum of (S - S_k) / |S| A_k), S_k with channel k at 0 (Desai 2020, eq. 3-4)."""

    def explain(image: Tensor, target: int) -> Tensor:
        with torch.no_grad():
            score, output = net(image)[0, target], activations(net, image, layer)
            a = form.there(output)
            total = torch.zeros_like(a[:, 0])
            for some in torch.arange(a.shape[1]).split(64):
                without = a.repeat(len(some), 1, 1, 1)
                for row, k in enumerate(some):
                    without[row, k] = 0
                changed = form.back(output, without)
                fall = score - whole_run(net, image.repeat(len(some), 1, 1, 1), layer, changed)[:, target]
                total += torch.einsum("k,khw->hw", fall / score.abs(), a[0, some])
            return total.relu()

    return one_by_one(x, targets, explain)


def score_cam(
    net: nn.Module,
    x: Tensor,
    targets: Sequence[int],
    layer: str,
    channels: int | None = None,
    form: Form = CHANNELS_FIRST,
) -> Tensor:
    """ReLU(sum of softmax(S(x * M_k)) A_k), M_k the channel at the input's size, from 0 to 1 (Wang 2019)."""

    def explain(image: Tensor, target: int) -> Tensor:
        with torch.no_grad():
            a = form.there(activations(net, image, layer))
            which = range(a.shape[1])
            if channels:
                which = a[0].flatten(1).var(1).argsort(descending=True)[:channels].tolist()
            scores = []
            for k in which:
                mask = F.interpolate(a[:, k : k + 1], image.shape[2:], mode="bilinear", align_corners=False)
                mask = mask - mask.min()
                mask = mask / mask.max() if mask.max() > 0 else mask
                scores.append(net(image * mask)[0, target])
            weights = torch.stack(scores).softmax(0)
            return sum(w * a[:, k] for w, k in zip(weights, which, strict=True)).relu()  # type: ignore[union-attr]

    return one_by_one(x, targets, explain)


def recipro_cam(
    net: nn.Module,
    x: Tensor,
    targets: Sequence[int],
    layer: str,
    gaussian: bool = True,
    form: Form = CHANNELS_FIRST,
) -> Tensor:
    """The score with the activation at one position only, or under a Gaussian about it, from 0 to 1 (Byun 2022)."""
    weights = {0: 0.5, 1: 0.25} if gaussian else {0: 1.0}

    def explain(image: Tensor, target: int) -> Tensor:
        output = activations(net, image, layer)
        a = form.there(output)
        height, width = a.shape[2:]
        scores = torch.zeros(1, height, width, dtype=a.dtype)
        for i in range(height):
            for j in range(width):
                kept = torch.zeros_like(a)
                for u in range(height):
                    for v in range(width):
                        kept[:, :, u, v] = weights.get(abs(u - i), 0) * weights.get(abs(v - j), 0) * a[:, :, u, v]
                scores[0, i, j] = whole_run(net, image, layer, form.back(output, kept))[0, target]
        return (scores - scores.min()) / (scores.max() - scores.min())

    return one_by_one(x, targets, explain)


def occlusion(net: nn.Module, x: Tensor, targets: Sequence[int], baseline: Tensor, window: int, stride: int) -> Tensor:
    """At each pixel the mean of S - S_hidden over the windows that cover it (Zeiler 2013)."""

    def explain(image: Tensor, target: int) -> Tensor:
        height, width = image.shape[2:]
        total, count = torch.zeros(2, 1, height, width, dtype=image.dtype)
        with torch.no_grad():
            score = net(image)[0, target]
            for top in range(0, height - window + stride, stride):
                for left in range(0, width - window + stride, stride):
                    here = (..., slice(top, top + window), slice(left, left + window))
                    hidden = image.clone()
                    hidden[here] = baseline.expand_as(image)[here]
                    total[here] += score - net(hidden)[0, target]
                    count[here] += 1
        return total / count

    return one_by_one(x, targets, explain)


def smooth_grad(net: nn.Module, x: Tensor, targets: Sequence[int], draws: Sequence[Tensor], noise: float) -> Tensor:
    """The mean of dS/dx over noisy images, the noise a share of the image's range (Smilkov 2017)."""
    return smoothed(lambda image, target: saliency(net, image, [target]), x, targets, draws, noise)


def smoothed(base: Explain, x: Tensor, targets: Sequence[int], draws: Sequence[Tensor], noise: float) -> Tensor:
    """The mean of what `base` says of noisy images, the noise a share of the image's range (Smilkov 2017)."""

    def explain(image: Tensor, target: int) -> Tensor:
        spread = noise * (image.max() - image.min())
        return torch.stack([base(image + spread * draw, target) for draw in draws]).mean(0)

    return one_by_one(x, targets, explain)


def legendre(count: int) -> tuple[Tensor, Tensor]:
    """Points in 0..1 and weights of Gauss-Legendre quadrature, from the Jacobi matrix (Golub, Welsch 1969)."""
    k = torch.arange(1, count, dtype=torch.float64)
    beside = k / (4 * k**2 - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return (points + 1) / 2, vectors[0] ** 2


def integrated_gradients(net: nn.Module, x: Tensor, targets: Sequence[int], baseline: Tensor, steps: int) -> Tensor:
    """(x - x') times the mean of dS/dx over the straight line from x' to x (Sundararajan 2017, eq. 1)."""

    def explain(image: Tensor, target: int) -> Tensor:
        start, total = baseline.expand_as(image), torch.zeros_like(image)
        for point, weight in zip(*legendre(steps), strict=True):
            total += weight * saliency(net, start + point * (image - start), [target])
        return (image - start) * total

    return one_by_one(x, targets, explain)
