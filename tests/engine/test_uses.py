"""Which weights a score depends on, the last to be used first, however the model is written."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seewhy import Explainer, trust
from seewhy.methods import Occlusion
from seewhy.testing import small_vit, unchanged

IMAGES = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Registers its head first, a layer that never runs, and a second head that is returned but not explained."""

    def __init__(self, way="plain"):
        super().__init__()
        self.way = way
        self.head, self.unused = nn.Linear(8, 5), nn.Linear(3, 3)
        self.late, self.early = nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3)
        self.aux = nn.Linear(8, 5)

    def forward(self, images):
        if self.way == "checkpoint":
            features = checkpoint(self.features, images, use_reentrant=True)
        elif self.way == "no grad":
            with torch.no_grad():
                features = self.features(images)
        else:
            features = self.features(images)
        if self.way == "functional":
            return F.linear(features, self.head.weight, self.head.bias)
        return {"scores": self.head(features), "aux": self.aux(features)}

    def features(self, images):
        return self.late(self.early(images).relu()).relu().mean((2, 3))


def explainer_of(model):
    return Explainer(model, output=lambda raw: raw if isinstance(raw, torch.Tensor) else raw["scores"])


@pytest.mark.parametrize("way", ["plain", "functional"])
def test_layers_are_gone_through_as_they_are_used(way):
    model = Net(way).train()
    explainer = explainer_of(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    with unchanged(model):
        assert trust.mprt(explainer, found).labels == ("head", "late", "early")
    assert "'head'" in explainer.check(found)["weights"].sentence


@pytest.mark.parametrize("way", ["checkpoint", "no grad"])
def test_what_the_graph_hides_comes_last(way):
    explainer = explainer_of(Net(way))
    given = {"images": IMAGES, "target": 1, "method": Occlusion(window=4, stride=4, baseline="mean")}
    maps = explainer.explain(IMAGES, given["method"], target=1).maps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = trust.mprt(explainer, maps, **given).labels
    assert labels == ("head", "aux", "early", "late", "unused")


def test_parameters_of_blocks_and_of_the_model_itself_are_seen():
    explainer = Explainer(small_vit())
    labels = trust.mprt(explainer, explainer.explain(IMAGES[:, :, :16, :16], "saliency", target=1), steps=999).labels
    parameters = [(name, p) for name, m in explainer.model.named_modules() for p in m._parameters.values()]
    assert set(labels) == {name for name, p in parameters if p is not None and p.dim() > 1}
    assert labels[0] == "head"


def test_frozen_parameters_stay_frozen():
    model = Net()
    model.early.requires_grad_(False)
    explainer = explainer_of(model)
    found = explainer.explain(IMAGES, "saliency", target=1)
    with unchanged(model):
        trust.mprt(explainer, found)
    assert [p.requires_grad for p in model.early.parameters()] == [False, False]
