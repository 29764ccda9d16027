"""What the tokens of transformers take from one another: maps made of attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from ..arguments import whole
from ..engine.record import Attention, Needs, Record
from ..errors import InputError, ModelError, close_matches
from .base import Method, stretched
from .registry import register

_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(1),
    "max": lambda weights: weights.amax(1),
    "min": lambda weights: weights.amin(1),
}
_NO_ROLLOUT = (
    "{} follows tokens from the first block to the last, and in this model {}. 'raw_attention' and 'attention_cam' "
    "look at the last block alone."
)


@register("raw_attention")
@dataclass(frozen=True)
class RawAttention(Method):
    """Raw attention: what the last block's attention takes from each position.

    The mean over the heads of the last attention's weights, in the row of the token that the score reads: the class
    token's, or the mean of all rows where all tokens are pooled. `.values` are ``(N, h, w)``, at least 0; with what is
    taken from tokens without a position they add up to 1. It does not depend on the target. It costs a forward pass,
    and a backward pass to the last attention.

    Raises:
        ModelError: the model has no attention between the tokens of an image.
    """

    needs = Needs(attention="weights")

    def compute(self, record: Record) -> Tensor:
        """The rows that are read."""
        attention = record.attention
        return attention.on_grid(_read(attention, attention.weights[-1].float().mean(1)))


@register("attention_rollout")
@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout: what arrives from each position through the attention of all blocks.

    Abnar, Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, section 3: the product over the
    blocks of (A + I) / 2, A being the mean over the heads; of it the row that the score reads. `.values` are
    ``(N, h, w)``, in 0..1; with what stays at tokens without a position they add up to 1. It does not depend on the
    target. It costs a forward pass, and a backward pass to the last attention.

    Args:
        heads: how those of a block are put together: ``"mean"``, ``"max"`` or ``"min"``; rows then add up to 1 again.

    Raises:
        ModelError: the model has no attention between the tokens of an image, or not always between the same ones.
    """

    heads: Literal["mean", "max", "min"] = "mean"
    needs = Needs(attention="weights")

    def __post_init__(self) -> None:
        if self.heads not in _HEADS:
            raise InputError(f"heads is one of {', '.join(_HEADS)}, not {self.heads!r}."
                             f"{close_matches(str(self.heads), _HEADS)}")  # fmt: skip

    def compute(self, record: Record) -> Tensor:
        """The product from the first block to the last."""
        attention = record.attention
        _check_rollout(attention, "Attention rollout")
        steps = []
        for weights in attention.weights:
            mixed = _HEADS[self.heads](weights.float())
            mixed = mixed / mixed.sum(-1, keepdim=True).clamp(min=torch.finfo(mixed.dtype).tiny)
            steps.append((mixed + torch.eye(mixed.shape[-1], device=mixed.device)) / 2)
        return attention.on_grid(_read(attention, reduce(lambda before, step: step @ before, steps)))


@register("grad_attention_rollout")
@dataclass(frozen=True)
class GradAttentionRollout(Method):
    """Gradient attention rollout: what arrives through attention that argues for the target.

    Chefer, Gur, Wolf 2021, "Generic Attention-model Explainability", arXiv 2103.15679, eq. 5-6 for self-attention:
    R = I, then R + Ā R block by block, Ā being the mean over the heads of ReLU(dS/dA · A); of it the row that the score
    reads. `.values` are ``(N, h, w)``, at least 0. It costs a forward and a backward pass.

    Raises:
        ModelError: the model has no attention between the tokens of an image, or not always between the same ones.
    """

    needs = Needs(attention="gradients")

    def compute(self, record: Record) -> Tensor:
        """Eq. 6, from the first block to the last."""
        attention = record.attention
        _check_rollout(attention, "Gradient attention rollout")
        count = attention.weights[0].shape[-1]
        relevance = torch.eye(count, device=record.input.device).expand(len(record.input), -1, -1)
        for weights, gradient in zip(attention.weights, attention.gradients, strict=True):
            relevance = relevance + (weights.float() * gradient.float()).relu().mean(1) @ relevance
        rows = relevance - torch.eye(count, device=relevance.device)  # what a token has of itself says nothing
        return attention.on_grid(_read(attention, rows))


@register("attention_cam")
@dataclass(frozen=True)
class AttentionCAM(Method):
    """Attention CAM: Grad-CAM of the last attention, whose heads are its channels.

    The baseline of Chefer, Gur, Wolf 2020, "Transformer Interpretability Beyond Attention Visualization", arXiv
    2012.09838, section 4: in the row of the token that the score reads, ReLU(sum over the heads of mean(dS/dA) A), the
    mean being over the positions. `.values` are ``(N, h, w)``, at least 0. It costs a forward pass, and a backward pass
    to the last attention.

    Raises:
        ModelError: the model has no attention between the tokens of an image.
    """

    needs = Needs(attention="gradients")

    def compute(self, record: Record) -> Tensor:
        """Grad-CAM over heads."""
        attention = record.attention
        rows = torch.einsum("nq,nhqk->nhk", attention.readout, attention.weights[-1].float())
        slopes = torch.einsum("nq,nhqk->nhk", attention.readout, attention.gradients[-1].float())
        weights = attention.on_grid(slopes).flatten(2).mean(2, keepdim=True)
        return attention.on_grid((weights * rows).sum(1)).relu()


@register("legrad")
@dataclass(frozen=True)
class LeGrad(Method):
    """LeGrad: how much each block's own score would gain, were more attention paid to a position.

    Bousselham et al. 2024, "LeGrad", arXiv 2404.03214, section 3: a block's own score is what the model's end makes of
    the mean of that block's tokens. ReLU of its gradient at the block's attention, the mean over heads and queries, and
    then over the blocks, is stretched to 0..1. `.values` are ``(N, h, w)``, 0..1. It costs a forward pass, what comes
    after the last block, and a backward pass through each block.

    Args:
        blocks: how many of the last blocks count; None: all.

    Raises:
        ModelError: the model has no attention between the tokens of an image, or no modules that are its blocks.
    """

    blocks: int | None = None
    needs = Needs(attention="formation")

    def __post_init__(self) -> None:
        if self.blocks is not None:
            whole(self.blocks, "blocks")

    def compute(self, record: Record) -> Tensor:
        """The mean over the last blocks."""
        attention = record.attention
        gradients = attention.gradients[-(self.blocks or len(attention.gradients)) :]
        tokens = torch.stack([gradient.float().relu().mean((1, 2)) for gradient in gradients]).mean(0)
        return stretched(attention.on_grid(tokens))


def _read(attention: Attention, rows: Tensor) -> Tensor:
    """Of what each token takes ``(n, q, k)``, what those take that the score reads, ``(n, k)``."""
    return torch.einsum("nq,nqk->nk", attention.readout.to(rows), rows)


def _check_rollout(attention: Attention, name: str) -> None:
    """Refuse attention that cannot be followed from block to block."""
    every, why = attention.others + len(attention.weights), ""
    if attention.others:
        why = f"{attention.others} of {every} attentions are between other tokens"
    elif attention.parallel:
        why = f"{attention.parallel} of {every} attentions run beside the one before"
    elif any(weights.shape[2] != weights.shape[3] for weights in attention.weights):
        why = "a block takes from more tokens than it gives"
    if why:
        raise ModelError(_NO_ROLLOUT.format(name, why))
