"""Targets for embeddings: similarity to another, and what makes an image's own."""

import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from transformers import modeling_outputs as hf
from transformers.models.clip.modeling_clip import CLIPOutput

from seewhy import Explainer, SeewhyWarning, Similarity
from seewhy.errors import GradientError, InputTypeError, TargetError
from seewhy.outputs import Outputs
from seewhy.scoring import find_targets, select
from seewhy.testing import unchanged


class Encoder(nn.Module):
    """Embeddings (N, 4) of images (N, 3, H, W), in whatever form."""

    def __init__(self, form=lambda e: e):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Softplus()), nn.Linear(5, 4)
        self.form = form

    def embed(self, x):
        return self.head(self.body(x).mean((2, 3)))

    def forward(self, x):
        return self.form(self.embed(x))


def pooled(e):
    return hf.BaseModelOutputWithPooling(last_hidden_state=e[:, None], pooler_output=e)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder().double()


IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OTHER = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TO = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)

FORMULAS = {
    "cosine": lambda e, to: (e * to).sum(1) / (e.norm(dim=1) * to.norm(dim=-1)),
    "dot": lambda e, to: (e * to).sum(1),
    "euclidean": lambda e, to: -((e - to) ** 2).sum(1).sqrt(),
}


def check(encoder, target, expected):
    """Scores and gradients are those of `expected`, from embeddings, by hand; a batch is its images."""
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expected(encoder.embed(images)).sum(), images)
    with unchanged(encoder):
        found = Explainer(encoder).explain(IMAGES, "saliency", target=target)
    np.testing.assert_allclose(found.scores, expected(encoder.embed(IMAGES)).detach(), rtol=1e-5)
    np.testing.assert_allclose(found.values, gradient, rtol=1e-4, atol=1e-9)
    assert found.targets.tolist() == [-1, -1]
    assert np.isnan(found.probabilities).all()
    return found


@pytest.mark.parametrize("metric", FORMULAS)
@pytest.mark.parametrize("to", [TO, TO.numpy(), TO.float()[None]])
def test_similarity_to_an_embedding(encoder, metric, to):
    found = check(encoder, Similarity(to, metric), lambda e: FORMULAS[metric](e, TO.float().double()))
    names = {"cosine": "similarity to", "dot": "dot product with", "euclidean": "−distance to"}
    assert found.target_names[0] == f"{names[metric]} an embedding"


@pytest.mark.parametrize("metric", FORMULAS)
def test_similarity_to_an_image(encoder, metric):
    to = encoder.embed(OTHER[None]).detach()
    found = check(encoder, Similarity(OTHER, metric=metric), lambda e: FORMULAS[metric](e, to))
    assert found.target_names[0].endswith(" an image")


def test_one_embedding_for_each_image(encoder):
    rows = torch.stack([TO, 1 - TO])
    check(encoder, Similarity(rows, "dot"), lambda e: (e * rows).sum(1))
    check(encoder, [Similarity(rows[0]), Similarity(OTHER, "dot")], lambda e: torch.stack(
        [FORMULAS["cosine"](e[:1], TO)[0], e[1] @ encoder.embed(OTHER[None]).detach()[0]]
    ))  # fmt: skip
    with pytest.raises(TargetError, match="2 embeddings for 1 image "):
        Explainer(encoder).explain(IMAGES[0], "saliency", target=Similarity(rows))


def test_images_go_through_the_transform_once_and_are_called_by_their_file(encoder, tmp_path):
    calls = []

    def transform(picture):
        calls.append(picture.size)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).double() / 255

    picture = PIL.Image.fromarray((OTHER.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    picture.save(tmp_path / "cat.png")
    to = encoder.embed(transform(picture)[None]).detach()
    explainer = Explainer(encoder, transform=transform)
    for given in (str(tmp_path / "cat.png"), tmp_path / "cat.png", PIL.Image.open(tmp_path / "cat.png")):
        calls.clear()
        found = explainer.explain(IMAGES, "saliency", target=Similarity(given), batch_size=1)
        assert calls == [(8, 6)]
        assert found.target_names == ("similarity to cat.png",) * 2
        np.testing.assert_allclose(found.scores, FORMULAS["cosine"](encoder.embed(IMAGES), to).detach(), rtol=1e-6)
    by_array = explainer.explain(IMAGES, "saliency", target=Similarity(np.array(picture)))
    np.testing.assert_allclose(by_array.maps, found.maps, rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_there_is_nothing_to_explain_where_embeddings_are_equal(encoder, metric):
    images = torch.stack([IMAGES[0], OTHER])
    with pytest.warns(SeewhyWarning, match="0 everywhere for image 1"):
        found = Explainer(encoder).explain(images, "saliency", target=Similarity(OTHER, metric))
    assert found.maps[0].any()
    assert found.scores[1] == pytest.approx(1 if metric == "cosine" else 0, abs=1e-6)
    with pytest.raises(GradientError):
        Explainer(encoder).explain(OTHER, "saliency", target=Similarity(OTHER, metric))


@pytest.mark.parametrize(("metric", "factor"), [("cosine", 3.0), ("cosine", 0.7), ("euclidean", 1 + 1e-7)])
def test_rounding_alone_is_no_explanation(metric, factor):
    rows = torch.randn(20, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = torch.cat([Similarity(row.detach() * factor, metric).score(row[None]) for row in rows])
    (gradient,) = torch.autograd.grad(scores.sum(), rows)
    assert not gradient.any()


def test_of_an_embedding_without_scores_its_own_is_explained_and_said_once(encoder):
    encoder.form = pooled
    explainer = Explainer(encoder)
    with pytest.warns(SeewhyWarning, match=r"no class scores.*Similarity\(to=...\)"):
        explainer.explain(IMAGES, "saliency")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explainer.explain(IMAGES, ["saliency", "grad_cam"])
        Explainer(encoder).explain(IMAGES, "saliency", target=Similarity(TO))
    images = IMAGES.clone().requires_grad_()
    embedding = encoder.embed(images)
    (gradient,) = torch.autograd.grad((embedding * embedding.detach()).sum(), images)
    np.testing.assert_allclose(found["saliency"].values, gradient, rtol=1e-4)
    np.testing.assert_allclose(found["saliency"].scores, (embedding**2).sum(1).detach(), rtol=1e-6)
    assert found["saliency"].target_names == ("its own embedding",) * 2


def test_scores_and_the_embedding_beside_them_can_both_be_asked_for(encoder):
    encoder.form = lambda e: CLIPOutput(logits_per_image=e[:, :3], image_embeds=e, text_embeds=torch.ones(3, 4))
    check(encoder, Similarity(TO), lambda e: FORMULAS["cosine"](e, TO))
    found = Explainer(encoder).explain(IMAGES, "saliency", target=[Similarity(TO, "dot"), 2])
    expected = torch.stack([encoder.embed(IMAGES)[0] @ TO, encoder.embed(IMAGES)[1, 2]])
    np.testing.assert_allclose(found.scores, expected.detach(), rtol=1e-6)
    assert found.targets.tolist() == [-1, 2]


def test_half_precision_embeddings_compare_to_those_of_full():
    outputs = Outputs(embedding=torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    for metric, expected in (("dot", 5.0), ("euclidean", -1.0)):
        found = select(
            find_targets(Similarity(torch.tensor([1.0, 2.0 if metric == "dot" else 3.0]), metric), 1), outputs
        )
        assert found.scores.tolist() == [expected]


def test_what_cannot_be_compared_is_refused(encoder):
    explainer = Explainer(encoder)
    with pytest.raises(TargetError, match=r"metric is one of cosine, dot, euclidean.*Did you mean 'cosine'"):
        Similarity(TO, "cosin")
    with pytest.raises(TargetError, match="has 3 numbers, and the model's has 4"):
        explainer.explain(IMAGES, "saliency", target=Similarity(TO[:3]))
    with pytest.raises(TargetError, match="one image or embedding; this is 2 images"):
        explainer.explain(IMAGES, "saliency", target=Similarity(IMAGES))
    with pytest.raises(InputTypeError, match="object"):
        explainer.explain(IMAGES, "saliency", target=Similarity(object()))
    with pytest.raises(FileNotFoundError):
        explainer.explain(IMAGES, "saliency", target=Similarity("no.png"))
    with pytest.raises(TargetError, match="needs the model"):
        Similarity(OTHER).score(torch.ones(1, 4))
    encoder.form = pooled
    with pytest.raises(TargetError, match="The target is a class, and the model gives an embedding"):
        explainer.explain(IMAGES, "saliency", target=1)
    encoder.form = lambda e: e[:, :, None, None].expand(-1, -1, 2, 2)
    with pytest.raises(TargetError, match=r"needs an embedding \(N, D\), and the model gives dense scores"):
        explainer.explain(IMAGES, "saliency", target=Similarity(OTHER))
