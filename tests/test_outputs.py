"""Reading what models return: scores, dense scores, detections, embeddings."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import modeling_outputs as hf
from transformers.models.clip.modeling_clip import CLIPOutput, CLIPVisionModelOutput

from seewhy import Explainer, SeewhyError, SeewhyWarning, samples
from seewhy.errors import ModelError
from seewhy.outputs import Outputs, log_probabilities, probabilities, ranked, read_outputs, sums_to_one

SCORES = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0]])
DENSE = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
EMBEDDING = torch.arange(8.0).reshape(2, 4)
FOUND = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
Named = namedtuple("Named", "logits aux2 aux1")


@pytest.mark.parametrize(
    "raw",
    [
        SCORES, (SCORES, None), [None, SCORES], {"logits": SCORES}, OrderedDict(aux=SCORES * 0, out=SCORES),
        {"labels": torch.tensor([1, 2]), "anything": SCORES}, (torch.tensor(3.0), SCORES), SCORES[:, :, None, None],
        SCORES[:, :, None, None, None], Named(SCORES, SCORES * 2, None), (DENSE, SCORES), {"output": SCORES},
        hf.ImageClassifierOutput(loss=torch.tensor(1.0), logits=SCORES, hidden_states=(DENSE,)),
        hf.ImageClassifierOutputWithNoAttention(logits=SCORES),
        CLIPOutput(logits_per_image=SCORES, logits_per_text=SCORES.T, text_embeds=torch.ones(3, 4)),
    ],
)  # fmt: skip
def test_scores_are_found(raw):
    found = read_outputs(raw, 2)
    assert found.kind == "scores"
    assert torch.equal(found.scores, SCORES)


@pytest.mark.parametrize("flat", [SCORES[:, 0], SCORES[:, :1], {"logits": SCORES[:, 0]}])
def test_a_binary_head_has_one_column(flat):
    assert torch.equal(read_outputs(flat, 2).scores, SCORES[:, :1])


@pytest.mark.parametrize(
    "raw",
    [
        DENSE, {"out": DENSE, "aux": DENSE * 0}, OrderedDict(out=DENSE), [DENSE, DENSE[..., :2]],
        hf.SemanticSegmenterOutput(logits=DENSE), (None, {"whatever": DENSE}),
    ],
)  # fmt: skip
def test_dense_scores_are_found(raw):
    found = read_outputs(raw, 2)
    assert found.kind == "dense"
    assert found.classes is found.dense
    assert torch.equal(found.dense, DENSE)


def test_dense_scores_of_volumes_are_found():
    assert read_outputs(DENSE[:, :, None].expand(-1, -1, 6, -1, -1), 2).dense.shape == (2, 3, 6, 4, 5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (hf.BaseModelOutputWithPooling(last_hidden_state=torch.ones(2, 9, 4), pooler_output=EMBEDDING), EMBEDDING),
        (hf.BaseModelOutputWithPoolingAndNoAttention(pooler_output=EMBEDDING[..., None, None]), EMBEDDING),
        (CLIPVisionModelOutput(image_embeds=EMBEDDING, last_hidden_state=torch.ones(2, 9, 7)), EMBEDDING),
        (hf.BaseModelOutput(last_hidden_state=torch.stack([EMBEDDING, 3 * EMBEDDING], 1)), 2 * EMBEDDING),
        (hf.BaseModelOutputWithNoAttention(last_hidden_state=DENSE), DENSE.mean((2, 3))),
        ({"embedding": EMBEDDING, "features": DENSE}, EMBEDDING),
    ],
)
def test_embeddings_are_found_and_are_no_scores(raw, expected):
    found = read_outputs(raw, 2)
    assert found.kind == "embedding"
    assert found.classes is None
    torch.testing.assert_close(found.embedding, expected)


def test_scores_are_preferred_and_the_embedding_beside_them_kept():
    both = read_outputs(CLIPOutput(logits_per_image=SCORES, image_embeds=EMBEDDING), 2)
    assert both.kind == "scores"
    assert torch.equal(both.embedding, EMBEDDING)
    assert torch.equal(read_outputs(SCORES, 2).embedding, SCORES)  # as a metric-learning network gives it


@pytest.mark.parametrize("raw", [[FOUND, NOTHING], ({**FOUND, "masks": DENSE}, NOTHING)])
def test_detections_are_found(raw):
    found = read_outputs(raw, 2)
    assert found.kind == "detections"
    assert [len(one["scores"]) for one in found.detections] == [1, 0]


def test_detections_of_all_images_in_one_dict_are_taken_apart():
    together = {key: torch.stack([value, value]) for key, value in FOUND.items()}
    assert read_outputs(together, 2).detections[1]["boxes"].tolist() == [[0, 0, 4, 4]]
    assert len(read_outputs(FOUND, 1).detections) == 1


@pytest.mark.parametrize(
    "raw",
    [
        SCORES.long(), "text", None, (), SimpleNamespace(logits=SCORES), SCORES[0, 0], torch.ones(2, 7, 5),
        {"logits": torch.ones(2, 100, 92), "pred_boxes": torch.ones(2, 100, 4)}, torch.ones(2, 0),
        hf.BaseModelOutput(last_hidden_state=None),
    ],
)  # fmt: skip
def test_what_holds_nothing_known_is_refused_with_what_to_pass(raw):
    with pytest.raises(ModelError, match="output="):
        read_outputs(raw, 2)


@pytest.mark.parametrize("raw", [SCORES, DENSE, {"logits": SCORES}, [FOUND, FOUND]])
def test_another_first_dimension_than_the_batch_is_refused(raw):
    with pytest.raises(ModelError, match="first dimension is not the batch"):
        read_outputs(raw, 3)


def test_a_function_picks_any_of_the_kinds():
    raw = {"deep": [{"x": DENSE, "y": SCORES}], "found": [FOUND, FOUND]}
    assert read_outputs(raw, 2, lambda r: r["deep"][0]["y"]).kind == "scores"
    assert read_outputs(raw, 2, lambda r: r["deep"][0]["x"]).kind == "dense"
    assert read_outputs(raw, 2, lambda r: r["found"]).kind == "detections"
    with pytest.raises(ModelError, match="a list"):
        read_outputs(raw, 2, lambda r: r["deep"])


def test_of_several_tensors_that_with_a_column_for_each_named_class():
    assert torch.equal(read_outputs((EMBEDDING, SCORES), 2, classes=3).scores, SCORES)


def test_rows_and_copies_without_the_graph():
    dense = DENSE.clone().requires_grad_()
    found = Outputs(dense=dense, detections=[{**FOUND, "scores": FOUND["scores"].clone().requires_grad_()}, NOTHING])
    assert found.differentiable
    assert not found.detached().differentiable
    assert torch.equal(found.rows(1, 2).dense, dense[1:])
    assert found.rows(1, 2).detections == [NOTHING]


def test_probabilities_by_kind():
    np.testing.assert_allclose(probabilities(SCORES, None), SCORES.softmax(1))
    np.testing.assert_allclose(probabilities(SCORES, "sigmoid"), SCORES.sigmoid())
    np.testing.assert_allclose(probabilities(SCORES[:, :1], None), SCORES[:, :1].sigmoid())
    np.testing.assert_allclose(probabilities(SCORES.softmax(1), None), SCORES.softmax(1))
    np.testing.assert_allclose(probabilities(SCORES, "none"), SCORES)
    np.testing.assert_allclose(probabilities(DENSE / 20, None).sum(1), torch.ones(2, 4, 5), rtol=1e-6)
    assert sums_to_one(SCORES.softmax(1))
    assert sums_to_one((DENSE / 20).softmax(1))
    assert not sums_to_one(SCORES)
    assert not sums_to_one(torch.ones(2, 1))


@pytest.mark.parametrize("kind", [None, "softmax", "sigmoid", "none"])
def test_logarithms_are_those_of_the_probabilities(kind):
    scores = SCORES.abs() + 0.1
    torch.testing.assert_close(log_probabilities(scores, kind).exp(), probabilities(scores, kind))
    if kind != "none":
        assert log_probabilities(torch.tensor([[-200.0, 0.0]]), kind).isfinite().all()


def test_ranking_by_kind():
    assert [[i for i, _ in row] for row in ranked(Outputs(scores=SCORES), None, 2)] == [[1, 2], [0, 1]]
    dense = torch.zeros(1, 2, 1, 4)
    dense[0, 1, 0, :3] = 100  # class 1 at three of four positions; there the two are equal
    best = ranked(Outputs(dense=dense), None, 5)
    assert best == [[(1, pytest.approx(0.875)), (0, pytest.approx(0.125))]]
    several = {"scores": torch.tensor([0.5, 0.9, 0.2]), "labels": torch.tensor([7, 3, 7]), "boxes": torch.zeros(3, 4)}
    assert ranked(Outputs(detections=[several, NOTHING]), None, 5) == [
        [(3, pytest.approx(0.9)), (7, pytest.approx(0.5))],
        [],
    ]
    with pytest.raises(ModelError, match="Similarity"):
        ranked(Outputs(embedding=EMBEDDING), None, 5)


class Wrapped(nn.Module):
    """A tiny dense network whose output is put into another form."""

    def __init__(self, form):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 1)
        nn.init.uniform_(self.head.weight, 0, 1)  # so that there is something that argues for each class
        self.form = form

    def forward(self, x):
        return self.form(self.head(self.body(x)))


FORMS = {
    "scores": lambda d: d.mean((2, 3)),
    "flat": lambda d: d.mean((1, 2, 3)),
    "one column": lambda d: d.mean((1, 2, 3))[:, None],
    "named": lambda d: Named(d.mean((2, 3)), d.mean((2, 3)), None),
    "classifier": lambda d: hf.ImageClassifierOutput(logits=d.mean((2, 3))),
    "dense": lambda d: d,
    "torchvision": lambda d: OrderedDict(out=d, aux=d),
    "segmenter": lambda d: hf.SemanticSegmenterOutput(logits=d[..., ::2, ::2]),
    "encoder": lambda d: hf.BaseModelOutputWithPooling(last_hidden_state=d.flatten(2).mT, pooler_output=d.mean((2, 3))),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:The model gives an embedding")
def test_every_form_is_explained_with_nothing_said_and_a_batch_is_its_images(form):
    torch.manual_seed(1)
    model = Wrapped(FORMS[form])
    images = torch.rand(3, 3, 8, 10)
    found = Explainer(model).explain(images, ["saliency", "grad_cam"])
    for i in range(3):
        alone = Explainer(model).explain(images[i], ["saliency", "grad_cam"])
        for key in found:
            assert found[key].maps[i].any()
            np.testing.assert_allclose(alone[key].map, found[key].maps[i], atol=1e-6)
            assert alone[key].target_names == found[key].target_names[i : i + 1]


def test_multi_label_needs_no_more_than_its_activation():
    torch.manual_seed(1)
    model, images = Wrapped(FORMS["scores"]), torch.rand(2, 3, 8, 10)
    explainer = Explainer(model, activation="sigmoid")
    found = explainer.explain(images, "saliency", target=2)
    np.testing.assert_allclose(found.probabilities, model(images).sigmoid()[:, 2].detach(), rtol=1e-6)
    assert [p.probability for p in explainer.predict(images)[0]] == pytest.approx(
        model(images).sigmoid()[0].sort(descending=True).values.tolist()
    )


def test_predictions_of_dense_scores_and_of_embeddings():
    torch.manual_seed(1)
    model, images = Wrapped(FORMS["torchvision"]), torch.rand(2, 3, 8, 10)
    expected = model(images)["out"].softmax(1).mean((2, 3))
    for row, best in zip(expected, Explainer(model).predict(images), strict=True):
        assert [p.probability for p in best] == pytest.approx(row.sort(descending=True).values.tolist())
    with pytest.raises(SeewhyError, match="no classes to predict"):
        Explainer(Wrapped(FORMS["encoder"])).predict(images)


def test_warnings_of_class_names_and_of_probabilities_hold_for_dense_scores_too():
    images = torch.rand(1, 3, 8, 10)
    with pytest.warns(SeewhyWarning, match="2 class names were given, and the model has 3"):
        Explainer(Wrapped(FORMS["dense"]), class_names=["a", "b"]).explain(images, "saliency")
    with pytest.warns(SeewhyWarning, match="already sum to 1"):
        found = Explainer(Wrapped(lambda d: d.softmax(1))).explain(images, "saliency")
    np.testing.assert_allclose(found.probabilities, found.scores)
    Explainer(Wrapped(FORMS["scores"]), class_names=samples.class_names()[:3]).explain(images, "saliency")
