"""Deletion, insertion, ROAD and pixel flipping, against closed forms, TorchCAM and a direct solver."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import nn
from torchcam.metrics import DeletionInsertionMetric
from trust_known import Linear, Maps, bright

from seewhy import Explainer, Probability, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn
from seewhy.trust.impute import impute
from seewhy.trust.order import ranks

IMAGES = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))


def test_a_linear_network_loses_what_the_pixels_are_worth():
    """Its score is a sum over pixels, so that the curve is known pixel by pixel; no target is a class here."""
    model, images = Linear().double(), bright(2, (8, 10)).double()
    worth = (images * model.weight[2]).sum(1)
    target = [lambda scores: scores[:, 2]] * 2  # no class, so that the score itself is asked
    found = trust.deletion(Explainer(model), worth, images=images, target=target, step=1, baseline=torch.zeros(1))
    order = worth.flatten(1).sort(descending=True).values
    left = worth.flatten(1).sum(1, keepdim=True) - torch.cat([torch.zeros(2, 1), order.cumsum(1)], 1)
    np.testing.assert_allclose(found.curves["deletion"], left.detach(), rtol=1e-5, atol=1e-5)
    expected = np.trapezoid(left.detach().numpy(), np.arange(81) / 80, axis=1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "theirs"), [("deletion", "deletion_auc"), ("insertion", "insertion_auc")])
def test_equal_to_torchcam(name, theirs):
    model, maps = small_cnn(), torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(4))
    metric = DeletionInsertionMetric(Maps(model, maps), lambda x: x.softmax(-1), steps=20)
    metric.update(IMAGES, [1, 2, 3])
    found = getattr(trust, name)(
        Explainer(model), maps, images=IMAGES, target=[1, 2, 3], step=-(-24 * 32 // 20), baseline=torch.zeros(1)
    )
    assert found.mean == pytest.approx(metric.summary()[theirs], abs=1e-6)


def test_the_usual_step_is_the_papers():
    explainer = Explainer(small_cnn())
    found = explainer.explain(torch.rand(1, 3, 224, 224), "saliency", target=1)
    score = trust.deletion(explainer, found, step=None, baseline="mean", batch_size=64)
    assert score.curves["deletion"].shape == (1, 225)
    assert score.curves["deletion"][0, 0] == pytest.approx(found.probabilities[0], rel=1e-5)


def test_curves_begin_and_end_where_they_must():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=Probability(2))
    gone = trust.deletion(explainer, found, step=100, baseline="mean")
    back = trust.insertion(explainer, found, step=100, baseline="mean")
    assert gone.steps[0] == 0
    assert gone.steps[-1] == 1
    np.testing.assert_allclose(gone.curves["deletion"][:, 0], found.scores, rtol=1e-5)
    np.testing.assert_allclose(back.curves["insertion"][:, -1], found.scores, rtol=1e-5)
    np.testing.assert_allclose(gone.curves["deletion"][:, -1], back.curves["insertion"][:, 0], rtol=1e-5)


def test_ranks_break_ties_by_the_seed_alone():
    maps = torch.tensor([[[1.0, 1, 3], [1, 0, 2]]]).expand(2, 2, 3)
    one, other = ranks(maps, 0), ranks(maps, 1)
    assert torch.equal(one[0], one[1])
    assert not torch.equal(one, other)
    for found in (one, other):
        assert found[0, 0, 2] == 0
        assert found[0, 1, 2] == 1
        assert found[0, 1, 1] == 5
        assert sorted(found[0].flatten().tolist()) == list(range(6))


def solved(image, holes):
    """The linear system of ROAD, set up pixel by pixel and solved directly."""
    height, width = holes.shape
    number = {tuple(at): k for k, at in enumerate(np.argwhere(holes))}
    system, right = lil_matrix((len(number), len(number))), np.zeros((len(number), len(image)))
    for (i, j), k in number.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                y, x = i + down, j + across
                if (down or across) and 0 <= y < height and 0 <= x < width:
                    weight = 1 / 6 if 0 in (down, across) else 1 / 12
                    system[k, k] += weight
                    if holes[y, x]:
                        system[k, number[y, x]] -= weight
                    else:
                        right[k] += weight * image[:, y, x]
    filled = image.copy()
    filled[:, holes] = spsolve(system.tocsr(), right).reshape(len(number), -1).T
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_imputing_solves_the_linear_system(share):
    draw = np.random.default_rng(0)
    image = draw.random((3, 21, 34))
    scattered = draw.random((21, 34)) < share
    block = np.zeros((21, 34), bool)
    block[: max(1, round(21 * share)), :33] = True
    for holes in (scattered, block):
        found = impute(torch.tensor(image)[None], torch.tensor(holes)[None])[0].numpy()
        np.testing.assert_allclose(found, solved(image, holes), atol=2e-3)
        np.testing.assert_array_equal(found[:, ~holes], image[:, ~holes])


def test_each_image_is_filled_in_by_itself():
    draw = torch.Generator().manual_seed(0)
    images, holes = torch.rand(3, 3, 16, 16, generator=draw), torch.rand(3, 16, 16, generator=draw) < 0.6
    together = impute(images, holes)
    for i in range(3):
        assert torch.allclose(together[i], impute(images[i : i + 1], holes[i : i + 1])[0], atol=1e-6)


def test_road_takes_half_the_difference():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    both = trust.road(explainer, found)
    morf, lerf = (trust.road(explainer, found, order=order) for order in ("morf", "lerf"))
    np.testing.assert_allclose(both.values, (lerf.values - morf.values) / 2, rtol=1e-5, atol=1e-7)
    assert set(both.curves) == {"morf", "lerf"}
    assert not morf.higher_is_better


def test_road_uses_every_chunk():
    """Quantus scores only the first batch."""
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=[1, 2, 3])
    chunks = trust.road(explainer, found, batch_size=1).values
    assert chunks.shape == (3,)
    assert len(set(chunks.tolist())) == 3
    np.testing.assert_allclose(chunks, trust.road(explainer, found).values, rtol=1e-4, atol=1e-6)


def test_pixel_flipping_in_closed_form():
    """On a linear network, with single pixels made 0: S(x) − S(x_k) is the sum of the first k pixels' worth."""
    model, images = Linear().double(), bright(2, (8, 10)).double()
    worth = (images * model.weight[1]).sum(1).detach()
    found = trust.pixel_flipping(
        Explainer(model), worth, images=images, target=1, patch=1, steps=30, baseline=torch.zeros(1)
    )
    lost = worth.flatten(1).sort(descending=True).values[:, :30].cumsum(1)
    np.testing.assert_allclose(found.values, lost.sum(1) / 31, rtol=1e-5)


def test_regions_at_the_edge_are_smaller():
    model, images = Linear().double(), bright(1, (8, 10)).double()
    maps = torch.zeros(1, 8, 10)
    maps[0, 6:, 9:] = 1  # the last region of 3 x 3 has 2 x 1 pixels
    found = trust.pixel_flipping(
        Explainer(model), maps, images=images, target=0, patch=3, steps=1, baseline=torch.zeros(1)
    )
    lost = (images * model.weight[0])[0, :, 6:, 9:].sum()
    np.testing.assert_allclose(np.diff(found.curves["score"][0]), [-lost.item()], rtol=1e-4)


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (trust.deletion, {"step": 0}),
        (trust.deletion, {"baseline": "grey"}),
        (trust.road, {"order": "first"}),
        (trust.road, {"fractions": (0.2, 1.0)}),
        (trust.road, {"fractions": ()}),
        (trust.pixel_flipping, {"patch": -1}),
    ],
)
def test_options_out_of_range_are_refused(metric, options):
    explainer = Explainer(small_cnn())
    with pytest.raises(InputError):
        metric(explainer, explainer.explain(IMAGES[:1], "saliency", target=1), **options)


def test_clips_shorter_than_a_region():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    explainer = Explainer(net)
    found = explainer.explain(torch.rand(1, 3, 4, 12, 10), "saliency", target=1)
    assert trust.pixel_flipping(explainer, found, baseline="mean").curves["score"].shape == (1, 5)
