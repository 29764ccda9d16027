"""The gradients of each block's own score at its attention: what LeGrad looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..layers import find_layers
from ..layouts import Layout
from ..scoring import Scoring, Selected
from .attention import Block
from .replay import Tail
from .spans import Span

if TYPE_CHECKING:
    from .passes import Measured

_NO_BLOCKS = (
    "The blocks of this model could not be told apart: no module holds the {} attention that ran and returns its "
    "tokens. 'grad_attention_rollout' and 'attention_cam' look at attention alone."
)
_PARALLEL = (
    "Some blocks of this model run side by side, so none of them has tokens of its own that the model's end could be "
    "given. 'attention_cam' and 'grad_cam' explain it."
)
_WIDTHS = (
    "The tokens of this model's blocks are of several widths, so what follows the last block cannot be given those of "
    "each. 'grad_cam' and 'attention_cam' explain it."
)


def formation(found: Measured, selected: Selected) -> list[Tensor]:
    """For each block the gradient, at its attention, of the score that the block's tokens would have by themselves.

    Bousselham et al. 2024, "LeGrad", arXiv 2404.03214: what the model makes of its last tokens is made of the mean of
    each block's tokens instead. Each ``(rows, heads, q, k)``.

    Raises:
        ModelError: no module stands for a block.
    """
    assert found.attention is not None
    if found.attention.parallel:
        raise ModelError(_PARALLEL)
    blocks = found.attention.blocks
    spans = [_span(found, block, index) for index, block in enumerate(blocks)]
    if len({span.output.shape[2] for span in spans}) > 1:
        raise ModelError(_WIDTHS)
    scoring = found.scoring.held(selected.detached(), tuple(found.input.shape[2:]))
    means = torch.stack([span.output.detach().mean(1) for span in spans], 1)  # (n, blocks, C)
    pulls = torch.stack([_pulls(found, scoring, image, spans[-1], means[image]) for image in range(len(means))])
    return [
        _at_attention(span, block, pulls[:, :, index], index)
        for index, (span, block) in enumerate(zip(spans, blocks, strict=True))
    ]


def _span(found: Measured, block: Block, index: int) -> Span:
    """The largest module that ran this attention and no other, and returned a token for each that it got.

    An only block may be in a module with all that comes before or after: of those, one that adds to what it got.
    """
    assert found.attention is not None
    shape, numbers = (len(block.weights), block.weights.shape[2]), found.attention.numbers
    fits = [span for span in found.observer.spans if span.output.shape[:2] == shape]
    fits = [span for span in fits if span.holds(block.number, numbers)]
    if len(found.attention.blocks) == 1:
        fits = [span for span in fits if span.residual] or fits
    if not fits:
        raise ModelError(_no_block(index))
    return max(fits, key=lambda span: span.ended - span.began)


def _no_block(index: int) -> str:
    return _NO_BLOCKS.format(f"{index + 1}.")


def _pulls(found: Measured, scoring: Scoring, image: int, last: Span, means: Tensor) -> Tensor:
    """The gradients of an image's scores at the mean tokens of all blocks, ``(each, blocks, C)``."""
    request, each = found.request, found.scoring.each
    count, width = last.output.shape[1:]
    label = found.observer.label(last.call)
    every = torch.arange(count * width, device=means.device).view(1, count, width).movedim(2, 1)
    inputs = request.inputs.part(image, image + 1, len(found.input))
    one = found.input[image : image + 1].detach()
    layout = Layout("given", (count,), picks=every, axis=last.axis)
    tail = Tail(found.model, one, find_layers(found.model, label)[0], layout, inputs)
    means = means.detach().requires_grad_()
    with torch.enable_grad():
        raw = tail(means[:, :, None].expand(-1, -1, count), graph=True)
        scores = scoring.at([image] * len(means)).read(raw, tuple(found.input.shape[2:])).scores
    if not scores.requires_grad:
        raise ModelError(_no_block(len(means) - 1))
    grads = [
        torch.autograd.grad(scores[turn::each].sum(), means, retain_graph=turn < each - 1)[0] for turn in range(each)
    ]
    return torch.stack(grads)


def _at_attention(span: Span, block: Block, pulls: Tensor, index: int) -> Tensor:
    """From gradients at a block's mean token ``(n, each, C)`` to those at its attention ``(rows, heads, q, k)``."""
    count = span.output.shape[1]
    found = []
    for turn in range(pulls.shape[1]):
        pull = (pulls[:, turn, None] / count).expand_as(span.output).to(span.output)
        edges: list[Any] = [block.edge]
        (gradient,) = torch.autograd.grad(span.output, edges, pull, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ModelError(_no_block(index))
        found.append(block.oriented(gradient))
    return torch.stack(found, 1).flatten(0, 1)
