"""Sobol: the total-order indices of functions whose indices are known, and of networks as a slow loop has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from seewhy import Explainer, SeewhyWarning
from seewhy.engine import evaluations
from seewhy.errors import InputError
from seewhy.methods import Sobol
from seewhy.testing import check_method, small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def slow(net: nn.Module, x: Tensor, targets: Any, start: Tensor, grid: tuple[int, int], designs: int, seed: int) -> Any:
    """Mean of (f(A) - f(C_i))² over twice the variance of f(A), C_i being A with its i-th number from B (Jansen)."""
    count = grid[0] * grid[1]
    drawn = SobolEngine(2 * count, scramble=True, seed=seed).draw(designs).double()
    a, b = drawn[:, :count], drawn[:, count:]
    rows = [
        math.ceil((k + 0.5) * grid[0] / SIZE[0]) - 1 for k in range(SIZE[0])
    ]  # the cell that a pixel's middle is in
    columns = [math.ceil((k + 0.5) * grid[1] / SIZE[1]) - 1 for k in range(SIZE[1])]

    def score(image: Tensor, target: int, cells: Tensor) -> Tensor:
        mask = cells.view(-1, 1, *grid)[:, :, rows][..., columns]
        return net(image * mask + start * (1 - mask))[:, target]

    found = torch.zeros(len(x), *grid).double()
    with torch.no_grad():
        for row, (image, target) in enumerate(zip(x, targets, strict=True)):
            first = score(image, target, a)
            for cell in range(count):
                c = a.clone()
                c[:, cell] = b[:, cell]
                change = first - score(image, target, c)
                found[row].view(-1)[cell] = (change**2).sum() / (2 * designs * first.var())
    return found


@pytest.mark.parametrize(("grid", "designs", "seed"), [((4, 4), 8, 0), ((3, 5), 6, 11)])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_a_slow_loop_over_the_same_designs(kind: str, grid: Any, designs: int, seed: int) -> None:
    net, x, start = network(kind), images(size=SIZE), images(3, SIZE)[2]
    method = Sobol(4 if grid == (4, 4) else grid, designs, start, seed)
    ours = explainer_of(net).explain(x, method, target=list(TARGETS))
    assert_equal(ours.values, slow(net, x, TARGETS, start, grid, designs, seed), 1e-5)
    assert ours.maps.shape == (2, *SIZE)
    assert ours.values.min() >= 0
    assert not ours.signed


class Ishigami(nn.Module):
    """sin u + 7 sin² v + w⁴ sin u / 10, u, v and w being the three pixels of a row, stretched to -π..π."""

    def forward(self, x: Tensor) -> Tensor:
        u, v, w = (math.pi * (2 * x[:, 0, 0] - 1)).unbind(1)
        return torch.stack([0 * u, u.sin() + 7 * v.sin() ** 2 + 0.1 * w**4 * u.sin()], 1)


def test_the_indices_of_the_ishigami_function() -> None:
    """0.5576, 0.4424 and 0.2437 (Ishigami, Homma 1990; variances V1 + V13, V2, V13 over V)."""
    first, second = 0.5 * (1 + 0.1 * math.pi**4 / 5) ** 2, 7**2 / 8
    both = 0.1**2 * math.pi**8 * (1 / 18 - 1 / 50)
    expected = np.array([first + both, second, both]) / (first + second + both)
    np.testing.assert_allclose(expected, [0.5576, 0.4424, 0.2437], atol=1e-4)
    method = Sobol((1, 3), 4096, ZERO)
    ours = Explainer(Ishigami()).explain(torch.ones(1, 1, 1, 3).double(), method, target=1)
    np.testing.assert_allclose(ours.values[0, 0], expected, rtol=0.03)


def test_of_an_additive_score_they_are_the_shares_of_the_variance_and_add_up_to_1() -> None:
    net, x, start = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).double(), *torch.rand(2, 2, 3, 6, 8).double()
    parts = (net[1].weight[2].view(3, 6, 8) * (x - start)).sum(1).detach()
    cells = parts.view(2, 2, 3, 2, 4).sum((2, 4))
    ours = Explainer(net).explain(x, Sobol((2, 2), 4096, start[0]), target=2).values
    expected = cells**2 / (cells**2).sum((1, 2), keepdim=True)
    np.testing.assert_allclose(ours[:1], expected[:1], atol=0.01)
    assert ours[0].sum() == pytest.approx(1, abs=0.01)


class Product(nn.Module):
    """The left half times the right."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = (half.mean((1, 2, 3)) for half in x.chunk(2, 3))
        return torch.stack([left, left * right], 1)


def test_cells_that_act_together_share_variance() -> None:
    """Of u v in 0..1 each has 1/9 - 1/12² ... : V = 1/9 - 1/16, and what is left without u is E[v²]/12 = 1/36."""
    ours = Explainer(Product()).explain(torch.ones(1, 3, 4, 8), Sobol((1, 2), 4096, ZERO), target=1).values
    np.testing.assert_allclose(ours, (1 / 36) / (1 / 9 - 1 / 16), rtol=0.02)
    alone = Explainer(Product()).explain(torch.ones(1, 3, 4, 8), Sobol((1, 2), 64, ZERO), target=0).values
    np.testing.assert_allclose(alone, [[[1, 0]]], atol=0.03)
    assert alone[0, 0, 1] == 0


def test_where_nothing_varies_the_map_is_zero_and_that_is_told() -> None:
    x = torch.rand(2, 3, 16, 24)
    with pytest.warns(SeewhyWarning) as said:
        found = Explainer(small_cnn()).explain(x, Sobol(2, 4, x[1]), target=1)
    assert any("all masks give the same score" in str(one.message) for one in said)
    assert found.values[0].any()
    assert not found.values[1].any()


@pytest.mark.parametrize("first", [1, 7])
def test_chunks_change_nothing(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, method = network("swin", torch.float32), images(3, SIZE, torch.float32), Sobol(3, 8, "mean")
    usual = explainer_of(net).explain(x, method, target=[9, 4, 2])
    monkeypatch.setattr(evaluations, "_FIRST", first)
    ours = explainer_of(net).explain(x, method, target=[9, 4, 2], batch_size=first)
    assert_equal(ours.values, torch.tensor(usual.values))


def test_seeds_decide_the_designs_and_the_random_state_stays() -> None:
    explainer, x, before = Explainer(small_cnn()), torch.rand(1, 3, 16, 24), torch.get_rng_state()
    one, same, other = (explainer.explain(x, Sobol(3, 8, "mean", seed), target=1).values for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("convolution", "sides"), [(nn.Conv1d, (40,)), (nn.Conv3d, (2, 8, 10))])
def test_signals_and_volumes(convolution: Any, sides: tuple[int, ...]) -> None:
    net = nn.Sequential(convolution(2, 5, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)).eval()
    x = torch.rand(2, 2, *sides)
    net(x)
    found = Explainer(net).explain(x, Sobol(3, 4, ZERO), target=list(TARGETS))
    assert found.values.shape == (2, *(min(3, side) for side in sides))
    assert found.maps.shape == (2, *sides)


@pytest.mark.parametrize(("options", "says"), [
    ({"designs": 0}, "designs"),
    ({"designs": 1}, "designs= of at least 2"),
    ({"designs": 2.5}, "designs"),
    ({"baseline": "blak"}, "black"),
    ({"seed": "0"}, "seed"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sobol(**options)


@pytest.mark.parametrize(
    ("grid", "says"), [(0, "grid is a whole"), ((2, 2, 2), "grid is a whole"), (110, "smaller grid")]
)
def test_grids_that_do_not_fit_are_told(grid: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 128, 128), Sobol(grid, baseline="mean"), target=1)


def test_it_keeps_what_is_promised_of_every_method() -> None:
    check_method(Sobol(3, 8))
