"""Labelled figures: one picture, a batch as tiles, or a grid of images and methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import colour
from .figure import new
from .overlay import overlay
from .signal import Ticks, tint
from .text import fit, fit_end, width_of
from .tiles import columns_of, corners, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AxesGrid: TypeAlias = "NDArray[np.object_]"

TITLE, SMALL = 9.0, 8.0  # points
LINE = 1.35  # height of a line in font sizes
BAR_GAP, BAR = 4.0, 5.0  # points from the picture to its colour bar, and the bar's thickness
TICK, TICKS, GAP = 7.0, 14.0, 4.0  # points: size of the bar's numbers, what they take, and least room between them
MARGIN, BETWEEN = 0.12, 0.10  # inches
NARROWEST = 1.3  # inches of a column, so that its text has room
OURS = "seewhy"  # the group of what is drawn here, to be told from what a user draws
WHITE_BOX = {"facecolor": "white", "edgecolor": "#888888", "linewidth": 0.6, "boxstyle": "round,pad=0.25"}
RED_BOX = {"facecolor": "#c62828", "edgecolor": "#c62828", "linewidth": 0.6, "boxstyle": "round,pad=0.25"}
PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}  # names hold $ and _


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a picture is said to show: a class name, its probability or score, and the true class where known."""

    name: str
    value: str = ""
    truth: str | None = None

    @property
    def right(self) -> bool | None:
        """Whether the name is the true one; None where the truth is not known."""
        return None if self.truth is None else self.name == self.truth

    def lines(self, width: float) -> str:
        """At most four lines of `width` points: the name on up to two, the value, the truth where it differs."""
        whole = f"{self.name}  {self.value}".strip()
        short = fit(whole, width, SMALL, lines=1)
        text = short if short == " ".join(whole.split()) else f"{fit(self.name, width, SMALL)}\n{self.value}".strip()
        return f"{text}\n{fit(f'true: {self.truth}', width, SMALL, lines=1)}" if self.right is False else text


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The colours of a picture: the table, the values at its ends, and what stands there if not the numbers.

    `end` is what the ends are, as in "99th percentile"; `beyond`: whether there are values beyond them, which have the
    colours of the ends; `over`: whether the colours lie over a photo, fading out towards 0; `behind`: whether they lie
    behind a curve, paler.
    """

    colormap: str
    low: float
    high: float
    end: str = "max"
    beyond: bool = False
    over: bool = False
    behind: bool = False
    texts: tuple[str, ...] = ()

    def ticks(self) -> list[tuple[float, str]]:
        """Values to mark and what to write there: the ends, and 0 between them.

        >>> Scale(colormap="RdBu_r", low=-2.0, high=2.0).ticks()
        [(-2.0, '-2'), (0.0, '0'), (2.0, '2')]
        """
        values = sorted({self.low, 0.0, self.high} if self.low <= 0 <= self.high else {self.low, self.high})
        return list(zip(values, self.texts or map(self._text, values), strict=True))

    def _text(self, value: float) -> str:
        beyond = "" if value == 0 or not self.beyond else "≤ " if value == self.low else "≥ "
        return f"{beyond}{value:.3g}"

    def bar(self) -> NDArray[np.uint8]:
        """The colours from low to high, uint8 (1, 256, 3); those that lie over a photo, over mid-grey."""
        span = self.low, self.high
        values = np.linspace(*span, 256)[None]
        if self.behind:
            return tint(values, limits=span)
        if self.over:
            return overlay(np.full((1, 256), colour.NEUTRAL, np.uint8), values, colormap=self.colormap, limits=span)
        return colour.colorize(values, self.colormap, span)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A label on a tile: its corner (x, y) and the width that it may take, in pixels of the picture.

    One that makes sense as a `whole` only is left out where it has no room.
    """

    label: Label
    x: float
    y: float
    width: float
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Pixels uint8 (H, W, 3) with what is written above, below and on them; `heading` has up to three lines.

    `columns` is how many tiles stand side by side in it, as a measure of the width that it needs. `across` and `down`
    are numbers to write below it and to its left, each at a pixel.
    """

    pixels: NDArray[np.uint8]
    heading: tuple[str, ...] = ()
    label: Label | None = None
    scale: Scale | None = None
    marks: tuple[Mark, ...] = ()
    columns: int = 1
    across: Ticks = ()
    down: Ticks = ()


def merge(pictures: Sequence[Picture]) -> Picture:
    """A batch of one map each as one picture of tiles; where each has its own colour range, the bar says so."""
    if len(pictures) == 1:
        return pictures[0]
    height, width = pictures[0].pixels.shape[:2]
    places = corners(len(pictures), height, width)
    marks = [Mark(label=p.label, x=x, y=y, width=width) for p, (x, y) in zip(pictures, places, strict=True) if p.label]
    return replace(
        pictures[0],
        pixels=tile([p.pixels for p in pictures]),
        label=None,
        marks=tuple(marks),
        scale=_shared([p.scale for p in pictures]),
        columns=columns_of(len(pictures), height, width) * pictures[0].columns,
        across=tuple((x + at, text) for x, y in places if y == 0 for at, text in pictures[0].across),
        down=tuple((y + at, text) for x, y in places if x == 0 for at, text in pictures[0].down),
    )


def _shared(scales: Sequence[Scale | None]) -> Scale | None:
    """The scale of all; where each has its own ends, with words for them; None where there is none for all."""
    first = scales[0]
    if first is None or any(scale is None or scale.colormap != first.colormap for scale in scales):
        return None
    if all(scale == first for scale in scales):
        return first
    low, texts = (
        (-1.0, (f"-{first.end}", "0", f"{first.end} of each"))
        if first.low < 0
        else (0.0, ("0", f"{first.end} of each"))
    )
    return replace(first, low=low, high=1.0, texts=texts)


def draw(ax: Axes, picture: Picture) -> None:
    """Draw the picture with its heading, colour bar and labels on the axes; text is fitted to their present width.

    What was drawn there before by this function goes.
    """
    for artist in [*ax.images, *ax.child_axes, *ax.texts]:
        if artist.get_gid() == OURS:
            artist.remove()
    ax.imshow(picture.pixels, origin="upper", aspect="equal", gid=OURS)
    ax.set(xticks=[], yticks=[], xlabel="")
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ink, width = _ink(ax), _points(ax)[0]
    _number(ax, picture, ink)
    heading = _heading(picture.heading, width)
    ax.set_title(heading, fontsize=TITLE, color=ink, loc="center", y=1.0, pad=5, linespacing=1.2, **PLAIN)
    below = _bar(ax, picture, picture.scale, ink) if picture.scale else ax
    if picture.label:
        text, box = picture.label.lines(width - 6), _box(picture.label.right)
        colour = {None: ink, True: "black", False: "white"}[picture.label.right]
        style: dict[str, Any] = {"fontsize": SMALL, "linespacing": 1.2, "loc": "center", "labelpad": 6 if box else 4}
        below.xaxis.set_label_position("bottom")
        below.set_xlabel(text, color=colour, bbox=box, **style, **PLAIN)
    for mark in picture.marks:
        _mark(ax, mark, picture.pixels.shape[1])


def _number(ax: Axes, picture: Picture, ink: str) -> None:
    """Write the numbers below and beside the picture, those that have room."""
    height, width = picture.pixels.shape[:2]
    across = _with_room(picture.across, _drawn_width(ax) / width, lambda text: width_of(text, TICK) + GAP)
    down = _with_room(picture.down, _points(ax)[1] / height, lambda _: TICK * 0.8)
    plain: dict[str, Any] = {"fontsize": TICK, "color": ink, **PLAIN}
    ax.set_xticks([at for at, _ in across], labels=[text for _, text in across], **plain)
    ax.set_yticks([at for at, _ in down], labels=[text for _, text in down], **plain)
    ax.tick_params(axis="x", length=2, width=0.4, color="#888888", pad=1, bottom=True, labelbottom=True, top=False)
    ax.tick_params(axis="y", length=0, pad=GAP, labelleft=True, labelright=False)
    if across and across[0][0] < width_of(across[0][1], TICK) / 2 * width / _drawn_width(ax):
        first: Any = ax.get_xticklabels()[0]
        first.set_ha("left")


def _with_room(ticks: Ticks, points: float, room: Callable[[str], float]) -> Ticks:
    """The ticks that do not come too near to the last kept one, at so many points a pixel."""
    kept: list[tuple[float, str]] = []
    for at, text in ticks:
        if not kept or (at - kept[-1][0]) * points >= room(kept[-1][1]) + room(text) / 2:
            kept.append((at, text))
    return tuple(kept)


def _heading(lines: tuple[str, ...], width: float) -> str:
    return "\n".join(fit_end(line, width, TITLE) for line in lines)


def _box(right: bool | None) -> dict[str, Any] | None:
    return {None: None, True: WHITE_BOX, False: RED_BOX}[right]


def _mark(ax: Axes, mark: Mark, pixels: int) -> None:
    room = _drawn_width(ax) * mark.width / pixels
    if room < 30 or (mark.whole and width_of(mark.label.name, 7) > room - 12):  # points: too narrow to say anything
        return
    label, value = mark.label, f" {mark.label.value}" if mark.label.value and room > 80 else ""
    text = fit(label.name, room - 12 - width_of(value, 7), 7, lines=1) + value
    box = {**(_box(label.right) or WHITE_BOX), "alpha": 0.85, "boxstyle": "square,pad=0.2"}
    place: dict[str, Any] = {
        "xy": (mark.x - 0.5, mark.y - 0.5),  # a pixel's corner
        "xytext": (3, -3),
        "textcoords": "offset points",
        "va": "top",
        "ha": "left",
    }
    colour = "white" if label.right is False else "black"
    ax.annotate(text, fontsize=7, color=colour, bbox=box, gid=OURS, **place, **PLAIN)


def _bar(ax: Axes, picture: Picture, scale: Scale, ink: str) -> Axes:
    """A thin colour bar below the picture, as wide as it; returns its axes."""
    height = _points(ax)[1]
    gap = BAR_GAP + (TICKS if picture.across else 0)
    bar: Axes = ax.inset_axes((0, -(gap + BAR) / height, 1, BAR / height), gid=OURS)
    high = scale.high if scale.high > scale.low else scale.low + 1
    bar.imshow(scale.bar(), extent=(scale.low, high, 0, 1), aspect="auto")
    values, texts = zip(*_fitting(scale.ticks(), _drawn_width(ax)), strict=True)
    bar.set_xticks(values, labels=texts, fontsize=TICK, color=ink, **PLAIN)
    bar.set(yticks=[])
    bar.spines[:].set(color="#888888", linewidth=0.4)  # one end may have the colour of the page
    bar.tick_params(length=0, pad=2, which="both", bottom=True, labelbottom=True, top=False, labeltop=False)
    _inward(bar.get_xticklabels())
    return bar


def _fitting(ticks: list[tuple[float, str]], width: float) -> list[tuple[float, str]]:
    """The ticks whose texts have room side by side in `width` points: all, or the ends, shortened if need be."""
    widths = [width_of(text, TICK) for _, text in ticks]
    if len(ticks) == 3 and max(widths[0], widths[2]) + widths[1] / 2 + GAP > width / 2:
        ticks, widths = [ticks[0], ticks[2]], [widths[0], widths[2]]
    if len(ticks) == 2 and sum(widths) + GAP > width:
        each = max((width - GAP) / 2, width - GAP - min(widths))
        ticks = [(value, fit(text, each, TICK, lines=1)) for value, text in ticks]
    return ticks


def _inward(labels: Sequence[Any]) -> None:
    if len(labels) > 1:
        labels[-1].set_ha("right")
    labels[0].set_ha("left")


def _points(ax: Axes) -> tuple[float, float]:
    """The width of the cell that the axes were given and the height of the picture in it, in points."""
    cell = ax.get_position(original=True).transformed(ax.figure.transSubfigure)
    ax.apply_aspect()
    return cell.width * 72 / ax.figure.dpi, ax.get_window_extent().height * 72 / ax.figure.dpi


def _drawn_width(ax: Axes) -> float:
    ax.apply_aspect()
    return float(ax.get_window_extent().width * 72 / ax.figure.dpi)


def _ink(ax: Axes) -> str:
    """Black on a light figure, white on a dark one."""
    import matplotlib as mpl
    from matplotlib.colors import to_rgba

    red, green, blue, alpha = to_rgba(ax.figure.get_facecolor())
    if alpha == 0:
        return str(mpl.rcParams["text.color"])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def single(pictures: Sequence[Picture], *, shown: bool) -> Axes:
    """One explanation's figure: its picture, or the tiles of its batch."""
    whole = merge(pictures)
    ax: Axes = grid([[whole]], widest=3.6 if whole.columns == 1 else min(10.0, 2.4 * whole.columns), shown=shown)[0, 0]
    return ax


def grid(rows: Sequence[Sequence[Picture]], *, widest: float | None = None, shown: bool) -> AxesGrid:
    """A figure of rows × columns of pictures; returns its Axes as an array of that shape.

    `widest` is a column's width in inches (None: 2.2, less where there are many); `shown` makes the figure in pyplot,
    to be displayed, and otherwise one of its own that nobody else sees.
    """
    rows = _one_bar(rows)
    wide = 2.2 * min(2, max(p.columns for p in rows[0]))
    across, down = widest or float(np.clip(26 / len(rows[0]), NARROWEST, wide)), 8.0
    height, width = _size(rows[0][0], across, down)
    column = max(width, NARROWEST)
    lines = max(len(p.heading) for p in rows[0])
    above = MARGIN + (lines * TITLE * 1.2 + 6) / 72
    steps = [height + max(_below(p, column * 72) for p in row) / 72 for row in rows]
    rights = _rights(rows, column)
    total = rights[-1] + MARGIN, above + sum(steps) + MARGIN
    figure = new(total, shown=shown)
    axes = np.empty((len(rows), len(rows[0])), dtype=object)
    for i, j in np.ndindex(*axes.shape):
        left, bottom = rights[j] - column, total[1] - above - sum(steps[:i]) - height
        place = left / total[0], bottom / total[1], column / total[0], height / total[1]
        axes[i, j] = ax = figure.add_axes(place)
        # One line is set at the height of the first of two.
        heading = (*rows[0][j].heading, "")[:lines] if i == 0 else ()
        draw(ax, replace(rows[i][j], heading=heading))
    return axes


def _one_bar(rows: Sequence[Sequence[Picture]]) -> list[list[Picture]]:
    """The rows with one colour bar at the foot of each column that has one scale, and the numbers below it there."""
    same = [len({row[j].scale for row in rows}) == 1 for j in range(len(rows[0]))]
    above = [
        [replace(p, scale=None if one else p.scale, across=()) for p, one in zip(row, same, strict=True)]
        for row in rows[:-1]
    ]
    return [*above, list(rows[-1])]


def _rights(rows: Sequence[Sequence[Picture]], column: float) -> list[float]:
    """Where each column of pictures ends, in inches, when its numbers have room to its left."""
    numbers = [max(_beside(row[j]) for row in rows) / 72 for j in range(len(rows[0]))]
    steps = [MARGIN + column, *[BETWEEN + column] * (len(numbers) - 1)]
    return [float(right) for right in np.cumsum(np.add(steps, numbers))]


def _size(picture: Picture, across: float, down: float) -> tuple[float, float]:
    """Height and width in inches of the picture, at most `across` wide and `down` high."""
    height, width = picture.pixels.shape[:2]
    scale = min(across / width, down / height)
    return height * scale, width * scale


def _below(picture: Picture, width: float) -> float:
    """The points that bar and label take below the picture."""
    bar = (BAR_GAP + BAR + TICKS if picture.scale else 2.0) + (TICKS if picture.across else 0)
    if not picture.label:
        return bar + 4
    lines = picture.label.lines(width - 6).count("\n") + 1
    return bar + lines * SMALL * LINE + (14 if picture.label.right is not None else 8)


def _beside(picture: Picture) -> float:
    """The points that the numbers to the left of the picture take."""
    return max((width_of(text, TICK) + 2 * GAP for _, text in picture.down), default=0.0)
