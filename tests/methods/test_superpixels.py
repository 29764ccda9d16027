"""LIME and KernelSHAP: Shapley values as brute force has them, and the weights of linear models as equations do."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from networks import images
from numpy.typing import NDArray
from skimage.segmentation import slic
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, named_baseline, network
from torch import Tensor, nn

from seewhy import Explainer
from seewhy.engine import evaluations
from seewhy.errors import InputError, InputTypeError, MissingDependencyError
from seewhy.methods import KernelSHAP, Lime, superpixels
from seewhy.testing import check_method, small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def tiles(*grid: int, size: tuple[int, ...] = SIZE) -> NDArray[np.int64]:
    """Segments in a grid."""
    places = [np.arange(side) * count // side for side, count in zip(size, grid, strict=True)]
    return np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), grid)


def left(image: Tensor, start: Tensor, labels: Any, visible: Any) -> Tensor:
    """The image of which only the visible segments are left."""
    mask = torch.tensor(np.isin(labels, list(visible)))
    return torch.where(mask, image, start.expand_as(image))


def each(values: np.ndarray, labels: np.ndarray) -> NDArray[np.float64]:
    """The value of each segment, which is the same at all of its pixels."""
    found = [np.unique(values[labels == label]) for label in np.unique(labels)]
    assert all(len(one) == 1 for one in found)
    return np.concatenate(found)


def shapley(net: nn.Module, x: Tensor, targets: Any, start: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """The sum over subsets of |S|! (M − |S| − 1)! / M! times what the segment adds to each (Lundberg 2017, eq. 4)."""
    count, maps = labels.max() + 1, []
    with torch.no_grad():
        for image, target in zip(x, targets, strict=True):
            subsets = [frozenset(s) for k in range(count + 1) for s in itertools.combinations(range(count), k)]
            scores = net(torch.stack([left(image, start, labels, s) for s in subsets]))[:, target].tolist()
            score = dict(zip(subsets, scores, strict=True))
            phi = [sum(math.factorial(len(s)) * math.factorial(count - len(s) - 1) / math.factorial(count)
                       * (score[s | {i}] - score[s]) for s in subsets if i not in s) for i in range(count)]  # fmt: skip
            maps.append(torch.tensor(phi, dtype=torch.float64)[torch.tensor(labels)])
    return torch.stack(maps)


# --- KernelSHAP


@pytest.mark.parametrize("kind", KINDS)
def test_of_all_coalitions_they_are_the_shapley_values(kind: str) -> None:
    net, x, start, labels = network(kind), images(size=SIZE), images(3, SIZE)[2], tiles(2, 3)
    ours = explainer_of(net).explain(x, KernelSHAP(labels, baseline=start), target=list(TARGETS))
    assert_equal(ours.values, shapley(net, x, TARGETS, start, labels), 1e-6)
    assert ours.signed
    np.testing.assert_array_equal(ours.maps, ours.values)


def test_equal_to_captums_shapley_values_over_all_orders() -> None:
    net, x, labels = network("cnn"), images(size=SIZE), tiles(1, 4)
    mask = torch.tensor(labels).repeat(1, 3, 1, 1)
    with torch.no_grad():
        expected = captum.attr.ShapleyValues(net).attribute(x, 0, list(TARGETS), feature_mask=mask,
                                                            perturbations_per_eval=40)  # fmt: skip
    ours = explainer_of(net).explain(x, KernelSHAP(labels, baseline=ZERO), target=list(TARGETS))
    assert_equal(ours.values, expected[:, 0], 1e-6)


def test_captums_kernel_shap_of_many_samples_comes_near() -> None:
    net, x, labels = network("cnn"), images(1, SIZE), tiles(2, 2)
    mask = torch.tensor(labels).repeat(1, 3, 1, 1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        theirs = captum.attr.KernelShap(net).attribute(x, 0, 9, feature_mask=mask, n_samples=800,
                                                       perturbations_per_eval=50)  # fmt: skip
    ours = explainer_of(net).explain(x, KernelSHAP(labels, baseline=ZERO), target=9)
    assert_equal(ours.values, theirs[:, 0], 0.05)


@pytest.mark.parametrize("name", ["black", "mean", "blur"])
@pytest.mark.parametrize("samples", [60, 255])
def test_they_add_up_to_what_the_image_has_over_the_baseline(name: str, samples: int) -> None:
    net, x, labels = network("cnn"), images(1, SIZE), tiles(2, 4)
    start = named_baseline(name, x)
    ours = explainer_of(net).explain(x, KernelSHAP(labels, samples, name), target=9)
    with torch.no_grad():
        change = float((net(x) - net(start.expand_as(x)))[0, 9])
    assert each(ours.map, labels).sum() == pytest.approx(change, rel=1e-5)


@pytest.mark.parametrize("samples", [110, 300])
def test_of_a_linear_network_each_is_its_share_though_samples_are_few(samples: int) -> None:
    net, labels = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 4)).double(), tiles(6, 8, size=(24, 32))
    x, start = torch.rand(2, 3, 24, 32).double(), torch.rand(3, 24, 32).double()
    ours = Explainer(net).explain(x, KernelSHAP(labels, samples, start), target=2).values
    parts = (net[1].weight[2].detach().view(3, 24, 32) * (x - start)).sum(1).numpy()
    for found, part in zip(ours, parts, strict=True):
        expected = np.bincount(labels.ravel(), part.ravel())
        np.testing.assert_allclose(each(found, labels), expected, atol=1e-5 * np.abs(expected).max())


def test_drawn_coalitions_come_to_the_shapley_values() -> None:
    net, x, labels = network("cnn"), images(1, SIZE), tiles(2, 5)
    explainer, asked = explainer_of(net), {"target": 9, "baseline": ZERO, "segments": labels}
    exact = explainer.explain(x, "kernel_shap", samples=2**10, **asked).values
    few, many = (explainer.explain(x, "kernel_shap", samples=n, **asked).values for n in (100, 900))
    error = [np.abs(one - exact).max() / np.abs(exact).max() for one in (few, many)]
    assert error[1] < 0.04
    assert error[1] < error[0] < 0.3


def test_pairs_of_complements_are_drawn_as_often_as_the_kernel_has_them() -> None:
    drawn = KernelSHAP(samples=4001).draw(20)
    assert drawn.shape == (4001, 20)
    assert not drawn[0].any()
    assert torch.equal(drawn[1::2], ~drawn[2::2])
    assert ((drawn[1:].sum(1) > 0) & (drawn[1:].sum(1) < 20)).all()
    sizes = torch.arange(1, 20).double()
    share = 1 / (sizes * (20 - sizes))  # the kernel of a size, times how many coalitions there are of it
    found = torch.bincount(drawn[1:].sum(1), minlength=20)[1:] / 4000
    assert (found - share / share.sum()).abs().max() < 0.02
    assert (drawn.double().mean(0) - 0.5).abs().max() < 1e-3


def test_symmetry_and_nothing() -> None:
    """What is alike has the same value, and what changes nothing has 0, of a score that is no sum."""

    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b, c = (part.mean((1, 2, 3)) for part in x.chunk(3, 3))
            return torch.stack([c, a * b], 1)

    ours = Explainer(Both()).explain(torch.full((1, 3, 4, 9), 2.0), KernelSHAP(tiles(1, 3, size=(4, 9)), baseline=ZERO),
                                     target=1)  # fmt: skip
    np.testing.assert_allclose(ours.map[0, ::3], [2, 2, 0], atol=1e-6)


def test_too_few_samples_are_told() -> None:
    with pytest.raises(InputError, match="20 samples are too few for 48 superpixels"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), "kernel_shap", target=1, samples=20,
                                       segments=tiles(6, 8, size=(24, 32)))  # fmt: skip


def test_no_coalition_is_asked_twice_where_all_are() -> None:
    net, seen = small_cnn(), []
    net.stem.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    Explainer(net).explain(torch.rand(2, 3, 24, 32), KernelSHAP(tiles(2, 2, size=(24, 32))), target=1)
    assert sum(seen) == 2 + 2 * (2**4 - 1)


# --- LIME


def fitted(net: Any, x: Tensor, targets: Any, start: Tensor, labels: Any, method: Lime) -> Tensor:
    """Weighted least squares with a ridge that leaves the constant alone, by its normal equations."""
    count, maps = labels.max() + 1, []
    drawn = torch.rand(method.samples, count, generator=torch.Generator().manual_seed(method.seed)) < 0.5
    kept = torch.cat([torch.ones(1, count, dtype=torch.bool), drawn]).double()
    cosine = kept.sum(1) / (kept.sum(1).sqrt().clamp(min=1e-9) * math.sqrt(count))
    weight = torch.exp(-((1 - cosine) ** 2) / method.width**2)
    for image, target in zip(x, targets, strict=True):
        with torch.no_grad():
            shown = torch.stack([left(image, start, labels, one.nonzero().flatten().tolist()) for one in kept])
            scores = net(shown)[:, target]
        design = torch.cat([kept, torch.ones(len(kept), 1).double()], 1)
        ridge = torch.diag(torch.tensor([method.ridge] * count + [0.0]).double())
        found = torch.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight * scores))
        maps.append(found[:-1][torch.tensor(labels)])
    return torch.stack(maps)


@pytest.mark.parametrize(("width", "ridge", "seed"), [(0.25, 1, 0), (0.7, 0.01, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_lime_is_the_ridge_regression_of_its_equations(kind: str, width: float, ridge: float, seed: int) -> None:
    net, x, start, labels = network(kind), images(size=SIZE), images(3, SIZE)[2], tiles(3, 4)
    method = Lime(labels, 60, start, seed, width, ridge)
    ours = explainer_of(net).explain(x, method, target=list(TARGETS))
    assert_equal(ours.values, fitted(net, x, TARGETS, start, labels, method), 1e-5)
    assert ours.signed


def test_lime_weighs_as_the_authors_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes the root of the kernel, at a width of 0.25."""
    weights, fit = [], Ridge.fit

    def noted(ridge: Ridge, shown: Any, scores: Any, by: Any) -> Ridge:
        weights.append(by)
        return fit(ridge, shown, scores, by)

    monkeypatch.setattr(Ridge, "fit", noted)
    Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), Lime(tiles(3, 4, size=(24, 32)), 60), target=1)
    drawn = torch.rand(60, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    shown = torch.cat([torch.ones(1, 12, dtype=torch.bool), drawn]).numpy()
    distances = pairwise_distances(shown.astype(float), shown[:1], metric="cosine").ravel()
    np.testing.assert_allclose(weights[0], np.sqrt(np.exp(-(distances**2) / 0.25**2)), rtol=1e-6)


def test_of_a_linear_network_lime_finds_the_weights() -> None:
    net, labels = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 32, 4)).double(), tiles(3, 4, size=(24, 32))
    x, start = torch.rand(1, 3, 24, 32).double(), torch.rand(3, 24, 32).double()
    part = (net[1].weight[2].detach().view(3, 24, 32) * (x[0] - start)).sum(0).numpy()
    expected = np.bincount(labels.ravel(), part.ravel())
    explainer = Explainer(net)
    exact = explainer.explain(x, Lime(labels, 40, start, ridge=1e-9), target=2)
    np.testing.assert_allclose(each(exact.map, labels), expected, rtol=1e-4)
    usual = explainer.explain(x, Lime(labels, 1000, start), target=2)
    np.testing.assert_allclose(each(usual.map, labels), expected, atol=0.05 * np.abs(expected).max())


# --- superpixels


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_superpixels_are_slicos_of_each_image(name: str) -> None:
    net, x = network("cnn", torch.float32), images(2, SIZE, torch.float32)
    x[1] = nn.functional.avg_pool2d(x[1:], 3, 1, 1)[0] * torch.linspace(0, 1, 48)  # SLICO finds another number there
    explainer = explainer_of(net)
    ours = explainer.explain(x, name, segments=20, samples=60, target=list(TARGETS))
    labels = [slic(image.permute(1, 2, 0).numpy(), 20, slic_zero=True, start_label=0, channel_axis=-1) for image in x]
    assert labels[0].max() != labels[1].max()
    for row, target in enumerate(TARGETS):
        alone = explainer.explain(x[row], name, segments=labels[row], samples=60, target=target)
        scale = np.abs(alone.values).max()
        np.testing.assert_allclose(ours.values[row], alone.map, atol=1e-4 * scale)


@pytest.mark.parametrize("method", [Lime, KernelSHAP])
def test_images_of_a_batch_may_have_unequal_numbers(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [tiles(1, 3, size=(24, 32)), tiles(2, 3, size=(24, 32)), tiles(2, 2, size=(24, 32))]
    rest = iter(cuts)
    monkeypatch.setattr(superpixels, "_slic", lambda *_: next(rest))
    explainer, x = Explainer(small_cnn()), torch.rand(3, 3, 24, 32)
    ours = explainer.explain(x, method(samples=100), target=1)
    for image, labels, found in zip(x, cuts, ours.maps, strict=True):
        alone = explainer.explain(image, method(labels, 100), target=1).map
        np.testing.assert_allclose(found, alone, atol=1e-4 * np.abs(alone).max())


def test_labels_may_be_any_whole_numbers() -> None:
    explainer, x = Explainer(small_cnn()), torch.rand(1, 3, 24, 32)
    labels = tiles(2, 3, size=(24, 32))
    usual = explainer.explain(x, "kernel_shap", segments=labels, target=1).map
    for other in (labels * 100 - 7, torch.tensor(labels), labels.astype(np.uint8)):
        np.testing.assert_allclose(explainer.explain(x, "kernel_shap", segments=other, target=1).map, usual, atol=1e-6)
    two = explainer.explain(x, "kernel_shap", segments=labels > 2, target=1).map
    assert len(np.unique(two)) == 2


def test_one_superpixel_is_the_whole_image() -> None:
    net, x = small_cnn(), torch.rand(1, 3, 24, 32)
    ours = Explainer(net).explain(x, KernelSHAP(np.zeros((24, 32), int), baseline=ZERO), target=1)
    with torch.no_grad():
        change = float((net(x) - net(torch.zeros_like(x)))[0, 1])
    np.testing.assert_allclose(ours.map, change, rtol=1e-4)


@pytest.mark.parametrize(("convolution", "sides", "channels"), [
    (nn.Conv1d, (40,), 2), (nn.Conv2d, (16, 24), 1), (nn.Conv2d, (16, 24), 5), (nn.Conv3d, (4, 8, 10), 3),
])  # fmt: skip
@pytest.mark.parametrize("method", [KernelSHAP(6), Lime(6, 60)])
def test_signals_volumes_and_any_number_of_channels(method: Any, convolution: Any, sides: Any, channels: int) -> None:
    net = nn.Sequential(convolution(channels, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)).eval()
    x = torch.rand(2, channels, *sides)
    net(x)
    found = Explainer(net).explain(x, method, target=list(TARGETS))
    assert found.maps.shape == (2, *sides)
    assert all(4 <= len(np.unique(one)) <= 9 for one in found.maps)


def test_a_flat_image_has_superpixels_too() -> None:
    found = Explainer(small_cnn()).explain(torch.full((1, 3, 24, 32), 0.5), KernelSHAP(6, baseline=ZERO), target=1)
    assert np.isfinite(found.maps).all()


@pytest.mark.parametrize("first", [1, 7])
@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_chunks_change_nothing(name: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network("swin", torch.float32), images(3, SIZE, torch.float32)
    explainer, asked = explainer_of(net), {"segments": 12, "samples": 40, "target": [9, 4, 2]}
    usual = explainer.explain(x, name, **asked)
    monkeypatch.setattr(evaluations, "_FIRST", first)
    ours = explainer.explain(x, name, batch_size=first, **asked)
    assert_equal(ours.values, torch.tensor(usual.values), 1e-3)


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_seeds_decide_what_is_drawn(name: str) -> None:
    explainer, x = Explainer(small_cnn()), torch.rand(1, 3, 24, 32)
    options = {"segments": tiles(3, 4, size=(24, 32)), "samples": 60, "batch_size": 1}  # in which rounding is the same
    one, same, other = (explainer.explain(x, name, seed=seed, target=1, **options).map for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"samples": 0}, InputError, "samples"),
    ({"segments": 0}, InputError, "segments"),
    ({"segments": "slic"}, InputError, "segments"),
    ({"segments": np.zeros((4, 4))}, InputTypeError, "float64; expected whole numbers"),
    ({"segments": torch.zeros(4, 4)}, InputTypeError, "float32; expected whole numbers"),
    ({"baseline": "blak"}, InputError, "black"),
    ({"seed": None}, InputError, "seed"),
])  # fmt: skip
@pytest.mark.parametrize("method", [Lime, KernelSHAP])
def test_mistakes_are_told(method: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        method(**options)


@pytest.mark.parametrize("options", [{"width": 0}, {"width": "1"}, {"ridge": -1}, {"ridge": float("inf")}])
def test_what_is_no_width_or_ridge_is_told(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is a number above 0"):
        Lime(**options)


def test_segments_of_another_shape_are_told() -> None:
    with pytest.raises(InputError, match=r"\(32, 24\); expected \(24, 32\)"):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), KernelSHAP(np.zeros((32, 24), int)), target=1)


@pytest.mark.parametrize(("module", "method"), [("skimage.segmentation", KernelSHAP(6)), ("sklearn.linear_model",
                                                 Lime(np.zeros((24, 32), int), 5))])  # fmt: skip
def test_what_is_not_installed_is_told(module: str, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"seewhy\[segments\]\""):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 24, 32), method, target=1)


@pytest.mark.parametrize("method", [Lime(8, 24), KernelSHAP(4), KernelSHAP(12, 60)], ids=lambda m: m.label)
def test_they_keep_what_is_promised_of_every_method(method: Any) -> None:
    check_method(method)
