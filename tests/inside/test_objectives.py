"""Objectives against arithmetic by hand."""

import numpy as np
import pytest
import torch

from seewhy.errors import InputError, InputTypeError, LayerError, ModelError, SeewhyError, TargetError
from seewhy.inside.objectives import (
    Channel,
    Direction,
    Diversity,
    Function,
    Logit,
    Neuron,
    Seen,
    Sum,
    channel_numbers,
    make_objectives,
)
from seewhy.targets import About

A = torch.arange(2 * 3 * 16 * 24, dtype=torch.float64).reshape(2, 3, 16, 24).sin()
SEEN = Seen({"l": A, "unit": A[:, :, 0, 0]}, torch.tensor([[1.0, 5.0], [2.0, -3.0]]))
ABOUT = About({0: "cat", 1: "dog, hound"}, None)


def close(a, b):
    return torch.allclose(a.double(), torch.as_tensor(b).double())


def test_a_channel_is_its_mean_without_the_border():
    assert close(Channel("l", 1).value(SEEN), A[:, 1, 2:-2, 2:-2].mean((1, 2)))
    small = Seen({"l": A[..., :9, :4]})  # an eighth of 9 is 1, of 4 is 0
    assert close(Channel("l", 2).value(small), A[:, 2, 1:8, :4].mean((1, 2)))
    assert close(Channel("unit", 2).value(SEEN), A[:, 2, 0, 0])


def test_a_neuron_is_one_position():
    assert close(Neuron("l", 0).value(SEEN), A[:, 0, 8, 12])
    assert close(Neuron("l", 0, (3, 4)).value(SEEN), A[:, 0, 3, 4])
    assert close(Neuron("unit", 1).value(SEEN), A[:, 1, 0, 0])


def test_a_direction_is_a_dot_product():
    vector = np.array([1.0, -2.0, 0.5])
    assert close(Direction("l", vector).value(SEEN), A[..., 2:-2, 2:-2].mean((2, 3)) @ torch.tensor(vector))
    assert close(Direction("unit", [1, 0, 1]).value(SEEN), A[:, 0, 0, 0] + A[:, 2, 0, 0])


def test_diversity_is_minus_the_likeness_of_gram_matrices():
    flat = A.flatten(2)
    first, second = (one @ one.T for one in flat)
    cosine = (first * second).sum() / (first.norm() * second.norm())
    assert close(Diversity("l").value(SEEN), torch.stack([-cosine, -cosine]))
    twins = Seen({"l": A[:1].expand(3, -1, -1, -1)})
    assert close(Diversity("l").value(twins), -torch.ones(3))
    with pytest.raises(InputError, match="copies=2"):
        Diversity("l").value(Seen({"l": A[:1]}))


def test_a_class_by_index_and_by_any_part_of_its_name():
    for cls in (1, "dog", "hound"):
        assert close(Logit(cls).resolved(ABOUT, {}).value(SEEN), [5.0, -3.0])
    assert Logit("hound").resolved(ABOUT, {}).name == "dog, hound"
    with pytest.raises(SeewhyError, match="Did you mean 'cat'"):
        Logit("catt").resolved(ABOUT, {})
    with pytest.raises(TargetError):
        Logit(-1).resolved(ABOUT, {})
    with pytest.raises(InputError, match="There is no class 7"):
        Logit(7).resolved(About(), {}).value(SEEN)
    with pytest.raises(ModelError, match="no class scores"):
        Logit(0).resolved(ABOUT, {}).value(Seen({}))


def test_sums_mean_what_they_say_and_change_nothing():
    a, b, c = Channel("l", 0), Neuron("l", 1), Logit(1)
    before = (repr(a), repr(b))
    values = {one: one.resolved(ABOUT, {}).value(SEEN).double() for one in (a, b, c)}
    for made, expected in [
        (a + 2 * b, values[a] + 2 * values[b]),
        (a - b, values[a] - values[b]),
        (-a, -values[a]),
        (0.5 * (a - 3 * b) + c, 0.5 * values[a] - 1.5 * values[b] + values[c]),
        ((a + b) * np.float32(2), 2 * values[a] + 2 * values[b]),
        ((a - b) / 4, 0.25 * values[a] - 0.25 * values[b]),
    ]:
        assert isinstance(made, Sum)
        assert close(made.resolved(ABOUT, {}).value(SEEN), expected)
    assert (repr(a), repr(b)) == before
    assert (a + c).scores
    assert not (a + b).scores
    assert (a + b + Channel("unit", 0)).layers == ("l", "unit")


def test_they_are_immutable_and_equal_by_value():
    with pytest.raises(AttributeError):
        Channel("l", 0).index = 3  # type: ignore[misc]
    assert Channel("l", 0) == Channel("l", 0)
    assert len({Channel("l", 0) + Channel("l", 1), Channel("l", 0) + Channel("l", 1)}) == 1


def test_names():
    assert (Channel("l", 0) - 2 * Channel("m", 3)).name == "channel 0 of l - 2 * channel 3 of m"
    assert (-Logit("cat")).name == "-class cat"
    assert Neuron("l", 0, (1, 2)).name == "channel 0 at (1, 2) of l"
    assert Channel(torch.nn.ReLU(), 0).name == "channel 0 of ReLU"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Channel("l", 3).value(SEEN), "no channel 3 of l: it has 3"),
        (lambda: Channel("l", -1).value(SEEN), "no channel -1"),
        (lambda: Neuron("l", 0, (16, 0)).value(SEEN), "no position \\(16, 0\\) of l, whose grid is \\(16, 24\\)"),
        (lambda: Neuron("l", 0, (1,)).value(SEEN), "no position"),
        (lambda: Direction("l", [1, 2]).value(SEEN), "direction has shape \\(2,\\), and the layer 3 channels"),
        (lambda: Function("l", lambda a: a.mean()).value(SEEN), "a number per image; got \\(\\)"),
        (lambda: Function("l", lambda a: 3).value(SEEN), "got int"),
    ],
)
def test_what_is_not_there_is_told(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_modules_are_called_by_their_labels():
    module = torch.nn.ReLU()
    objective = (Channel(module, 0) - 2 * Neuron("m", 1)).resolved(ABOUT, {module: "l"})
    assert objective == Channel("l", 0) - 2 * Neuron("m", 1)
    assert objective.layers == ("l", "m")


def test_what_may_be_asked():
    function = make_objectives(lambda a: a[:, 0].amax((1, 2)), "l")[0]
    assert close(function.value(SEEN), A[:, 0].amax((1, 2)))
    both = [Channel("l", 0), Logit("cat")]
    assert make_objectives(both, None) == both
    for given, layer, error, message in [
        ([], None, InputError, "empty"),
        ("cat", None, InputTypeError, "not 'cat'"),
        (Channel, None, InputTypeError, "objective is an Objective"),
        (lambda a: a, None, LayerError, "give layer="),
        (Channel("l", 0), "l", InputError, "leave layer= out"),
    ]:
        with pytest.raises(error, match=message):
            make_objectives(given, layer)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [(None, [0, 1, 2, 3]), (4, [4]), (np.int64(4), [4]), (range(2), [0, 1]), (np.array([5, 0]), [5, 0])],
)
def test_channels_by_number(given, numbers):
    assert channel_numbers(given, 6, most=4) == numbers


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], InputError, "empty"),
        (6, InputError, "no channel 6: the layer has 6, 0 to 5"),
        ([0, -1], InputError, "no channel -1"),
        ([True], InputError, "no channel True"),
        ([0.5], InputTypeError, "whole numbers"),
        ("a", InputTypeError, "whole numbers"),
    ],
)
def test_channels_that_are_not_there(given, error, message):
    with pytest.raises(error, match=message):
        channel_numbers(given, 6, most=4)


def test_objectives_are_multiplied_by_numbers_and_added_to_objectives():
    for other in ("x", None, True, Channel("l", 1)):
        with pytest.raises(InputTypeError):
            Channel("l", 0) * other
    with pytest.raises(InputTypeError):
        Channel("l", 0) + 3
    for other in (0, "x", True):
        with pytest.raises(InputTypeError, match="divided by a number"):
            Channel("l", 0) / other
