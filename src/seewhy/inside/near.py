"""Who lies next to whom: nearest neighbours by brute force, in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, close_matches

METRICS = ("euclidean", "cosine")
PART = 1 << 23  # numbers that are held at a time


class Neighbours(NamedTuple):
    """The nearest images, the nearest first: their `indices` int64 and `distances` float64, ``(k,)`` or ``(M, k)``."""

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]


def check_metric(metric: Any) -> None:
    """Refuse what is not one of `METRICS`."""
    if metric not in METRICS:
        raise InputError(f"metric is 'euclidean' or 'cosine', not {metric!r}.{close_matches(str(metric), METRICS)}")


def distances(rows: NDArray[Any], to: NDArray[Any], metric: str) -> NDArray[np.float64]:
    """How far each of `rows` ``(N, D)`` is from the vector `to`: Euclidean, or 1 - the cosine of the angle.

    A vector of length 0 has no direction: its cosine with any other counts as 0.

    >>> distances(np.eye(2), np.array([2.0, 0.0]), "euclidean").round(3).tolist()
    [1.0, 2.236]
    >>> distances(np.eye(2), np.array([2.0, 0.0]), "cosine").tolist()
    [0.0, 1.0]
    """
    to = to.astype(np.float64)
    step = max(1, PART // max(1, rows.shape[1]))
    parts = (rows[start : start + step].astype(np.float64) for start in range(0, len(rows), step))
    if metric == "euclidean":
        return np.concatenate([np.sqrt(((part - to) ** 2).sum(1)) for part in parts])
    return np.concatenate([1 - unit(part) @ unit(to[None])[0] for part in parts])


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`rows` at length 1, those of length 0 as they are."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def nearest_other(rows: NDArray[Any]) -> NDArray[np.int64]:
    """The number of the row nearest to each of ``(N, D)``, itself left out; of several as near the first.

    >>> nearest_other(np.array([[0.0], [1.0], [3.0]])).tolist()
    [1, 0, 1]
    """
    centre = rows.mean(0, dtype=np.float64)
    squares = np.concatenate([((rows[i : i + 1024] - centre) ** 2).sum(1) for i in range(0, len(rows), 1024)])
    step = max(1, PART // len(rows))
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), step):
        block = rows[start : start + step] - centre
        apart = squares[None] - 2 * _products(block, rows, centre)  # and the block's own squares, equal along each row
        apart[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        found[start : start + len(block)] = apart.argmin(1)
    return found


def _products(block: NDArray[np.float64], rows: NDArray[Any], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = [block @ (rows[i : i + 1024] - centre).T for i in range(0, len(rows), 1024)]
    return np.concatenate(parts, axis=1)
