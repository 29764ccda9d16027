"""Attention as the autograd graph shows it: the softmax nodes between the tokens of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ..errors import ModelError
from ..layouts import GIVEN, Layout
from .capture import Observer
from .rules import kind_of

_SOFTMAX = {"SoftmaxBackward", "SafeSoftmaxBackward"}
_NONE = (
    "This model shows no attention between the tokens of an image: {}. Methods of attention are for transformers such "
    "as ViT; 'grad_cam' and 'saliency' explain any network."
)
_ORDER = (
    "The attention of this model has shape {} for {} images, and the gradients of their scores do not tell which image "
    "each of its rows belongs to. Explain the images one at a time: batch_size=1."
)
_LAST = (
    "Of the {} tokens of this model's last attention the score reads the last one alone, or all but that. It seems to "
    "be a class token after the patches, where {} before a grid of {} were assumed. Say where the patches are: "
    "Explainer(..., layout=) takes a function from the output of a block to (N, C, h, w)."
)
_UNEQUAL = (
    "The attention of this model has {} rows of heads for each image, block by block: of so many heads, or of windows? "
    "Attention as (N, heads, q, k) tells, as scaled_dot_product_attention has it. 'grad_cam' explains any network."
)
Pull: TypeAlias = "Callable[[GradientEdge, int], Tensor | None]"  # the gradient of an image's score at a softmax


@dataclass(frozen=True)
class Softmax:
    """A softmax of a graph: what it gave, where its gradient is, and by autograd's count of operations, when it ran."""

    raw: Tensor
    edge: GradientEdge
    number: int


@dataclass(frozen=True)
class Block:
    """The attention of one block: its softmax.

    Attributes:
        weights: ``(n, heads, q, k)``.
        edge: where autograd finds the gradient of the softmax.
        number: by autograd's count of operations, when it ran.
        flat: whether the softmax has heads and images in one dimension.
        heads_first: whether the heads come before the images there.
    """

    weights: Tensor
    edge: GradientEdge
    number: int
    flat: bool
    heads_first: bool

    def oriented(self, gradient: Tensor) -> Tensor:
        """What autograd gives for the softmax, as `weights` are."""
        return _by_image(gradient, len(self.weights), self.heads_first)


@dataclass(frozen=True)
class Blocks:
    """The attention of a model that looks at the tokens of one grid, in the order in which it ran.

    Attributes:
        blocks: at least one.
        layout: of the tokens that are looked at.
        numbers: when every attention of the model ran, also those between other tokens.
        parallel: how many of the blocks do not depend on the one before.
    """

    blocks: list[Block]
    layout: Layout
    numbers: list[int]
    parallel: int

    @property
    def others(self) -> int:
        """How many attentions there are besides."""
        return len(self.numbers) - len(self.blocks)


def find_attention(nodes: Iterable[Any], observer: Observer, images: int, pull: Pull, memory: dict[Any, Any]) -> Blocks:
    """The attention in the graph of a run, by the tokens of the last one.

    Args:
        nodes: of the graph.
        observer: of the run.
        images: how many.
        pull: asked for the gradient of one image's score at a softmax, where its rows do not tell whose they are.
        memory: what is known of that from other batches.

    Raises:
        ModelError: there is none, or none between tokens whose positions are known, or whose it is cannot be told.
    """
    sequences = {count: layout for count, layout in observer.sequences.items() if layout}
    softmaxes = sorted((softmax for node in nodes if (softmax := _softmax(node))), key=lambda softmax: softmax.number)
    numbers = [softmax.number for softmax in softmaxes]
    whole = [one for one in softmaxes if _is_whole(one.raw, images) and not _grouped(one, numbers, images, observer)]
    known = [softmax for softmax in whole if softmax.raw.shape[-1] in sequences]
    blocks = [block for softmax in known[::-1] if (block := _block(softmax, images, pull, memory))][::-1]
    if not blocks:
        raise ModelError(_NONE.format(_why(softmaxes, [] if known else whole)))
    tokens = blocks[-1].weights.shape[-1]
    found = [block for block in blocks if block.weights.shape[-1] == tokens]
    heads = dict.fromkeys(block.weights.shape[1] for block in found if block.flat)
    if len(heads) > 1:
        raise ModelError(_UNEQUAL.format(", ".join(map(str, heads))))
    parallel = sum(not _leads_to(before, after) for before, after in pairwise(found))
    return Blocks(found, sequences[tokens], numbers, parallel)


def _grouped(softmax: Softmax, numbers: list[int], images: int, observer: Observer) -> bool:
    """Whether rows that may be heads are windows: the module that ran this attention gave more sequences than images.

    The largest such module, for one inside may give a sequence for each head.
    """
    if softmax.raw.dim() == 4:
        return False
    tokens = softmax.raw.shape[1]
    held = [span.output.shape[:2] for span in observer.spans if span.holds(softmax.number, numbers)]
    given = [shape for shape in held if tokens in shape]  # of windows it is not known which dimension comes first
    return bool(given) and given[-1].numel() != images * tokens


def _leads_to(before: Block, after: Block) -> bool:
    """Whether an attention depends on one that ran before it."""
    stack = [after.edge.node]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node is before.edge.node:
            return True
        following = {next_ for next_, _ in node.next_functions if next_ and next_._sequence_nr() >= before.number}
        stack.extend(following - seen)
        seen |= following
    return False


def _softmax(node: Any) -> Softmax | None:
    """A softmax that may be attention; its result is asked for once, as a checkpoint computes it anew."""
    raw: Tensor | None = node._saved_result.detach() if kind_of(node) in _SOFTMAX else None
    return Softmax(raw, GradientEdge(node, 0), node._sequence_nr()) if raw is not None and raw.dim() > 2 else None


def _is_whole(raw: Tensor, images: int) -> bool:
    """Whether this may be between all tokens of each image, and not within windows: ``(n · heads, q, k)`` or more."""
    if not (raw.dim() == 3 and len(raw) % images == 0) and not (raw.dim() == 4 and len(raw) == images):
        return False
    rows = raw.sum(-1, dtype=torch.float32)
    return torch.allclose(rows, torch.ones_like(rows), atol=0.05)


def _block(softmax: Softmax, images: int, pull: Pull, memory: dict[Any, Any]) -> Block | None:
    """A softmax as the attention of a block; None if it has the heads before the images, and both are dimensions."""
    raw = softmax.raw
    key = "heads first", images, raw.shape
    if key not in memory:  # those that ran before have the order of the last one of their shape
        memory[key] = _heads_first(softmax, images, pull)
    if memory[key] and raw.dim() == 4:
        return None
    return Block(_by_image(raw, images, memory[key]), softmax.edge, softmax.number, raw.dim() == 3, memory[key])


def _by_image(tensor: Tensor, images: int, heads_first: bool) -> Tensor:
    """A tensor of a softmax, ``(n, heads, q, k)``."""
    if tensor.dim() == 4:
        return tensor
    if heads_first:
        return tensor.reshape(-1, images, *tensor.shape[1:]).transpose(0, 1)
    return tensor.reshape(images, -1, *tensor.shape[1:])


def _heads_first(softmax: Softmax, images: int, pull: Pull) -> bool:
    """Whether the heads come before the images, where the shape leaves that open: an image's score says which are its.

    Raises:
        ModelError: it cannot be told.
    """
    raw = softmax.raw
    count = raw.shape[:-2].numel()
    if images in (1, count) or (raw.dim() == 4 and raw.shape[1] != images):
        return False
    rows = torch.arange(count, device=raw.device)
    for image in range(images):
        gradient = pull(softmax.edge, image)
        used = rows[:0] if gradient is None else rows[gradient.flatten(-2).any(-1).flatten()]
        usual, other = bool((used // (count // images) == image).all()), bool((used % images == image).all())
        if usual != other:
            return other
        if not usual:
            raise ModelError(_ORDER.format(tuple(raw.shape), images))
    if raw.dim() == 4:  # no score tells, and nearly all have the images first
        return False
    raise ModelError(_ORDER.format(tuple(raw.shape), images))


def _why(softmaxes: list[Softmax], whole: list[Softmax]) -> str:
    if not softmaxes:
        return "it runs no softmax, or runs it where its graph cannot be seen (a kernel of its own, a scripted part)"
    if not whole:
        return "all of its attention is within windows or groups of tokens, or has its heads before the images"
    counts = ", ".join(dict.fromkeys(str(softmax.raw.shape[-1]) for softmax in whole))
    return f"its attention is between {counts} tokens, and which positions these have could not be worked out"


def readout(found: Blocks, gradient: Tensor) -> Tensor:
    """Which tokens of the last block the score reads, ``(rows, q)``, each row adding up to 1.

    Those at which the softmax has a `gradient`: the class token, the first that has no position, if it is among them,
    else all alike.

    Raises:
        ModelError: the last token alone is read, or all but that: it seems to be a class token after the patches.
    """
    read = (gradient.abs().sum((1, 3), dtype=torch.float32) > 0).float()
    read = torch.where(read.any(1, keepdim=True), read, 1)
    layout, count = found.layout, read.shape[1]
    positions = range(layout.prefix, layout.prefix + math.prod(layout.grid))
    if count == found.blocks[-1].weights.shape[-1] > len(positions):
        if layout.name != GIVEN and bool((read[:, -1:] != read[:, :-1]).all(1).any()):
            raise ModelError(_LAST.format(count, layout.prefix, layout.grid))
        first = 0 if layout.prefix else positions.stop
        others = torch.arange(count, device=read.device) != first
        read = torch.where((read[:, first : first + 1] > 0) & others, 0, read)
    return read / read.sum(1, keepdim=True)
