"""Ways from a baseline to the image: equal to slow references, and to Captum with the same draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn

from seewhy import Explainer, SeewhyWarning
from seewhy.errors import InputError
from seewhy.methods import IDGI, BlurIG, GradientShap, GuidedIG, IntegratedGradients
from seewhy.testing import small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pictures are shown:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:.*completeness_error:seewhy.SeewhyWarning"),
]


def gradient(net: nn.Module, x: Tensor, target: int) -> tuple[Tensor, float]:
    x = x.detach().clone().requires_grad_()
    score = net(x)[0, target]
    return torch.autograd.grad(score, x)[0], float(score)


def each(net: nn.Module, x: Tensor, explain: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.cat([explain(x[i : i + 1], target) for i, target in enumerate(TARGETS)])


@pytest.mark.parametrize("kind", KINDS)
def test_idgi_equals_its_algorithm(kind: str) -> None:
    net, x, steps = network(kind), images(size=SIZE), 6

    def explain(image: Tensor, target: int) -> Tensor:
        total = torch.zeros_like(image)
        for step in range(steps):
            g, score = gradient(net, image * step / steps, target)
            following = float(net(image * (step + 1) / steps)[0, target])
            total += g**2 / (g**2).sum() * (following - score)
        return total

    found = explainer_of(net).explain(x, IDGI(steps, ZERO), target=list(TARGETS))
    assert_equal(found.values, each(net, x, explain))
    assert (found.measures["completeness_error"] < 1e-5).all()  # by the way it is made


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """By the whole matrix of weights, the nearest value going on beyond the edges, up to three deviations."""
    if sigma == 0:
        return image
    for side in (2, 3):
        count, reach = image.shape[side], int(np.ceil(3 * sigma))
        weights = torch.zeros(count, count, dtype=image.dtype)
        taps = [np.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)]
        for i in range(count):
            for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
                weights[i, min(max(i + offset, 0), count - 1)] += tap / sum(taps)
        image = torch.tensordot(image, weights, ([side], [1])).movedim(-1, side)
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_blur_ig_equals_its_integral(kind: str) -> None:
    net, x, steps, blur = network(kind), images(size=SIZE), 5, 4.0

    def explain(image: Tensor, target: int) -> Tensor:
        def at(time: float) -> Tensor:
            return gaussian(image, blur * (1 - time) ** 2)

        total = torch.zeros_like(image)
        for step in range(steps):
            g, _ = gradient(net, at((step + 0.5) / steps), target)
            total += g * (at((step + 1) / steps) - at(step / steps))
        return total

    found = explainer_of(net).explain(x, BlurIG(steps, blur), target=list(TARGETS))
    assert_equal(found.values, each(net, x, explain), 2e-4)


def guided(
    net: nn.Module, image: Tensor, target: int, start: Tensor, steps: int, fraction: float, away: float
) -> Tensor:
    """Algorithm 1 of Kapishnikov 2021, value by value."""
    end, x = image.flatten(), start.flatten().clone()
    first, total = x.clone(), torch.zeros_like(image).flatten()
    whole = float((end - first).abs().sum())
    for step in range(steps):
        g = gradient(net, x.view_as(image), target)[0].flatten()
        before, share = x.clone(), (step + 1) / steps
        least = first + max(share - away, 0) * (end - first)
        most = first + min(share + away, 1) * (end - first)
        for i in range(len(x)):
            if abs(least[i] - first[i]) > abs(x[i] - first[i]):
                x[i] = least[i]
        left = whole * (1 - share)
        free = [i for i in range(len(x)) if abs(most[i] - first[i]) > abs(x[i] - first[i])]
        while float((end - x).abs().sum()) > left * (1 + 1e-9) + 1e-9 and free:
            slopes = sorted(abs(float(g[i])) for i in free)
            limit = slopes[min(int(np.ceil(fraction * len(x))), len(slopes)) - 1]
            chosen = [i for i in free if abs(float(g[i])) <= limit]
            gain = sum(abs(float(most[i] - x[i])) for i in chosen)
            part = min(1.0, (float((end - x).abs().sum()) - left) / gain)
            for i in chosen:
                x[i] = most[i] if part == 1 else x[i] + part * (most[i] - x[i])
            free = [i for i in free if i not in set(chosen)]
            if part < 1:
                break
        total += g * (x - before)
    return total.view_as(image)


@pytest.mark.parametrize(("fraction", "away"), [(0.25, 0.02), (0.25, 0.1), (0.1, 0.2), (0.1, 1.0), (1.0, 0.0)])
def test_guided_ig_equals_its_algorithm(fraction: float, away: float) -> None:
    net, x, steps = small_cnn().double(), images(size=(8, 10)), 5
    start = images(3, (8, 10))[2]
    found = explainer_of(net).explain(x, GuidedIG(steps, start, fraction, away), target=[1, 2])
    wanted = torch.cat([guided(net, x[i : i + 1], i + 1, start, steps, fraction, away) for i in range(2)])
    assert_equal(found.values, wanted, 1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_guided_ig_equals_its_algorithm_on_each_kind_of_network(kind: str) -> None:
    net, x, start = network(kind), images(size=SIZE), images(3, SIZE)[2]
    found = explainer_of(net).explain(x, GuidedIG(3, start, 0.25, 0.1), target=list(TARGETS))
    assert_equal(found.values, each(net, x, lambda image, target: guided(net, image, target, start, 3, 0.25, 0.1)))


def test_guided_ig_on_the_line_is_integrated_gradients_by_left_sums() -> None:
    net, x, steps = network("cnn"), images(size=SIZE), 7
    found = explainer_of(net).explain(x, GuidedIG(steps, ZERO, away=0), target=list(TARGETS))

    def explain(image: Tensor, target: int) -> Tensor:
        return sum(gradient(net, image * step / steps, target)[0] for step in range(steps)) * image / steps

    assert_equal(found.values, each(net, x, explain), 1e-3)


def test_guided_ig_moves_values_of_equal_gradients_together() -> None:
    """More than the fraction, where as many are the least."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 1, bias=False))
    nn.init.constant_(net[1].weight, 0.5)
    ways: list[Tensor] = []

    class Followed(GuidedIG):
        def _moved(self, *given: Any) -> Tensor:
            ways.append(super()._moved(*given))
            return ways[-1]

    Explainer(net).explain(torch.ones(1, 3, 4, 4), Followed(3, ZERO.float(), away=1.0), target=0)
    assert len(ways) == 3
    for now in ways:
        assert float(now.max() - now.min()) < 1e-6


@pytest.mark.parametrize("options", [{}, {"fraction": 0.1, "away": 0.2}])
def test_guided_ig_is_the_same_to_the_bit_in_any_batch(options: dict[str, float]) -> None:
    """In float32, in which the size of a batch changes the last bits of gradients, and so which are the least."""
    x, targets = images(4, SIZE, torch.float32), [9, 4, 2, 7]
    explainer, method = explainer_of(network("swin", torch.float32)), GuidedIG(30, "mean", **options)
    together = explainer.explain(x, method, target=targets).values
    for size in (1, 3):
        np.testing.assert_array_equal(explainer.explain(x, method, target=targets, batch_size=size).values, together)


def test_guided_ig_goes_a_way_of_its_own_for_each_target() -> None:
    net, x = small_cnn(), images(2, (16, 24)).float()
    explainer = Explainer(net)
    pairs = explainer.explain(x, GuidedIG(4, ZERO.float()), target=[[1, 2], [3, 0]])
    for row, target in enumerate([1, 2, 3, 0]):
        one = explainer.explain(x[row // 2], GuidedIG(4, ZERO.float()), target=target)
        np.testing.assert_allclose(pairs.values[row], one.values[0], atol=1e-4 * np.abs(one.values).max())


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_shap_equals_captums_with_the_same_draws(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(kind), images(size=SIZE)
    starts = images(4, SIZE)[2:]
    method = GradientShap(6, [starts[0], starts[1]], noise=0.1, seed=3)
    found = explainer_of(net).explain(x, method, target=list(TARGETS))
    draws = [method._draw(number, x) for number in range(6)]
    wanted = []
    for i, target in enumerate(TARGETS):
        image = x[i : i + 1]
        spread = 0.1 * (image.max() - image.min())
        monkeypatch.setattr(np.random, "uniform", lambda *_: np.array([share for _, share, _ in draws]))
        monkeypatch.setattr(np.random, "choice", lambda *_: np.array([which for which, _, _ in draws]))
        noise = torch.stack([noise for _, _, noise in draws]).double()
        monkeypatch.setattr(torch, "normal", lambda *_, spread=spread, noise=noise: spread * noise)
        theirs = captum.attr.GradientShap(net)
        wanted.append(theirs.attribute(image, starts, n_samples=6, stdevs=float(spread), target=target))
    assert len({which for which, _, _ in draws}) == 2
    assert_equal(found.values, torch.cat(wanted))


def test_gradient_shap_draws_evenly_and_by_the_seed() -> None:
    x, method = images(1, SIZE), GradientShap(1, [ZERO, ZERO + 1])
    which, shares, noise = zip(*(method._draw(number, x) for number in range(400)), strict=True)
    assert np.mean(which) == pytest.approx(0.5, abs=0.1)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.03)
    every = torch.stack(noise)
    assert float(every.mean()) == pytest.approx(0, abs=0.02)
    assert float(every.std()) == pytest.approx(1, abs=0.02)
    assert float(every.std(0).min()) > 0.5  # from sample to sample
    assert GradientShap(1, seed=1)._draw(0, x)[1] != shares[0]


def test_gradient_shap_adds_up_in_expectation() -> None:
    net, x = small_cnn(), images(1, (16, 24)).float()
    found = Explainer(net).explain(x, GradientShap(600, ZERO.float()), target=1)
    change = float((net(x) - net(0 * x))[0, 1])
    assert found.values.sum() == pytest.approx(change, abs=0.05 * float(np.abs(found.values).sum()))


METHODS = [
    IntegratedGradients(3, ZERO.float()), IDGI(3, ZERO.float()), BlurIG(3, 2.0), GuidedIG(3, ZERO.float()),
    GradientShap(3, ZERO.float()),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_on_a_linear_network_all_ways_give_weight_times_way(method: Any) -> None:
    """But IDGI, whose shares go by the squares of the weights."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 12, 2)), images(1, (8, 12)).float()
    found = Explainer(model).explain(x, method, target=1)
    weight = model[1].weight[1].detach().view(1, 3, 8, 12)
    start = gaussian(x.double(), 2.0).float() if isinstance(method, BlurIG) else 0 * x
    expected = weight * (x - start)
    if isinstance(method, IDGI):
        expected = weight**2 / (weight**2).sum() * expected.sum()
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    np.testing.assert_allclose(found.maps, found.values.sum(1), rtol=1e-5, atol=1e-6)
    assert found.signed


@pytest.mark.parametrize(
    "method", [BlurIG(40), GuidedIG(60, ZERO.float()), IDGI(10, ZERO.float())], ids=lambda m: m.label
)
def test_completeness_is_measured(method: Any) -> None:
    found = Explainer(small_cnn()).explain(images(1, (16, 24)).float(), method, target=1)
    assert 0 <= found.measures["completeness_error"][0] < 0.1


@pytest.mark.filterwarnings("default:.*completeness_error:seewhy.SeewhyWarning")
def test_too_few_steps_are_told() -> None:
    with pytest.warns(SeewhyWarning, match=r"Guided integrated gradients miss.*steps= than 1"):
        Explainer(small_cnn()).explain(images(1, (16, 24)).float(), GuidedIG(1, ZERO.float()), target=1)


@pytest.mark.parametrize("name", ["integrated_gradients", "idgi", "blur_ig", "guided_ig", "gradient_shap"])
def test_libra_reaches_each_step(name: str) -> None:
    x, few = images(1, SIZE), {"samples" if name == "gradient_shap" else "steps": 2}
    explainer = explainer_of(network("vit"))
    plain, balanced = (explainer.explain(x, name, target=1, libra=on, **few).values for on in (False, True))
    assert np.abs(plain - balanced).max() > 0.01 * np.abs(plain).max()


@pytest.mark.parametrize(("name", "options", "says"), [
    ("idgi", {"steps": 0}, "steps"),
    ("blur_ig", {"blur": 0}, "blur"),
    ("blur_ig", {"blur": "1"}, "blur"),
    ("guided_ig", {"fraction": 0}, "fraction"),
    ("guided_ig", {"fraction": 1.5}, "fraction"),
    ("guided_ig", {"away": -0.1}, "away"),
    ("gradient_shap", {"noise": -1}, "noise"),
    ("gradient_shap", {"baseline": []}, "empty"),
    ("gradient_shap", {"baseline": ["black", "blak"]}, "Did you mean 'black'"),
])  # fmt: skip
def test_mistakes_are_told(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Explainer(small_cnn()).explain(images(1, (16, 24)).float(), name, target=1, **options)
