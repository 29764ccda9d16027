"""A reliability diagram: whether a network is as often right as its probabilities say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .panel import PLAIN
from .text import fit, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY, GAP, PALE, IMAGES = "#3f90da", "#bd1f01", "#f8ddd8", "#94a4a2"
TITLE, SMALL = 10.0, 8.0  # points of letters
FLOOR, STRIP = -0.29, 0.2  # where the counts stand below the diagram, and how high they are, in units of accuracy
FEW = 30  # bins that have room for hatching
LEGEND = 260.0  # points that it takes in one line


def reliability(
    ax: Axes,
    confidence: NDArray[np.floating[Any]],
    accuracy: NDArray[np.floating[Any]],
    counts: NDArray[np.integer[Any]],
    edges: NDArray[np.floating[Any]],
    *,
    ece: float,
    title: str = "",
) -> None:
    """Draw a reliability diagram on the Axes (Guo 2017, fig. 1), the number of images in each bin below it.

    For B bins with ends `edges` (B + 1,) in 0..1: a bar of the height of the `accuracy` (B,), and the gap from there to
    the mean `confidence` (B,), which lies on the diagonal; a bin whose `counts` (B,) is 0 stays empty. `ece` is the
    expected calibration error, 0..1, written above. Other shapes are an InputError.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot()
    >>> half = np.array([0.4, 0.9]), np.array([0.5, 0.8]), np.array([10, 30])
    >>> reliability(ax, *half, np.array([0.0, 0.5, 1.0]), ece=0.1)
    >>> ax.get_title()
    'ECE 0.100'
    """
    if not len(confidence) == len(accuracy) == len(counts) == len(edges) - 1:
        shapes = ", ".join(str(np.shape(array)) for array in (confidence, accuracy, counts, edges))
        raise InputError(f"confidence, accuracy and counts are (B,) and edges (B + 1,); got {shapes}")
    filled = np.asarray(counts) > 0
    left, width = edges[:-1], np.diff(edges)
    _bars(ax, left[filled], width[filled], accuracy[filled], confidence[filled])
    ax.plot([0, 1], [0, 1], color="#444444", linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration")
    room = ax.get_window_extent().width * 72 / ax.figure.dpi
    _images(ax, left[filled], width[filled], counts[filled], room)
    _frame(ax)
    columns = 3 if room > LEGEND else 1
    tight: dict[str, Any] = {"frameon": False, "fontsize": SMALL, "columnspacing": 1.2, "handlelength": 1.6}
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **tight)
    said = f"ECE {ece:.3f}"
    if title:
        said = f"{fit(title, room - width_of(f' · {said}', TITLE), TITLE, lines=1)} · {said}"
    ax.set_title(said, fontsize=TITLE, pad=12 + SMALL * 1.45 * (3 // columns), **PLAIN)


def _bars(
    ax: Axes,
    left: NDArray[np.floating[Any]],
    width: NDArray[np.floating[Any]],
    accuracy: NDArray[np.floating[Any]],
    confidence: NDArray[np.floating[Any]],
) -> None:
    edge: dict[str, Any] = {"align": "edge", "linewidth": 0.6}
    ax.bar(left, accuracy, width, color=ACCURACY, edgecolor="white", label="accuracy", **edge)
    gap = confidence - accuracy
    marked: dict[str, Any] = {"facecolor": PALE, "edgecolor": GAP, "label": "gap to confidence"}
    ax.bar(left, gap, width, bottom=accuracy, hatch="////" if len(left) <= FEW else None, **marked, **edge)
    ax.hlines(accuracy, left, left + width, color="#204060", linewidth=1.8)  # a gap may lie over its bar


def _images(
    ax: Axes,
    left: NDArray[np.floating[Any]],
    width: NDArray[np.floating[Any]],
    counts: NDArray[np.integer[Any]],
    room: float,
) -> None:
    """The number of images in each bin, as a histogram below 0, the largest in numbers."""
    most = int(counts.max(initial=0))
    look: dict[str, Any] = {"align": "edge", "color": IMAGES, "edgecolor": "white", "linewidth": 0.6}
    ax.bar(left, STRIP * counts / max(most, 1), width, bottom=FLOOR, **look)
    said = f"{int(counts.sum()):,} images" + (f", up to {most:,} in a bin" if len(counts) > 1 else "")
    said = fit(said, room - 4, SMALL, lines=1)
    ax.text(0.01, -0.015, said, fontsize=SMALL, va="top", color="#444444", in_layout=False)


def _frame(ax: Axes) -> None:
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlim(0, 1)
    ax.set_ylim(FLOOR, 1)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.tick_params(labelsize=SMALL)
    ax.set_xlabel("probability of the predicted class", fontsize=SMALL)
    ax.set_ylabel("accuracy", fontsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
