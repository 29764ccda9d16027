"""The best so far: of each channel, the few images that excite it most, with what is to be shown of them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]
BEYOND = 224  # the grey of what is beyond the image
ENLARGED = 8  # times, from where on pixels stay squares


@dataclass
class Winner:
    """An image among the best of a channel.

    Attributes:
        value: what the channel answers.
        image: its number.
        place: the number of the position, row by row.
        position: its row and column.
        box: its receptive field ``(x0, y0, x1, y1)``, clipped to the input.
        crop: what lies in it.
        picture: the whole image, small.
        source: its file.
    """

    value: float
    image: int
    place: int
    position: tuple[int, int] = (0, 0)
    box: Box = (0, 0, 0, 0)
    crop: Picture | None = None
    picture: Picture | None = None
    source: str | None = None


class Winners:
    """The `k` best images of each of `count` channels, in order; of equals, the one that came first.

    >>> best = Winners(1, 2)
    >>> best.add(np.array([[3.0], [5.0], [5.0]]), np.zeros((3, 1), np.int64), 0, lambda winner: None)
    >>> [winner.image for winner in best.rows[0]]
    [1, 2]
    """

    def __init__(self, count: int, k: int) -> None:
        self.rows: list[list[Winner]] = [[] for _ in range(count)]
        self._k = k
        self._least = np.full(count, -np.inf)  # that a new image must exceed

    def add(
        self,
        values: NDArray[np.floating],
        places: NDArray[np.integer],
        first: int,
        fill: Callable[[Winner], None],
    ) -> None:
        """Take in images from number `first` on, `values` and `places` ``(n, channels)``; `fill` completes winners."""
        for i, channel in np.argwhere(values > self._least):
            winner = Winner(float(values[i, channel]), first + int(i), int(places[i, channel]))
            insort(self.rows[channel], winner, key=_by_value)
            del self.rows[channel][self._k :]
        for channel, row in enumerate(self.rows):
            for winner in row:
                if winner.image >= first:
                    fill(winner)
            if len(row) == self._k:
                self._least[channel] = row[-1].value


def _by_value(winner: Winner) -> float:
    return -winner.value


def cut(picture: Picture, box: Box) -> Picture:
    """What lies in a box ``(x0, y0, x1, y1)`` of a picture ``(H, W, 3)``, grey where it goes beyond.

    >>> cut(np.zeros((4, 4, 3), np.uint8), (-1, 0, 2, 4))[0, :, 0].tolist()
    [224, 0, 0]
    """
    x0, y0, x1, y1 = box
    found = np.full((y1 - y0, x1 - x0, 3), BEYOND, np.uint8)
    left, top, right, bottom = clipped(box, picture.shape[:2])
    found[top - y0 : bottom - y0, left - x0 : right - x0] = picture[top:bottom, left:right]
    return found


def clipped(box: Box, size: tuple[int, ...]) -> Box:
    """The part of a box that lies within ``(height, width)``."""
    height, width = size
    x0, x1 = (min(max(x, 0), width) for x in (box[0], box[2]))
    y0, y1 = (min(max(y, 0), height) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def fitted(picture: Picture, size: int) -> Picture:
    """A picture ``(H, W, 3)`` within a square of `size` pixels, grey where it does not fill it."""
    import cv2

    height, width = picture.shape[:2]
    share = size / max(height, width)
    h, w = max(1, round(height * share)), max(1, round(width * share))
    how = cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC if share < ENLARGED else cv2.INTER_NEAREST
    found = np.full((size, size, 3), BEYOND, np.uint8)
    top, left = (size - h) // 2, (size - w) // 2
    found[top : top + h, left : left + w] = cv2.resize(picture, (w, h), interpolation=how)
    return found
