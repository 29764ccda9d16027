"""What holds for every metric: the network as it was, also after an exception, and the same result in any chunks."""

import inspect
from functools import partial

import numpy as np
import psutil
import pytest
import torch
from torchvision.transforms import ToTensor

from seewhy import Explainer, trust
from seewhy.testing import small_cnn, unchanged
from seewhy.trust.compare import _metrics

IMAGES = torch.rand(5, 3, 16, 20, generator=torch.Generator().manual_seed(1))
TARGETS = [1, 2, 3, 4, 0]
MASKS = np.zeros((5, 16, 20), bool)
MASKS[:, 4:9, 4:9] = True
BLIND = ("sparseness", "complexity", "pointing_game", "energy_in_mask", "mass_accuracy", "rank_accuracy")
METRICS = [name for name in trust.__all__ if name.islower() and name not in ("check", "compare")]
OPTIONS = {"baseline": "mean", "samples": 6, "step": 40, "patch": 5, "steps": 4, "masks": MASKS}


def asked(name):
    """The metric with options that make it quick."""
    metric = getattr(trust, name)
    known = inspect.signature(metric).parameters
    return partial(metric, **{key: value for key, value in OPTIONS.items() if key in known})


def explained(model, method="saliency"):
    explainer = Explainer(model)
    return explainer, explainer.explain(IMAGES, method, target=TARGETS)


@pytest.mark.parametrize("name", METRICS)
def test_a_number_for_each_map_and_the_network_as_it_was(name):
    model = small_cnn().train()
    explainer, found = explained(model)
    with unchanged(model):
        score = asked(name)(explainer, found)
    assert score.name == name
    assert score.values.shape == (5,)
    assert score.values.dtype == np.float32
    assert score.undefined == 0
    assert score.provenance["method"] == "saliency"
    again = asked(name)(explainer, found)
    np.testing.assert_array_equal(score.values, again.values)
    assert asked(name)(explainer, found)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", METRICS)
def test_the_same_in_any_chunks_and_alone(name):
    explainer, found = explained(small_cnn())
    metric = asked(name)
    whole, parts = (metric(explainer, found, batch_size=size).values for size in (None, 2))
    np.testing.assert_allclose(whole, parts, rtol=1e-3, atol=1e-5)
    if name == "grid_pointing":  # which needs others to make a mosaic of
        return
    given = {"masks": MASKS[3:4]} if "masks" in metric.keywords else {}
    alone = metric(explainer, found[3], **given).values
    np.testing.assert_allclose(whole[3:4], alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in BLIND])
@pytest.mark.parametrize("run", [1, 2, 4])
def test_the_network_comes_back_after_an_exception(name, run):
    model = small_cnn().train()
    explainer, found = explained(model)
    before, calls = model.head.weight.clone(), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == run:
            raise KeyboardInterrupt

    model.body.register_forward_hook(interrupt)
    with unchanged(model):
        try:
            asked(name)(explainer, found, batch_size=2)
        except KeyboardInterrupt:
            pass
        else:
            pytest.fail(f"{name} ran the network {len(calls)} times only")
    assert torch.equal(model.head.weight, before)


def test_seeds_decide_draws():
    explainer = Explainer(small_cnn(), transform=ToTensor())  # of which noise in colours is known
    found = explainer.explain(IMAGES, "saliency", target=TARGETS)
    seeded = [name for name in METRICS if "seed" in inspect.signature(getattr(trust, name)).parameters]
    assert {"deletion", "road", "pixel_flipping", "grid_pointing"} < set(seeded)
    for name in seeded:
        metric, subject, given = asked(name), found, {}
        if name in ("deletion", "insertion"):  # which draw the order of equal values, and nothing else
            subject, given = np.ones_like(found.maps), {"images": IMAGES, "target": TARGETS}
        if name == "pixel_flipping":
            given = {"baseline": "noise"}
        one, same, other = (metric(explainer, subject, seed=seed, **given).values for seed in (0, 0, 12))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any(), name


def test_names_are_those_of_compare():
    assert list(_metrics(METRICS)) == METRICS


def test_memory_is_flat():
    """Twenty times as many evaluations hold no more than their numbers."""
    explainer = Explainer(small_cnn())
    images = torch.rand(4, 3, 128, 128)
    found = explainer.explain(images, "saliency", target=1)
    process, used = psutil.Process(), []
    trust.deletion(explainer, found, step=2000, baseline="mean", batch_size=4)
    for step in (400, 20):
        before, seen = process.memory_info().rss, []
        handle = explainer.model.register_forward_hook(lambda *_, seen=seen: seen.append(process.memory_info().rss))
        trust.deletion(explainer, found, step=step, baseline="mean", batch_size=4)
        handle.remove()
        used.append(max(seen) - before)
    assert used[1] < used[0] + 30e6  # 3,300 images of 128 x 128 are 640 MB
