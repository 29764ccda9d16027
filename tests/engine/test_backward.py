"""Backward passes of other things than the score: curvature, objectives, biases; each costs what it must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import seewhy
from seewhy import Explainer, Needs
from seewhy.engine.passes import Request
from seewhy.errors import TargetError
from seewhy.testing import small_cnn, unchanged


def pixels(count: int = 2, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@dataclass(frozen=True)
class Against:
    """The class's score less a share of the mean of all."""

    share: float = 1.0

    def __call__(self, scores: Tensor, classes: Tensor) -> Tensor:
        return scores.gather(1, classes[:, None])[:, 0] - self.share * (scores**2).mean(1)


@dataclass(frozen=True)
class Curved(seewhy.Method):
    """What the curvature is."""

    objective: Any = None

    @property
    def needs(self) -> Needs:
        return Needs(activation=True, curvature=True, objective=self.objective)

    def compute(self, record: Any) -> Tensor:
        return record.curvature


@dataclass(frozen=True)
class Sloped(seewhy.Method):
    """What the gradient of an objective is."""

    objective: Any = None

    @property
    def needs(self) -> Needs:
        return Needs(gradient=True, objective=self.objective)

    def compute(self, record: Any) -> Tensor:
        return record.gradient


class Quadratic(nn.Module):
    """Scores x'Mx / 2 of what a convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 8, 8)
        generator = torch.Generator().manual_seed(3)
        self.m = nn.Parameter(torch.randn(5, 12, 12, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x).flatten(1)
        return torch.einsum("ni,kij,nj->nk", found, self.m, found) / 2


def test_curvature_of_a_quadratic_form() -> None:
    """Its Hessian is the symmetric part of the matrix; the conv's output has 2 channels at 2 x 3 positions."""
    model = Quadratic().double()
    x = pixels()
    with unchanged(model):
        found = Explainer(model).explain(x, Curved(), target=[3, 1], layer="conv")
    activation = model.conv(x).flatten(1)
    matrices = ((model.m + model.m.mT) / 2)[[3, 1]]
    expected = torch.einsum("nij,nj->ni", matrices, activation).view(2, 2, 2, 3)
    torch.testing.assert_close(torch.tensor(found.values), expected.float(), rtol=1e-5, atol=1e-6)


def test_curvature_of_a_linear_end_is_0_and_of_several_targets_each_its_own() -> None:
    model = small_cnn().double()
    with pytest.warns(seewhy.SeewhyWarning, match="0 everywhere"):
        linear = Explainer(model).explain(pixels(), Curved(), target=1, layer="body")
    assert not linear.values.any()
    model = Quadratic().double()
    pairs = Explainer(model).explain(pixels(), Curved(), target=[[3, 0], [1, 4]], layer="conv")
    for row, target in enumerate([3, 0, 1, 4]):
        one = Explainer(model).explain(pixels()[row // 2], Curved(), target=target, layer="conv")
        torch.testing.assert_close(torch.tensor(pairs.values[row]), torch.tensor(one.values[0]))


class Attentive(nn.Module):
    """A layer of attention, whose fast kernels cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def end(self, x: Tensor) -> Tensor:
        x = self.norm(x.flatten(2).mT)[:, None]
        x = nn.functional.scaled_dot_product_attention(x, 2 * x, x * x)
        return self.head(x[:, 0].mean(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.patch(x))


def test_curvature_through_attention() -> None:
    torch.manual_seed(0)
    model, x = Attentive().double(), pixels()
    found = Explainer(model).explain(x, Curved(Against(0.3)), target=2, layer="patch")
    activation = model.patch(x).detach()

    def objective(a: Tensor) -> Tensor:
        return Against(0.3)(model.end(a), torch.tensor([2, 2])).sum()

    with sdpa_kernel(SDPBackend.MATH):
        _, expected = torch.autograd.functional.hvp(objective, activation, activation)
    torch.testing.assert_close(torch.tensor(found.values), expected.float(), rtol=1e-5, atol=1e-7)


def test_objectives_are_differentiated_instead_of_the_score() -> None:
    model, x = small_cnn().double(), pixels()
    found = Explainer(model).explain(x, Sloped(Against(0.5)), target=[[1, 3], [0, 2]], layer="body")
    leaf = x.clone()
    kept: list[Tensor] = []
    handle = model.body.register_forward_hook(lambda *a: kept.append(a[2].clone().requires_grad_()) or kept[0] * 1)
    scores = model(leaf)
    handle.remove()
    for row, cls in enumerate([1, 3, 0, 2]):
        image = row // 2
        value = Against(0.5)(scores[image : image + 1], torch.tensor([cls]))
        (expected,) = torch.autograd.grad(value.sum(), kept[0], retain_graph=True)
        torch.testing.assert_close(torch.tensor(found.values[row]), expected[image].float(), rtol=1e-5, atol=1e-7)


def test_objectives_need_classes() -> None:
    for target in (lambda scores: scores[:, 0], seewhy.Contrast(0, 1), seewhy.Probability(1)):
        with pytest.raises(TargetError, match="must be a class"):
            Explainer(small_cnn()).explain(pixels().float(), Sloped(Against()), target=target, layer="body")


def test_equal_objectives_share_a_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: runs.append(1) or real(*a, **k))
    methods = [
        Sloped(Against(0.5), name="a"),
        Sloped(Against(0.5), name="b"),
        Sloped(Against(0.1), name="c"),
        "grad_cam",
    ]
    Explainer(small_cnn()).explain(pixels().float(), methods, target=1, layer=["body", "left"])
    assert len(runs) == 3
    assert len(Request(tuple(m.needs for m in methods[:3])).ways) == 2


@dataclass(frozen=True)
class Shares(seewhy.Method):
    """What biases add."""

    needs = Needs(input_gradient="plain", biases=True)

    def compute(self, record: Any) -> Tensor:
        record.measures["error"] = (
            record.scores
            - (record.input_gradient * record.input).flatten(1).sum(1)
            - sum(b.share for b in record.biases)
        )
        names.clear()
        names.extend((bias.layer, tuple(bias.gradient.shape), len(bias.bias)) for bias in record.biases)
        return record.input_gradient


names: list[Any] = []


def test_biases_of_a_residual_network_add_up() -> None:
    """With the batch norm's bias, what it subtracts, a layer that runs in place, and the head."""
    model, x = small_cnn().double(), pixels()
    model.stem[1].eps = 0.1
    found = Explainer(model).explain(x, Shares(), target=[1, 2])
    assert abs(found.measures["error"]).max() < 1e-6
    assert names == [("stem.0", (2, 8, 8, 12), 8), ("stem.1", (2, 8, 8, 12), 8), ("left", (2, 8, 8, 12), 8),
                     ("right", (2, 8, 8, 12), 8), ("body", (2, 16, 4, 6), 16), ("head", (2, 5), 5)]  # fmt: skip


class Twice(nn.Module):
    """One layer that runs twice, and one whose answer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.unused, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(self.same(x).relu()).relu()
        self.unused(x)
        return self.head(x.mean((2, 3)))


def test_layers_that_run_twice_or_for_nothing() -> None:
    torch.manual_seed(0)
    found = Explainer(Twice().double()).explain(pixels(), Shares(), target=1)
    assert abs(found.measures["error"]).max() < 1e-6
    assert [name for name, *_ in names] == ["same#1", "same#2", "head"]


def test_nothing_is_left_on_the_graph_or_the_switches() -> None:
    before = [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()]
    assert before == [True, True]
    torch.manual_seed(0)

    class Fails(Attentive):
        def end(self, x: Tensor) -> Tensor:
            assert not torch.backends.cuda.flash_sdp_enabled()
            raise KeyboardInterrupt

    for model in (Attentive(), Fails()):
        try:
            Explainer(model).explain(pixels().float(), Curved(Against()), target=1, layer="patch")
        except KeyboardInterrupt:
            assert isinstance(model, Fails)
        assert [torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()] == before
