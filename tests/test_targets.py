"""What is explained, and reading scores out of what models return."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seewhy.errors import SeewhyError
from seewhy.targets import (
    ClassTarget,
    FunctionTarget,
    Scoring,
    Target,
    class_index,
    find_targets,
    probabilities,
    read_outputs,
    select,
    sums_to_one,
)

SCORES = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0]])
NAMES = {0: "goldfish, Carassius auratus", 1: "tabby, tabby cat", 2: "Tiger cat"}


def test_class_targets_pick_a_column_or_the_largest():
    assert ClassTarget(2).score(SCORES).tolist() == [2.0, -1.0]
    assert ClassTarget().score(SCORES).tolist() == [5.0, 4.0]
    assert ClassTarget().classes(SCORES).tolist() == [1, 0]
    assert ClassTarget(2).classes(SCORES).tolist() == [2, 2]


def test_one_target_serves_all_and_a_list_goes_one_by_one():
    assert len(find_targets(None, 3, {})) == 3
    selected = select(find_targets([2, None], 2, {}), SCORES)
    assert selected.scores.tolist() == [2.0, 4.0]
    assert selected.classes.tolist() == [2, 0]


def test_a_target_of_the_users_own():
    class Margin(Target):
        def score(self, outputs):
            best = outputs.topk(2, dim=1).values
            return best[:, 0] - best[:, 1]

    selected = select(find_targets(Margin(), 2, {}), SCORES)
    assert selected.scores.tolist() == [3.0, 4.0]
    assert selected.classes.tolist() == [-1, -1]
    assert selected.names == ("Margin", "Margin")


@pytest.mark.parametrize(
    ("name", "index"),
    [("goldfish", 0), ("carassius auratus", 0), ("Tabby", 1), ("tabby, tabby cat", 1), (" tiger cat ", 2)],
)
def test_class_names_match_whole_or_by_a_part_in_any_case(name, index):
    assert class_index(name, NAMES) == index


def test_a_whole_name_wins_over_a_part_of_another():
    assert class_index("crane", {0: "crane, bird", 1: "crane"}) == 1


@pytest.mark.parametrize(
    ("name", "message"), [("tigercat", "Tiger cat"), ("cat", "No class"), ("zebra", "No class is called 'zebra'.$")]
)
def test_unknown_class_names_offer_close_ones(name, message):
    with pytest.raises(SeewhyError, match=message):
        class_index(name, NAMES)


@pytest.mark.parametrize(
    "raw",
    [
        SCORES, (SCORES, None), [None, SCORES], {"logits": SCORES}, OrderedDict(aux=SCORES * 0, out=SCORES),
        {"labels": torch.tensor([1, 2]), "anything": SCORES}, (torch.tensor(3.0), SCORES), SCORES[:, :, None, None],
    ],
)  # fmt: skip
def test_scores_are_found(raw):
    assert torch.equal(read_outputs(raw, 2), SCORES)


def test_a_single_column_may_be_flat():
    assert read_outputs(SCORES[:, 0], 2).shape == (2, 1)


@pytest.mark.parametrize("raw", [SCORES.long(), "text", None, (), SimpleNamespace(logits=SCORES), SCORES[0, 0]])
def test_what_holds_no_scores_is_refused_with_what_to_pass(raw):
    with pytest.raises(SeewhyError, match="output="):
        read_outputs(raw, 2)


def test_probabilities_by_kind():
    np.testing.assert_allclose(probabilities(SCORES, None), SCORES.softmax(1))
    np.testing.assert_allclose(probabilities(SCORES, "sigmoid"), SCORES.sigmoid())
    np.testing.assert_allclose(probabilities(SCORES[:, :1], None), SCORES[:, :1].sigmoid())
    np.testing.assert_allclose(probabilities(SCORES.softmax(1), None), SCORES.softmax(1))
    np.testing.assert_allclose(probabilities(SCORES, "none"), SCORES)
    assert sums_to_one(SCORES.softmax(1))
    assert not sums_to_one(SCORES)
    assert not sums_to_one(torch.ones(2, 1))


def test_the_gradient_of_the_target_at_the_scores():
    scoring = Scoring([FunctionTarget(lambda s: 2 * s[:, 0] - s[:, 2])] * 2)
    assert scoring.gradient(SCORES).tolist() == [[2.0, 0.0, -1.0]] * 2


def test_targets_are_of_one_kind_only_if_they_are_the_same_function():
    def one(scores):
        return scores[:, 0]

    def other(scores):
        return scores[:, 1]

    kinds = {Scoring([target]).kind for target in (ClassTarget(1), ClassTarget(), FunctionTarget(one))}
    assert len(kinds) == 2
    assert Scoring([FunctionTarget(one)]).kind != Scoring([FunctionTarget(other)]).kind
