"""Class activation maps: weighted sums of a layer's channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.record import LayerRecord, Needs, Record
from ..engine.rules import BackwardRule
from ..errors import ModelError
from .base import Method, as_tuple, cut, upsample
from .fusing import Fusing
from .gradient import GradientMethod
from .registry import register


@register("grad_cam")
@dataclass(frozen=True)
class GradCAM(Fusing, GradientMethod):
    """Grad-CAM: a layer's channels weighted by their mean gradient, where that argues for the target.

    Selvaraju et al. 2016, "Grad-CAM", arXiv 1610.02391, eq. 1-2: ReLU(sum over k of mean(dS/dA_k) A_k).
    `.values` are ``(N, h, w)``, at least 0, of the layer's grid; `.maps` bilinear at the input's size.
    """

    @property
    def needs(self) -> Needs:
        """The activation and its gradient."""
        return Needs(activation=True, gradient=self.rule)

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 2."""
        weights = record.gradient.flatten(2).mean(2)
        return torch.einsum("nc,nc...->n...", weights, record.activation).relu()


@register("guided_grad_cam")
@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided Grad-CAM: guided backpropagation times Grad-CAM at the input's size.

    Selvaraju et al. 2016, arXiv 1610.02391, section 3.2. `.values` are ``(N, C, H, W)``, signed; `.maps` the largest
    magnitude over the colours. Its detail comes from guided backpropagation, which fails model-randomisation checks
    (Adebayo et al. 2018); its place from Grad-CAM, which does not.

    Args:
        also: further activations to treat as if they were ReLU.
    """

    also: str | Sequence[str] = ()

    @property
    def needs(self) -> Needs:
        """Those of Grad-CAM, and the input's gradient under the guided rule."""
        return Needs(activation=True, gradient=True, input_gradient=BackwardRule("guided", as_tuple(self.also)))

    def compute(self, record: LayerRecord) -> Tensor:
        """The product, colour by colour."""
        heat = upsample(GradCAM().compute(record), record.sides)
        return record.input_gradient * cut(heat, record.input.shape[2:])[:, None]


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
