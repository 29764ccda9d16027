"""What is said of scores, with ties, certainties and outputs of every kind."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer
from seewhy.datasets.answers import answers
from seewhy.datasets.classes import Classes
from seewhy.errors import ModelError, NonFiniteError, TargetIndexError
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


def network(classes, *end):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), *end
    )


IMAGES = torch.rand(20, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("end", [(), (nn.Sigmoid(),)])
def test_a_network_of_one_score(end):
    model = network(1, *end)
    with torch.no_grad():
        positive = (network(1)(IMAGES)[:, 0] > 0).numpy()
    for names, called in ((None, ["class 0", "class 1"]), (["wolf"], ["not wolf", "wolf"])):
        found = Explainer(model, class_names=names, activation="none" if end else None).evaluate(
            IMAGES, labels=[1] * 20
        )
        assert list(found.class_names) == called
        assert (found.predictions["prediction_index"] == positive).all()
        assert found.accuracy == positive.mean()
    with pytest.raises(TargetIndexError, match="no class of the network's 2, 0 to 1"):
        Explainer(model, activation="none" if end else None).evaluate(IMAGES, labels=[2] * 20)


def test_what_is_no_classifier():
    with pytest.raises(ModelError, match=r"judges classifiers, and the model gives dense scores"):
        Explainer(nn.Conv2d(3, 4, 3)).evaluate(IMAGES, labels=[1] * 20)
    broken = network(3)
    with torch.no_grad():
        broken[4].bias.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="score of image 0 is nan") as raised:
        Explainer(broken).evaluate(IMAGES)
    assert "seewhy: among images 0 to 15 of the data set" in raised.value.__notes__
