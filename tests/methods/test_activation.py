"""Activations are handed on, and mapped by their mean."""

import torch

from seewhy.methods.activation import Activations


def test_maps_are_the_mean_over_channels_resized_without_aligned_corners():
    values = torch.tensor([[[[0.0, 4.0]], [[2.0, 6.0]]]])
    assert Activations().to_maps(values, (1, 4)).tolist() == [[[1.0, 2.0, 4.0, 5.0]]]


def test_without_positions_the_map_is_the_same_everywhere():
    assert Activations().to_maps(torch.tensor([[1.0, 3.0]]), (2, 2)).tolist() == [[[2.0, 2.0], [2.0, 2.0]]]


def test_nothing_but_the_activation_is_asked_for():
    assert not Activations().needs.score


def test_a_mean_that_is_nothing_but_rounding_is_zero():
    values = torch.nn.functional.layer_norm(torch.randn(1, 4, 5, 64), (64,)).movedim(-1, 1)
    assert values.mean(1).any()
    assert not Activations().to_maps(values, (8, 10)).any()
    assert Activations().to_maps(values + 1e-4, (8, 10)).min() > 0.9e-4
