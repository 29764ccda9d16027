"""What `check` says of maps of which it is known what must be said."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import nn
from trust_known import MASKS, REGION, Blank, OneRegion, bright

from seewhy import Explainer, Method, Needs, SeewhyError, list_methods, samples
from seewhy.errors import InputError, InputTypeError, UnknownNameError
from seewhy.methods.make import options_of
from seewhy.methods.registry import find_method
from seewhy.render.check import MARKS
from seewhy.testing import small_cnn, small_vit, unchanged
from seewhy.trust import Check
from seewhy.trust.check import _moved, _student
from seewhy.trust.finding import QUESTIONS

IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def checks():
    explainer = samples.explainer()
    found = explainer.explain(samples.photo("camera"), ["grad_cam", "guided_backprop", "eigen_cam"])
    return {one.method: explainer.check(one) for one in found.values()}


def test_guided_backprop_is_not_to_be_believed(checks):
    found = checks["guided_backprop"]
    assert found["weights"].answer == found["target"].answer == "no"
    assert found["weights"].value > 0.9
    assert "does not depend on what the last layer ('_fc') learned: do not read it as evidence" in str(found)
    assert found.verdict.startswith("Do not read it as evidence")
    assert {one.name for one in found.alarms} == {"weights", "target"}


def test_grad_cam_passes(checks):
    found = checks["grad_cam"]
    assert not found.alarms
    assert found["evidence"].numbers["maps with a gradient at the layer"] == 1
    assert found["faithful"].value > found["faithful"].threshold
    numbers = found["faithful"].numbers
    assert numbers["gap, random low"] < numbers["gap, random"] < numbers["gap, random high"]
    assert numbers["gap"] == pytest.approx(numbers["insertion"] - numbers["deletion"], rel=1e-5)


def test_a_map_that_ignores_the_class_is_found_out(checks):
    assert checks["eigen_cam"]["target"].answer == "no"


def test_every_finding_says_where_it_comes_from(checks):
    for found in checks.values():
        assert [one.name for one in found] == list(QUESTIONS)
        for one in found:
            assert one.sentence.endswith(".")
            assert one.answer in MARKS
            assert (one.source != "") == (one.answer != "not asked")
        json.dumps([one.__dict__ | {"numbers": dict(one.numbers)} for one in found])
    with pytest.raises(UnknownNameError, match="'weights'"):
        found["wieghts"]


class Counted(nn.Module):
    """Counts the images that run forward, and the backward passes."""

    def __init__(self, net):
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, images):
        self.forwards += len(images)
        found = self.net(images)
        if found.requires_grad:
            found.register_hook(self.count)
        return found

    def count(self, gradient):
        self.backwards += len(gradient)


FEW = {"steps": 4, "samples": 24, "masks": 8, "designs": 2, "segments": 4, "window": 8, "stride": 8, "baseline": "mean",
       "baselines": "mean"}  # fmt: skip


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
@pytest.mark.parametrize("net", [pytest.param(small_cnn, marks=pytest.mark.sweep), small_vit])
def test_it_costs_at_most_50_forward_passes(net):
    """A backward pass takes two forward ones; methods that take many themselves are not asked to explain again."""
    explainer, costly = Explainer(Counted(net())), set()
    with torch.no_grad():
        explainer.model.net.head.weight.abs_()
    images = IMAGES[:1, :, :16, :16] * 0.5 + 0.2
    for name in list_methods():
        options = {key: value for key, value in FEW.items() if key in options_of(find_method(name))}
        try:
            found = explainer.explain(images, name, target=1, **options)
        except SeewhyError:  # which is not for this network
            continue
        explainer.model.forwards = explainer.model.backwards = 0
        checked = explainer.check(found)
        assert explainer.model.forwards + 2 * explainer.model.backwards <= 50, name
        if "thorough=True" in checked["weights"].sentence:
            costly.add(name)
    assert {"shapley_cam", "occlusion", "integrated_gradients", "rise", "smooth_grad"} <= costly
    assert ("legrad" in costly) == (net is small_vit)
    assert not costly & {"saliency", "grad_cam", "guided_grad_cam", "full_grad", "attention_rollout", "hires_cam"}


def test_thorough_asks_costly_methods_too():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "integrated_gradients", target=1, baseline="blur", steps=150)
    assert explainer.check(found)["complete"].answer in ("yes", "unclear")
    found = explainer.explain(IMAGES, "saliency", target=1)
    checked = explainer.check(found, thorough=True)
    assert len(checked["weights"].numbers) > 3
    assert all(one.answer != "not asked" for one in checked if one.name != "complete")
    one = explainer.explain(IMAGES[:1], "occlusion", target=1, window=8, stride=8, baseline="mean")
    assert explainer.check(one, thorough=True)["target"].answer != "not asked"


def test_a_network_that_reads_one_region():
    explainer, images = Explainer(OneRegion()), bright(2)
    found = explainer.explain(images, "input_x_gradient", target=1)
    checked = explainer.check(found, thorough=True)
    assert checked["faithful"].answer == "yes"
    assert found.maps[0][~MASKS[0]].max() == 0


class Elsewhere(Method):
    """Marks all but what the network reads, whatever is asked."""

    needs = Needs(input_gradient="plain")

    def compute(self, record):
        return (~REGION).float().expand(len(record.input), -1, -1)


def test_blank_and_wrong_maps_raise_the_alarm():
    explainer = Explainer(OneRegion())
    with pytest.warns(UserWarning, match="0 everywhere"):
        blank = explainer.explain(bright(2), Blank(), target=1)
    found = explainer.check(blank)
    assert found["evidence"].answer == "no"
    assert found["stable"].answer == "not asked"
    wrong = explainer.check(explainer.explain(bright(2), Elsewhere(), target=1))
    assert wrong["faithful"].answer == "no"
    assert wrong["weights"].answer == "no"
    assert wrong["target"].sentence.startswith("Not asked: of two classes")
    assert len(wrong.alarms) == 2


def test_the_network_comes_back():
    model = small_cnn().train()
    explainer = Explainer(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    with unchanged(model):
        explainer.check(found)


def test_the_same_for_the_same_seed_and_any_chunk():
    explainer = Explainer(small_cnn())
    found = explainer.explain(IMAGES, "saliency", target=1)
    one, other = explainer.check(found), explainer.check(found, batch_size=1)
    for a, b in zip(one, other, strict=True):
        assert a.answer == b.answer
        assert a.value == pytest.approx(b.value, rel=1e-3, nan_ok=True)


def test_maps_without_their_making_are_refused():
    explainer = Explainer(small_cnn())
    with pytest.raises(InputTypeError, match="give the Explanation"):
        explainer.check(np.zeros((24, 32)), images=IMAGES[:1], target=1)
    with pytest.raises(InputTypeError, match="give the Explanation"):
        explainer.check(IMAGES)
    with pytest.raises(InputTypeError, match="takes one Explanation"):
        explainer.check(explainer.explain(IMAGES, ["saliency"], target=1))
    with pytest.raises(InputError, match="another network"):
        Explainer(small_cnn(3)).check(explainer.explain(IMAGES, "saliency", target=1))


def test_students_t():
    for freedom in (5, 8, 23):
        assert _student(freedom) == pytest.approx(student.ppf(0.95, freedom), rel=3e-3)


def test_moved_maps_have_the_same_values_elsewhere():
    maps = torch.rand(2, 24, 32)
    for seed in range(5):
        moved = _moved(maps, seed)
        assert torch.equal(moved.flatten(1).sort().values, maps.flatten(1).sort().values)
        assert (moved == maps).float().mean() < 0.1


def test_a_notebook_shows_a_panel(checks):
    found = checks["guided_backprop"]
    assert isinstance(found, Check)
    assert found._repr_png_().startswith(b"\x89PNG")
    ax = found.plot()
    said = [text.get_text() for text in ax.texts]
    assert any("do not read it as evidence" in line for line in said)
    assert all(any(one.question == line for line in said) for one in found)
    assert "weights=no" in repr(found)
