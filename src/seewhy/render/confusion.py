"""A confusion matrix: which classes are taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .panel import PLAIN
from .text import fit, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage

TABLE = "Blues"
BLANK = "#e6e6e6"  # a class without images has no shares, which is not the same as shares of 0
TITLE, AXIS, NAME = 10.0, 9.0, 8.0  # points of letters
SMALLEST, LARGEST = 5.5, 12.0  # points of the counts
CELL, LEAST, MOST = 0.38, 2.6, 8.0  # inches: a cell's side, and the whole matrix's
ROOM = 120.0  # points that a class name may take
DARK = 0.68  # share from which white letters are easier to read than black ones
DOT = 1.6  # points of the smallest cell that can be seen


def confusion_size(count: int) -> tuple[float, float]:
    """Width and height in inches of a figure for so many classes.

    >>> confusion_size(10), confusion_size(1000)
    ((5.6, 5.2), (9.8, 9.4))
    """
    side = round(min(max(LEAST, CELL * count), MOST), 3)
    return round(side + 1.8, 3), round(side + 1.4, 3)


def confusion(ax: Axes, counts: NDArray[np.int64], names: Sequence[str], *, title: str = "") -> None:
    """Draw counts (K, K) of images on the Axes: rows are the true classes, columns the predicted ones.

    A cell's colour is its share of the images of the row, 0..1, and its count is written in it. Where these have no
    room, the colours of small shares are stronger (see the colour bar), and tiny cells larger. A class without images
    has a grey row. Names are shortened, and left out evenly where there are too many. Counts that are not (K, K) for K
    names are an InputError.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot()
    >>> confusion(ax, np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    >>> sorted(text.get_text() for text in ax.texts)
    ['1', '2', '3']
    """
    counts = np.asarray(counts)
    if not (len(names) and counts.shape == (len(names), len(names))):
        raise InputError(f"counts are (K, K) for K names, one or more; got {counts.shape} and {len(names)} names")
    image = ax.imshow(shares(counts), cmap=TABLE, vmin=0, vmax=1, aspect="equal")
    ax.set_facecolor(BLANK)
    ax.set_xlabel("predicted class", fontsize=AXIS)
    ax.set_ylabel("true class", fontsize=AXIS)
    bar = _bar(ax, image)
    _name(ax, names)
    ax.set_title(fit(title, max(_cell(ax) * len(names), 180), TITLE), fontsize=TITLE, **PLAIN)
    for _ in range(2):  # names take room of the matrix, and its size says how many there may be
        _settle(ax)
        _name(ax, names)
    if (size := _letters(counts, _cell(ax))) >= SMALLEST:
        _write(ax, counts, size)
    else:
        _strengthen(image, bar, _cell(ax))


def _bar(ax: Axes, image: AxesImage) -> Colorbar:
    """The colours' bar, as high as the matrix."""
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.035, 1)), ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class", fontsize=NAME)
    bar.ax.tick_params(labelsize=NAME)
    return bar


def _strengthen(image: AxesImage, bar: Colorbar, cell: float) -> None:
    """Make small shares and tiny cells visible, where no counts tell of them."""
    import cv2
    from matplotlib.colors import PowerNorm

    share: Any = image.get_array()
    side = max(1, math.ceil(DOT / cell))
    largest = cv2.dilate(share.filled(0), np.ones((side, side)))
    image.set_data(np.ma.masked_array(largest, share.mask))
    image.set_norm(PowerNorm(0.5, 0, 1))
    bar.set_ticks([0, 0.02, 0.1, 0.25, 0.5, 1], labels=["0", "0.02", "0.10", "0.25", "0.50", "1.00"])


def shares(counts: NDArray[np.int64]) -> np.ma.MaskedArray:
    """The counts as shares of their row, 0..1; a row of zeros is masked.

    >>> shares(np.array([[3, 1], [0, 0]])).tolist()
    [[0.75, 0.25], [None, None]]
    """
    total = counts.sum(1, keepdims=True)
    return np.ma.masked_array(counts / np.maximum(total, 1), np.broadcast_to(total == 0, counts.shape))


def _settle(ax: Axes) -> None:
    """Let a layout give the Axes its place, so that what is in it can be measured."""
    root = ax.get_figure(root=True)
    if root is not None and root.get_layout_engine() is not None:
        root.draw_without_rendering()


def _cell(ax: Axes) -> float:
    """The side of a cell in points."""
    ax.apply_aspect()
    return float(ax.get_window_extent().width * 72 / ax.figure.dpi / (ax.get_xlim()[1] - ax.get_xlim()[0]))


def _name(ax: Axes, names: Sequence[str]) -> None:
    """Write the names of the rows and, upright where they are too long, of the columns; as many as have room."""
    cell = _cell(ax)
    step = max(1, math.ceil(NAME * 1.25 / cell))
    some = range(0, len(names), step)
    lines = 2 if cell > 3 * NAME else 1
    short = [fit(names[i], ROOM, NAME, lines) for i in some]
    lying = _lying(names, cell - 8) if step == 1 else None
    ax.set_yticks(some, short, fontsize=NAME, **PLAIN)
    ax.set_xticks(some, lying or short, fontsize=NAME, rotation=0 if lying else 90, **PLAIN)
    ax.tick_params(length=2, width=0.5, color="#888888", pad=2)


def _lying(names: Sequence[str], width: float) -> list[str] | None:
    """All names in up to three lines of `width` points, broken at spaces only; None where one has no room."""
    found = []
    for name in names:
        text = fit(name, width, NAME, lines=3)
        if text.split() != name.split():
            return None
        found.append(text)
    return found


def _letters(counts: NDArray[np.int64], cell: float) -> float:
    """The size of letters, in points, in which the longest count has room in a cell."""
    widest = max((width_of(f"{count:,}", 1) for count in np.unique(counts[counts > 0])), default=1.0)
    return min(LARGEST, 0.45 * cell, 0.85 * cell / widest)


def _write(ax: Axes, counts: NDArray[np.int64], size: float) -> None:
    """Write the counts into the cells, and into a row without images that there are none."""
    share = shares(counts)
    place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "in_layout": False, **PLAIN}
    for i, j in np.argwhere(counts).tolist():
        colour = "white" if share[i, j] > DARK else "black"
        ax.text(j, i, f"{counts[i, j]:,}", fontsize=size, color=colour, **place)
    small, room = min(size, NAME), _cell(ax) * len(counts) - 4
    for i in np.flatnonzero(counts.sum(1) == 0).tolist():
        said = fit("no images", room, small, lines=1)
        ax.text((len(counts) - 1) / 2, i, said, fontsize=small, color="#555555", **place)
