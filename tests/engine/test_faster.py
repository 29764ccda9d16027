"""A copy of the model is used where it is as right and faster, and what was used is said; the model stays as it was."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy import samples
from seewhy.engine import faster
from seewhy.engine.faster import Faster, alike_scores
from seewhy.engine.fold import fold_batch_norms
from seewhy.engine.inputs import ModelInputs
from seewhy.engine.speed import Speed
from seewhy.testing import small_cnn, unchanged


def randomised(net: nn.Module) -> nn.Module:
    """In eval mode, frozen, with statistics as after training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval().requires_grad_(False)


def fold(net: nn.Module, size: int = 64) -> tuple[nn.Module, int]:
    made = copy.deepcopy(net)
    return made, fold_batch_norms(made, torch.rand(1, 3, size, size), ModelInputs())


@pytest.mark.parametrize(("name", "count"), [
    ("resnet18", 20), ("mobilenet_v3_small", 34), ("efficientnet_b0", 49), ("densenet121", 59),
    pytest.param("vgg11_bn", 8, marks=pytest.mark.sweep),
])  # fmt: skip
def test_folding_keeps_the_scores(name: str, count: int) -> None:
    net = randomised(getattr(torchvision.models, name)(num_classes=5)).double()
    made = copy.deepcopy(net)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    assert fold_batch_norms(made, x[:1], ModelInputs()) == count
    torch.testing.assert_close(made(x), net(x), rtol=1e-9, atol=1e-9)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in made.modules()) + count == sum(
        isinstance(module, nn.BatchNorm2d) for module in net.modules()
    )


class Branching(nn.Module):
    """What a batch norm reads may be read by others too, and modules may run twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.head = kind, nn.Linear(4, 3)
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        if kind == "shared weights":
            self.b.weight = self.other_conv = nn.Parameter(self.b.weight.data)
            self.c = nn.Conv2d(4, 4, 1)
            self.c.weight = self.b.weight
        if kind == "parametrised":
            nn.utils.parametrizations.weight_norm(self.a)
        if kind == "subclass":
            self.norm = type("Own", (nn.BatchNorm2d,), {})(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.kind == "read twice":
            y = self.norm(y) + y
        elif self.kind == "convolution twice":
            y = self.norm(self.b(self.b(y)))
        elif self.kind == "norm twice":
            y = self.norm(self.norm(y))
        elif self.kind == "shared weights":
            y = self.norm(self.b(y)) + self.c(y)
        elif self.kind == "between":
            y = self.norm(y.relu())
        else:
            y = self.norm(y)
        out: Tensor = self.head(y.mean((2, 3)))
        return out


@pytest.mark.parametrize("kind", ["read twice", "convolution twice", "norm twice", "shared weights", "parametrised",
                                  "subclass", "between"])  # fmt: skip
def test_what_cannot_be_folded_stays(kind: str) -> None:
    net = randomised(Branching(kind))
    made, count = fold(net)
    assert count == 0
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(made(x), net(x))


def test_the_plain_case_beside_them_is_folded() -> None:
    assert fold(randomised(Branching("plain")))[1] == 1


def used(model: nn.Module, speed: Speed, count: int = 100) -> Faster:
    return Faster(model, speed, count, torch.rand(1, 3, 32, 32), ModelInputs())


def score(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(batch)[:, 1].double()
    return found


@pytest.mark.parametrize(("gain", "kept"), [(1.3, True), (1.05, False), (0.5, False)])
def test_the_copy_must_be_faster(gain: float, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clock = small_cnn(), itertools.count()
    now = 0.0

    def timed(net: nn.Module, batch: Tensor) -> Tensor:
        nonlocal now
        now += 1.0 if net is model else 1 / gain
        return score(net, batch)

    monkeypatch.setattr(faster.time, "perf_counter", lambda: now)
    runner, batch = used(model, Speed(accelerate=True)), torch.rand(4, 3, 32, 32)
    assert runner.deciding
    for _ in range(7):
        torch.testing.assert_close(runner(timed, batch, alike_scores), score(model, batch))
    assert not runner.deciding
    assert runner.said.startswith("1 batch norms folded" if kept else "nothing: it is")
    assert next(clock) == 0
    before = now
    runner(timed, batch, alike_scores)
    assert now - before == pytest.approx(1 / gain if kept else 1)


def test_a_copy_that_scores_otherwise_is_not_used() -> None:
    class Own(nn.Module):
        """Its answer depends on how its input lies in memory."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out if x.is_contiguous() else out * 1.1

    model = Own().eval()
    runner, batch = used(model, Speed(accelerate=True)), torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(runner(score, batch, alike_scores), score(model, batch))
    assert "the scores differ by" in runner.said
    assert not runner.deciding


def test_what_cannot_be_copied_is_said() -> None:
    model = small_cnn()
    model.lock = torch.rand(3, requires_grad=True) * 2  # a tensor in a graph cannot be copied
    assert "cannot be copied" in used(model, Speed(accelerate=True)).said


def test_short_runs_are_not_worth_it() -> None:
    assert "only 10" in used(small_cnn(), Speed(accelerate=True), 10).said


def explained(method: str, **options: Any) -> seewhy.Explanation:
    model = small_cnn()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with unchanged(model):
        return seewhy.Explainer(model).explain(image, method, target=1, **options)


ASKED: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 8},
    "score_cam": {},
    "integrated_gradients": {"baseline": torch.zeros(1)},
    "smooth_grad": {"samples": 40},
}


@pytest.mark.parametrize("method", ASKED)
def test_accelerated_maps_are_the_same_and_say_what_was_used(method: str) -> None:
    layer = "left" if method == "score_cam" else None
    plain = explained(method, **ASKED[method], layer=layer)
    quick = explained(method, **ASKED[method], layer=layer, accelerate=True)
    np.testing.assert_allclose(quick.values, plain.values, atol=5e-3 * np.abs(plain.values).max())
    assert "faster" in quick.provenance
    assert "faster" not in plain.provenance


@pytest.mark.sweep
@pytest.mark.parametrize(("method", "options"), [("occlusion", {"stride": 32}), ("score_cam", {"channels": 40})])
def test_half_precision_is_fit_for_scores(method: str, options: dict[str, Any]) -> None:
    explainer, cat = samples.explainer(), samples.photo("cat")
    plain = explainer.explain(cat, method, **options)
    rough = explainer.explain(cat, method, **options, dtype="bfloat16")
    assert rough.provenance["faster"] == "bfloat16"
    assert np.corrcoef(plain.map.ravel(), rough.map.ravel())[0, 1] > 0.98
    assert not np.array_equal(plain.map, rough.map)


@pytest.mark.filterwarnings("ignore:Integrated gradients miss:seewhy.SeewhyWarning")
@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad"])
def test_half_precision_of_gradients_is_warned_of(method: str) -> None:
    with pytest.warns(seewhy.SeewhyWarning, match="gradients of networks with ReLU"):
        explained(method, **ASKED[method], dtype="bfloat16")


def test_options_are_of_methods_that_ask_again_only() -> None:
    with pytest.raises(seewhy.SeewhyError, match="has an option 'accelerate'"):
        explained("grad_cam", accelerate=True)
    with pytest.raises(seewhy.SeewhyError, match="has an option 'compile'"):
        explained("integrated_gradients", compile=True)
    with pytest.raises(seewhy.SeewhyError, match="bfloat16"):
        explained("occlusion", dtype="int8")


@pytest.mark.sweep
def test_compiled_forwards_give_the_same() -> None:
    plain = explained("occlusion", **ASKED["occlusion"])
    quick = explained("occlusion", **ASKED["occlusion"], compile=True)
    np.testing.assert_allclose(quick.values, plain.values, atol=1e-3 * np.abs(plain.values).max())
    assert quick.provenance["faster"] == "compiled"


def test_training_between_two_calls_is_seen() -> None:
    model = small_cnn()
    explainer, image = seewhy.Explainer(model), torch.rand(1, 3, 64, 64)
    how = {"target": 1, "window": 8, "stride": 8, "accelerate": True}
    first = explainer.explain(image, "occlusion", **how)
    with torch.no_grad():
        model.body.weight.mul_(-1)
    second = explainer.explain(image, "occlusion", **how)
    plain = explainer.explain(image, "occlusion", **{**how, "accelerate": False})
    np.testing.assert_allclose(second.values, plain.values, atol=1e-3 * np.abs(plain.values).max())
    assert not np.allclose(first.values, second.values)


@pytest.mark.filterwarnings("ignore:dtype=:seewhy.SeewhyWarning")
@pytest.mark.parametrize("how", [{"accelerate": True}, {"dtype": "bfloat16"}])
def test_what_is_looked_at_in_a_layer_is_never_that_of_a_copy(how: dict[str, Any]) -> None:
    plain = explained("smooth_grad", base="grad_cam", samples=40, layer="stem.0")
    asked = explained("smooth_grad", base="grad_cam", samples=40, layer="stem.0", **how)
    np.testing.assert_allclose(asked.values, plain.values, atol=1e-5 * plain.values.max())
    assert asked.provenance["faster"].startswith("nothing: what a layer gives")
