"""The class activation map, where the network's end is linear in what it pools."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.record import Needs, Record
from ..errors import ModelError
from .base import Method
from .registry import register


@register("cam")
@dataclass(frozen=True)
class CAM(Method):
    """CAM: the activation before global average pooling, weighted by the linear layer after it.

    Zhou et al. 2015, "Learning Deep Features for Discriminative Localization", arXiv 1512.04150, eq. 2: sum over k of
    w_k A_k. `.values` are ``(N, h, w)``, signed; `.maps` bilinear at the input's size. Where the pooling happens is
    found in the pass, and `.layer` says it. The identity that makes it
    exact is checked: mean of the map + bias = the score.

    Raises:
        ModelError: no linear layer reads the mean of an activation, or the target is not linear in the scores.
    """

    signed = True
    needs = Needs(head=True)

    def compute(self, record: Record) -> Tensor:
        """Eq. 2, for any target that is linear in the scores."""
        head, gradient = record.head, record.output_gradient.double()
        values = torch.einsum("nc,nc...->n...", gradient @ head.weight.double(), head.activation.double())
        expected = values.flatten(1).mean(1) + gradient @ head.bias.double()
        scale = (record.outputs.double().abs().amax(1) * gradient.abs().sum(1)).clamp(min=1e-12)
        worst = ((expected - record.scores).abs() / scale).max().item()
        if not worst <= max(1e-3, 8 * torch.finfo(head.activation.dtype).eps):
            raise ModelError(
                "CAM is exact only for a score that is linear in the model's scores; here the mean of the map + bias "
                f"misses the score by {worst:.1%}. Use 'grad_cam'."
            )
        return values
