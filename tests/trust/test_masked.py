"""What is left where only the map is shown, against TorchCAM and by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torchcam.metrics import ClassificationMetric
from trust_known import Constant, Maps, bright

from seewhy import Explainer, Explanation, Value, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn

IMAGES = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))
ZERO = torch.zeros(1)


def test_equal_to_torchcam():
    model, maps = small_cnn(), torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(4))
    flat = maps.flatten(1)
    maps = (maps - flat.amin(1).view(-1, 1, 1)) / (flat.amax(1) - flat.amin(1)).view(-1, 1, 1)
    metric = ClassificationMetric(Maps(model, maps), lambda x: x.softmax(-1))
    metric.update(IMAGES, [1, 2, 3])
    given = {"images": IMAGES, "target": [1, 2, 3], "baseline": ZERO}
    drop = trust.average_drop(Explainer(model), 7 * maps - 3, **given)
    increase = trust.average_increase(Explainer(model), maps, **given)
    assert drop.mean == pytest.approx(metric.summary()["avg_drop"], abs=1e-6)
    assert increase.mean == pytest.approx(metric.summary()["conf_increase"], abs=1e-6)
    assert set(increase.values.tolist()) <= {0.0, 1.0}
    assert 0 < drop.mean < 1


def test_a_full_map_loses_nothing_and_a_constant_one_shows_nothing():
    explainer, one = Explainer(small_cnn()), torch.zeros(3, 24, 32)
    full = torch.ones(3, 24, 32)
    full[:, 0, 0] = 0  # else it would be constant, which says nothing
    kept = trust.average_drop(explainer, full, images=IMAGES, target=1, baseline=ZERO)
    blank = trust.average_drop(explainer, one + 5, images=IMAGES, target=1, baseline=ZERO)
    black = explainer.explain(torch.zeros(1, 3, 24, 32), "saliency", target=1).probabilities[0]
    np.testing.assert_allclose(blank.numbers["after"], black, rtol=1e-5)
    assert abs(kept.numbers["after"] - kept.numbers["before"]).max() < 0.01


def test_adcc_is_the_harmonic_mean_of_its_parts():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=[1, 2, 3])
    score = trust.adcc(explainer, found, baseline=ZERO)
    drop = trust.average_drop(explainer, found, baseline=ZERO)
    np.testing.assert_allclose(score.numbers["average_drop"], drop.values, rtol=1e-5)
    low, high = found.maps.min((1, 2), keepdims=True), found.maps.max((1, 2), keepdims=True)
    maps = (found.maps - low) / (high - low)
    np.testing.assert_allclose(score.numbers["complexity"], maps.mean((1, 2)), rtol=1e-5)
    again = explainer.explain(IMAGES * torch.from_numpy(maps)[:, None], "saliency", target=[1, 2, 3]).maps
    correlation = [np.corrcoef(maps[i].ravel(), again[i].ravel())[0, 1] for i in range(3)]
    np.testing.assert_allclose(score.numbers["coherency"], (1 + np.array(correlation)) / 2, rtol=1e-4)
    parts = [score.numbers["coherency"], 1 - score.numbers["complexity"], 1 - drop.values]
    np.testing.assert_allclose(score.values, 3 / sum(1 / part for part in parts), rtol=1e-5)


def test_adcc_of_a_lost_probability_is_0():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES[:1], "saliency", target=1)
    score = trust.adcc(explainer, found, baseline=ZERO)
    assert 0 < score.mean < 1
    constant = Explainer(Constant())
    kept = trust.average_drop(constant, torch.rand(2, 24, 24), images=bright(), target=1, baseline=ZERO)
    assert kept.mean == 0


def test_adcc_of_plain_maps_asks_for_the_method():
    explainer = Explainer(small_cnn())
    maps = explainer.explain(IMAGES, "saliency", target=1).maps
    with pytest.raises(InputError, match="give method="):
        trust.adcc(explainer, maps, images=IMAGES, target=1, baseline=ZERO)
    assert trust.adcc(explainer, maps, images=IMAGES, target=1, method="saliency", baseline=ZERO).values.shape == (3,)


def test_there_is_no_share_of_a_score_below_0():
    class Below(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, images):
            return images.mean((1, 2, 3))[:, None] * self.w - torch.tensor([0.0, 3.0])

    maps = torch.zeros(1, 8, 8)
    maps[:, 0, 0] = 1
    given = {"images": torch.ones(1, 3, 8, 8), "target": Value(1), "baseline": ZERO}
    assert trust.average_drop(Explainer(Below()), maps, **given).undefined == 1


def test_a_target_without_probability_is_taken_by_its_score():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=lambda scores: scores[:, 1] - scores[:, 2])
    assert isinstance(found, Explanation)
    np.testing.assert_allclose(
        trust.average_drop(explainer, found, baseline=ZERO).numbers["before"], found.scores, rtol=1e-5
    )
