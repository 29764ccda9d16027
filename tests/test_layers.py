"""Finding layers by name, and the tensors in what they return."""

import pytest
import torch
from torch import nn

from seewhy import Explainer
from seewhy.layers import find_layers, tensors, with_first_tensor


def test_a_resampling_pool_gives_way_to_its_input():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(36, 2),
    )
    assert Explainer(model).explain(torch.rand(1, 3, 12, 16), target=1).layer == "0"


def test_first_tensors_are_found_and_replaced_in_what_modules_return():
    a, b = torch.zeros(1), torch.ones(1)
    from collections import OrderedDict, namedtuple

    pair = namedtuple("pair", "x y")
    for value in (a, (None, a), [1, [a]], {"k": 1, "t": a}, OrderedDict(t=a), pair(None, a)):
        replaced = with_first_tensor(value, b)
        assert type(replaced) is type(value)
        assert next(tensors(replaced)) is b
        assert next(tensors(value)) is a
    assert next(tensors((None, "x")), None) is None


def test_close_matches_are_offered():
    model = nn.Sequential()
    model.add_module("layer4", nn.Conv2d(3, 3, 1))
    with pytest.raises(KeyError, match="'layer4'"):
        find_layers(model, "layer5")
