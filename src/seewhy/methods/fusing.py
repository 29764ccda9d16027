"""Maps of one layer's grid, and those of several layers fused into one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError, close_matches
from .base import Method

FUSES = ("mean", "max", "layercam")


@dataclass(frozen=True)
class Fusing(Method):
    """A method that gives a map of one layer's grid, and may give one of several layers.

    Args:
        fuse: None: a map for each layer. ``"mean"``, ``"max"``, ``"layercam"``: one of all of them.
    """

    fuse: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.fuse is not None and self.fuse not in FUSES:
            raise InputError(f"fuse is one of {', '.join(FUSES)} or None, not {self.fuse!r}."
                             f"{close_matches(str(self.fuse), FUSES)}")  # fmt: skip


def fuse_maps(maps: Tensor, how: str) -> Tensor:
    """One map ``(n, *sides)`` of those of several layers ``(layers, n, *sides)``, at most 1 in magnitude.

    Each is divided by its own largest magnitude. ``"layercam"`` stretches each to tanh(2 M / max M) and takes the
    largest (Jiang et al. 2021, "LayerCAM", eq. 9-10); of signed maps the one that is largest in magnitude.
    """
    largest = maps.abs().flatten(2).amax(2).view(*maps.shape[:2], *(1 for _ in maps.shape[2:]))
    scaled = maps / torch.where(largest > 0, largest, 1)
    if how == "mean":
        return scaled.mean(0)
    scaled = (2 * scaled).tanh() if how == "layercam" else scaled
    return scaled.gather(0, scaled.abs().argmax(0, keepdim=True))[0]
