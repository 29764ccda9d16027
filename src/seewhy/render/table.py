"""A table of numbers with their ranks, the best in the strongest colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .panel import PLAIN
from .text import fit, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, WORST = np.array([0.25, 0.56, 0.85]), np.array([1.0, 1.0, 1.0])
CELL, ROW, HEAD = 0.85, 0.3, 0.75  # inches
SMALL = 8.0  # points of letters


def size_of(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """The size in inches of a figure of the table.

    >>> size_of(["a"], ["b"])[1] < size_of(["a", "b"], ["b"])[1]
    True
    """
    left = max(width_of(name, SMALL) for name in rows) / 72
    return left + CELL * (len(columns) + 1) + 0.4, HEAD + ROW * len(rows) + 0.5


def draw(
    ax: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    values: NDArray[np.floating],
    ranks: NDArray[np.floating],
    last: tuple[str, Sequence[str]],
) -> Axes:
    """Draw values ``(M, K)`` with their ranks ``(M, K)``, 1 for the best, and a last column of words; NaN is a dash."""
    count = len(rows)
    shares = (np.nan_to_num(ranks, nan=count) - 1) / max(count - 1, 1)
    colours = BEST + shares[..., None] * (WORST - BEST)
    ax.imshow(np.concatenate([colours, np.ones((count, 1, 3))], 1), aspect="auto")
    for i, j in np.ndindex(values.shape):
        said = "–" if np.isnan(values[i, j]) else f"{values[i, j]:.3g} ({ranks[i, j]:.0f})".replace("-", "−")
        ax.text(j, i, said, ha="center", va="center", fontsize=SMALL, **PLAIN)
    for i, said in enumerate(last[1]):
        ax.text(len(columns), i, said, ha="center", va="center", fontsize=SMALL, **PLAIN)
    heads = [fit(head.replace("_", " "), CELL * 72 - 4, SMALL, lines=3) for head in (*columns, last[0])]
    ax.set_xticks(range(len(heads)), heads, fontsize=SMALL, **PLAIN)
    ax.set_yticks(range(count), list(rows), fontsize=SMALL, **PLAIN)
    ax.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    ax.set_xticks(np.arange(len(heads) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#dddddd", linewidth=0.6)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    return ax
