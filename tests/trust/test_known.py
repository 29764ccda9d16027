"""A network that reads one region: the oracle map is best and the inverted one worst, whatever the metric."""

from functools import partial

import numpy as np
import pytest
import torch
from trust_known import MASKS, ORACLE, REGION, SIDE, Constant, OneRegion, bright

from seewhy import Explainer, trust
from seewhy.errors import NonFiniteError
from seewhy.testing import unchanged

BLACK = torch.zeros(1)
IMAGES = bright()
MAPS = {
    "oracle": ORACLE,
    "inverted": -ORACLE,
    "random": torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(9)),
    "constant": torch.ones(SIDE, SIDE),
    "half right": torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(8)) + 0.5 * REGION,
}
FAITHFUL = {
    "deletion": partial(trust.deletion, baseline=BLACK),
    "insertion": partial(trust.insertion, baseline=BLACK),
    "road": partial(trust.road),
    "morf": partial(trust.road, order="morf"),
    "lerf": partial(trust.road, order="lerf"),
    "pixel_flipping": partial(trust.pixel_flipping, patch=2, baseline=BLACK),
    "mufidelity": partial(trust.mufidelity, grid=4, baseline=BLACK, samples=60),
    "infidelity": partial(trust.infidelity, baseline=BLACK, samples=60),
    "average_drop": partial(trust.average_drop, baseline=BLACK),
}
LOCAL = {
    name: partial(getattr(trust, name), masks=MASKS.repeat(2, 0))
    for name in ("pointing_game", "energy_in_mask", "mass_accuracy", "rank_accuracy")
}
LOCAL["pointing_game"] = partial(LOCAL["pointing_game"], tolerance=0)


def judged(metric, name):
    explainer = Explainer(OneRegion())
    maps = MAPS[name].expand(2, SIDE, SIDE)
    given = {} if "masks" in metric.keywords else {"images": IMAGES, "target": 1}
    if name == "inverted" and "masks" in metric.keywords:
        maps = ORACLE.max() - ORACLE.expand(2, SIDE, SIDE)  # positive where the oracle is not
    return metric(explainer, maps, **given)


@pytest.mark.parametrize("name", [*FAITHFUL, *LOCAL])
def test_the_oracle_is_best_and_the_inverted_map_worst(name):
    metric = {**FAITHFUL, **LOCAL}[name]
    scores = {which: judged(metric, which) for which in MAPS}
    sign = 1 if scores["oracle"].higher_is_better else -1
    means = {which: sign * score.mean for which, score in scores.items()}
    if name == "average_drop":
        del means["constant"]  # which shows nothing at all
    assert means["oracle"] == max(means.values())
    assert means["inverted"] <= min(means.values()) + 1e-6
    assert means["oracle"] > means["random"] + 1e-4
    assert means["half right"] >= means["random"]


def test_a_constant_map_is_like_random_order_and_not_like_reading_order():
    explainer, metric = Explainer(OneRegion()), FAITHFUL["deletion"]
    at_top = torch.linspace(1, 0, SIDE**2).view(SIDE, SIDE)  # the order from top to bottom
    constant = judged(metric, "constant").mean
    rng = torch.Generator().manual_seed(0)
    drawn = [metric(explainer, torch.rand(2, SIDE, SIDE, generator=rng), images=IMAGES, target=1).mean for _ in "12345"]
    assert min(drawn) - 0.02 < constant < max(drawn) + 0.02
    assert abs(metric(explainer, at_top.expand(2, -1, -1), images=IMAGES, target=1).mean - constant) > 0.05


@pytest.mark.parametrize("name", FAITHFUL)
def test_a_constant_network_gives_the_same_for_every_map(name):
    explainer = Explainer(Constant())
    values = [
        FAITHFUL[name](explainer, MAPS[which].expand(2, -1, -1), images=IMAGES, target=1).values
        for which in ("oracle", "random")
    ]
    np.testing.assert_array_equal(*values)
    known = {"deletion": 1 / (1 + np.exp(-0.6)), "pixel_flipping": 0, "infidelity": 0, "road": 0, "average_drop": 0}
    known |= {"mufidelity": np.nan}
    if name in known:
        np.testing.assert_allclose(values[0], known[name], rtol=1e-5)


@pytest.mark.parametrize("name", [*FAITHFUL, *LOCAL])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_maps_are_refused_by_number(name, value):
    maps = ORACLE.expand(2, SIDE, SIDE).clone()
    maps[1, 0, 0] = value
    given = {} if name in LOCAL else {"images": IMAGES, "target": 1}
    with pytest.raises(NonFiniteError, match="image 1"):
        {**FAITHFUL, **LOCAL}[name](Explainer(OneRegion()), maps, **given)


@pytest.mark.parametrize("name", FAITHFUL)
def test_no_result_depends_on_the_size_of_chunks(name):
    explainer, maps = Explainer(OneRegion()), torch.stack([MAPS["random"], ORACLE, MAPS["half right"]])
    images = bright(3)
    whole, single = (
        FAITHFUL[name](explainer, maps, images=images, target=1, batch_size=size).values for size in (None, 1)
    )
    np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-6)
    alone = [FAITHFUL[name](explainer, maps[i], images=images[i], target=1).values[0] for i in range(3)]
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAITHFUL)
def test_the_network_comes_back_also_after_an_exception(name):
    model = OneRegion().train()
    with unchanged(model):
        FAITHFUL[name](Explainer(model), ORACLE, images=IMAGES[:1], target=1)
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) > 1:  # the first run is that of the image itself
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        FAITHFUL[name](Explainer(model), ORACLE, images=IMAGES[:1], target=1)
