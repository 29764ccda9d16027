"""The channels of an activation as a grid of grey tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .tiles import tile

COLUMNS = 16
MEAN, DEVIATION = 128, 64  # grey levels
BLANK = 255  # of a channel that is zero everywhere: the page
SMALLEST = 28  # pixels of a tile's shorter side


def standardized(activation: ArrayLike) -> NDArray[np.uint8]:
    """Each channel of (C, h, w) with its mean at grey 128 and its standard deviation 64 grey levels, clipped; uint8.

    A channel that is zero everywhere is blank (255), any other constant one 128; NaN and infinite values are 128 and
    count in no mean. Channels can then be compared by their shape, not by their size.

    >>> standardized(np.array([[[0.0, 2.0]], [[0.0, 0.0]]])).tolist()
    [[[64, 192]], [[255, 255]]]
    """
    channels = np.asarray(activation, dtype=np.float64)
    if channels.ndim != 3 or channels.size == 0:
        raise InputError(f"an activation of one image is (C, h, w), got shape {channels.shape}")
    finite = np.isfinite(channels)
    count = np.maximum(finite.sum((1, 2), keepdims=True), 1)
    known = np.where(finite, channels, 0.0)
    centred = np.where(finite, known - known.sum((1, 2), keepdims=True) / count, 0.0)
    deviation = np.sqrt((centred**2).sum((1, 2), keepdims=True) / count)
    even = deviation <= 1e-12 * np.abs(known).max((1, 2), keepdims=True)  # constant, but for rounding
    grey = MEAN + DEVIATION * np.where(even, 0.0, centred / np.where(even, 1.0, deviation))
    dead = ~(channels != 0).any((1, 2), keepdims=True)
    return np.where(dead, BLANK, np.rint(np.clip(grey, 0, 255))).astype(np.uint8)


def channel_grid(activation: ArrayLike, *, columns: int | None = COLUMNS) -> NDArray[np.uint8]:
    """The standardised channels of one image's activation (C, h, w) as tiles; uint8 (H, W, 3).

    `columns` of them a row; None makes the whole about square. Small channels are enlarged without smoothing, to at
    least 28 pixels on their shorter side.

    >>> channel_grid(np.ones((20, 7, 7))).shape
    (57, 463, 3)
    """
    grey = standardized(activation)
    larger = -(-SMALLEST // min(grey.shape[1:]))
    grey = grey.repeat(larger, axis=1).repeat(larger, axis=2)
    return tile(
        [np.repeat(channel[..., None], 3, axis=2) for channel in grey], columns=columns and min(columns, len(grey))
    )
