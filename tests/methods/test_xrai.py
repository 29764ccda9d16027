"""XRAI: algorithm 1 as a slow loop over sets of pixels has it, and regions of which the means are known."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import references
import torch
from networks import images
from scipy.ndimage import binary_dilation
from skimage.segmentation import felzenszwalb
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import Tensor, nn

from seewhy import Explainer
from seewhy.engine import evaluations
from seewhy.errors import InputError, InputTypeError, MissingDependencyError, SeewhyWarning
from seewhy.methods import XRAI, IntegratedGradients
from seewhy.methods.xrai import _widened, ranked
from seewhy.testing import check_method, small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
SCALES = (50, 100, 150, 250, 500, 1200)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:Integrated gradients miss:seewhy.SeewhyWarning"),
]


def slow(segments: list[set[int]], attribution: np.ndarray, least: int = 1) -> tuple[np.ndarray, list[set[int]]]:
    """Algorithm 1, and what it covers after each turn."""
    values, covered, trail = np.zeros(len(attribution)), set[int](), []
    while True:
        new = [segment - covered for segment in segments]
        fitting = [part for part in new if len(part) >= least]
        if not fitting:
            break
        best = max(fitting, key=lambda part: np.mean([attribution[pixel] for pixel in part]))
        values[list(best)] = np.mean([attribution[pixel] for pixel in best])
        covered |= best
        trail.append(set(covered))
    if rest := set(range(len(attribution))) - covered:
        values[list(rest)] = np.mean([attribution[pixel] for pixel in rest])
    return values, trail


def sets_of(labels: np.ndarray) -> list[set[int]]:
    flat = labels.ravel()
    return [set(np.flatnonzero(flat == label).tolist()) for label in np.unique(flat)]


def slow_segments(image: np.ndarray, scales: tuple[float, ...] = SCALES) -> list[set[int]]:
    """Felzenszwalb's, of an image stretched to -1..1, each with what is around it; sizes are those for 224 x 224."""
    low, high = image.min(), image.max()
    pixels, share = 2 * (image - low) / (high - low) - 1, image[0].size / 224**2
    reach = round(5 * share**0.5)
    found = []
    for scale in scales:
        labels = felzenszwalb(pixels.transpose(1, 2, 0), scale, 0.8, max(round(150 * share), 1))
        for label in np.unique(labels):
            cross = np.ones((2 * reach + 1,) * 2, bool)
            if reach == 1:
                cross[::2, ::2] = False
            found.append(set(np.flatnonzero(binary_dilation(labels == label, cross)).tolist()))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_algorithm_over_integrated_gradients(kind: str) -> None:
    net, x, start = network(kind), images(size=SIZE), images(3, SIZE)[2]
    ours = explainer_of(net).explain(x, XRAI(6, (ZERO, start)), target=list(TARGETS))
    gradients = sum(references.integrated_gradients(net, x, TARGETS, one, 6) for one in (ZERO.view(1, 1, 1), start)) / 2
    expected = []
    for image, one in zip(x, gradients.sum(1), strict=True):
        least = round(50 * one.numel() / 224**2)
        expected.append(slow(slow_segments(image.numpy()), one.flatten().numpy(), least)[0].reshape(SIZE))
    assert_equal(ours.values, torch.tensor(np.stack(expected)))
    assert len(np.unique(ours.values[0])) > 5
    assert not ours.signed
    below = [[np.mean(one < value) for value in one.ravel()] for one in ours.values]
    np.testing.assert_allclose(ours.maps, np.reshape(below, ours.maps.shape), atol=1e-6)


@pytest.mark.parametrize("least", [1, 4])
def test_what_is_covered_first_has_the_greatest_mean(least: int) -> None:
    random = np.random.default_rng(0)
    labels = [random.integers(0, count, 300) for count in (3, 9, 40)]
    attribution = random.normal(size=300)
    expected, trail = slow([part for one in labels for part in sets_of(one)], attribution, least)
    masks = np.concatenate([one[:, None] == np.unique(one) for one in labels], 1)
    found = ranked(masks, attribution, least)
    np.testing.assert_allclose(found, expected)
    first = np.flatnonzero(found == found.max())
    assert set(first.tolist()) == trail[0]


def test_pixels_that_no_segment_brings_are_the_last_region() -> None:
    masks = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]], bool)
    found = ranked(masks, np.array([4.0, 2.0, 6.0, -1.0, 3.0]), 2)
    np.testing.assert_allclose(found, [4, 4, 4, 1, 1])


@pytest.mark.parametrize(("size", "reach"), [((224, 224), 5), ((448, 224), 7), ((112, 168), 3), ((32, 48), 1)])
def test_segments_are_widened_by_5_pixels_in_images_of_224_and_in_others_in_proportion(
    size: tuple[int, int], reach: int
) -> None:
    alone = np.zeros(size, bool)
    alone[size[0] // 2, size[1] // 2] = True
    wide = _widened(alone.reshape(-1, 1), size).reshape(size)
    away = np.hypot(*np.indices(size) - np.array(np.nonzero(alone))[..., None])
    assert wide[away <= reach - 0.5].all()
    assert not wide[away > reach + 0.5].any()
    assert [wide.any(side).sum() for side in (0, 1)] == [2 * reach + 1] * 2


class ReadsOne(nn.Module):
    """A weight for each pixel, 0 beyond one segment."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weights).sum((1, 2, 3))
        return torch.stack([0 * score, score], 1)


def test_the_segment_that_is_read_comes_first_with_its_mean() -> None:
    """Of a linear network integrated gradients from 0 are the weights times the image."""
    labels = np.kron(np.arange(24).reshape(4, 6), np.ones((4, 5), int))
    x = torch.rand(1, 3, *labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = Explainer(ReadsOne(torch.tensor(labels == 9))).explain(x, XRAI(3, (ZERO,), regions=labels), target=1)
    there = labels == 9
    np.testing.assert_allclose(found.values[0][there], x[0].sum(0).numpy()[there].mean(), rtol=1e-6)
    np.testing.assert_allclose(found.values[0][~there], 0, atol=1e-9)
    np.testing.assert_allclose(found.map, np.where(there, 23 / 24, 0), atol=1e-6)


def test_cuts_may_be_several_and_on_different_scales() -> None:
    fine = np.kron(np.arange(24).reshape(4, 6), np.ones((4, 5), int))
    coarse = np.kron(np.arange(4).reshape(2, 2), np.ones((8, 15), int))
    weights = torch.rand(1, *fine.shape, generator=torch.Generator().manual_seed(0)).double()
    x = torch.ones(1, 3, *fine.shape).double()
    cuts = torch.tensor(np.stack([fine, coarse]))
    found = Explainer(ReadsOne(weights)).explain(x, XRAI(3, (ZERO,), regions=cuts), target=1)
    expected, _ = slow(sets_of(fine) + sets_of(coarse), 3 * weights.numpy().ravel())
    np.testing.assert_allclose(found.values[0].ravel(), expected, rtol=1e-5)


def test_nothing_is_read_and_nothing_is_above_another() -> None:
    net = ReadsOne(torch.zeros(1))
    with pytest.warns(SeewhyWarning, match="is 0 everywhere"):
        found = Explainer(net).explain(torch.rand(1, 3, 24, 32), XRAI(2, (torch.zeros(1),)), target=1)
    assert not found.values.any()
    assert not found.maps.any()


def test_both_colours_are_the_baselines_where_none_is_named() -> None:
    net, x = network("cnn"), images(1, SIZE)
    explainer = explainer_of(net)
    labels = np.arange(x[0, 0].numel()).reshape(SIZE)
    ours = explainer.explain(x, XRAI(4, regions=labels), target=9)
    each = [explainer.explain(x, IntegratedGradients(4, colour), target=9) for colour in ("black", "white")]
    np.testing.assert_allclose(ours.values, np.mean([one.values.sum(1) for one in each], 0), atol=1e-6)
    worst = max(one.measures["completeness_error"][0] for one in each)
    for baselines in (("black", "white"), ("white", "black")):
        ours = explainer.explain(x, XRAI(4, baselines, regions=labels), target=9)
        assert ours.measures["completeness_error"][0] == pytest.approx(worst)


def test_the_warning_is_given_once() -> None:
    with pytest.warns(SeewhyWarning, match="Integrated gradients miss") as said:
        Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), XRAI(1, ("mean", "blur")), target=1)
    assert len([one for one in said if "miss" in str(one.message)]) == 1


@pytest.mark.parametrize("first", [1, 3])
def test_no_chunk_changes_a_region(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network("cnn"), images(3, SIZE)
    asked: dict[str, Any] = {"steps": 4, "baselines": ("mean", "noise"), "target": [9, 4, 2]}
    usual = explainer_of(net).explain(x, "xrai", **asked)
    monkeypatch.setattr(evaluations, "_FIRST", first)
    ours = explainer_of(net).explain(x, "xrai", batch_size=first, **asked)
    np.testing.assert_allclose(ours.values, usual.values, atol=1e-6)
    other = explainer_of(net).explain(x, "xrai", seed=1, **asked)
    assert np.abs(other.values - usual.values).max() > 1e-4


def test_signals_are_cut_up_and_volumes_are_given_regions() -> None:
    signal = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 98, 12))
    x = torch.rand(2, 2, 100)
    found = Explainer(signal).explain(x, XRAI(4, (torch.zeros(1),)), target=list(TARGETS))
    assert found.maps.shape == (2, 100)
    assert len(np.unique(found.values[0])) > 2
    volume = nn.Sequential(nn.Conv3d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 3 * 6 * 8, 12))
    x, method = torch.rand(2, 2, 5, 8, 10), XRAI(4, (torch.zeros(1),))
    with pytest.raises(InputError, match="regions="):
        Explainer(volume).explain(x, method, target=3)
    cells = np.kron(np.arange(4).reshape(1, 2, 2), np.ones((5, 4, 5), int))
    found = Explainer(volume).explain(x, XRAI(4, (torch.zeros(1),), regions=cells), target=3)
    assert found.maps.shape == (2, 5, 8, 10)
    assert len(np.unique(found.values[0])) == 4


@pytest.mark.parametrize("shape", [(24,), (32, 24), (2, 32, 24), (1, 1, 24, 32)])
def test_regions_of_another_shape_are_told(shape: tuple[int, ...]) -> None:
    method = XRAI(2, ("mean",), regions=np.zeros(shape, int))
    with pytest.raises(InputError, match=r"expected \(24, 32\)"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), method, target=1)


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingDependencyError, match=r"seewhy\[segments\]"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), XRAI(2, ("mean",)), target=1)


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"steps": 0}, InputError, "steps"),
    ({"baselines": "black"}, InputError, "several"),
    ({"baselines": ()}, InputError, "several"),
    ({"baselines": ("blak",)}, InputError, "black"),
    ({"baselines": (3,)}, InputTypeError, "baseline"),
    ({"scales": ()}, InputError, "scales"),
    ({"scales": 50}, InputError, "scales"),
    ({"scales": (50, 0)}, InputError, "scales"),
    ({"scales": ("50",)}, InputError, "scales"),
    ({"regions": np.zeros((24, 32))}, InputTypeError, "whole numbers"),
    ({"seed": 0.5}, InputError, "seed"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        XRAI(**options)


@pytest.mark.sweep
def test_it_keeps_what_is_promised_of_every_method() -> None:
    check_method(XRAI(4))
