"""RISE: what a slow loop over the same masks expects, in as little memory for many masks as for few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.engine import evaluations
from seewhy.errors import InputError, InputTypeError
from seewhy.methods import Rise
from seewhy.methods import rise as module
from seewhy.testing import check_method, small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def mask(number: int, cells: tuple[int, int], size: tuple[int, int], probability: float = 0.5, seed: int = 0) -> Tensor:
    """A grid of bits, enlarged to a cell more than the image, from which a part is cut at random (section 3.2)."""
    draws = torch.rand(2 + cells[0] * cells[1], generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
    cell = [-(-side // count) for side, count in zip(size, cells, strict=True)]
    bits = (draws[2:].view(1, 1, *cells) < probability).double()
    large = [(count + 1) * one for count, one in zip(cells, cell, strict=True)]
    enlarged = F.interpolate(bits, large, mode="bilinear", align_corners=False)[0, 0]
    top, left = (int(draw * (one + 1)) for draw, one in zip(draws, cell, strict=False))
    return enlarged[top : top + size[0], left : left + size[1]]


def slow(net: Any, x: Tensor, targets: Any, start: Tensor, masks: list[Tensor], probability: float = 0) -> Tensor:
    """The sum of S(x ⊙ M) M over that of M; with a probability p over N p, as equation 6 has it."""
    maps = []
    with torch.no_grad():
        for image, target in zip(x, targets, strict=True):
            seen = [net((image * m + start * (1 - m))[None])[0, target] * m for m in masks]
            maps.append(torch.stack(seen).sum(0) / (len(masks) * probability or torch.stack(masks).sum(0)))
    return torch.stack(maps)


@pytest.mark.sweep
@pytest.mark.parametrize(("cells", "probability", "seed"), [((7, 7), 0.5, 0), ((3, 5), 0.3, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_a_slow_loop_over_the_same_masks(kind: str, cells: Any, probability: float, seed: int) -> None:
    net, x, start = network(kind), images(size=SIZE), images(3, SIZE)[2]
    masks = [mask(number, cells, SIZE, probability, seed) for number in range(66)]
    options: Any = (66, 7 if cells == (7, 7) else cells, probability, start, seed)
    plain = explainer_of(net).explain(x, Rise(*options, normalised=False), target=list(TARGETS))
    assert_equal(plain.values, slow(net, x, TARGETS, start, masks, probability), 1e-5)
    ours = explainer_of(net).explain(x, Rise(*options), target=list(TARGETS))
    assert_equal(ours.values, slow(net, x, TARGETS, start, masks), 1e-5)
    np.testing.assert_array_equal(ours.maps, ours.values - ours.values.min((1, 2), keepdims=True))
    assert not ours.signed


def test_masks_are_from_0_to_1_and_leave_each_pixel_as_visible_as_was_asked() -> None:
    masks = Rise(probability=0.3)._masks(torch.arange(4000), (7, 7), (20, 31))
    assert masks.shape == (4000, 20, 31)
    assert (masks.amin(), masks.amax()) == (0, 1)
    assert (masks.mean(0) - 0.3).abs().max() < 0.03
    assert torch.equal(masks[5:9], Rise(9, probability=0.3)._masks(torch.arange(5, 9), (7, 7), (20, 31)))


class OnePixel(nn.Module):
    """Reads one pixel of one colour."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0 * x[:, 0, 0, 0], x[:, 1, 20, 9]], 1)


def test_of_a_network_that_reads_one_pixel_that_one_is_the_peak() -> None:
    """There it is E[M²] / E[M] times its value; a cell or more away, where masks are independent, E[M] times it."""
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64)
    value = float(x[0, 1, 20, 9])
    ours = Explainer(OnePixel()).explain(x, Rise(4000, baseline=ZERO), target=1).values[0]
    peak = np.unravel_index(ours.argmax(), ours.shape)
    assert np.abs(np.subtract(peak, (20, 9))).max() <= 2
    away = np.ones(SIZE, bool)
    away[20 - 14 : 20 + 14, :28] = False  # a cell is 5 x 7 pixels, and enlarged it reaches into two
    np.testing.assert_allclose(ours[away], 0.5 * value, rtol=0.12)
    there = torch.stack([mask(number, (7, 7), SIZE)[20, 9] for number in range(4000)])
    assert ours[20, 9] == pytest.approx(float((there**2).sum() / there.sum()) * value, rel=1e-5)


def test_a_score_that_nothing_changes_is_expected_everywhere() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 48, 2))
    nn.init.zeros_(net[1].weight)
    nn.init.constant_(net[1].bias, 3)
    explainer, x = Explainer(net), torch.rand(1, 3, *SIZE)
    with pytest.warns(SeewhyWarning, match="0 everywhere"):
        same = explainer.explain(x, Rise(40, baseline=ZERO), target=1)
    assert (same.values == 3).all()
    noisy = explainer.explain(x, Rise(4000, baseline=ZERO, normalised=False), target=1).values
    np.testing.assert_allclose(noisy, 3, rtol=0.06)
    assert np.ptp(noisy) > 0.05


@pytest.mark.parametrize("first", [1, 7, 50])
def test_no_chunk_size_changes_a_bit_of_the_map(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, method = images(3, SIZE), Rise(150, baseline=ZERO)
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(72, 12)).double()
    usual = Explainer(net).explain(x, method, target=3)
    monkeypatch.setattr(evaluations, "_FIRST", first)
    ours = Explainer(net).explain(x, method, target=3, batch_size=first)
    np.testing.assert_allclose(ours.values, usual.values, rtol=1e-6)


def test_memory_does_not_grow_with_the_number_of_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plain = [], Rise._masks
    monkeypatch.setattr(
        Rise, "_masks", lambda self, numbers, *rest: made.append(len(numbers)) or plain(self, numbers, *rest)
    )
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(72, 12))
    Explainer(net).explain(torch.rand(1, 3, *SIZE), Rise(3000, baseline=ZERO), target=3, batch_size=16)
    assert sum(made) == 2 * 3000
    assert max(made) == module._TOGETHER


def test_seeds_and_numbers_decide_the_masks() -> None:
    explainer, x = Explainer(small_cnn()), torch.rand(1, 3, 16, 24)
    asked: dict[str, Any] = {"method": "rise", "masks": 20, "baseline": "mean", "target": 1}
    one, same, other, more = (explainer.explain(x, **(asked | options)).map
                              for options in ({}, {"seed": 0}, {"seed": 1}, {"masks": 40}))  # fmt: skip
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01 * one.max()
    assert np.abs(one - more).max() > 0.01 * one.max()


@pytest.mark.parametrize(("convolution", "sides"), [(nn.Conv1d, (40,)), (nn.Conv3d, (5, 8, 10))])
def test_signals_and_volumes(convolution: Any, sides: tuple[int, ...]) -> None:
    """More cells than pixels along a side are as many as these."""
    net = nn.Sequential(convolution(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)).eval()
    x = torch.rand(2, 2, *sides)
    net(x)
    found = Explainer(net).explain(x, Rise(30, baseline=ZERO), target=list(TARGETS))
    assert found.maps.shape == (2, *sides)
    masks = Rise()._masks(torch.arange(30), [min(7, side) for side in sides], sides)
    with torch.no_grad():
        scores = net(torch.cat([m * x[1:] for m in masks]))[:, TARGETS[1]].double()
    expected = torch.einsum("b,b...->...", scores, masks.double()) / masks.double().sum(0)
    assert_equal(found.values[1:], expected[None], 1e-5)


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"masks": 0}, InputError, "masks"),
    ({"masks": 2.5}, InputError, "masks"),
    ({"probability": 0}, InputError, "probability"),
    ({"probability": 1}, InputError, "probability"),
    ({"probability": "0.5"}, InputError, "probability"),
    ({"baseline": "blak"}, InputError, "black"),
    ({"baseline": 3}, InputTypeError, "baseline"),
    ({"seed": 0.5}, InputError, "seed"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Rise(**options)


@pytest.mark.parametrize("cells", [0, (7, 7, 7), "7"])
def test_cells_that_do_not_fit_the_image_are_told(cells: Any) -> None:
    with pytest.raises(InputError, match="cells is a whole number"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), Rise(2, cells, baseline="mean"), target=1)


def test_half_precision_resembles_float32() -> None:
    x, asked = images(1, SIZE, torch.float32), Rise(100, baseline="mean")
    full, half = (explainer_of(network("cnn", one)).explain(x, asked, target=9).map
                  for one in (torch.float32, torch.bfloat16))  # fmt: skip
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.98


def test_probabilities_are_taken_where_asked() -> None:
    net, x = network("cnn"), images(1, SIZE)
    ours = explainer_of(net).explain(x, Rise(40, baseline=ZERO), target=seewhy.Probability(3))
    masks = [mask(number, (7, 7), SIZE) for number in range(40)]
    assert_equal(ours.values, slow(lambda x: net(x).softmax(1), x, [3], ZERO, masks), 1e-5)


def test_it_keeps_what_is_promised_of_every_method() -> None:
    check_method(Rise(12))
