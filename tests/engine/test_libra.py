"""The rule "libra": equal to networks whose weights are detached by hand, and adding up to the score."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.errors import ModelError
from seewhy.testing import small_cnn, unchanged


class Gated(nn.Module):
    """x·g(x) with a constant g(x)."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = torch.where(x == 0, 0.5, self.activation(x) / x)
        return x * gate


class Normed(nn.Module):
    """A layer norm with a constant deviation."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm
        self.bias = norm.bias

    def forward(self, x: Tensor) -> Tensor:
        over = tuple(range(-len(self.norm.normalized_shape), 0))
        centred = x - x.mean(over, keepdim=True)
        deviation = (x.var(over, correction=0, keepdim=True) + self.norm.eps).sqrt().detach()
        return centred / deviation * self.norm.weight + self.norm.bias


def constant_attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    return weights.detach() @ v


def detached(model: nn.Module) -> nn.Module:
    """A copy of a model with constant gates and deviations."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, Normed(child))
            elif isinstance(child, nn.GELU):
                setattr(parent, name, Gated(child))
    return model


def lively(model: nn.Module) -> nn.Module:
    """In float64, with weights that matter everywhere."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.add_(1)
    return model.double().eval()


def vit() -> nn.Module:
    return lively(torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5))


def timms(**options: Any) -> nn.Module:
    return lively(timm.create_model("vit_tiny_patch16_224", img_size=(24, 32), patch_size=8, depth=2, embed_dim=24,
                                    num_heads=2, num_classes=5, **options))  # fmt: skip


def pixels(height: int = 32, width: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@dataclass(frozen=True)
class Balanced(seewhy.Method):
    """The gradient under the rule, and the shares of biases."""

    needs = seewhy.Needs(input_gradient="libra", biases="libra")

    def compute(self, record: Any) -> Tensor:
        own = (record.input_gradient * record.input).flatten(1).sum(1)
        record.measures["missing"] = (record.scores - own - sum(bias.share for bias in record.biases)).abs()
        return record.input_gradient


@dataclass(frozen=True)
class Gradient(seewhy.Method):
    """The gradient under the rule."""

    needs = seewhy.Needs(input_gradient="libra")

    def compute(self, record: Any) -> Tensor:
        return record.input_gradient


@pytest.mark.parametrize("build", [vit, timms, lambda: timms(qk_norm=True), lambda: timms(init_values=0.3)])
def test_equal_to_a_network_whose_weights_are_detached(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which adds up: gradient times input, for the image and for all that the network adds, is the score."""
    model = build()
    x = pixels() if build is vit else pixels(24, 32)
    with unchanged(model):
        found = Explainer(model).explain(x, Gradient(), target=1)
    plain = Explainer(model).explain(x, "saliency", target=1)
    assert abs(found.values - plain.values).max() > 0.01 * abs(plain.values).max()
    monkeypatch.setattr(F, "scaled_dot_product_attention", constant_attention)
    x = x.requires_grad_()
    other = detached(model)
    scores = other(x)[:, 1]
    torch.testing.assert_close(scores, model(x)[:, 1])
    added = [p for name, p in other.named_parameters() if name.endswith(("bias", "_token", "pos_embed", "_embedding"))]
    gradient, *rest = torch.autograd.grad(scores.sum(), [x, *added], allow_unused=True)
    torch.testing.assert_close(torch.tensor(found.values), gradient.float(), rtol=1e-5, atol=1e-7)
    total = (gradient * x).sum() + sum((g * p).sum() for g, p in zip(rest, added, strict=True) if g is not None)
    torch.testing.assert_close(total, scores.sum())


SMALL = {
    "SE and SiLU": lambda: torchvision.models.efficientnet_b0(num_classes=5),
    "SE and Hardswish": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "layer norms and GELU": lambda: torchvision.models.convnext_tiny(num_classes=5, layer_scale=0.5),
    "ReLU": lambda: torchvision.models.resnet18(num_classes=5),
    "a batch norm with its activation": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_gradient_times_input_and_biases_add_up_to_the_score(name: str) -> None:
    """As it does in ReLU networks anyway; here in networks with gates, and with all their biases."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SMALL[name]().double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)  # that there is nothing to balance
        found = Explainer(model).explain(pixels(64, 48), Balanced(), target=2)
    assert (found.measures["missing"] <= 1e-6 * abs(found.scores)).all()


class Product(nn.Module):
    """Scores that are a product of two things made of the image."""

    def __init__(self, weigh: Any) -> None:
        super().__init__()
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, :1], x[:, 1:2]
        return self.weigh(a, b).flatten(1).sum(1, keepdim=True)


POWERS = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
CORNER = F.pad(torch.ones(1, 1, 1, 1, dtype=torch.float64), (0, 3, 0, 2))
PRODUCTS = {
    "alike": (lambda a, b: a * b, lambda a, b: (b / 2, a / 2)),
    "gated": (lambda a, b: a * torch.sigmoid(b), lambda a, b: (torch.sigmoid(b), 0 * b)),
    "gated on the left": (lambda a, b: torch.sigmoid(a)[:] * b, lambda a, b: (0 * a, torch.sigmoid(a))),
    "divided": (lambda a, b: a / (b + 1), lambda a, b: (1 / (b + 1), 0 * b)),
    "by a root": (lambda a, b: a * torch.rsqrt(1 + b * b), lambda a, b: (torch.rsqrt(1 + b * b), 0 * b)),
    "SiLU by hand": (lambda a, b: a * torch.sigmoid(a) + 0 * b, lambda a, b: (torch.sigmoid(a), 0 * b)),
    "Mish": (lambda a, b: F.mish(a) + 0 * b, lambda a, b: (torch.tanh(F.softplus(a)), 0 * b)),
    "tanh GELU": (
        lambda a, b: F.gelu(a, approximate="tanh") + 0 * b,
        lambda a, b: (F.gelu(a, approximate="tanh") / a, 0 * b),
    ),
    "GLU": (lambda a, b: F.glu(torch.cat([a, b], 1), 1), lambda a, b: (torch.sigmoid(b), 0 * b)),
    "a square": (lambda a, b: a**2 + 0 * b, lambda a, b: (a, 0 * b)),
    "a power": (lambda a, b: (a + 1) ** 1.5 + 0 * b, lambda a, b: ((a + 1) ** 0.5, 0 * b)),
    "powers": (lambda a, b: (a + 1) ** (POWERS + 1) + 0 * b, lambda a, b: ((a + 1) ** POWERS, 0 * b)),
    "divided by a power": (lambda a, b: a * (b + 1) ** -0.5, lambda a, b: ((b + 1) ** -0.5, 0 * b)),
    "divided by hand": (lambda a, b: a * (1 / (b + 1)), lambda a, b: (1 / (b + 1), 0 * b)),
    "a root": (lambda a, b: (a + 1).sqrt() + 0 * b, lambda a, b: ((a + 1) ** -0.5, 0 * b)),
    "a product over channels": (lambda a, b: torch.cat([a, b, b], 1).prod(1), lambda a, b: (b * b / 3, a * b * 2 / 3)),
    "a product of all": (
        lambda a, b: torch.stack([one[:, 0, 0].prod() for one in torch.cat([a, b], 1)])[:, None],
        lambda a, b: (CORNER * b / 2, CORNER * a / 2),
    ),
    "matrices, one by one": (
        lambda a, b: torch.stack([torch.mm(p, q) for p, q in zip(a[:, 0], b[:, 0].mT, strict=True)]),
        lambda a, b: (b.sum(2, keepdim=True) / 2 + 0 * a, a.sum(2, keepdim=True) / 2 + 0 * b),
    ),
    "attention, one by one": (
        lambda a, b: torch.stack([torch.mm(p.softmax(1), q) for p, q in zip(a[:, 0].mT, b[:, 0], strict=True)]),
        lambda a, b: (0 * a, a.mT.softmax(3).sum(2)[..., None] + 0 * b),
    ),
    "added to a product": (
        lambda a, b: torch.addcmul(a, torch.sigmoid(a), b),
        lambda a, b: (1 + 0 * a, torch.sigmoid(a)),
    ),
    "a softmax by hand": (lambda a, b: a.exp() / a.exp().sum(3, keepdim=True) * b, lambda a, b: (0 * a, a.softmax(3))),
    "a softmax of logarithms": (lambda a, b: a.log_softmax(3).exp() * b, lambda a, b: (0 * a, a.softmax(3))),
    "Hardswish by hand": (lambda a, b: a * F.relu6(a + 3) / 6 + 0 * b, lambda a, b: (F.hardsigmoid(a), 0 * b)),
    "Hardswish by a clamp": (
        lambda a, b: a * ((a + 3).clamp(0, 6) * (1 / 6)) + 0 * b,
        lambda a, b: (F.hardsigmoid(a), 0 * b),
    ),
    "a weight that is itself held between bounds": (
        lambda a, b: F.relu6(a) * torch.sigmoid(b),
        lambda a, b: ((a > 0) * torch.sigmoid(b), 0 * b),
    ),
    "a product of weights": (
        lambda a, b: torch.sigmoid(a) * torch.sigmoid(b) * b,
        lambda a, b: (0 * a, torch.sigmoid(a) * torch.sigmoid(b)),
    ),
    "filters made of the image": (
        lambda a, b: F.conv2d(a, torch.sigmoid(b.mean((0, 2, 3), keepdim=True))),
        lambda a, b: (torch.sigmoid(b.mean()) + 0 * a, 0 * b),
    ),
    "a product with a constant": (lambda a, b: 3 * a + b, lambda a, b: (3 + 0 * a, 1 + 0 * b)),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
def test_products_in_closed_form(name: str) -> None:
    weigh, expected = PRODUCTS[name]
    x = pixels(3, 4, 2) - 0.4
    found = Explainer(Product(weigh)).explain(x, Gradient(), target=0)
    wanted = torch.cat(expected(x[:, :1], x[:, 1:]), 1)
    torch.testing.assert_close(torch.tensor(found.values), wanted.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
def test_gelu_at_zero_passes_half() -> None:
    x = torch.zeros(1, 2, 2, 2)
    found = Explainer(Product(lambda a, b: F.gelu(a) + 0 * b)).explain(x, Gradient(), target=0)
    assert (found.values[:, 0] == 0.5).all()


def test_probabilities_keep_their_gradient() -> None:
    """The softmax that makes them weighs nothing."""
    with pytest.warns(SeewhyWarning, match="through 1 Softmax"):
        found = Explainer(vit()).explain(pixels(), Gradient(), target=seewhy.Probability(1))
    assert abs(found.values).max() > 0


def test_nothing_to_balance_and_what_does_not_add_up_are_told() -> None:
    with pytest.warns(SeewhyWarning, match="nothing to balance"):
        plain = Explainer(small_cnn()).explain(pixels().float(), Gradient(), target=1)
    assert (plain.values == Explainer(small_cnn()).explain(pixels().float(), "saliency", target=1).values).all()
    layers = nn.Conv2d(3, 4, 3), nn.ELU(), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(*layers)
    with pytest.warns(SeewhyWarning, match="1 ELU"):
        Explainer(model).explain(pixels().float(), Gradient(), target=1)


NORMS = {
    "group norm": lambda: nn.GroupNorm(2, 6),
    "group norm without weights": lambda: nn.GroupNorm(3, 6, affine=False),
    "instance norm": lambda: nn.InstanceNorm2d(6),
    "instance norm with weights": lambda: nn.InstanceNorm2d(6, affine=True),
}


class Over(nn.Module):
    """A group norm with a constant deviation; an instance norm has a group for each channel."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.groups = norm, getattr(norm, "num_groups", 6)

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))
        deviation = (grouped.var((2, 3, 4), correction=0, keepdim=True) + self.norm.eps).sqrt().detach()
        normed = ((grouped - grouped.mean((2, 3, 4), keepdim=True)) / deviation).flatten(1, 2)
        if self.norm.weight is None:
            return normed
        return normed * self.norm.weight.view(-1, 1, 1) + self.norm.bias.view(-1, 1, 1)


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_groups_and_channels_have_a_constant_deviation(name: str) -> None:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 6, 2, bias=False), NORMS[name](), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*parts, nn.Linear(6, 4, bias=False)).double().eval()
    for parameter in parts[1].parameters():
        nn.init.normal_(parameter, 1)
    x = pixels(6, 8).requires_grad_()
    found = Explainer(model).explain(x.detach(), "input_x_gradient", target=2, libra=True)
    other = nn.Sequential(parts[0], Over(parts[1]), Gated(parts[2]), *parts[3:], model[-1])
    scores = other(x)[:, 2]
    torch.testing.assert_close(scores, model(x)[:, 2])
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(torch.tensor(found.values), (gradient * x).float(), rtol=1e-5, atol=1e-8)
    if not isinstance(getattr(parts[1], "bias", None), Tensor):
        torch.testing.assert_close(torch.tensor(found.values).sum((1, 2, 3)), scores.float())


UNBALANCED = {
    "2 Tanh": lambda a, b: a.tanh() + b.tanh(),
    "1 Exp, 1 Log1P": lambda a, b: a.exp() + (b + 1).log1p(),
    "1 Sigmoid": lambda a, b: a.sigmoid() + b * b.sigmoid(),
    "2 Sigmoid": lambda a, b: a.sigmoid() * b.sigmoid(),
    "1 LogSoftmax": lambda a, b: a.log_softmax(3) + F.gelu(b),
    "1 Pow": lambda a, b: 2**a + b * (b + 2) ** -1.0 + b**2,
    "1 Div": lambda a, b: torch.ones_like(a) / (a + 1) + a / (b + 1),
    "1 ELU": lambda a, b: F.elu(a) + b * torch.sigmoid(F.elu(b)),
}


@pytest.mark.parametrize("told", UNBALANCED)
@pytest.mark.filterwarnings("ignore:Pictures are shown:seewhy.SeewhyWarning")
def test_what_is_not_balanced_is_told_where_the_gradient_passes_it(told: str) -> None:
    with pytest.warns(SeewhyWarning, match=f"plain gradient through {told}, where"):
        Explainer(Product(UNBALANCED[told])).explain(pixels(3, 4, 2), Gradient(), target=0)


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")
def test_hidden_operations_are_refused() -> None:
    with pytest.raises(ModelError, match="'libra' cannot see"):
        Explainer(Product(lambda a, b: Hidden.apply(a) + b)).explain(pixels(3, 4, 2), Gradient(), target=0)
