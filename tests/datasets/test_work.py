"""One batch through the network."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer, Similarity
from seewhy.datasets import Evaluation, TrueClass
from seewhy.datasets.job import Job
from seewhy.errors import NonFiniteError, TargetError
from seewhy.testing import small_cnn


def images(count=20):
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def answers(explainer, data, **how):
    return list(Job(explainer=explainer, data=data, batch_size=8, progress=False, **how).answers())


def test_methods_without_a_score_need_no_target():
    found = answers(Explainer(small_cnn()), images(), method="activations", layer="left")
    assert [len(one.batch) for one in found] == [8, 8, 4]
    assert all(one.explanations[0].targets.tolist() == [-1] * len(one.batch) for one in found)
    assert (found[0].columns["prediction"] >= 0).all()


def test_the_prediction_is_that_of_the_same_pass():
    """Also with a network that answers otherwise each time."""

    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = small_cnn(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x).roll(self.calls, 1)

    for one in answers(Explainer(Moody()), images(), method="saliency"):
        assert one.columns["prediction"].tolist() == one.explanations[0].targets.tolist()


def test_an_embedding_to_compare_with_is_computed_once():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = small_cnn(), []

        def forward(self, x):
            self.seen.append(len(x))
            return {"image_embeds": self.inner(x)}

    model = Encoder()
    with pytest.warns(UserWarning, match="saliency is 0 everywhere for 1 image"):  # for the image itself
        found = answers(Explainer(model), images(), method="saliency", target=Similarity(to=images()[0]))
    assert model.seen == [1, 8, 8, 4]
    assert found[0].explanations[0].scores[0] == pytest.approx(1, abs=1e-5)
    assert (found[0].columns["prediction"] == -1).all()


def test_a_score_that_is_not_finite_says_among_which_images():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), 1 / (x.mean((1, 2, 3)) - 2)], 1)

    data = images()
    data[13] = 2.0
    for method in ((), "saliency"):
        with pytest.raises(NonFiniteError) as error:
            answers(Explainer(Broken()), data, method=method)
        assert error.value.__notes__ == ["seewhy: among images 8 to 15 of the data set"]


def test_a_batch_without_images_is_passed_by():
    data = [*images(8), *["missing.png"] * 8, *images(4)]
    with pytest.warns(UserWarning, match="8 images could not be read"):
        found = answers(Explainer(small_cnn()), data, method="grad_cam")
    assert [(len(one.batch), len(one.explanations)) for one in found] == [(8, 1), (0, 0), (4, 1)]


def test_half_precision_and_train_mode():
    plain = Explainer(small_cnn()).evaluate(images())
    model = small_cnn().bfloat16().train()
    found = Explainer(model).evaluate(images(), "grad_cam", "left")
    assert isinstance(found, Evaluation)
    assert np.allclose(found.predictions["score"], plain.predictions["score"], atol=0.02)
    assert model.training


def test_a_single_score_is_no_score_of_the_first_class():
    class Single(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] - 0.5

    with pytest.raises(TargetError, match="needs a score for each class"):
        answers(Explainer(Single()), images(), method="saliency", target=TrueClass(), labels=[0] * 20)
