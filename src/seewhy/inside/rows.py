"""Rows of an array that arrive batch by batch, in memory once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerError

BLOCK = 1 << 24  # bytes that are set aside at a time


class Rows:
    """Collects arrays ``(n, *shape)`` of one shape and dtype, and gives the whole ``(N, *shape)``.

    They are kept in blocks, each of which is let go as soon as it is in the whole: no moment holds them twice.

    >>> rows = Rows()
    >>> rows.add(np.ones((2, 3), np.float32))
    >>> rows.add(np.zeros((1, 3), np.float32))
    >>> rows.take().shape
    (3, 3)
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[Any]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: NDArray[Any]) -> None:
        """Append `rows`.

        Raises:
            LayerError: they are of another shape than those before.
        """
        if not self._blocks:
            self._blocks.append(self._block(rows))
        if rows.shape[1:] != self._blocks[0].shape[1:]:
            raise LayerError(
                f"The features of image {self._count} have the shape {rows.shape[1:]}, and those of the images before "
                f"it {self._blocks[0].shape[1:]}: images of one size are needed, or a layer that pools."
            )
        for row in rows:
            place = self._count % len(self._blocks[0])
            if self._count and not place:
                self._blocks.append(self._block(rows))
            self._blocks[-1][place] = row
            self._count += 1

    @staticmethod
    def _block(rows: NDArray[Any]) -> NDArray[Any]:
        size = max(1, rows.itemsize * int(np.prod(rows.shape[1:])))
        return np.empty((max(1, BLOCK // size), *rows.shape[1:]), rows.dtype)

    def take(self) -> NDArray[Any]:
        """All rows as one read-only array; they are kept here no longer."""
        whole = np.empty((self._count, *self._blocks[0].shape[1:]), self._blocks[0].dtype)
        self._blocks.reverse()
        done = 0
        while self._blocks:
            block = self._blocks.pop()[: self._count - done]
            whole[done : done + len(block)] = block
            done += len(block)
        whole.setflags(write=False)
        return whole
