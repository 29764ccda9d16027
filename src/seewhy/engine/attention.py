"""Attention as the autograd graph shows it: the softmax nodes between the tokens of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ..errors import ModelError
from ..layouts import Layout
from .rules import kind_of

_SOFTMAX = {"SoftmaxBackward", "SafeSoftmaxBackward"}
_NONE = (
    "This model shows no attention between the tokens of an image: {}. Methods of attention are for transformers such "
    "as ViT; 'grad_cam' and 'saliency' explain any network."
)


@dataclass(frozen=True)
class Block:
    """The attention of one block: its softmax.

    Attributes:
        weights: ``(n, heads, q, k)``.
        edge: where autograd finds the gradient of the softmax.
        number: by autograd's count of operations, when it ran.
    """

    weights: Tensor
    edge: GradientEdge
    number: int

    def shaped(self, gradient: Tensor) -> Tensor:
        """What autograd gives for the softmax, as `weights` are; ``(rows, heads, q, k)``."""
        return gradient.reshape(-1, *self.weights.shape[1:])


@dataclass(frozen=True)
class Blocks:
    """The attention of a model that looks at the tokens of one grid, in the order in which it ran.

    Attributes:
        blocks: at least one.
        layout: of the tokens that are looked at.
        numbers: when every attention of the model ran, also those between other tokens.
    """

    blocks: list[Block]
    layout: Layout
    numbers: list[int]

    @property
    def others(self) -> int:
        """How many attentions there are besides."""
        return len(self.numbers) - len(self.blocks)


def find_attention(nodes: Iterable[Any], images: int, sequences: Mapping[int, Layout]) -> Blocks:
    """The attention in the graph of a run on so many `images`, by the tokens of the last one.

    Args:
        nodes: of the graph.
        images: how many.
        sequences: where the positions are in sequences of so many tokens.

    Raises:
        ModelError: there is none, or none between tokens whose positions are known.
    """
    softmaxes = sorted((n for n in nodes if _is_attention(n)), key=lambda node: node._sequence_nr())
    blocks = [block for node in softmaxes if (block := _block(node, images))]
    known = [block for block in blocks if block.weights.shape[-1] in sequences]
    if not known:
        raise ModelError(_NONE.format(_why(softmaxes, blocks)))
    tokens = known[-1].weights.shape[-1]
    found = [block for block in known if block.weights.shape[-1] == tokens]
    return Blocks(found, sequences[tokens], [node._sequence_nr() for node in softmaxes])


def _is_attention(node: Any) -> bool:
    return kind_of(node) in _SOFTMAX and node._saved_result.dim() > 2


def _block(node: Any, images: int) -> Block | None:
    """A softmax between all tokens of each image; None of any other, as within windows."""
    weights: Tensor = node._saved_result.detach()
    if weights.dim() == 3 and len(weights) % images == 0:  # the images' heads in a row
        weights = weights.view(images, -1, *weights.shape[1:])
    rows = weights.sum(-1, dtype=torch.float32) if weights.dim() == 4 and len(weights) == images else None
    if rows is None or not torch.allclose(rows, torch.ones_like(rows), atol=0.05):
        return None
    return Block(weights, GradientEdge(node, 0), node._sequence_nr())


def _why(softmaxes: list[Any], blocks: list[Block]) -> str:
    if not softmaxes:
        return "it runs no softmax, or runs it where its graph cannot be seen (a kernel of its own, a scripted part)"
    if not blocks:
        return "all of its attention is within windows or groups of tokens"
    counts = ", ".join(dict.fromkeys(str(block.weights.shape[-1]) for block in blocks))
    return f"its attention is between {counts} tokens, and which positions these have could not be worked out"


def readout(found: Blocks, gradient: Tensor) -> Tensor:
    """Which tokens of the last block the score reads, ``(rows, q)``, each row adding up to 1.

    Those at which the softmax has a `gradient`: the class token, the first, if it is among them, else all alike.
    """
    read = (gradient.abs().sum((1, 3), dtype=torch.float32) > 0).float()
    read = torch.where(read.any(1, keepdim=True), read, 1)
    if found.layout.prefix and read.shape[1] == found.blocks[-1].weights.shape[-1]:
        read = torch.where((read[:, :1] > 0) & (torch.arange(read.shape[1], device=read.device) > 0), 0, read)
    return read / read.sum(1, keepdim=True)
