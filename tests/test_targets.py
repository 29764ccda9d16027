"""What is explained: each target's score, gradient, class, name and probability, in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy import Class, Contrast, Explainer, LogProbability, Probability, Region, Similarity, Target, Value
from seewhy.errors import (
    GradientError,
    InputTypeError,
    ModelError,
    SeewhyError,
    SeewhyWarning,
    TargetError,
    TargetIndexError,
)
from seewhy.outputs import Outputs
from seewhy.scoring import Scoring, find_targets, select
from seewhy.targets import About, FunctionTarget, class_index
from seewhy.testing import small_cnn

SCORES = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0]])
OUTPUTS = Outputs(scores=SCORES)
NAMES = {0: "goldfish, Carassius auratus", 1: "tabby, tabby cat", 2: "Tiger cat"}
ABOUT = About(NAMES)


class Tiny(nn.Module):
    """Scores (N, 3) of images (N, 3, 6, 8), smooth, so that gradients are never 0."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Softplus()), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny().double()


IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(model, function):
    """dS/dx by autograd, of a function from the model's scores."""
    images = IMAGES.clone().requires_grad_()
    return torch.autograd.grad(function(model(images)).sum(), images)[0].numpy()


def total(scores):
    return scores.sum(1)


def asked(target, outputs=OUTPUTS, about=ABOUT):
    return select(find_targets(target, 2, about), outputs, about)


def test_class_targets_pick_a_column_or_the_largest():
    assert Class(2).score(SCORES).tolist() == [2.0, -1.0]
    assert Class().score(SCORES).tolist() == [5.0, 4.0]
    assert Class().classes(SCORES).tolist() == [1, 0]
    assert Class(2).classes(SCORES).tolist() == [2, 2]
    assert Class(np.int64(2)).classes(SCORES).tolist() == [2, 2]


def test_one_target_serves_all_and_a_list_goes_one_by_one():
    assert len(find_targets(None, 3)) == 3
    selected = asked([2, None])
    assert selected.scores.tolist() == [2.0, 4.0]
    assert selected.classes.tolist() == [2, 0]
    assert selected.names == ("Tiger cat", "goldfish, Carassius auratus")
    np.testing.assert_allclose(selected.chances, [SCORES.softmax(1)[0, 2], SCORES.softmax(1)[1, 0]])


def test_a_target_of_the_users_own():
    class Margin(Target):
        def score(self, outputs):
            best = outputs.topk(2, dim=1).values
            return best[:, 0] - best[:, 1]

    selected = asked(Margin())
    assert selected.scores.tolist() == [3.0, 4.0]
    assert selected.classes.tolist() == [-1, -1]
    assert selected.names == ("Margin", "Margin")
    assert selected.chances.isnan().all()


def test_a_target_of_the_users_own_may_say_which_class_it_is_about():
    class RunnerUp(Target):
        def classes(self, outputs):
            return outputs.detach().topk(2, dim=1).indices[:, 1]

        def score(self, outputs):
            return outputs.gather(1, self.classes(outputs)[:, None])[:, 0]

    selected = asked(RunnerUp())
    assert selected.names == ("Tiger cat", "tabby, tabby cat")
    np.testing.assert_allclose(selected.chances, SCORES.softmax(1)[[0, 1], [2, 1]])


def test_a_target_of_the_users_own_reads_what_it_says():
    class Most(Target):
        reads = "dense"

        def score(self, outputs):
            return outputs.amax((1, 2, 3))

    dense = torch.rand(2, 3, 4, 5)
    assert asked(Most(), Outputs(dense=dense)).scores.tolist() == dense.amax((1, 2, 3)).tolist()
    with pytest.raises(TargetError, match=r"'Most' reads dense scores .* gives class scores"):
        asked(Most())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1, lambda s: s[:, 1]),
        (None, lambda s: s.amax(1)),
        ("tabby", lambda s: s[:, 1]),
        (Class("tabby"), lambda s: s[:, 1]),
        (Probability("tiger cat"), lambda s: s.softmax(1)[:, 2]),
        (Probability(), lambda s: s.softmax(1).amax(1)),
        (LogProbability(2), lambda s: s.log_softmax(1)[:, 2]),
        (Contrast(2, 0), lambda s: s[:, 2] - s[:, 0]),
        (Contrast("tabby", minus="goldfish"), lambda s: s[:, 1] - s[:, 0]),
        (Contrast(), lambda s: s.topk(2).values[:, 0] - s.topk(2).values[:, 1]),
        (Value(2), lambda s: s[:, 2]),
        (lambda s: s[:, 0] * s[:, 1], lambda s: s[:, 0] * s[:, 1]),
        ([Contrast(1, 2), 0], lambda s: torch.stack([s[0, 1] - s[0, 2], s[1, 0]])),
        ([Probability(1), lambda s: s.sum(1)], lambda s: torch.stack([s.softmax(1)[0, 1], s[1].sum()])),
    ],
)  # fmt: skip
def test_scores_and_gradients_are_those_of_autograd_by_hand(tiny, target, expected):
    explainer = Explainer(tiny, class_names=NAMES)
    found = explainer.explain(IMAGES, "saliency", target=target)
    np.testing.assert_allclose(found.scores, expected(tiny(IMAGES)).detach(), rtol=1e-6)
    np.testing.assert_allclose(found.values, by_hand(tiny, expected), rtol=1e-5, atol=1e-9)
    for i in range(2):
        alone = explainer.explain(IMAGES[i], "saliency", target=target[i] if isinstance(target, list) else target)
        np.testing.assert_allclose(alone.values[0], found.values[i], rtol=1e-5, atol=1e-9)
        assert alone.target_names[0] == found.target_names[i]


def test_probabilities_follow_the_explainers_activation(tiny):
    scores = tiny(IMAGES).detach()
    for activation, expected in (("sigmoid", scores.sigmoid()), ("softmax", scores.softmax(1))):
        explainer = Explainer(tiny, activation=activation)
        found = explainer.explain(IMAGES, "saliency", target=Probability(1))
        np.testing.assert_allclose(found.scores, expected[:, 1], rtol=1e-6)
        np.testing.assert_allclose(found.probabilities, expected[:, 1], rtol=1e-6)
        logarithm = explainer.explain(IMAGES, "saliency", target=LogProbability(1))
        np.testing.assert_allclose(logarithm.scores, expected[:, 1].log(), rtol=1e-6)
        np.testing.assert_allclose(logarithm.probabilities, expected[:, 1], rtol=1e-6)


def test_a_binary_heads_probability_is_a_sigmoid():
    flat = Outputs(scores=SCORES[:, :1])
    assert asked(Probability(), flat).scores.tolist() == pytest.approx(SCORES[:, 0].sigmoid().tolist())
    with pytest.raises(TargetError, match="at least two classes"):
        asked(Contrast(0), flat)


@pytest.mark.parametrize(
    ("target", "names", "classes"),
    [
        (Class("tabby"), ("tabby, tabby cat",) * 2, [1, 1]),
        (Probability(), ("P(tabby)", "P(goldfish)"), [1, 0]),
        (LogProbability(1), ("log P(tabby)",) * 2, [1, 1]),
        (Contrast(), ("tabby − Tiger cat", "goldfish − tabby"), [1, 0]),
        (Contrast("tiger cat", "tabby"), ("Tiger cat − tabby",) * 2, [2, 2]),
        (Value(), ("goldfish, Carassius auratus",) * 2, [-1, -1]),
        (total, ("total",) * 2, [-1, -1]),
    ],
)
def test_names_say_what_is_explained(target, names, classes):
    selected = asked([target, target])
    assert selected.names == names
    assert selected.classes.tolist() == classes
    chances = SCORES.softmax(1)
    expected = [chances[i, cls] if cls >= 0 else np.nan for i, cls in enumerate(classes)]
    np.testing.assert_allclose(selected.chances, expected)


def test_names_without_class_names():
    assert asked(Contrast(), about=About()).names == ("class 1 − class 2", "class 0 − class 1")
    assert asked(Value(2), about=About()).names == ("output 2",) * 2


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
    "make", [Class, Probability, LogProbability, Contrast, Region, lambda c: Contrast(0, c), Value]
)
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (-1, TargetIndexError, "counts? from 0"),
        (1.5, InputTypeError, "by index or name, not float"),
        (True, InputTypeError, "not bool"),
        ("tabbi", KeyError, "Did you mean 'tabby'"),
    ],
)
def test_classes_that_cannot_be_are_refused_before_the_model_runs(make, given, error, message):
    with pytest.raises(error, match=message):
        find_targets(make(given), 1, ABOUT)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "Target 3 is out of range: the model has 3 classes"),
        (Probability(7), "Target 7 is out of range"),
        (Contrast(0, 3), "Target 3 is out of range"),
        (Value(5), "Target 5 is out of range"),
        (Contrast(1, 1), r"Contrast of 'tabby, tabby cat' with itself for image 0"),
        ([None, Contrast(minus=0)], r"Contrast of 'goldfish, Carassius auratus' with itself for image 1"),
        (lambda s: s, r"must turn scores \(2, 3\) into one number per image, \(2,\)"),
        (Region(), "reads dense scores .* and the model gives class scores"),
        (seewhy.Detection(), "reads detections .* and the model gives class scores"),
    ],
)
def test_what_does_not_fit_the_scores_is_refused(target, message):
    with pytest.raises(TargetError, match=message):
        asked(target)


@pytest.mark.parametrize("target", [Contrast, 1.5, True, object(), {"a": 1}])
def test_other_types_of_targets_are_refused(target):
    with pytest.raises(InputTypeError, match=r"make an instance|target is None, a class index|by index or name"):
        find_targets(target, 1)
    with pytest.raises(TargetError, match="2 targets for 3 images"):
        find_targets([0, 1], 3)


def test_the_gradient_of_the_target_at_the_scores():
    scoring = Scoring([FunctionTarget(lambda s: 2 * s[:, 0] - s[:, 2])] * 2)
    assert scoring.gradient(SCORES).tolist() == [[2.0, 0.0, -1.0]] * 2
    with pytest.raises(GradientError):
        Scoring([FunctionTarget(lambda s: s[:, 0].detach())] * 2).gradient(SCORES)


def test_cam_explains_targets_that_are_linear_in_the_scores_and_no_others():
    torch.manual_seed(0)
    model, images = seewhy.testing.small_cnn(), torch.rand(2, 3, 16, 24)
    cam = {cls: Explainer(model).explain(images, "cam", target=cls).maps for cls in (1, 3)}
    contrast = Explainer(model).explain(images, "cam", target=Contrast(3, 1))
    np.testing.assert_allclose(contrast.maps, cam[3] - cam[1], atol=1e-5)
    np.testing.assert_allclose(Explainer(model).explain(images, "cam", target=Value(3)).maps, cam[3], atol=1e-6)
    for target in (Probability(3), LogProbability(3)):
        with pytest.raises(ModelError, match="linear"):
            Explainer(model).explain(images, "cam", target=target)
    with pytest.raises(ModelError, match="CAM explains class scores"):
        Explainer(model).explain(images, "cam", target=Similarity(torch.ones(5)))


def test_the_layer_is_remembered_by_kind_of_target():
    def one(scores):
        return scores[:, 0]

    def other(scores):
        return scores[:, 1]

    targets = [Class(1), Class(), FunctionTarget(one), Region(), Region(1), seewhy.Detection(), Similarity(SCORES[0])]
    assert len({Scoring([target]).kind for target in targets}) == 5
    assert Scoring([FunctionTarget(one)]).kind != Scoring([FunctionTarget(other)]).kind


def test_truth_is_for_classes(tiny):
    explainer = Explainer(tiny, class_names=NAMES)
    assert explainer.explain(IMAGES, "saliency", target=1, truth=["tabby", 0]).truth == (NAMES[1], NAMES[0])
    with pytest.raises(TargetError, match=r"the target is 'P\(tabby\)': leave truth out"):
        explainer.explain(IMAGES, "saliency", target=Probability(1), truth=1)
    with pytest.raises(TargetError, match="truth is a class"):
        explainer.explain(IMAGES, "saliency", truth=Contrast(1))


def test_scores_that_are_not_finite_name_the_image(tiny):
    def third(scores):
        return scores[:, 0] / ((scores[:, 0] - float(tiny(IMAGES)[1, 0])).abs() > 1e-6)  # batches round otherwise

    with pytest.raises(seewhy.errors.NonFiniteError, match="score of image 1 is"):
        Explainer(tiny).explain(IMAGES, "saliency", target=third, batch_size=1)


def test_a_contrast_of_classes_with_one_first_name_has_their_whole_names():
    explainer = Explainer(small_cnn(), class_names=["dog, hound", "dog, poodle", "cat", "d", "e"])
    images = torch.rand(1, 3, 16, 16)
    same = explainer.explain(images, "saliency", target=Contrast("hound", "poodle")).target_names
    other = explainer.explain(images, "saliency", target=Contrast("hound", "cat")).target_names
    assert (same, other) == (("dog, hound − dog, poodle",), ("dog − cat",))


def test_two_names_for_one_score_are_told_to_be_one():
    model = nn.Sequential(nn.Conv2d(3, 1, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(SeewhyWarning, match=r"has 1 score: give the name of the class that it stands for alone\."):
        Explainer(model, class_names=["no", "yes"]).explain(torch.rand(1, 3, 8, 8), "saliency")
