"""Occlusion: exact against Captum for any window and stride, and what is explained stays what it was in the image."""

from __future__ import annotations

from typing import Any

import captum.attr
import numpy as np
import pytest
import references
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, named_baseline, network
from torch import Tensor, nn

import seewhy
from seewhy import Explainer, SeewhyWarning
from seewhy.errors import InputError
from seewhy.methods import Occlusion
from seewhy.testing import check_method, small_cnn

ZERO = torch.zeros(1, dtype=torch.float64)
WINDOWS = [
    ((8, 8), (8, 8)),
    ((16, 24), (16, 24)),
    ((10, 7), (5, 4)),  # neither divides what it must
    ((9, 20), (9, 13)),
    ((31, 47), (16, 24)),
    ((5, 6), (5, 6)),
]


def captums(net: nn.Module, x: Tensor, targets: Any, start: Tensor, window: Any, stride: Any) -> Tensor:
    """Captum's, which has the same number for each colour."""
    with torch.no_grad():
        found = captum.attr.Occlusion(net).attribute(
            x, (x.shape[1], *window), strides=(x.shape[1], *stride), baselines=start.expand_as(x).contiguous(),
            target=targets, perturbations_per_eval=8,
        )  # fmt: skip
    return found.mean(1)


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_captum(kind: str, window: tuple[int, int], stride: tuple[int, int]) -> None:
    net, x = network(kind), images(size=SIZE)
    start = images(3, SIZE)[2]
    ours = explainer_of(net).explain(x, Occlusion(window, stride, start), target=list(TARGETS))
    assert_equal(ours.values, captums(net, x, list(TARGETS), start, window, stride))
    assert ours.signed
    np.testing.assert_array_equal(ours.maps, ours.values)


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (12, 5), (7, 3), (100, 1), (40, 16), (32, 50)])
def test_equal_to_a_slow_loop(window: int, stride: int) -> None:
    """A window that is larger than a side is as large as that side."""
    net, x = network("cnn"), images(size=SIZE)
    ours = explainer_of(net).explain(x, Occlusion((window, min(window, 48)), (stride, min(stride, window, 9)), ZERO),
                                     target=list(TARGETS))  # fmt: skip
    clipped = min(window, 32), min(window, 48)
    assert_equal(ours.values, captums(net, x, list(TARGETS), ZERO, clipped, (stride, min(stride, window, 9))))
    if window < 32:
        square = explainer_of(net).explain(x, Occlusion(window, stride, ZERO), target=list(TARGETS))
        assert_equal(square.values, references.occlusion(net, x, TARGETS, ZERO, window, stride))


@pytest.mark.parametrize("name", ["black", "white", "mean", "blur", "noise"])
def test_what_hides_is_the_baseline_of_that_name(name: str) -> None:
    """All of the image hidden at once shows what the image became."""
    net, x = network("cnn"), images(1, SIZE)
    start = named_baseline(name, x)
    method = Occlusion(10, 6, name, seed=5)
    ours = explainer_of(net).explain(x, method, target=3)
    assert_equal(ours.values, captums(net, x, 3, start, (10, 10), (6, 6)), 1e-3)


@pytest.mark.parametrize("form", [(nn.Conv1d, (40,), (7,), (3,)), (nn.Conv3d, (5, 8, 10), (2, 3, 4), (2, 2, 3))])
@pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")
def test_signals_and_volumes_equal_captums(form: Any) -> None:
    convolution, sides, window, stride = form
    net = nn.Sequential(convolution(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)).eval()
    x = torch.rand(2, 2, *sides)
    net(x)
    ours = Explainer(net).explain(x, Occlusion(window, stride, torch.zeros(1)), target=list(TARGETS))
    assert_equal(ours.values, captums(net, x, list(TARGETS), torch.zeros(1), window, stride))
    one = window[0]
    if len(set(window)) == 1:
        same = Explainer(net).explain(x, Occlusion(one, stride[0], torch.zeros(1)), target=list(TARGETS))
        np.testing.assert_array_equal(same.values, ours.values)


def linear() -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).double()
    return net, net[1].weight[2].detach().view(3, 6, 8)


def test_on_a_linear_network_a_pixel_is_its_weight_times_its_value() -> None:
    net, weight = linear()
    x, start = torch.rand(2, 3, 6, 8).double(), torch.rand(3, 6, 8).double()
    ours = Explainer(net).explain(x, Occlusion(1, 1, start), target=2)
    assert_equal(ours.values, (weight * (x - start)).sum(1), 1e-6)


def test_on_a_linear_network_windows_that_tile_the_image_add_up_to_the_difference() -> None:
    net, weight = linear()
    x = torch.rand(1, 3, 6, 8).double()
    ours = Explainer(net).explain(x, Occlusion((3, 2), (3, 2), ZERO), target=2)
    shares = (weight * x[0]).sum(0).reshape(2, 3, 4, 2).sum((1, 3))
    assert_equal(ours.values, shares.repeat_interleave(3, 0).repeat_interleave(2, 1)[None], 1e-6)
    difference = float((net(x) - net(torch.zeros_like(x))).detach()[0, 2])
    assert ours.values[0, ::3, ::2].sum() == pytest.approx(difference, rel=1e-5)


def test_on_a_linear_network_overlapping_windows_are_averaged() -> None:
    net, weight = linear()
    x = torch.rand(1, 3, 6, 8).double()
    ours = Explainer(net).explain(x, Occlusion((6, 4), (6, 3), ZERO), target=2).map
    columns = (weight * x[0]).sum((0, 1))
    falls = [float(columns[a:b].sum()) for a, b in ((0, 4), (3, 7), (6, 8))]  # the last reaches beyond the image
    expected = [falls[0]] * 3 + [sum(falls[:2]) / 2] + [falls[1]] * 2 + [sum(falls[1:]) / 2] + [falls[2]]
    np.testing.assert_allclose(ours, np.tile(expected, (6, 1)), rtol=1e-5)


def test_where_the_baseline_is_the_image_nothing_is_asked_and_all_is_zero() -> None:
    net, seen = small_cnn(), []
    net.stem.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    x = torch.rand(2, 3, 16, 24)
    start = x[0].clone()
    start[:, :8, :8] = 0  # only there do the first image and what hides it differ
    with pytest.warns(SeewhyWarning, match="0 everywhere for image 1"):
        found = Explainer(net).explain(torch.stack([x[0], start]), Occlusion(4, 4, start), target=1)
    assert sum(seen) == 2 + 4
    assert found.values[0, :8, :8].any()
    assert not found.values[0, 8:].any()
    assert not found.values[1].any()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind: str, batch_size: int) -> None:
    net, x = network(kind, torch.float32), images(3, SIZE, torch.float32)
    explainer, asked = explainer_of(net), {"window": (10, 9), "stride": (7, 8), "target": [9, 4, 2]}
    usual = explainer.explain(x, "occlusion", **asked)
    ours = explainer.explain(x, "occlusion", batch_size=batch_size, **asked)
    scale = np.abs(usual.scores).max()  # rounding is of the scores, of which the falls are small differences
    np.testing.assert_allclose(ours.values, usual.values, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_maps_resemble_those_of_float32(dtype: torch.dtype) -> None:
    x = images(size=SIZE, dtype=torch.float32)
    full, half = (
        explainer_of(network("cnn", one)).explain(x, Occlusion(8, 8), target=list(TARGETS)).maps
        for one in (torch.float32, dtype)
    )
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.98


# --- what is explained is what was there before anything was hidden


def test_the_class_predicted_for_the_image_is_asked_about_though_hiding_makes_another_win() -> None:
    net, x = network("cnn"), images(size=SIZE) * 0.35
    explainer, method = explainer_of(net), Occlusion(16, 16, images(3, SIZE)[2] * 0.01)
    order = net(x).argsort(1, descending=True)
    best, second = order[:, 0].tolist(), order[:, 1].tolist()
    ours = explainer.explain(x, method)
    assert ours.targets.tolist() == best
    assert_equal(ours.values, torch.tensor(explainer.explain(x, method, target=best).values), 1e-6)
    for given, fixed in (
        (seewhy.Probability(), [seewhy.Probability(c) for c in best]),
        (seewhy.LogProbability(), [seewhy.LogProbability(c) for c in best]),
        (seewhy.Contrast(), [seewhy.Contrast(a, b) for a, b in zip(best, second, strict=True)]),
        (seewhy.Contrast(minus=0), [seewhy.Contrast(c, 0) for c in best]),
        (seewhy.Top(2), [[a, b] for a, b in zip(best, second, strict=True)]),
    ):
        one, other = explainer.explain(x, method, target=given), explainer.explain(x, method, target=fixed)
        assert_equal(one.values, torch.tensor(other.values), 1e-6)


def test_without_holding_another_map_would_come_out() -> None:
    """What the test above could not tell, if no window changed what is predicted."""
    net, x, start = network("cnn"), images(size=SIZE) * 0.35, images(3, SIZE)[2] * 0.01
    changed = 0
    for image in x:
        for top in (0, 16):
            for left in (0, 16, 32):
                hidden = image.clone()
                hidden[:, top : top + 16, left : left + 16] = start[:, top : top + 16, left : left + 16]
                two, before = (net(one[None])[0].topk(2).indices.tolist() for one in (hidden, image))
                changed += two != before
    assert changed


def test_a_callable_is_asked_again_each_time() -> None:
    """Nobody can tell what a function takes from the image: it is called with the scores of each changed image."""
    net, x = network("cnn"), images(size=SIZE)
    ours = explainer_of(net).explain(x, Occlusion(16, 16, ZERO), target=lambda scores: scores.amax(1))
    with torch.no_grad():
        hidden = x.clone()
        hidden[:, :, :16, :16] = 0
        falls = net(x).amax(1) - net(hidden).amax(1)
    np.testing.assert_allclose(ours.values[:, 0, 0], falls, rtol=1e-4)


class Body(nn.Module):
    """What a test says of the features of a convolution."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.conv, self.read = nn.Conv2d(3, 5, 3, padding=1), read
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(2))

    def forward(self, x: Tensor) -> Any:
        return self.read(self.conv(x).tanh())


def hidden_runs(net: nn.Module, x: Tensor) -> list[Any]:
    """What the model gives for the one image with each 8 x 8 window black, row by row."""
    runs = []
    for top in range(0, x.shape[2], 8):
        for left in range(0, x.shape[3], 8):
            changed = x.clone()
            changed[..., top : top + 8, left : left + 8] = 0
            with torch.no_grad():
                runs.append(net(changed))
    return runs


def assert_falls(found: seewhy.Explanation, score: float, hidden: list[float]) -> None:
    falls = np.array([score - one for one in hidden]).reshape(found.maps.shape[1] // 8, -1)
    assert np.abs(falls).max() > 0
    np.testing.assert_allclose(found.map[::8, ::8], falls, atol=1e-5 * np.abs(falls).max() + 1e-6 * abs(score))


def test_the_region_of_a_segmenter_is_where_the_class_was_predicted_in_the_image() -> None:
    net, x = Body(lambda features: features), torch.rand(1, 3, 16, 24)
    dense = net(x)[0].detach()
    winner = dense.argmax(0).flatten().bincount().argmax()
    region = dense.argmax(0) == winner
    method = Occlusion(8, 8, torch.zeros(1))
    score = float(dense[winner][region].mean())
    runs = hidden_runs(net, x)
    hidden = [float(run[0, winner][region].mean()) for run in runs]
    assert any(not torch.equal(run[0].argmax(0) == winner, region) for run in runs)
    assert_falls(Explainer(net).explain(x, method), score, hidden)
    box = Explainer(net).explain(x, method, target=seewhy.Region(2, box=(4, 2, 20, 10)))
    inside = float(dense[2, 2:10, 4:20].mean())
    assert_falls(box, inside, [float(run[0, 2, 2:10, 4:20].mean()) for run in runs])


def test_an_embedding_is_compared_to_what_it_was() -> None:
    net, x = Body(lambda f: {"image_embeds": f.mean((2, 3))}), torch.rand(1, 3, 16, 24)
    other, method = torch.rand(1, 3, 16, 24), Occlusion(8, 8, torch.zeros(1))
    with torch.no_grad():
        own, theirs = (net(one)["image_embeds"][0] for one in (x, other))
        runs = [run["image_embeds"][0] for run in hidden_runs(net, x)]
    cosine = torch.nn.functional.cosine_similarity
    for target, to in ((seewhy.Similarity(to=other[0]), theirs), (seewhy.Similarity(to=own), own)):
        found = Explainer(net).explain(x, method, target=target)
        assert_falls(found, float(cosine(own, to, 0)), [float(cosine(run, to, 0)) for run in runs])
    with pytest.warns(SeewhyWarning, match="each image's own embedding"):
        itself = Explainer(net).explain(x, method)
    assert_falls(itself, float(own @ own), [float(run @ own) for run in runs])


class Detector(nn.Module):
    """Finds a box in each half that is bright, the more confident the brighter; returns the best first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Identity()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for image in self.body(x):
            scores = torch.stack([image[..., :12].mean(), image[..., 12:].mean()])
            boxes = torch.tensor([[0.0, 0, 12, 16], [12, 0, 24, 16]])
            order = scores.argsort(descending=True)
            order = order[scores[order] > 0.35]
            found.append({"boxes": boxes[order], "scores": scores[order], "labels": torch.tensor([1, 2])[order]})
        return found


def test_a_detection_is_the_one_of_the_image_wherever_it_comes_in_the_list() -> None:
    x = torch.full((1, 3, 16, 24), 0.6)
    x[..., 12:] = 0.5
    method = Occlusion((16, 6), (16, 6), torch.zeros(1))
    found = Explainer(Detector()).explain(x, method)
    assert found.targets.tolist() == [1]
    # Half of the left box hidden: its score falls from .6 to .3, and it is found no more; the other one comes first.
    np.testing.assert_allclose(found.map[:, :12], 0.6, rtol=1e-5)
    np.testing.assert_allclose(found.map[:, 12:], 0, atol=1e-6)
    other = Explainer(Detector()).explain(x, method, target=seewhy.Detection(cls=2))
    np.testing.assert_allclose(other.map[:, 12:], 0.5, rtol=1e-5)
    np.testing.assert_allclose(other.map[:, :12], 0, atol=1e-6)


# --- options


@pytest.mark.parametrize(("options", "says"), [
    ({"window": 4, "stride": 5}, "unhidden"),
    ({"window": (4, 8), "stride": (5, 8)}, "unhidden"),
    ({"window": (4, 4, 4)}, "2 sides"),
    ({"window": 0}, "window"),
    ({"window": True}, "window"),
    ({"window": "8"}, "window"),
    ({"stride": -1}, "stride"),
    ({"stride": 1.5}, "stride"),
    ({"stride": []}, "stride"),
    ({"dtype": "float64"}, "dtype"),
])  # fmt: skip
def test_mistakes_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Explainer(small_cnn()).explain(torch.rand(1, 3, 16, 24), "occlusion", target=1, **options)


def test_numbers_of_numpy_and_lists_are_taken() -> None:
    explainer, x = Explainer(small_cnn()), torch.rand(1, 3, 16, 24)
    plain = explainer.explain(x, Occlusion((8, 4), (4, 4)), target=1)
    for window, stride in (([8, 4], [4, 4]), ((np.int64(8), np.int64(4)), np.int32(4))):
        same = explainer.explain(x, "occlusion", target=1, window=window, stride=stride)
        np.testing.assert_array_equal(same.values, plain.values)


def test_two_of_different_windows_share_a_call() -> None:
    explainer, x = Explainer(small_cnn()), torch.rand(1, 3, 16, 24)
    two = explainer.explain(x, [Occlusion(8, 8, name="coarse"), Occlusion(4, 4, name="fine")], target=1)
    assert list(two) == ["coarse", "fine"]
    for name, window in (("coarse", 8), ("fine", 4)):
        alone = explainer.explain(x, Occlusion(window, window), target=1)
        np.testing.assert_allclose(two[name].values, alone.values, atol=1e-5 * np.abs(alone.values).max())


@pytest.mark.parametrize("baseline", ["mean", "blur", np.zeros((3, 1, 1))])
def test_it_keeps_what_is_promised_of_every_method(baseline: Any) -> None:
    check_method(Occlusion(8, 8, baseline))
