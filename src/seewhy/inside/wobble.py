"""Shaking the image a little at every step, so that it does not fit the grid of one resolution."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError


@dataclass(frozen=True)
class Wobble:
    """Random shifts, scales, rotations and noise; all images of a step get the same ones, one resampling in all.

    Attributes:
        jitter: the largest shift, as a share of the side.
        scale: the least and largest zoom; above 1 only a part of the image is seen, below 1 its mirror beside it.
        rotate: the largest rotation in degrees.
        noise: the deviation of noise that is added, images being in 0..1.
    """

    jitter: float = 1 / 16
    scale: tuple[float, float] = (0.8, 1.05)
    rotate: float = 10.0
    noise: float = 0.0

    def __call__(self, images: Tensor, step: int, seed: int) -> Tensor:
        """The images ``(n, C, h, w)`` as step number `step` sees them, of the same size."""
        draw = np.random.default_rng((seed, step))
        zoom, turn = 1 / draw.uniform(*self.scale), np.radians(draw.uniform(-self.rotate, self.rotate))
        shift = 2 * draw.uniform(-self.jitter, self.jitter, 2)
        turned = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = torch.tensor(np.column_stack([turned, shift]), dtype=images.dtype, device=images.device)
        grid = F.affine_grid(matrix.expand(1, 2, 3), [1, *images.shape[1:]], align_corners=False)
        grid = grid.expand(len(images), *grid.shape[1:])
        moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        return moved + self.noise * _noise(moved, draw) if self.noise else moved


def seed_of(given: Any) -> int:
    """The seed as a whole number from 0 on."""
    try:
        seed = -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        seed = -1
    if seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, not {given!r}.")
    return seed


def _noise(images: Tensor, draw: np.random.Generator) -> Tensor:
    """One image of noise for all."""
    return torch.from_numpy(draw.standard_normal(images.shape[1:], np.float32)).to(images)
