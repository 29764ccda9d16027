"""Many images at a glance: photos in grey under their maps, each with a box that says what it was taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import colour
from .comparison import Pair, contrasts, triples
from .figure import new
from .overlay import overlay
from .panel import LINE, PLAIN, RED_BOX, SMALL, WHITE_BOX, AxesGrid, Scale
from .text import fit, width_of
from .verdict import GREY_BOX, Tile, any_signed, end_of, proportion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Pair", "Tile", "contrasts", "gallery", "triples"]

PAGE = 860.0  # points: the width of a row of tiles, where they get neither too large nor too small
SMALLEST, LARGEST = 62.0, 130.0  # points of a tile's width
MOST = 20  # tiles of a row; a figure of more is wider than anyone can look at
GAP, BETWEEN, MARGIN = 6.0, 26.0, 9.0  # points between tiles, between groups, and around all
TITLE, HEADING = 11.0, 10.0  # points of letters
PAD = 2.5  # points between a box and its words
HINTED = 0.96  # of a width: on the screen's pixels letters get wider
BAR = 70.0  # points
MAT = "#f0f0f0"  # beside a picture that has not the shape of its cell


def gallery(groups: Mapping[str, Sequence[Tile]], *, rows: int = 2, shown: bool, title: str = "") -> AxesGrid:
    """A figure of groups of images side by side, with `rows` of tiles each; returns the Axes, one for each group.

    Each photo is in grey, its map over it in colours whose opacity grows with |map|, up to the map's own greatest
    value. The box below is white if the label is right, red with the true class if it is wrong, grey where that is not
    known. Rows of more than 20 tiles are broken; the last may be short. No group at all is an InputError.

    >>> cat = Tile(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32), "cat", "0.97", right=True)
    >>> axes = gallery({"training": [cat] * 4, "test": [cat]}, shown=False)
    >>> [ax.get_title() for ax in axes]
    ['training', 'test']
    """
    if not groups or rows < 1:
        raise InputError(f"a gallery has one row or more of one group or more; got {rows} rows, {len(groups)} groups")
    page = _Page({name: tuple(tiles) for name, tiles in groups.items()}, rows, title)
    wide, high = page.size
    figure = new((wide / 72, high / 72), shown=shown)
    if title:
        short = fit(title, wide - 2 * MARGIN, TITLE, lines=1)
        figure.text(0.5, 1 - MARGIN / high, short, fontsize=TITLE, ha="center", va="top", **PLAIN)
    axes = np.empty(len(groups), dtype=object)
    left = MARGIN
    for i, (name, tiles) in enumerate(page.groups.items()):
        width = page.width_of(tiles)
        axes[i] = figure.add_axes((left / wide, page.bottom / high, width / wide, page.height / high))
        _draw(axes[i], page, name, tiles)
        left += width + BETWEEN
    _key(axes[0], page)
    return axes


@dataclass(frozen=True)
class _Page:
    """Where everything is, in points; `rows` as asked for."""

    groups: Mapping[str, Sequence[Tile]]
    rows: int
    title: str

    @cached_property
    def all(self) -> list[Tile]:
        return [tile for tiles in self.groups.values() for tile in tiles]

    def columns(self, tiles: Sequence[Tile]) -> int:
        return min(MOST, max(1, -(-len(tiles) // self.rows)))

    @cached_property
    def tile(self) -> float:
        """The width of a tile."""
        return float(np.clip(PAGE / sum(map(self.columns, self.groups.values())) - GAP, SMALLEST, LARGEST))

    @cached_property
    def cell(self) -> float:
        """The height of a tile without its box."""
        return self.tile * (proportion([tile.image for tile in self.all]) if self.all else 1.0)

    def rows_of(self, tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
        columns = self.columns(tiles)
        return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]

    @cached_property
    def boxes(self) -> list[float]:
        """The heights of the boxes in each row, the same in all groups; 0 where nothing is said."""
        whole = [self.rows_of(tiles) for tiles in self.groups.values()]
        rows = [[tile for group in whole for tile in group[i : i + 1]] for i in range(max(map(len, whole)))]
        texts = [[self.text(tile) for row in group for tile in row] for group in rows]
        lines = [max(text.count("\n") + 1 if text else 0 for text in row) for row in texts]
        return [count * SMALL * LINE + 2 * PAD if count else 0.0 for count in lines]

    def text(self, tile: Tile) -> str:
        return tile.verdict.lines(HINTED * self.tile - 2 * PAD)

    def width_of(self, tiles: Sequence[Tile]) -> float:
        return self.columns(tiles) * (self.tile + GAP) - GAP

    @cached_property
    def tops(self) -> list[float]:
        """Where each row starts, from the top; the last is the end."""
        return [0.0, *map(float, np.cumsum([self.cell + box + GAP for box in self.boxes]))]

    @property
    def height(self) -> float:
        return max(self.tops[-1], self.cell)

    @property
    def bottom(self) -> float:
        return MARGIN + SMALL * LINE

    @property
    def size(self) -> tuple[float, float]:
        widths = [self.width_of(tiles) for tiles in self.groups.values()]
        headings = HEADING * LINE + 5 if any(self.groups) else 0.0
        above = MARGIN + headings + (TITLE * LINE + 4 if self.title else 0.0)
        return sum(widths) + BETWEEN * (len(widths) - 1) + 2 * MARGIN, above + self.height + self.bottom

    @cached_property
    def signed(self) -> bool:
        return any_signed(self.all)


def _draw(ax: Axes, page: _Page, name: str, tiles: Sequence[Tile]) -> None:
    ax.set_axis_off()
    ax.set_title(fit(name, page.width_of(tiles), HEADING, lines=1), fontsize=HEADING, pad=5, **PLAIN)
    for y, box, row in zip(page.tops, page.boxes, page.rows_of(tiles), strict=False):
        for i, tile in enumerate(row):
            _picture(ax, tile, (i * (page.tile + GAP), y), page)
            if box:
                _box(ax, tile, (i * (page.tile + GAP), y + page.cell), page, box)
    if not tiles:
        middle = page.width_of(tiles) / 2
        ax.text(middle, page.cell / 2, "no images", fontsize=SMALL, ha="center", va="center", color="#555555")
    ax.set(xlim=(0, page.width_of(tiles)), ylim=(page.height, 0), aspect="auto")


def _picture(ax: Axes, tile: Tile, corner: tuple[float, float], page: _Page) -> None:
    """The photo in grey under its map, in the middle of its cell."""
    from matplotlib.patches import Rectangle

    (x, y), (height, width) = corner, tile.image.shape[:2]
    scale = min(page.tile / width, page.cell / height)
    wide, high = width * scale, height * scale
    ax.add_patch(Rectangle(corner, page.tile, page.cell, facecolor=MAT, linewidth=0, zorder=-1))
    left, top = x + (page.tile - wide) / 2, y + (page.cell - high) / 2
    span = colour.limits(tile.map, page.signed or None, percentile=tile.percentile)
    pixels = overlay(luminance(tile.image), tile.map, limits=span)
    ax.imshow(pixels, extent=(left, left + wide, top + high, top), aspect="auto")


def _box(ax: Axes, tile: Tile, corner: tuple[float, float], page: _Page, height: float) -> None:
    from matplotlib.patches import Rectangle

    look = {key: value for key, value in tile.verdict.box.items() if key != "boxstyle"}
    ax.add_patch(Rectangle(corner, page.tile, height, **look, clip_on=False))
    said: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.2, "color": tile.verdict.ink}
    ax.text(corner[0] + page.tile / 2, corner[1] + height / 2, page.text(tile), fontsize=SMALL, **said, **PLAIN)


def luminance(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The brightness (H, W) of a picture (H, W, 3), uint8 both (Rec. 601).

    >>> luminance(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).tolist()
    [[255, 76]]
    """
    grey: NDArray[np.float64] = image @ np.array([0.299, 0.587, 0.114])
    return np.rint(grey).astype(np.uint8)


def _key(ax: Axes, page: _Page) -> None:
    """What colours and boxes mean, in a line below the tiles; what has no room there is left out."""
    end, y = end_of(page.all), page.height + SMALL * LINE / 2
    low, high = f"−{end}" if page.signed else "0", f"{end} of each map"
    room = page.size[0] - 2 * MARGIN
    bar = float(np.clip(room - width_of(low, SMALL) - width_of(high, SMALL) - 8, 20, BAR))
    left = _say(ax, 0.0, y, low) + 4
    _bar(ax, (left, y - 3, bar, 6), page.signed)
    x = _say(ax, left + bar + 4, y, high) + 18
    boxes = {True: ("right", WHITE_BOX), False: ("wrong", RED_BOX), None: ("true class not known", GREY_BOX)}
    for word, look in [boxes[right] for right in boxes if right in {tile.right for tile in page.all}]:
        if x + width_of(word, SMALL) <= room:
            x = _say(ax, x, y, word, look) + 14


def _bar(ax: Axes, place: tuple[float, float, float, float], signed: bool) -> None:
    span = (-1.0 if signed else 0.0), 1.0
    scale = Scale(colormap=colour.table_name(None, span), low=span[0], high=span[1], over=True)
    inset = ax.inset_axes(place, transform=ax.transData)
    inset.imshow(scale.bar(), extent=(*span, 0, 1), aspect="auto")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color="#888888", linewidth=0.4)


def _say(ax: Axes, x: float, y: float, text: str, box: dict[str, Any] | None = None) -> float:
    ax.text(x, y, text, fontsize=SMALL, va="center", bbox=box, color="white" if box is RED_BOX else "black")
    return x + width_of(text, SMALL)
