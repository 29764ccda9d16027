"""Finding layers by name, and the tensors in what they return."""

from collections import OrderedDict

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
    from collections import namedtuple

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


class Marked(nn.Module):
    """Has layers whose own names look like calls and ReLUs of others."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.d = nn.ModuleDict({"a#1": nn.Conv2d(3, 4, 3), "b+relu": nn.ReLU()})

    def forward(self, x):
        x = self.d["b+relu"](self.d["a#1"](x))
        return self.d["b+relu"](x).mean((2, 3))


def test_names_may_hold_what_marks_calls():
    once = nn.Sequential(OrderedDict({"conv": nn.Conv2d(3, 4, 3), "a+relu": nn.Tanh(), "flat": nn.Flatten()}))
    assert [layer.label for layer in find_layers(once, ["a+relu", "conv+relu"])] == ["a+relu", "conv+relu"]
    assert [layer.relu for layer in find_layers(once, ["a+relu", "conv+relu"])] == [False, True]
    explainer, x = Explainer(Marked()), torch.rand(1, 3, 8, 8)
    assert explainer.explain(x, target=2, layer="d.a#1").layer == "d.a#1"
    assert explainer.explain(x, target=2).layer == "d.b+relu#2"
    assert explainer.explain(x, target=2, layer="d.b+relu#1").layer == "d.b+relu#1"
    with pytest.raises(KeyError, match=r"no layer 'd\.b'"):
        find_layers(explainer.model, "d.b#1")


def test_the_table_says_why():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Identity(), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )
    rows = Explainer(model).layers(torch.rand(1, 3, 12, 16))
    assert [row.why for row in rows] == [
        "",
        "hands its input through",
        "the last that the score has a gradient at",
        "only resamples",
        "no positions",
        "no positions",
    ]
    assert "<- chosen: the last that the score" in repr(rows)


def test_a_block_that_ends_in_place_is_chosen_and_not_its_shortcut():
    """As timm's ResNet: the shortcut runs last, and the sum and the activation are written over what went before."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.shortcut, self.act = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            y = self.norm(self.conv(x))
            y += self.shortcut(x)
            return self.act(y)

    torch.manual_seed(0)
    model = nn.Sequential(Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    assert Explainer(model).explain(torch.rand(1, 3, 12, 16), target=1).layer == "0"
