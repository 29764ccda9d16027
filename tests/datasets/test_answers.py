"""What is said of scores, with ties, certainties and outputs of every kind."""

import numpy as np
import pytest
import torch

from seewhy.datasets.answers import answers
from seewhy.datasets.classes import Classes
from seewhy.errors import NonFiniteError
from seewhy.outputs import Outputs


def ask(outputs, labels=None, activation=None):
    count = len(next(value for value in vars(outputs).values() if value is not None))
    return answers(outputs, tuple(labels or [None] * count), Classes((), (), {}), activation)


def test_ties_are_settled_as_the_prediction_is():
    """A label has rank 0 exactly where it is predicted."""
    scores = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    for label in range(3):
        found = ask(Outputs(scores=scores), [label, label])
        assert ((found["label_rank"] == 0) == (found["prediction"] == label)).all()
    assert ask(Outputs(scores=scores), [2, 2])["label_rank"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("scores", "activation", "chance"),
    [
        ([0.0, 2.0], None, 1 / (1 + np.exp(-2))),
        ([0.0, 2.0], "sigmoid", 1 / (1 + np.exp(-2))),
        ([0.25, 0.75], None, 0.75),  # a distribution already
        ([0.25, 0.5], "none", 0.5),
    ],
)
def test_probabilities(scores, activation, chance):
    found = ask(Outputs(scores=torch.tensor([scores])), [0], activation)
    assert found["probability"] == pytest.approx(chance)
    assert found["score"] == pytest.approx(scores[1])
    assert (found["prediction"][0], found["label_rank"][0]) == (1, 1)


def test_one_score():
    found = ask(Outputs(scores=torch.tensor([[3.0], [-3.0]])), [1, 1])
    assert found["prediction"].tolist() == [1, 0]
    assert found["score"].tolist() == [3, 3]
    assert np.allclose(found["probability"], 1 / (1 + np.exp(-3)))
    assert found["label_rank"].tolist() == [0, 1]
    given = ask(Outputs(scores=torch.tensor([[0.9]])), None, "none")
    assert given["score"] == pytest.approx(0.9)


def test_half_precision_and_nan():
    found = ask(Outputs(scores=torch.tensor([[1.0, 3.0]], dtype=torch.float16)), [1])
    assert found["probability"].dtype == np.float32
    with pytest.raises(NonFiniteError, match="The score of image 1 is nan"):
        ask(Outputs(scores=torch.tensor([[1.0, 2.0], [0.0, float("nan")]])))


def test_other_outputs():
    dense = torch.zeros(2, 3, 4, 4)
    dense[:, 1] = 1
    dense[:, 2, 0, 0] = 5
    found = ask(Outputs(dense=dense))
    assert found["prediction"].tolist() == [1, 1]
    assert np.isnan(found["score"]).all()
    boxes = {"boxes": torch.zeros(2, 4), "scores": torch.tensor([0.3, 0.8]), "labels": torch.tensor([5, 2])}
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    found = ask(Outputs(detections=[boxes, nothing]))
    assert found["prediction"].tolist() == [2, -1]
    assert found["probability"][0] == pytest.approx(0.8)
    assert np.isnan(found["probability"][1])
    assert ask(Outputs(embedding=torch.zeros(2, 8)))["prediction"].tolist() == [-1, -1]
