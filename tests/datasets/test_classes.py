"""Which class of the network a label means."""

import warnings

import numpy as np
import pytest
import torch

from seewhy import SeewhyWarning
from seewhy.datasets.classes import Classes
from seewhy.errors import InputTypeError, TargetError, TargetIndexError, UnknownNameError

ANIMALS = {0: "ant", 1: "bee, honey bee", 2: "cat"}


def classes(data=(), folders=(), model=ANIMALS, renamed=None, count=3, single=False):
    found = Classes(data, folders, model, renamed)
    if count:
        found.saw(count, single=single)
    return found


def indices(labels, **how):
    return classes(**how).indices(labels).tolist()


def test_indices_are_the_networks():
    assert indices([0, 2, None, np.int64(1), torch.tensor(2), np.array([0])]) == [0, 2, -1, 1, 2, 0]
    assert indices([0, 2], model={}) == [0, 2]


def test_names_are_looked_up():
    assert indices(["ant", "Honey Bee", " CAT ", "bee, honey bee"]) == [0, 1, 2, 1]
    with pytest.raises(UnknownNameError, match=r"No class is called 'bees'\. Did you mean 'bee'.*labels="):
        indices(["bees"])


def test_an_ambiguous_name():
    with pytest.raises(UnknownNameError, match="Several classes are called 'crane': 0, 2"):
        indices(["crane"], model={0: "crane", 1: "cat", 2: "crane"})
    same = {0: "crane", 1: "cat", 2: "crane"}
    assert indices([0, 2, 1], data=("crane", "cat", "crane"), model=same) == [0, 2, 1]


def test_a_data_set_that_calls_its_indices_by_names():
    assert indices([0, 1, 2], data=("cat", "ant", "honey bee")) == [2, 0, 1]
    assert indices([0, 1], data=("cat", "ant")) == [2, 0]
    with pytest.raises(UnknownNameError, match=r"No class is called 'dog'.*It is a class of the data set"):
        indices([2], data=("cat", "ant", "dog"))
    assert indices([0], data=("cat", "ant", "dog")) == [2]  # nobody asked for the dog


def test_network_names_in_any_order():
    mixed = {2: "cat", 0: "ant", 1: "bee"}
    assert indices([0, 1, 2], data=("cat", "ant", "bee"), model=mixed) == [2, 0, 1]


def test_synonyms_in_the_same_order():
    """As ImageNet's, of which two classes are called crane."""
    names = {0: "tench", 1: "crane, bird", 2: "crane"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert indices([2, 0, 1], data=("Tench, Tinca tinca", "crane", "crane"), model=names) == [2, 0, 1]


def test_as_many_classes_under_other_names_are_taken_in_their_order():
    with pytest.warns(SeewhyWarning, match="calls its classes otherwise.*0 is 'n01'") as said:
        assert indices([2, 0, 1], data=("n01", "n02", "n03")) == [2, 0, 1]
    assert len(said) == 1
    with pytest.raises(UnknownNameError):
        indices([0], data=("n01", "n02"))


def test_networks_without_names():
    assert indices([1, 0], data=("x", "y", "z"), model={}) == [1, 0]
    assert classes(data=("x", "y", "z"), model={}).names == ("x", "y", "z")
    assert classes(model={}).names == ("class 0", "class 1", "class 2")
    with pytest.raises(TargetError, match="The data set has 2 classes and the network 3"):
        classes(data=("x", "y"), model={})


def test_folders():
    found = classes(folders=("a", "b", "c"), model={})
    with pytest.warns(SeewhyWarning, match=r"no class names.*order of the data set's: 0 is 'a'"):
        assert found.indices(["c", "a"]).tolist() == [2, 0]
    assert found.names == ("a", "b", "c")
    with pytest.raises(TargetError, match="'a' is a name, and the network's classes have none"):
        indices(["a"], folders=("a", "b"), model={})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert indices(["cat"], folders=("ant", "cat")) == [2]


def test_renamed():
    renamed = {"Katze": "cat", "Biene": 1, 7: "ant"}
    assert indices(["Katze", "Biene", 7], renamed=renamed) == [2, 1, 0]
    assert indices([0, 1], data=("Biene", "Katze"), renamed=renamed) == [1, 2]
    with pytest.raises(UnknownNameError, match=r"says nothing of the label 'Kazte'\. Did you mean 'Katze'"):
        indices(["Kazte"], renamed=renamed)
    with pytest.raises(TargetIndexError):
        indices(["x"], renamed={"x": 9})


@pytest.mark.parametrize("label", [3, -1, 1000])
def test_beyond_the_networks_classes(label):
    with pytest.raises(TargetIndexError, match=f"The label {label} is no class of the network's 3, 0 to 2"):
        indices([label])


@pytest.mark.parametrize("label", [True, 1.5, 1.0, [1, 2], {"a": 1}, b"cat", np.array([0, 1])])
def test_what_is_no_label(label):
    with pytest.raises(InputTypeError, match="A label is the index or the name of a class"):
        indices([label])


def test_what_was_found_before_the_network_was_seen_is_found_anew():
    found = classes(model={0: "wolf"}, count=None)
    assert found.indices(["wolf"]).tolist() == [0]
    found.saw(2, single=True)
    assert found.indices(["wolf"]).tolist() == [1]
    found = classes(model={}, count=None)
    assert found.indices([4]).tolist() == [4]
    found.saw(3)
    with pytest.raises(TargetIndexError):
        found.indices([4])


def test_a_single_score():
    assert classes(model={0: "wolf"}, count=2, single=True).names == ("not wolf", "wolf")
    assert classes(model={0: "dog", 1: "wolf"}, count=2, single=True).names == ("dog", "wolf")
    assert indices(["wolf", "not wolf", 0, 1], model={0: "wolf"}, count=2, single=True) == [1, 0, 0, 1]
