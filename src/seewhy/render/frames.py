"""Videos and volumes: some of their frames, evenly spaced, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .tiles import corners, tile

MOST, ACROSS = 16, 4  # frames on a sheet, and in a row of it


def chosen(count: int) -> list[int]:
    """The numbers of at most 16 of `count` frames, evenly spaced, the first and the last among them.

    >>> chosen(3), chosen(31)
    ([0, 1, 2], [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30])
    """
    shown = min(count, MOST)
    return [round(i * (count - 1) / max(shown - 1, 1)) for i in range(shown)]


def columns(shown: int) -> int:
    """How many frames stand side by side: at most four, the rows as even as may be.

    >>> columns(3), columns(6), columns(16)
    (3, 3, 4)
    """
    return math.ceil(shown / math.ceil(shown / ACROSS))


def sheet(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The frames, uint8 (H, W, 3) each, on one sheet, row by row.

    >>> sheet([np.zeros((10, 10, 3), np.uint8)] * 6).shape
    (21, 32, 3)
    """
    return tile(frames, columns(len(frames)))


def places(shown: int, height: int, width: int) -> list[tuple[int, int]]:
    """The top left (x, y) of each frame on its sheet, in pixels.

    >>> places(2, 10, 10)
    [(0, 0), (11, 0)]
    """
    return corners(shown, height, width, columns(shown))
