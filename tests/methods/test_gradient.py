"""The gradient family hands on the gradient of its own rule, and maps it by the largest magnitude."""

import captum.attr
import pytest
import torch
from networks import images
from three import KINDS, SIZE, TARGETS, assert_equal, explainer_of, network
from torch import nn

from seewhy import Explainer
from seewhy.engine.record import Record
from seewhy.methods.gradient import DeconvNet, GuidedBackprop, Saliency

pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown:seewhy.SeewhyWarning")


@pytest.mark.parametrize(
    ("method", "rule"), [(Saliency, "plain"), (GuidedBackprop, "guided"), (DeconvNet, "deconvnet")]
)
def test_each_declares_its_rule_and_returns_that_gradient(method, rule):
    gradient = torch.randn(2, 3, 4, 5)
    assert method().needs.at_input.rule.name == rule
    assert torch.equal(method().compute(Record(input_gradient=gradient)), gradient)


def test_maps_are_the_largest_magnitude_over_the_colours():
    values = torch.tensor([[[[1.0]], [[-3.0]], [[2.0]]]])
    assert Saliency().to_maps(values, (1, 1)).tolist() == [[[3.0]]]


def test_also_reaches_the_rule():
    assert GuidedBackprop(also=("SiLU",)).needs.at_input.rule.also == ("SiLU",)
    assert DeconvNet(also=["GELU"]).needs.at_input.rule.also == ("GELU",)


@pytest.mark.parametrize("kind", KINDS)
def test_input_x_gradient_equals_captums(kind):
    net, x = network(kind), images(size=SIZE)
    found = explainer_of(net).explain(x, "input_x_gradient", target=list(TARGETS))
    leaf = x.clone().requires_grad_()
    assert_equal(found.values, captum.attr.InputXGradient(net).attribute(leaf, target=list(TARGETS)))
    assert found.signed


def test_without_biases_it_adds_up_to_the_score():
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2)]
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 2 * 4, 3, bias=False)).double()
    found = Explainer(model).explain(images(size=(8, 12)), "input_x_gradient", target=[1, 2])
    assert found.values.sum((1, 2, 3)) == pytest.approx(found.scores, rel=1e-5)
    assert found.maps == pytest.approx(found.values.sum(1), abs=1e-6)


def test_libra_reaches_the_gradient():
    x, explainer = images(1, SIZE), explainer_of(network("vit"))
    for name in ("saliency", "input_x_gradient"):
        plain, balanced = (explainer.explain(x, name, target=1, libra=on).values for on in (False, True))
        assert abs(plain - balanced).max() > 0.01 * abs(plain).max()
