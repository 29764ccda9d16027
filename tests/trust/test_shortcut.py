"""A shortcut planted in a data set is found, and a network trained without it is not suspected."""

import pytest
import torch
from shortcut import CLASS, MASK, digits, planted, train

from seewhy import Explainer, trust

pytestmark = pytest.mark.sweep  # it trains two networks


def test_the_planted_shortcut_is_found():
    images, labels = digits()
    spoilt_images, kept = planted(images, labels), torch.arange(len(images)) % 5 > 0
    spoilt, honest = (Explainer(train(x[kept], labels[kept])) for x in (spoilt_images, images))
    affected = spoilt_images[~kept][labels[~kept] == CLASS][:16]
    masks, options = MASK.expand(len(affected), -1, -1).numpy(), {"target": CLASS, "window": 6, "stride": 3}
    options["baseline"] = torch.zeros(1)
    metrics = ["mass_accuracy", "rank_accuracy", "pointing_game"]
    found, other = (
        trust.compare(explainer, affected, ["occlusion", "grad_cam"], metrics, masks, **options)
        for explainer in (spoilt, honest)
    )
    assert found.table["mass_accuracy"].iloc[0] > 0.5
    assert other.table["mass_accuracy"].max() < 0.05
    assert found.table["pointing_game"].min() == 1
    assert (found.table["mass_accuracy"] > 10 * other.table["mass_accuracy"]).all()
    assert (found.table["rank_accuracy"] > other.table["rank_accuracy"]).all()

    clean = images[~kept][labels[~kept] == CLASS][:16]
    assert not honest.check(honest.explain(clean, "grad_cam", target=CLASS)).alarms
