"""Images that climbed, as they are shown."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .climb import Climbed

GREY = 128  # of images that no gradient reached


def pixels(climbed: Climbed, side: int, *, even: bool) -> NDArray[np.uint8]:
    """The images' middles, uint8 ``(n, side, side, 3)``; blank where nothing was found.

    Args:
        climbed: n images.
        side: in pixels.
        even: whether to show each with a mean of 128 and 64 grey levels per deviation; else as it is.
    """
    shown = _middle(climbed.images.cpu().float(), side)
    if even:
        mean, std = shown.mean((1, 2, 3), keepdim=True), shown.std((1, 2, 3), keepdim=True)
        shown = ((shown - mean) / (std + 1e-5) * 64 + 128) / 255
    levels = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    levels[~climbed.alive.cpu()] = GREY
    return levels.expand(-1, 3, -1, -1).movedim(1, -1).contiguous().numpy()


def opacity(climbed: Climbed, side: int) -> NDArray[np.float32]:
    """Where the gradient went, ``(n, side, side)`` in 0..1: 1 where most, clipped at the 99th percentile if not 0."""
    found = (_middle(climbed.gone, side) * climbed.alive[:, None, None]).cpu().float().numpy()
    most = np.percentile(found, 99, axis=(1, 2), keepdims=True)
    most = np.where(most > 0, most, found.max((1, 2), keepdims=True))  # where it went to few pixels
    return np.asarray(np.clip(found / np.where(most > 0, most, 1), 0, 1), np.float32)


def _middle(images: Tensor, side: int) -> Tensor:
    top = (images.shape[-1] - side) // 2
    return images[..., top : top + side, top : top + side]
