"""What a layer answers, without any target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.record import LayerRecord, Needs
from .base import Method, upsample
from .registry import register


@register("activations")
@dataclass(frozen=True)
class Activations(Method):
    """Activations: what the layer returned, untouched by what the model does with it next.

    `.values` are ``(N, C, h, w)`` whatever the model's layout, ``(N, C)`` at a layer without positions; `.maps` their
    mean over the channels (0 where that is nothing but rounding, as after a LayerNorm), bilinear at the input's size.
    Needs no score, so it works on any network.
    """

    needs = Needs(activation=True)

    def compute(self, record: LayerRecord) -> Tensor:
        """A."""
        return record.activation

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The mean over channels; without positions it is the same everywhere."""
        grid = values if values.dim() > 2 else values.reshape(*values.shape, *(1 for _ in size))
        means = grid.mean(1)
        rounding = 8 * torch.finfo(grid.dtype).eps * grid.abs().mean(1)
        return upsample(means.where(means.abs() > rounding, 0), size)
