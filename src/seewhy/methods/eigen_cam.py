"""Class activation maps along the direction in which a layer's output varies most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.record import LayerRecord, Needs
from ..errors import LayerError
from .fusing import Fusing
from .gradient import GradientMethod
from .registry import register

_SURE = 1e-3  # of what it could be, above which a product is taken for more than rounding
_NO_POSITIONS = "Layer {!r} has no positions: it gave {}. explainer.layers() lists those that have."


@register("eigen_cam")
@dataclass(frozen=True)
class EigenCAM(Fusing):
    """EigenCAM: a layer's output along the direction of channels that it is strongest in.

    Muhammad, Yeasin 2020, "Eigen-CAM", arXiv 2008.00299: A v, where A has a row for each position and a column for
    each channel, and v is its first right singular vector. It is the same for all classes and asks for no score. A
    singular vector may as well be turned round: here the larger part of the map (by its squares) is above 0. `.values`
    are ``(N, h, w)``; at least 0 where the layer's output is. It costs a forward pass.

    Args:
        centre: take each channel's mean off first, as pytorch-grad-cam does: then it is the first principal component.

    Raises:
        LayerError: the layer has no positions.
    """

    centre: bool = False
    needs = Needs(activation=True)

    def compute(self, record: LayerRecord) -> Tensor:
        """The projection."""
        if record.activation.dim() < 3:
            raise LayerError(_NO_POSITIONS.format(record.layer, tuple(record.activation.shape)))
        maps = project(record.activation, self.centre)
        return _turned(maps, _larger(maps))


@register("eigen_grad_cam")
@dataclass(frozen=True)
class EigenGradCAM(Fusing, GradientMethod):
    """Eigen-Grad-CAM: gradient times activation along the direction of channels that it is strongest in.

    From pytorch-grad-cam, which has no paper for it: EigenCAM of gradient × activation, so that it depends on the
    class. The map goes with HiResCAM's, or, where that is 0, has its larger part above 0. `.values` are ``(N, h, w)``,
    of both signs. It costs what Grad-CAM does.

    Args:
        centre: take each channel's mean off first, as pytorch-grad-cam does.
    """

    centre: bool = False

    @property
    def needs(self) -> Needs:
        """The activation and its gradient."""
        return Needs(activation=True, gradient=self.rule)

    def compute(self, record: LayerRecord) -> Tensor:
        """The projection of the product."""
        product = record.activation.double() * record.gradient.double()
        maps = project(product, self.centre)
        return _turned(maps, _along(maps, product.sum(1)))


def project(channels: Tensor, centre: bool) -> Tensor:
    """Positions on the first right singular vector, ``(n, *sides)``, of ``(n, C, *sides)``; of either sign."""
    rows = channels.double().flatten(2)  # (n, C, positions)
    rows = rows - rows.mean(2, keepdim=True) if centre else rows
    wide = rows.shape[1] < rows.shape[2]
    gram = rows @ rows.mT if wide else rows.mT @ rows  # of the smaller side: an SVD of all would take minutes
    squares, vectors = torch.linalg.eigh(gram)
    first, length = vectors[:, :, -1], squares[:, -1:].clamp(min=0).sqrt()
    found: Tensor = torch.einsum("nc,ncp->np", first, rows) if wide else length * first
    return found.view(-1, *channels.shape[2:])


def _larger(maps: Tensor) -> Tensor:
    """Above 0 for each map whose larger part is, by its squares."""
    return (maps * maps.abs()).flatten(1).sum(1)


def _along(maps: Tensor, others: Tensor) -> Tensor:
    """Above 0 for each map that goes with another; where that would be rounding, that has its larger part above 0."""
    product = (maps * others).flatten(1).sum(1)
    most = maps.flatten(1).norm(dim=1) * others.flatten(1).norm(dim=1)
    return torch.where(product.abs() > _SURE * most, product, _larger(maps))


def _turned(maps: Tensor, by: Tensor) -> Tensor:
    """Each map as it is, or turned round where its number in `by` is below 0."""
    return maps * torch.where(by < 0, -1, 1).view(-1, *(1 for _ in maps.shape[1:]))
