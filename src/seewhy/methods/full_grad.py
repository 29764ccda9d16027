"""The full gradient: what the input and all biases bring to the score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.record import Bias, Needs, Record
from ..errors import InputError, ModelError, close_matches
from .base import cut, missed, stretched, upsample
from .gradient import GradientMethod
from .registry import register

_INCOMPLETE = 0.05  # of the score
_PER = ("layer", "channel")
_WINDOWS = (
    "FullGrad: some layer of this model does not add its bias to one image after the other, but to windows of them or "
    "tokens first, so that what it brings to each is not known. Use 'saliency' or 'integrated_gradients'."
)


@register("full_grad")
@dataclass(frozen=True)
class FullGrad(GradientMethod):
    """FullGrad: the magnitudes of what the input and all biases bring to the score, layer by layer.

    Srinivas, Fleuret 2019, "Full-Gradient Representation", arXiv 1905.00780, eq. 8: psi(dS/dx x), and psi(dS/db b) of
    each layer with positions that adds a bias, summed over channels and layers. psi is the magnitude, from its least at
    0 to its greatest at 1, bilinear at the input's size. `.values` are ``(N, H, W)``, at least 0. A network of ReLU and
    linear layers is explained whole: S = sum of dS/dx x + sum of dS/db b over all layers. How far this is missed is in
    ``measures["completeness_error"]`` as a share of |S|; over 5 % a warning says so, as is usual of transformers, whose
    layer norms, GELU and attention are no such layers: `libra` makes up for most of it. It costs a forward and a
    backward pass.

    Args:
        per: what psi scales: all the channels of a ``"layer"`` together, as in the authors' code; or each ``"channel"``
            by itself, as eq. 8 may be read and pytorch-grad-cam does.

    Raises:
        InputError: `per` is something else.
        ModelError: no layer with positions adds a bias, or one adds it to windows or tokens in the place of images.
    """

    per: str = "layer"

    def __post_init__(self) -> None:
        if self.per not in _PER:
            raise InputError(f"per is 'layer' or 'channel', not {self.per!r}.{close_matches(str(self.per), _PER)}")

    @property
    def needs(self) -> Needs:
        """The gradients at the input and at all biases."""
        return Needs(input_gradient=self.rule, biases=self.rule)

    def compute(self, record: Record) -> Tensor:
        """Eq. 8."""
        x = record.input
        brought = record.input_gradient.double() * x.double()
        added = [bias for bias in record.biases if bias.gradient.dim() == x.dim()]
        if not added:
            raise ModelError("FullGrad explains by biases, and no layer with positions adds one here. Use 'saliency'.")
        if any(bias.share.shape != record.scores.shape for bias in record.biases):
            raise ModelError(_WINDOWS)
        self._measure(record, brought)
        total, sides = self._psi(brought), getattr(record, "sides", x.shape[2:])
        for bias in added:
            total = total + cut(upsample(self._psi(_share(bias)), sides), x.shape[2:])
        return total.float()

    def _psi(self, brought: Tensor) -> Tensor:
        """The scaled magnitudes of ``(n, C, *sides)``, summed over channels; that may come before what is bilinear."""
        magnitudes = brought.abs()
        if self.per == "layer":
            return stretched(magnitudes).sum(1)
        return stretched(magnitudes.flatten(0, 1)).view(magnitudes.shape).sum(1)

    def _measure(self, record: Record, brought: Tensor) -> None:
        """How far input and biases are from adding up to the score."""
        scores = record.scores.double()
        parts = torch.stack([brought.flatten(1).sum(1), *(bias.share for bias in record.biases)])
        record.measures["completeness_error"] = error = missed(parts.T, scores)
        if float(error.max()) > _INCOMPLETE:
            record.warnings.append(
                f"FullGrad: input and biases miss the score by more than {_INCOMPLETE:.0%} of it for some image, by "
                "how much is measures['completeness_error']: the model is not made of ReLU and linear layers alone."
            )


def _share(bias: Bias) -> Tensor:
    """What a bias brings, position by position."""
    return bias.gradient.double() * bias.bias.double().view(-1, *(1 for _ in bias.gradient.shape[2:]))
