"""How much of a layer is silent, and how far what is left spreads over the image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Statistics(NamedTuple):
    """Of all channels of a layer, for one image.

    Attributes:
        dead: share of the channels that are zero everywhere, in 0..1.
        zeros: share of zeros among all values, in 0..1.
        entropy: mean of the live channels' entropy over positions, in 0..1; NaN where it is not defined.
    """

    dead: float
    zeros: float
    entropy: float


def statistics(activation: NDArray[np.floating[Any]]) -> Statistics:
    """The numbers of one image's activation ``(C, *grid)``, or ``(C,)`` without positions.

    >>> statistics(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]]))
    Statistics(dead=0.3333333333333333, zeros=0.5833333333333334, entropy=0.5)
    """
    flat = activation.reshape(len(activation), -1)
    live = (flat != 0).any(1)
    return Statistics(float((~live).mean()), float((flat == 0).mean()), _entropy(flat[live]))


def _entropy(channels: NDArray[np.floating[Any]]) -> float:
    """The mean over live channels ``(C, positions)`` of -sum(p log p) / log(positions), where p = |A| / sum(|A|).

    1: spread evenly, 0: a single point. Dividing by the largest value that it can take lets grids of any size compare.
    """
    if not len(channels) or channels.shape[1] < 2:
        return float("nan")
    size = np.abs(channels, dtype=np.float64)
    size /= size.max(1, keepdims=True)  # no sum under- or overflows
    share = size / size.sum(1, keepdims=True)
    bits = -share * np.log(share, where=share > 0, out=np.zeros_like(share))
    return float(np.clip((bits.sum(1) / np.log(channels.shape[1])).mean(), 0, 1))
