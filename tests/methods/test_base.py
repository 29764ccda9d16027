"""What a method is, and how one is found."""

from dataclasses import dataclass

import pytest
import torch

import seewhy
from seewhy.engine.record import Needs, Record
from seewhy.methods import GradCAM, GuidedGradCAM
from seewhy.methods.base import upsample
from seewhy.methods.make import make_methods
from seewhy.methods.registry import find_method


def test_the_listing_has_a_line_for_each():
    listed = seewhy.list_methods()
    assert listed["grad_cam"].startswith("Grad-CAM:")
    assert all("\n" not in line and line for line in listed.values())


def test_options_go_to_the_methods_that_declare_them():
    guided, plain = make_methods(["guided_grad_cam", "grad_cam"], {"also": ("SiLU",)})
    assert guided == GuidedGradCAM(also=("SiLU",))
    assert plain == GradCAM()


def test_an_option_is_a_dataclass_field():
    @seewhy.register("test_scaled")
    @dataclass(frozen=True)
    class Scaled(seewhy.Method):
        """Activations, scaled."""

        factor: float = 2.0
        needs = seewhy.Needs(activation=True)

        def compute(self, record):
            return self.factor * record.activation.sum(1)

    assert find_method("test_scaled") is Scaled
    assert make_methods("test_scaled", {"factor": 3.0}) == [Scaled(3.0)]
    with pytest.raises(TypeError, match="'factor'"):
        make_methods("test_scaled", {"factr": 3.0})
    assert Scaled(name="mine").label == "mine"
    assert Scaled().label == "test_scaled"


def test_a_record_has_what_was_declared_and_says_what_it_has():
    record = Record(scores=torch.ones(1), input=torch.ones(1))
    assert record.scores.item() == 1
    with pytest.raises(AttributeError, match=r"no 'gradient'.*input, scores"):
        _ = record.gradient


def test_needs_say_what_passes_they_take():
    assert Needs(activation=True).layer
    assert not Needs(activation=True).score
    assert Needs(input_gradient="guided").score
    assert Needs(head=True).score
    assert not Needs(head=True).layer


def test_upsampling_keeps_pixel_centres():
    assert upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    same = torch.rand(1, 2, 3)
    assert upsample(same, (2, 3)) is same
