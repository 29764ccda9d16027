"""Shaking the image a little at every step, so that it does not fit the grid of one resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Wobble:
    """Random shifts, scales, rotations and noise; all images of a step get the same ones, one resampling in all.

    Attributes:
        jitter: the largest shift, as a share of the side.
        scale: the least and largest zoom; above 1 only a part of the image is seen.
        rotate: the largest rotation in degrees.
        noise: the deviation of noise that is added, images being in 0..1.
    """

    jitter: float = 1 / 16
    scale: tuple[float, float] = (0.9, 1.1)
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


def _noise(images: Tensor, draw: np.random.Generator) -> Tensor:
    """One image of noise for all."""
    return torch.from_numpy(draw.standard_normal(images.shape[1:], np.float32)).to(images)
