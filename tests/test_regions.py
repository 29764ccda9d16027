"""Targets somewhere in the image: a class over a region of dense scores, and one detection."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Class, Contrast, Detection, Explainer, Region
from seewhy.errors import InputTypeError, ModelError, TargetError
from seewhy.outputs import Outputs
from seewhy.scoring import find_targets, select
from seewhy.targets import About
from seewhy.testing import unchanged

NAMES = {0: "sky", 1: "person, human", 2: "dog"}


class Segmenter(nn.Module):
    """What torchvision's segmentation networks return: dense scores at the input's size, and others beside."""

    def __init__(self, stride=1, classes=3):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 5, 3, stride, 1), nn.Softplus())
        self.classifier = nn.Conv2d(5, classes, 1)
        self.stride = stride

    def forward(self, x):
        dense = self.classifier(self.backbone(x))
        return OrderedDict(out=dense, aux=0 * dense)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Segmenter().double()


IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DENSE = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:7] = True


def asked(target, outputs, about=None):
    count = len(outputs.dense if outputs.dense is not None else outputs.detections)
    about = about or About(NAMES, size=(6, 8))
    return select(find_targets(target, count, about), outputs, about)


def where_predicted(dense, cls):
    weights = (dense.argmax(1) == cls).double()
    return (dense[:, cls] * weights).sum((1, 2)) / weights.sum((1, 2))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Region(1, mask=MASK), lambda d: d[:, 1, 1:4, 2:7].mean((1, 2))),
        (Region("person", mask=torch.from_numpy(MASK)), lambda d: d[:, 1, 1:4, 2:7].mean((1, 2))),
        (Region(2, box=(2, 1, 7, 4)), lambda d: d[:, 2, 1:4, 2:7].mean((1, 2))),
        (Region(2, box=(6.5, 0, 99, 1)), lambda d: (d[:, 2, 0, 6] / 2 + d[:, 2, 0, 7]) / 1.5),
        (Region(1), lambda d: where_predicted(d, 1)),
        (1, lambda d: where_predicted(d, 1)),
        ("human", lambda d: where_predicted(d, 1)),
        (lambda dense: dense[:, 0].amax((1, 2)), lambda d: d[:, 0].amax((1, 2))),
        ([Region(0, box=(0, 0, 4, 6)), 2], lambda d: torch.stack([d[0, 0, :, :4].mean(), where_predicted(d, 2)[1]])),
    ],
)
def test_scores_and_gradients_are_those_of_autograd_by_hand(model, target, expected):
    with torch.no_grad():  # each class is the best somewhere
        model.classifier.bias -= model(IMAGES)["out"].mean((0, 2, 3))
        model.classifier.weight *= 50
        model.classifier.bias *= 50
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expected(model(images)["out"]).sum(), images)
    explainer = Explainer(model, class_names=NAMES)
    with unchanged(model):
        found = explainer.explain(IMAGES, "saliency", target=target)
    np.testing.assert_allclose(found.scores, expected(model(IMAGES)["out"]).detach(), rtol=1e-5)
    np.testing.assert_allclose(found.values, gradient, rtol=1e-4, atol=1e-9)
    for i in range(2):
        alone = explainer.explain(IMAGES[i], "saliency", target=target[i] if isinstance(target, list) else target)
        np.testing.assert_allclose(alone.values[0], found.values[i], rtol=1e-4, atol=1e-9)


def test_with_nothing_said_it_is_the_class_that_covers_most_where_it_is_predicted(model):
    dense = DENSE.clone()
    dense[0, 2, :4] += 9
    dense[1, 1, :, :5] += 9
    found = asked(None, Outputs(dense=dense))
    assert found.classes.tolist() == [2, 1]
    assert found.names == ("dog where predicted", "person where predicted")
    for i, cls in enumerate((2, 1)):
        there = dense[i].argmax(0) == cls
        assert found.scores[i] == pytest.approx(dense[i, cls][there].mean().item())
        assert found.chances[i] == pytest.approx(dense[i].softmax(0)[cls][there].mean().item(), rel=1e-5)
    said = Explainer(model, class_names=NAMES).explain(IMAGES, "grad_cam")
    assert said.layer == "backbone"  # not the scores themselves
    assert said.target_names == tuple(f"{NAMES[cls].split(',')[0]} where predicted" for cls in said.targets)


def test_the_class_is_the_one_predicted_at_most_positions_of_the_mask_or_box():
    dense = torch.zeros(1, 3, 6, 8)
    dense[:, 0] = 1
    dense[:, 2, 1:3, 2:6] = 2  # 8 of the mask's 15 positions
    assert asked(None, Outputs(dense=dense)).classes.tolist() == [0]
    found = asked(Region(mask=MASK), Outputs(dense=dense))
    assert (found.classes.tolist(), found.names) == ([2], ("dog in the mask",))
    found = asked(Region(box=(2, 1, 6, 3)), Outputs(dense=dense))
    assert (found.classes.tolist(), found.scores.tolist()) == ([2], [2])
    assert found.names == ("dog in (2, 1, 6, 3)",)


def test_masks_and_boxes_of_the_input_fit_scores_of_another_size():
    torch.manual_seed(0)
    model = Segmenter(stride=2).double()
    dense = model(IMAGES)["out"].detach()  # 3 x 4 of 6 x 8
    explainer = Explainer(model)
    weights = F.avg_pool2d(torch.from_numpy(MASK)[None].double(), 2)[0]
    expected = (dense[:, 1] * weights).sum((1, 2)) / weights.sum()
    by_mask = explainer.explain(IMAGES, "saliency", target=Region(1, mask=MASK))
    by_box = explainer.explain(IMAGES, "saliency", target=Region(1, box=(2, 1, 7, 4)))
    for found in (by_mask, by_box):
        np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
    of_scores = np.zeros((3, 4), bool)
    of_scores[2, 3] = True
    found = explainer.explain(IMAGES, "saliency", target=Region(1, mask=of_scores))
    np.testing.assert_allclose(found.scores, dense[:, 1, 2, 3], rtol=1e-6)


def test_one_channel_is_predicted_where_it_is_more_likely_than_not():
    dense = torch.tensor([[[[-2.0, 1.0, 3.0]]]])
    assert asked(None, Outputs(dense=dense)).scores.tolist() == [2.0]
    found = asked(None, Outputs(dense=dense.sigmoid()), About(activation="none"))
    assert found.scores.tolist() == pytest.approx([dense[0, 0, 0, 1:].sigmoid().mean().item()])
    with pytest.raises(TargetError, match="predicts no class in image 0"):
        asked(None, Outputs(dense=-dense.abs()))
    assert asked(Region(box=(0, 0, 1, 1)), Outputs(dense=dense), About()).scores.tolist() == [-2.0]


def test_with_sigmoids_several_classes_are_predicted_at_a_position():
    dense = torch.full((1, 2, 1, 4), 5.0)
    dense[0, 1, 0] = torch.tensor([1.0, 2.0, -1.0, -1.0])
    found = asked(Region(1), Outputs(dense=dense), About(activation="sigmoid"))
    assert found.scores.tolist() == [1.5]
    with pytest.raises(TargetError, match="predicts 'class 1' nowhere in image 0"):
        asked(Region(1), Outputs(dense=dense), About(activation="softmax"))
    with pytest.raises(TargetError, match="predicts no class in image 0"):
        asked(Region(box=(0, 0, 1, 1)), Outputs(dense=-dense.abs()), About(activation="sigmoid"))


def test_volumes_have_regions_too():
    dense = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = asked(Region(1, box=(0, 0, 2, 4)), Outputs(dense=dense), About(size=(6, 8, 8)))
    assert found.scores.tolist() == pytest.approx([dense[0, 1, :, :2, :1].mean().item()])
    mask = torch.zeros(6, 8, 8, dtype=torch.bool)
    mask[:2] = True
    found = asked(Region(1, mask=mask), Outputs(dense=dense), About(size=(6, 8, 8)))
    assert found.scores.tolist() == pytest.approx([dense[0, 1, 0].mean().item()])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Region(1, mask=MASK, box=(0, 0, 1, 1)), TargetError, "a mask or a box, not both"),
        (lambda: Region(1, mask=MASK.astype(np.uint8)), InputTypeError, "boolean .*uint8.*mask > 0"),
        (lambda: Region(1, mask="mask.png"), InputTypeError, "not a str"),
        (lambda: Region(1, mask=MASK & False), TargetError, "False everywhere"),
        (lambda: Region(1, box=(1, 2, 3)), InputTypeError, r"\(x0, y0, x1, y1\)"),
        (lambda: Region(1, box=(5, 0, 2, 4)), TargetError, "x0 < x1"),
        (lambda: Detection((5, 0, 2, 4)), TargetError, "x0 < x1"),
    ],
)
def test_regions_that_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Region(1, mask=MASK[:, :5]), r"shape \(6, 5\); expected that of the model's input, \(6, 8\)"),
        (Region(1, mask=np.stack([MASK, MASK])), "give a list of targets"),
        (Region(1, box=(20, 0, 30, 4)), "outside of the model's input"),
        (Region(3), "Target 3 is out of range: the model has 3 classes"),
        (Region("dog"), "predicts 'dog' nowhere in image 0 .most of it is 'sky'"),
        (Contrast(0, 1), "reads class scores .* gives dense scores .* Region"),
        (Detection(), "reads detections"),
    ],
)
def test_regions_that_do_not_fit_are_refused(target, message):
    dense = DENSE.clone()
    dense[:, 0] += 99
    with pytest.raises(TargetError, match=message):
        asked(target, Outputs(dense=dense))


def test_cam_and_truth_are_of_class_scores(model):
    explainer = Explainer(model, class_names=NAMES)
    with pytest.raises(ModelError, match="CAM explains class scores"):
        explainer.explain(IMAGES, "cam")
    with pytest.raises(TargetError, match="leave truth out"):
        explainer.explain(IMAGES, "saliency", truth="dog")


# --------------------------------------------------------------------------------------------------------- detections


class Detector(nn.Module):
    """Two detections for each image, where it is bright: their scores are differentiable, their boxes constant."""

    boxes = torch.tensor([[0.0, 0, 4, 6], [4, 0, 8, 6]])
    labels = torch.tensor([1, 2])

    def __init__(self, least=0.0):
        super().__init__()
        self.body, self.least = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 1, 1)), least

    def forward(self, images):
        dense = self.body(images)[:, 0].sigmoid()
        scores = torch.stack([dense[:, :, :4].mean((1, 2)), dense[:, :, 4:].mean((1, 2))], 1)
        return [self.detections(row) for row in scores]

    def detections(self, scores):
        order = scores.argsort(descending=True)
        order = order[scores[order] >= self.least]
        return {"boxes": self.boxes[order], "scores": scores[order], "labels": self.labels[order]}

    def halves(self, images):
        dense = self.body(images)[:, 0].sigmoid()
        return dense[:, :, :4].mean((1, 2)), dense[:, :, 4:].mean((1, 2))


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return Detector().double()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, lambda left, right: torch.maximum(left, right)),
        (Detection(cls=1), lambda left, right: left),
        ("dog", lambda left, right: right),
        (Class(2), lambda left, right: right),
        (Detection((0, 1, 4, 6)), lambda left, right: left),
        (Detection((4.5, 0, 8, 7), "dog"), lambda left, right: right),
        ([1, Detection((4, 0, 8, 6))], lambda left, right: torch.stack([left[0], right[1]])),
        (lambda found: torch.stack([one["scores"].sum() for one in found]), lambda left, right: left + right),
    ],
)
def test_a_detections_score_and_gradient_are_those_of_autograd_by_hand(detector, target, expected):
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expected(*detector.halves(images)).sum(), images)
    found = Explainer(detector, class_names=NAMES).explain(IMAGES, ["saliency", "grad_cam"], target=target)
    np.testing.assert_allclose(found["saliency"].values, gradient, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(found["saliency"].scores, expected(*detector.halves(IMAGES)).detach(), rtol=1e-6)


def test_detections_are_named_by_class_and_place(detector):
    explainer = Explainer(detector, class_names=NAMES)
    found = explainer.explain(IMAGES, "saliency", target=["person", Detection((4, 1, 8, 6))])
    assert found.target_names == ("person at (0, 0, 4, 6)", "dog at (4, 0, 8, 6)")
    assert found.targets.tolist() == [1, 2]
    np.testing.assert_allclose(found.probabilities, found.scores)
    best = explainer.predict(IMAGES)[0]
    assert {p.name for p in best} == {"person, human", "dog"}
    assert best[0].probability == pytest.approx(max(half[0].item() for half in detector.halves(IMAGES)))


FOUND = {
    "boxes": torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]]), "scores": torch.tensor([0.5, 0.9, 0.4]),
    "labels": torch.tensor([1, 2, 1]),
}  # fmt: skip
NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}


def test_of_detections_at_one_place_that_of_the_class():
    found = Outputs(detections=[FOUND])
    assert asked(Detection((0, 0, 4, 4), 1), found).scores.tolist() == [0.5]
    assert asked(Detection((8, 9, 12, 12)), found).scores.tolist() == pytest.approx([0.4])
    assert asked(Detection(cls="person"), found).scores.tolist() == [0.5]
    assert asked(Detection(), found).scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([None, None], "detects nothing in image 1"),
        ([0, 0], r"detects no 'sky' in image 0: it detects dog at \(0, 0, 4, 4\) \(0.90\), person"),
        (Detection((3, 3, 9, 9)), r"fits the box \(3, 3, 9, 9\): the nearest is .* union\) of 0.02, and 0.5"),
        (Detection((9, 9, 12, 12), cls="dog"), "nearest is dog .* of 0.00"),
        (Region(1), "reads dense scores .* gives detections .* Detection"),
    ],
)
def test_detections_that_are_not_there_are_refused(target, message):
    with pytest.raises(TargetError, match=message):
        asked(target, Outputs(detections=[FOUND, NOTHING]))


def test_a_refusal_names_the_image_beyond_the_first_chunk(detector):
    best = torch.stack(detector.halves(IMAGES)).amax(0)
    images = IMAGES[best.argsort(descending=True)]
    detector.least = float(best.detach().mean())  # reached in the first image only
    with unchanged(detector), pytest.raises(TargetError, match="detects nothing in image 1"):
        Explainer(detector).explain(images, "saliency", batch_size=1)
    assert [len(row) > 0 for row in Explainer(detector).predict(images)] == [True, False]


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_torchvisions_detectors(name):
    from torchvision.models import detection

    torch.manual_seed(1)
    limits = {"topk_candidates": 20, "score_thresh": 0.0} if name.startswith("ssd") else {"box_score_thresh": 0.0}
    sizes = {} if name.startswith("ssd") else {"min_size": 96, "max_size": 128}
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4, **limits, **sizes).eval()
    calibrate(model)
    images = torch.rand(2, 3, 96, 128)
    leaf = images[:1].clone().requires_grad_()
    best = model(leaf)[0]
    (gradient,) = torch.autograd.grad(best["scores"][int(best["scores"].argmax())], leaf)
    with unchanged(model):
        found = Explainer(model).explain(images, ["saliency", "grad_cam"])
    np.testing.assert_allclose(found["saliency"].values[:1], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max())
    assert gradient.abs().max() > 1e-6
    assert found["saliency"].scores[0] == pytest.approx(best["scores"].max().item())
    assert found["saliency"].targets[0] == best["labels"][best["scores"].argmax()]
    alone = Explainer(model).explain(images[1], "saliency")
    np.testing.assert_allclose(alone.map, found["saliency"].maps[1], rtol=1e-3, atol=1e-5 * alone.map.max())


def calibrate(model):
    """Give a random network's batch norms the statistics of noise, so that its signal neither dies nor explodes."""
    model.apply(lambda m: setattr(m, "momentum", None) if isinstance(m, nn.BatchNorm2d) else None)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in norms:
        module.reset_running_stats()
        module.train()
    with torch.no_grad():
        model(torch.rand(2, 3, 96, 128))
    model.eval()
