"""Whether a network is as often right as its probabilities say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole
from ..result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Calibration(Result):
    """How confidence and accuracy agree, in bins of equal width (Guo 2017).

    Attributes:
        ece: the expected calibration error (eq. 3), 0..1: the mean over images of how far the accuracy of their bin is
            from its confidence.
        edges: float64 ``(B + 1,)``, the bins' ends, from 0 to 1; a probability on one belongs to the bin below it.
        confidence: float64 ``(B,)``, the mean probability of the predicted class in each bin; NaN in an empty one.
        accuracy: float64 ``(B,)``, the share of them that is right.
        counts: int64 ``(B,)``, how many images.
    """

    ece: float
    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"Calibration(ECE {self.ece:.4f}, {int(self.counts.sum()):,} images in {len(self.counts)} bins)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The reliability diagram: the accuracy of each bin beside its confidence."""
        from ..render.reliability import reliability

        ax = self._axes(ax)
        reliability(ax, self.confidence, self.accuracy, self.counts, self.edges, ece=self.ece)
        return ax

    def _size(self) -> tuple[float, float]:
        return 4.8, 4.8


def calibration(probabilities: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """How the probabilities ``(N,)`` of the predicted classes agree with what was right.

    >>> calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]), bins=10).ece.__round__(6)
    0.1
    """
    edges = np.linspace(0, 1, whole(bins, "bins") + 1)
    chances = probabilities.astype(np.float64)
    which = np.clip(np.digitize(chances, edges, right=True) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(which, chances, bins) / counts
        accuracy = np.bincount(which, correct.astype(np.float64), bins) / counts
    gaps = np.nan_to_num(np.abs(accuracy - confidence)) * counts
    ece = float(gaps.sum() / max(1, len(chances)))
    return Calibration(ece=ece, edges=edges, confidence=confidence, accuracy=accuracy, counts=counts)
