"""Many pictures of one size in one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GAP = 0.02  # white between tiles, in sides of a tile


def columns_of(count: int, height: int, width: int) -> int:
    """How many columns make `count` pictures of (height, width) about square.

    >>> columns_of(4, 10, 10), columns_of(4, 10, 40)
    (2, 1)
    """
    return max(1, min(count, math.ceil(math.sqrt(count * height / width) - 1e-9)))


def corners(count: int, height: int, width: int, columns: int | None = None) -> list[tuple[int, int]]:
    """The top left (x, y) of each tile in pixels, row by row; `columns` of them a row, None for an about square whole.

    >>> corners(3, 10, 10)
    [(0, 0), (11, 0), (0, 11)]
    """
    columns, gap = columns or columns_of(count, height, width), max(1, round(GAP * max(height, width)))
    return [(i % columns * (width + gap), i // columns * (height + gap)) for i in range(count)]


def tile(pictures: Sequence[NDArray[np.uint8]], columns: int | None = None) -> NDArray[np.uint8]:
    """The pictures, uint8 (H, W, 3) each, in one grid, white between and where none is left.

    `columns` of them a row; None makes the whole about square.

    >>> tile([np.zeros((2, 3, 3), np.uint8)] * 4).shape
    (5, 7, 3)
    """
    height, width = pictures[0].shape[:2]
    places = corners(len(pictures), height, width, columns)
    size = max(y for _, y in places) + height, max(x for x, _ in places) + width
    whole = np.full((*size, 3), 255, np.uint8)
    for picture, (x, y) in zip(pictures, places, strict=True):
        whole[y : y + height, x : x + width] = picture
    return whole
