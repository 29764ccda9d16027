"""What a map looks like by itself: whether it says much with little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .score import Score
from .subject import Common, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer


def sparseness(explainer: Explainer, explanation: Any, **common: Unpack[Common]) -> Score:
    """Sparseness (Chalasani 2020, section 3): the Gini index of the map's magnitudes, 0 constant to nearly 1 one pixel.

    G = 1 − 2 Σ (v_k / Σv) (d − k + 1/2) / d, over the d values in rising order (Hurley 2009, eq. 11). A higher value is
    better, if what is sparse is also faithful, which this does not ask.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)``.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where the map is 0 everywhere.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> sparseness(explainer, torch.ones(8, 8)).mean
    0.0
    """
    subject = Subject(explainer, explanation, blind=True, **common)
    shares = np.sort(_shares(subject.maps), 1)
    d = shares.shape[1]
    values = 1 - 2 * (shares * (d - np.arange(1, d + 1) + 0.5) / d).sum(1)
    return Score(name="sparseness", values=np.clip(values, 0, 1), higher_is_better=True, provenance=subject.provenance)


def complexity(explainer: Explainer, explanation: Any, **common: Unpack[Common]) -> Score:
    """Complexity (Bhatt 2020, definition 4): the entropy of the map's magnitudes as shares of their sum, in nats.

    From 0, a single pixel, to ln(H W), the same everywhere; a lower value is better, if what is simple is faithful too.
    Arguments and result are those of `sparseness`.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> round(complexity(explainer, torch.ones(8, 8)).mean, 4)  # ln 64
    4.1589
    """
    subject = Subject(explainer, explanation, blind=True, **common)
    shares = _shares(subject.maps)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    values = -(shares * logs).sum(1)
    values[np.isnan(shares).any(1)] = np.nan
    return Score(name="complexity", values=np.maximum(values, 0), higher_is_better=False,
                 provenance=subject.provenance)  # fmt: skip


def _shares(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """The magnitudes ``(N, d)`` as shares of their sum; NaN where that is 0."""
    sizes = np.abs(maps.reshape(len(maps), -1).astype(np.float64))
    total = sizes.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(sizes, total, out=np.full_like(sizes, np.nan), where=total > 0)
    return shares
