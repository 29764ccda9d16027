"""Rows of tiles, each with a number to its left and a value below each tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP, LINE = 0.05, 0.2  # between tiles, and the height of the value below one, in sides of a tile
INCHES = 0.72  # of a tile's side
LEFT, ABOVE = 0.5, 0.35  # inches for the numbers, and for the title
VALUE, NUMBER = 0.13, 0.16  # the height of letters, in sides of a tile
LEAST = 2.5  # points of letters that are worth drawing


def size_of(rows: int, columns: int) -> tuple[float, float]:
    """The size in inches of a figure of so many tiles.

    >>> size_of(10, 9)[0] < size_of(10, 10)[0]
    True
    """
    return max(3.6, columns * (1 + GAP) * INCHES + LEFT), rows * (1 + GAP + LINE) * INCHES + ABOVE


def draw(ax: Axes, tiles: NDArray[np.uint8], values: NDArray[np.floating], numbers: Sequence[int]) -> None:
    """Draw tiles (K, k, s, s, 3) as K rows of k; `values` (K, k) below them, `numbers` (K,) to their left."""
    rows, columns, side = tiles.shape[:3]
    gap, line = round(GAP * side), round(LINE * side)
    right, down = side + gap, side + gap + line
    page = np.full((rows * down - gap, columns * right - gap, 3), 255, np.uint8)
    for i, j in np.ndindex(rows, columns):
        page[i * down : i * down + side, j * right : j * right + side] = tiles[i, j]
    ax.imshow(page, interpolation="antialiased")
    ax.set_axis_off()
    points = _points_of(ax, page.shape[0], page.shape[1]) * side
    if VALUE * points >= LEAST:
        for i, j in np.ndindex(rows, columns):
            at = j * right + side / 2, i * down + side
            ax.text(*at, f"{values[i, j]:.3g}", size=min(VALUE * points, 8), ha="center", va="top")
        for i, number in enumerate(numbers):
            at = -1.5 * gap, i * down + side / 2
            ax.text(*at, str(number), size=min(NUMBER * points, 9), ha="right", va="center")


def _points_of(ax: Axes, height: int, width: int) -> float:
    """How many points a pixel of a page takes on the Axes."""
    place = ax.get_window_extent()
    return float(min(place.width / width, place.height / height) * 72 / ax.figure.dpi)
