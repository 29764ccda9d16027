"""The channels of several layers on one page: a picture for each layer, with its name and shape above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import signal
from .channels import BLANK, COLUMNS, SMALLEST, standardized
from .panel import PLAIN
from .text import fit, fit_end, width_of
from .tiles import columns_of, corners, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = 690.0  # points: the width of 16 tiles
LARGEST = 84.0  # points of a tile's longer side, where there are few
TITLE, NUMBER, NOTE = 8.0, 6.0, 7.0  # points of letters
LINE = 1.35  # height of a line in sizes of its letters
LEFT = 24.0  # points for the numbers of rows
BETWEEN = 10.0  # points between layers
NARROWEST = 130.0  # points of a layer's place, so that its name has room
WIDE = 4  # times as wide as high is a tile that gets more room, as high as wide one that gets less width
INDENT = 3.0  # points that a layout leaves around the Axes
STANDARDIZED = "grey: a channel's mean, black and white: 2 standard deviations from it"
LABELS = 16  # numbers beside the rows of a signal
LOWEST, TALLEST = 24.0, 200.0  # points of a signal's picture
_MARK = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer: its picture uint8 (H, W, 3), `across` tiles wide (None: as wide as can be), and the words above it.

    `rows` and `marks` are numbers at pixels of the picture: (y, text) to its left, and (x, y, text) in it. `lengths`:
    how many times as wide as others its tiles may be; `points`: its height, None: by its pixels.
    """

    pixels: NDArray[np.uint8]
    across: float | None = None
    name: str = ""
    about: str = ""
    lengths: int = 1
    points: float | None = None
    rows: tuple[tuple[float, str], ...] = ()
    marks: tuple[tuple[float, float, str], ...] = ()

    @property
    def words(self) -> str:
        """What stands above it, in one line."""
        return f"{self.name} · {self.about}"

    def title(self, width: float, short: bool) -> str:
        """The words within `width` points: in one line if they are `short`, else the name and the rest below it."""
        return self.words if short else f"{fit_end(self.name, width, TITLE)}\n{fit(self.about, width, TITLE)}"


def size_in_words(shape: Sequence[int]) -> str:
    """The shape of a layer's output as people say it.

    >>> size_in_words((64, 7, 7)), size_in_words((4096,))
    ('64 × 7 × 7', '4,096 values')
    """
    return " × ".join(f"{side:,}" for side in shape) + " values" * (len(shape) == 1)


def columns_for(count: int, shape: Sequence[int] = ()) -> int:
    """How many tiles a row for channels of a `shape`: 16, or of up to 16 as many as make the whole about square.

    >>> columns_for(512), columns_for(16), columns_for(512, (1, 12))
    (16, 4, 6)
    """
    most = -(-COLUMNS // _lengths(shape))
    return most if count > COLUMNS else min(most, columns_of(count, 1, 1))


def _lengths(shape: Sequence[int]) -> int:
    """1, but more for tiles that are much wider than high, which have fewer columns and more width."""
    return -(-shape[-1] // (WIDE * shape[-2])) if len(shape) > 1 else 1


def rows_for(layers: int, columns: int, longest: float, shape: Sequence[int] = (1, 1)) -> int:
    """How many rows of tiles each of so many layers may have in a figure `longest` inches high; at least one.

    >>> rows_for(54, 16, 60), rows_for(54, 4, 60)
    (1, 6)
    """
    beside = _beside(layers, columns)
    wide, deep = PAGE / (columns * beside), -(-layers // beside)
    high = wide * min(WIDE, shape[-2] / shape[-1]) if len(shape) > 1 else wide
    return max(1, int((72 * longest / deep - 2 * LINE * TITLE - BETWEEN) / high))


def _beside(layers: int, columns: int) -> int:
    """How many layers stand side by side."""
    return max(1, min(layers, COLUMNS // columns, int(PAGE // NARROWEST)))


def layer_picture(
    activation: ArrayLike,
    columns: int,
    rows: int | None = None,
    name: str = "",
    about: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
) -> Block:
    """The channels of one layer, (C, h, w) as standardised tiles, at most `rows` rows of them.

    Of (C, t, h, w) the middle step is drawn; of a signal, (C, L), each channel is a row of one picture, and all are
    drawn; values without positions, (C,), are a cell each, standardised together. `numbers` are those of the channels;
    None: from 0.
    """
    values = np.asarray(activation)
    if values.ndim < 3:
        return _cells(values, name, about) if values.ndim == 1 else _lanes(values, name, about, numbers)
    parts = [*about]
    if values.ndim == 4:
        middle, last = values.shape[1] // 2, values.shape[1] - 1
        values, parts = values[:, middle], [*parts, f"time step {middle} of 0..{last}"]
    shown = values if rows is None else values[: rows * columns]
    if len(shown) < len(values):
        parts.append(f"first {len(shown):,} of {len(values):,}")
    across, grey = min(columns, len(shown)), _enlarged(standardized(shown))
    pixels = tile([channel[..., None].repeat(3, axis=2) for channel in grey], columns=across)
    tall, wide = grey.shape[1:]
    places = corners(len(shown), tall, wide, across)
    firsts = tuple((y + (tall - 1) / 2, str(i)) for i, (_, y) in enumerate(places) if i % columns == 0)
    return Block(
        pixels=pixels,
        across=across * min(1, WIDE * wide / tall),
        name=name,
        about=" · ".join(parts),
        lengths=_lengths(shown.shape),
        rows=firsts if numbers is None and len(shown) > columns else (),
        marks=tuple((x, y, str(n)) for (x, y), n in zip(places, numbers or (), strict=False)),
    )


def _enlarged(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tiles (C, h, w) enlarged to at least 28 pixels on their shorter side, unless they get very long."""
    short, long = sorted(grey.shape[1:])
    larger = max(1, min(-(-SMALLEST // short), SMALLEST * COLUMNS // long))
    return grey.repeat(larger, axis=1).repeat(larger, axis=2)


def _cells(values: NDArray[np.floating[Any]], name: str, about: Sequence[str]) -> Block:
    """Values (C,) as grey cells, row by row."""
    wide = min(len(values), max(COLUMNS, math.ceil(math.sqrt(COLUMNS * len(values)))))
    page = np.full(-(-len(values) // wide) * wide, BLANK, np.uint8)
    page[: len(values)] = standardized(values[None, None])[0, 0]
    larger = max(1, 1024 // wide)
    cells = page.reshape(-1, wide).repeat(larger, axis=0).repeat(larger, axis=1)
    words = [*about, f"a cell each, {wide} a row, standardised together"]
    return Block(pixels=cells[..., None].repeat(3, axis=2), name=name, about=" · ".join(words))


def _lanes(values: NDArray[np.floating[Any]], name: str, about: Sequence[str], numbers: Sequence[int] | None) -> Block:
    """The channels of a signal (C, L), a row each."""
    pixels, count = signal.rows(standardized(values[:, None])[:, 0]), len(values)
    places = range(0, count, -(-count // LABELS))
    row = len(pixels) / count
    said = range(count) if numbers is None else numbers
    return Block(
        pixels=pixels,
        name=name,
        about=" · ".join([*about, "a row each"]),
        points=min(max(LOWEST, 1.5 * NUMBER * count), TALLEST),
        rows=tuple(((i + 0.5) * row - 0.5, str(said[i])) for i in places),
    )


@dataclass(frozen=True)
class Sheet:
    """Some layers on one page, as many side by side as make 16 tiles, `columns` of each; `note` is said below them."""

    blocks: Sequence[Block]
    columns: int
    note: str = ""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the whole in inches."""
        width, height = self._whole
        return (width + 2 * INDENT) / 72, (height + 2 * INDENT) / 72

    def draw(self, ax: Axes) -> Axes:
        """Draw it on the Axes; letters are smaller where these are smaller than `size`."""
        width, height = self._whole
        ax.set_axis_off()
        scale = _scale(ax, width, height)
        y = 0.0
        for row in self._rows:
            for i, block in enumerate(row):
                self._draw_block(ax, block, i * (self._slot + BETWEEN) + self._left, y, scale)
            y += self._height(row)
        _write(ax, 0, height, self._said, NOTE * scale, va="bottom")
        ax.set_xlim(0, width)
        ax.set_ylim(height, 0)
        ax.set_aspect("equal")
        return ax

    def _draw_block(self, ax: Axes, block: Block, x: float, y: float, scale: float) -> None:
        wide, high = self._size_of(block)
        y += self._titles
        pixel, down_pixel = wide / block.pixels.shape[1], high / block.pixels.shape[0]
        _write(ax, x, y - 3, self._title(block), TITLE * scale, va="bottom")
        ax.imshow(block.pixels, extent=(x, x + wide, y + high, y), interpolation="antialiased", aspect="equal")
        for down, text in block.rows:
            _write(ax, x - 3, y + (down + 0.5) * down_pixel, text, NUMBER * scale, ha="right", va="center_baseline")
        for right, down, text in block.marks:
            _write(ax, x + right * pixel + 1, y + down * pixel + 1, text, NUMBER * scale, va="top", bbox=_MARK)

    @property
    def _side(self) -> int:
        return _beside(len(self.blocks), self.columns)

    @cached_property
    def _tile(self) -> float:
        """Points of a tile's width."""
        largest = LARGEST * max(block.lengths for block in self.blocks)
        return min(largest, PAGE / (self.columns * self._side))

    @cached_property
    def _left(self) -> float:
        return LEFT if any(block.rows for block in self.blocks) else 0.0

    @property
    def _slot(self) -> float:
        return self._left + max(self.columns * self._tile, NARROWEST)

    @cached_property
    def _titles(self) -> float:
        lines = max(self._title(block).count("\n") + 1 for block in self.blocks)
        return lines * LINE * TITLE + 3

    def _title(self, block: Block) -> str:
        return block.title(self._slot - self._left, self._short)

    @cached_property
    def _short(self) -> bool:
        """Whether every title has room in one line."""
        return all(width_of(block.words, TITLE) <= self._slot - self._left for block in self.blocks)

    @property
    def _rows(self) -> list[Sequence[Block]]:
        return [self.blocks[i : i + self._side] for i in range(0, len(self.blocks), self._side)]

    def _size_of(self, block: Block) -> tuple[float, float]:
        wide = self._tile * (self.columns if block.across is None else min(block.across, self.columns))
        return wide, block.points or wide * block.pixels.shape[0] / block.pixels.shape[1]

    def _height(self, row: Sequence[Block]) -> float:
        return self._titles + max(self._size_of(block)[1] for block in row) + BETWEEN

    @property
    def _whole(self) -> tuple[float, float]:
        """Width and height in points."""
        return self._width, sum(map(self._height, self._rows)) + LINE * NOTE * (self._said.count("\n") + 1)

    @property
    def _width(self) -> float:
        return self._side * self._slot + (self._side - 1) * BETWEEN

    @cached_property
    def _said(self) -> str:
        """What stands below, in as many lines as it takes."""
        return fit(f"{STANDARDIZED}{f' · {self.note}' * bool(self.note)}", self._width, NOTE, lines=6)


def _scale(ax: Axes, width: float, height: float) -> float:
    """How large a point of the page is on the Axes."""
    root: Any = ax.get_figure(root=True)
    if root.get_layout_engine() is not None:  # the Axes gets its place when it is drawn
        root.draw_without_rendering()
    place = ax.get_window_extent()
    return float(min(place.width / width, place.height / height) * 72 / root.dpi)


def _write(ax: Axes, x: float, y: float, text: str, size: float, **how: Any) -> None:
    written = ax.text(x, y, text, fontsize=size, linespacing=LINE, **how, **PLAIN)
    written.set_in_layout(False)  # it has its room
