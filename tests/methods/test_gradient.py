"""The gradient family hands on the gradient of its own rule, and maps it by the largest magnitude."""

import pytest
import torch

from seewhy.engine.record import Record
from seewhy.methods.gradient import DeconvNet, GuidedBackprop, Saliency


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
