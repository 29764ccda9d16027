"""The networks that are measured, and what each library must be told about them."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from seewhy import Explainer, SeewhyWarning, Top, samples

_STAGES = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
_NORMS = [f"encoder.layers.encoder_layer_{number}.ln_1" for number in (3, 5, 7, 9, 11)]
LAYERS = {"resnet18": _STAGES, "resnet50": _STAGES, "vit_b_16": _NORMS, "sample": ["_act1"]}


@dataclass
class Setting:
    """A network with its image, as the jobs get it.

    Attributes:
        name: ``"sample"`` is the trained network of `seewhy.samples`; the others have random weights.
        model: as users have it: in eval mode, and its parameters require grad.
        image: ``(1, 3, 224, 224)``.
        layers: names of five layers; the last is the one that Grad-CAM looks at.
        quick: whether counts are to be small.
    """

    name: str
    model: nn.Module
    image: Tensor
    layers: list[str]
    quick: bool = False

    @property
    def last(self) -> str:
        """The layer of Grad-CAM."""
        return self.layers[-1]

    @cached_property
    def target(self) -> int:
        """The class that is explained: of those with the greatest scores the first that something argues for there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SeewhyWarning)  # that nothing argues for some, as weights may be random
            found = self.explainer.explain(self.image, target=Top(20), layer=self.last)
        return int(found.targets[found.values.any((1, 2))][0])

    @property
    def module(self) -> nn.Module:
        """The same as a module."""
        return self.model.get_submodule(self.last)

    @property
    def relu(self) -> bool:
        """Whether guided backprop fits, and layers are grids without being told."""
        return self.name != "vit_b_16"

    @property
    def reshape(self) -> dict[str, Any]:
        """What pytorch-grad-cam and TorchCAM must be told of a layer of tokens."""
        return {} if self.relu else {"reshape_transform": grid_of_tokens}

    @cached_property
    def frozen(self) -> nn.Module:
        """The same network without gradients of its parameters, for bare passes."""
        return copy.deepcopy(self.model).requires_grad_(False)

    @cached_property
    def explainer(self) -> Explainer:
        """An explainer of the model."""
        return Explainer(self.model)


def make_setting(name: str, quick: bool = False, side: int = 224) -> Setting:
    """The network of this name, the same at each call."""
    torch.manual_seed(0)
    if name == "sample":
        image = samples.transform()(samples.photo("cat"))[None]
        return Setting(name, samples.network(), image, LAYERS[name], quick)
    model = torchvision.models.get_model(name, weights=None).eval()
    if name == "vit_b_16":  # a fresh one ignores its image: the head is 0
        nn.init.normal_(model.heads.head.weight, std=0.02)
    return Setting(name, model, torch.rand(1, 3, side, side), LAYERS[name], quick)


def grid_of_tokens(tokens: Tensor) -> Tensor:
    """``(n, 1 + h*w, C)`` as ``(n, C, h, w)``, as pytorch-grad-cam's page about vision transformers has it."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)
