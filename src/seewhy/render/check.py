"""A map beside what speaks for it and against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .panel import PLAIN
from .text import fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {  # the sign, the colour of its box, and that of the sign in it
    "yes": ("✓", "#2e7d32", "white"),
    "unclear": ("?", "#f2c14e", "black"),
    "no": ("✗", "#c62828", "white"),
    "not asked": ("–", "#dddddd", "black"),
}
WIDTH, ROW, HEAD = 9.2, 0.5, 0.42  # inches
PLACE = (0.008, 0.01, 0.984, 0.98)  # of the axes in a figure of their own
PICTURE = 0.27  # of the width
TITLE, QUESTION, SMALL = 10.5, 9.0, 8.0  # points of letters
BOX = 12.0  # points of a sign's box
CAPTION = 3.5  # heights of letters that it takes


@dataclass(frozen=True)
class Row:
    """A question, its answer (``"yes"``, ``"unclear"``, ``"no"`` or ``"not asked"``), and the numbers behind it."""

    question: str
    answer: str
    sentence: str
    numbers: str = ""


def size_of(rows: int) -> tuple[float, float]:
    """The size in inches of a panel of so many rows."""
    return WIDTH, HEAD + ROW * rows + 0.1


def draw(ax: Axes, picture: NDArray[np.uint8], caption: str, heading: str, rows: Sequence[Row]) -> None:
    """Draw the picture, uint8 ``(H, W, 3)``, and its caption to the left, the rows to the right."""
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    place = ax.get_window_extent()
    width, height = (side * 72 / ax.figure.dpi for side in (place.width, place.height))
    head = min(HEAD * 72 / height, 0.3)
    below = CAPTION * SMALL / height
    high = min(1 - head - below, PICTURE * width / height * picture.shape[0] / picture.shape[1])
    frame = ax.inset_axes((0, 1 - head - high, PICTURE, high))
    frame.imshow(picture, interpolation="antialiased")
    frame.set_axis_off()
    frame.set_anchor("NW")
    said = fit(caption, PICTURE * width, SMALL, lines=2)
    ax.text(0, 1 - head - high - below / 4, said, size=SMALL, va="top", color="#222222", **PLAIN)
    ax.text(0, 1 - head / 3, fit(heading, width, TITLE, lines=1), size=TITLE, weight="bold", va="center", **PLAIN)
    step = (1 - head) / max(len(rows), 1)
    for number, row in enumerate(rows):
        _row(ax, row, 1 - head - step * number, width, height)


def _row(ax: Axes, row: Row, top: float, width: float, height: float) -> None:
    sign, colour, ink = MARKS[row.answer]
    left, text = PICTURE + 0.025, PICTURE + 0.055
    line = 1.3 / height
    middle = top - QUESTION * line / 2
    ax.plot(left, middle, marker="s", markersize=BOX, color=colour)
    ax.text(left, middle, sign, size=SMALL, color=ink, ha="center", va="center", **PLAIN)
    ax.text(text, top, row.question, size=QUESTION, weight="bold", va="top", **PLAIN)
    ax.text(1, top, row.numbers, size=SMALL, ha="right", va="top", color="#444444", **PLAIN)
    said = fit(row.sentence, (1 - text) * width * 0.97, SMALL, lines=2)
    ax.text(text, top - QUESTION * line, said, size=SMALL, va="top", color="#222222", linespacing=1.15, **PLAIN)
