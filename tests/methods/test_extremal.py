"""Extremal perturbation: the mask's gradient and ascent as a plain loop has them, and masks that cover what is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import images
from scipy.ndimage import gaussian_filter
from three import SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy import Explainer, Explanation, SeewhyWarning
from seewhy.engine import evaluations
from seewhy.errors import InputError
from seewhy.methods import ExtremalPerturbation
from seewhy.methods.extremal import area_errors, blur_by, pyramid_of, smooth_masks
from seewhy.testing import check_method, small_cnn

MISSES = "ignore:Extremal perturbation. for some image:seewhy.SeewhyWarning"
pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def slow_mask(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The smooth maximum over the discs around each point of a lattice ``(h, w)``, bilinear at the image's size."""
    rows, columns = (torch.arange(n) for n in points.shape)
    found = []
    for down in range(-5, 6):
        for right in range(-5, 6):
            kernel = np.exp(-(max(np.hypot(down, right) - 1, 0) ** 2) / 4)
            moved = points[(rows + down).clamp(0, len(rows) - 1)][:, (columns + right).clamp(0, len(columns) - 1)]
            found.append(kernel * moved)
    values = torch.stack(found)
    weights = (20 * values).exp()
    largest = (values * weights).sum(0) / weights.sum(0)
    return F.interpolate(largest[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def slow_area_error(mask: Tensor, area: float) -> Tensor:
    """The mean square of what sorted values lack to 0 and 1, equal ones sharing theirs."""
    values = mask.flatten().sort().values
    count = len(values)
    wanted = [min(max(index + 1 - count * (1 - area), 0), 1) for index in range(count)]
    start = 0
    for index in range(1, count + 1):
        if index == count or values[index] - values[index - 1] > 1e-12:
            wanted[start:index] = [sum(wanted[start:index]) / (index - start)] * (index - start)
            start = index
    return (values - torch.tensor(wanted, dtype=torch.float64)).square().mean()


def slow_pyramid(image: Tensor) -> Tensor:
    """An image ``(C, H, W)`` under 8 blurs, whose greatest has 20 pixels for sides of 224."""
    most, levels = 20 / 224 * min(image.shape[1:]), [image]
    for level in range(1, 8):
        sigma = most * level / 7
        blurred = [gaussian_filter(c, sigma, mode="nearest", radius=int(np.ceil(3 * sigma))) for c in image.numpy()]
        levels.append(torch.tensor(np.stack(blurred)))
    return torch.stack(levels)


def slow_blur(pyramid: Tensor, mask: Tensor) -> Tensor:
    """Each pixel out of the two levels about its own, ``(C, H, W)``."""
    shares = [(1 - (7 * (1 - mask) - level).abs()).relu() for level in range(8)]
    return sum(share * level for share, level in zip(shares, pyramid, strict=True))


def slow(net: nn.Module, image: Tensor, target: int, area: float, steps: int, game: str, most: float) -> Tensor:
    """Gradient ascent with momentum of one mask, by automatic differentiation of it all."""
    grid = [round(side / max(21 / 224 * min(SIZE) / 3, 1)) for side in SIZE]
    sharp, pyramid = 1.0 if game == "preserve" else 0.0, slow_pyramid(image)
    points, speed = torch.full(grid, sharp, dtype=torch.float64), 0.0
    for step in range(steps):
        points = points.detach().requires_grad_()
        mask = slow_mask(points, SIZE)
        # A hair off 1, where the blur has a kink, the pyramid's slope is that within the masks.
        seen = slow_blur(pyramid, (mask if sharp else 1 - mask) - 1e-9)
        score = net(seen[None])[0, target]
        weight = most * (1 if 3 * step < steps else 2 if 3 * step < 2 * steps else 4)
        gain = (score if sharp else -score) - weight * slow_area_error(mask, area)
        speed = 0.9 * speed + torch.autograd.grad(gain, points)[0]
        points = (points + 0.01 * speed).clamp(0, 1)
    return slow_mask(points.detach(), SIZE)


@pytest.mark.sweep
@pytest.mark.filterwarnings(MISSES)
@pytest.mark.parametrize(("kind", "game", "weight"), [("cnn", "preserve", 300), ("cnn", "delete", 300),
                                                      ("vit", "preserve", 50), ("swin", "delete", 300)])  # fmt: skip
def test_equal_to_the_ascent_of_each_mask_alone(kind: str, game: str, weight: float) -> None:
    net, x = network(kind), images(size=SIZE)
    ours = explainer_of(net).explain(x, ExtremalPerturbation((0.2, 0.4), 7, game, weight=weight), target=list(TARGETS))
    pairs = zip(x, TARGETS, strict=True)
    expected = [[slow(net, image, target, area, 7, game, weight) for area in (0.2, 0.4)] for image, target in pairs]
    assert_equal(ours.values, torch.stack([torch.stack(masks).mean(0) for masks in expected]))
    np.testing.assert_array_equal(ours.maps, ours.values)
    masks = torch.stack([torch.stack(masks) for masks in expected])
    errors = (masks.mean((2, 3)) - torch.tensor([0.2, 0.4])).abs().amax(1)
    np.testing.assert_allclose(ours.measures["area_error"], errors, rtol=1e-4)


def test_masks_are_the_smooth_maximum_over_discs() -> None:
    points = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = smooth_masks(points, (14, 30))
    for row in range(2):
        for number in range(3):
            torch.testing.assert_close(masks[row, number], slow_mask(points[row, number], (14, 30)))
    for value in (0.0, 1.0):
        even = smooth_masks(torch.full_like(points, value), (14, 30))
        assert float(even.max() - even.min()) < 1e-12
        assert abs(float(even.mean()) - value) < 0.02
    one = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    one[0, 0, 10, 10] = 1
    disc = smooth_masks(one, (21, 21))[0, 0]
    assert (disc[10, 9:12] > 0.99).all()
    assert (disc[10, 10:].diff() <= 0).all()
    assert float(disc[10, 15:].max()) < 0.02


def test_the_area_is_that_of_sorted_values() -> None:
    masks = torch.rand(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks[0, 1, :2] = 0.25
    areas = torch.tensor([0.13, 0.5], dtype=torch.float64)
    found = area_errors(masks, areas)
    for row in range(2):
        for number in range(2):
            expected = slow_area_error(masks[row, number], float(areas[number]))
            torch.testing.assert_close(found[row, number], expected)
    even = area_errors(torch.full((1, 1, 4, 5), 0.7, dtype=torch.float64), areas[:1])
    assert float(even) == pytest.approx((0.7 - 0.13) ** 2)
    right = torch.zeros(1, 1, 10, 10, dtype=torch.float64)
    right[0, 0, :3] = 1
    assert float(area_errors(right, torch.tensor([0.3], dtype=torch.float64))) == pytest.approx(0, abs=1e-20)


def test_blur_goes_from_the_image_to_the_greatest() -> None:
    x = images(2, (24, 30))
    pyramid = pyramid_of(x)
    for row in range(2):
        torch.testing.assert_close(pyramid[row], slow_pyramid(x[row]), atol=1e-9, rtol=1e-9)
    masks = torch.rand(2, 24, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blur_by(pyramid, masks)[1], slow_blur(pyramid[1], masks[1]))
    torch.testing.assert_close(blur_by(pyramid, torch.ones_like(masks)), x)
    torch.testing.assert_close(blur_by(pyramid, torch.zeros_like(masks)), pyramid[:, -1])


def test_the_slope_at_the_image_is_that_towards_the_first_blur() -> None:
    pyramid, mask = pyramid_of(images(1, (24, 30))), torch.ones(1, 24, 30, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(blur_by(pyramid, mask).sum(), mask)
    torch.testing.assert_close(slope, 7 * (pyramid[:, 0] - pyramid[:, 1]).sum(1))


class ReadsSquare(nn.Module):
    """The contrast of a fine chequerboard, which blur takes away, within a square alone."""

    def __init__(self, square: tuple[slice, slice], size: tuple[int, int] = (32, 48)) -> None:
        super().__init__()
        rows, columns = (torch.arange(side) // 2 for side in size)
        self.square, self.sign = square, 2.0 * ((rows[:, None] + columns) % 2) - 1

    def forward(self, x: Tensor) -> Tensor:
        contrast = 10 * (x * self.sign.to(x))[:, :, *self.square].mean((1, 2, 3))
        return torch.stack([0 * contrast, contrast], 1)


def found_in(square: tuple[slice, slice], game: str = "preserve", **options: Any) -> tuple[Explanation, np.ndarray]:
    """What is found of a network that reads that square, and where that is."""
    net, there = ReadsSquare(square), np.zeros((32, 48), dtype=bool)
    there[square] = True
    x = (0.5 + 0.5 * net.sign).expand(1, 3, -1, -1)
    method = ExtremalPerturbation(float(there.mean()), 150, game)
    return Explainer(net).explain(x, method, target=1, **options), there


@pytest.mark.sweep
@pytest.mark.parametrize("game", ["preserve", "delete"])
@pytest.mark.parametrize("square", [(slice(8, 24), slice(20, 36)), (slice(0, 16), slice(0, 16))])
def test_the_mask_covers_the_square_that_is_read(square: tuple[slice, slice], game: str) -> None:
    found, there = found_in(square, game)
    mask = found.map > 0.5
    assert (mask & there).sum() / (mask | there).sum() > 0.8
    assert abs(found.map.mean() - there.mean()) < 0.01
    assert found.measures["area_error"][0] == pytest.approx(abs(found.map.mean() - there.mean()), abs=1e-5)
    share = found.measures[f"score_{there.mean():g}"][0] / found.scores[0]
    assert share > 0.7 if game == "preserve" else share < 0.15


@pytest.mark.filterwarnings(MISSES)
def test_no_chunk_changes_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network("cnn"), images(3, SIZE)
    asked: dict[str, Any] = {"areas": (0.1, 0.3), "steps": 5, "target": [9, 4, 2]}
    usual, again = (Explainer(net).explain(x, "extremal_perturbation", **asked) for _ in range(2))
    np.testing.assert_array_equal(usual.values, again.values)
    monkeypatch.setattr(evaluations, "_FIRST", 1)
    other = Explainer(net).explain(x, "extremal_perturbation", batch_size=1, **asked)
    np.testing.assert_allclose(other.values, usual.values, atol=1e-6)


@pytest.mark.filterwarnings(MISSES)
def test_each_target_of_an_image_has_masks_of_its_own() -> None:
    net, x = network("cnn"), images(size=SIZE)
    asked: dict[str, Any] = {"areas": 0.2, "steps": 6}
    both = Explainer(net).explain(x, "extremal_perturbation", target=[[1, 2], [4, 0]], **asked)
    for row, (image, cls) in enumerate([(0, 1), (0, 2), (1, 4), (1, 0)]):
        alone = Explainer(net).explain(x[image], "extremal_perturbation", target=cls, **asked)
        np.testing.assert_allclose(both.values[row], alone.values[0], atol=1e-6)
        assert both.measures["score_0.2"][row] == pytest.approx(alone.measures["score_0.2"][0])
    assert np.abs(both.values[0] - both.values[1]).max() > 1e-3


@pytest.mark.filterwarnings(MISSES)
def test_all_steps_share_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plain = [], evaluations.bar

    def kept(*args: Any, **kwargs: Any) -> Any:
        made.append((args[1], plain(*args, **kwargs)))
        return made[-1][1]

    monkeypatch.setattr(evaluations, "bar", kept)
    x = torch.rand(2, 3, 16, 24)
    Explainer(small_cnn()).explain(x, "extremal_perturbation", target=[[0, 1], [2, 3]], areas=(0.2, 0.5), steps=5)
    assert [total for total, _ in made] == [4 * 2 * (5 + 1)]


@pytest.mark.filterwarnings(MISSES)
@pytest.mark.parametrize(("convolution", "sides"), [(nn.Conv1d, (40,)), (nn.Conv3d, (5, 8, 10))])
def test_signals_and_volumes(convolution: Any, sides: tuple[int, ...]) -> None:
    net = nn.Sequential(convolution(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)).eval()
    x = torch.rand(2, 2, *sides)
    net(x)
    found = Explainer(net).explain(x, "extremal_perturbation", areas=0.3, steps=12, target=list(TARGETS))
    assert found.maps.shape == (2, *sides)
    assert ((found.maps > 0) & (found.maps < 1)).any()


def test_a_missed_area_is_told() -> None:
    with pytest.warns(SeewhyWarning, match=r"misses its area by more than 2%.*steps="):
        found = Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), "extremal_perturbation", target=1, steps=1)
    assert set(found.measures) == {"area_error", "score_0.025", "score_0.05", "score_0.1", "score_0.2"}
    assert found.measures["area_error"][0] > 0.5


@pytest.mark.filterwarnings(MISSES)
def test_half_precision_resembles_float32() -> None:
    x, asked = images(1, SIZE, torch.float32), ExtremalPerturbation(0.2, 20)
    full, half = (explainer_of(network("cnn", one)).explain(x, asked, target=9).map
                  for one in (torch.float32, torch.bfloat16))  # fmt: skip
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(("options", "says"), [
    ({"areas": ()}, "areas"),
    ({"areas": 0}, "areas"),
    ({"areas": (0.1, 1)}, "areas"),
    ({"areas": (0.1, "0.2")}, "areas"),
    ({"areas": True}, "areas"),
    ({"steps": 0}, "steps"),
    ({"game": "presrve"}, "preserve"),
    ({"game": None}, "game"),
    ({"smoothness": 0}, "smoothness"),
    ({"smoothness": float("nan")}, "smoothness"),
    ({"weight": 0}, "weight"),
    ({"weight": float("inf")}, "weight"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ExtremalPerturbation(**options)


@pytest.mark.sweep
@pytest.mark.parametrize("game", ["preserve", "delete"])
def test_it_keeps_what_is_promised_of_every_method(game: str) -> None:
    check_method(ExtremalPerturbation((0.1, 0.3), 8, game))
