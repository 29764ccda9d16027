"""Rows of panels: a photo, its map and the map over it; or the maps of two classes and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import colour
from .overlay import overlay
from .panel import AxesGrid, Label, Picture, Scale, grid
from .verdict import Tile, Verdict, any_signed, proportion


@dataclass(frozen=True)
class Pair:
    """A mistake: an image with the maps of the class it was taken for and of its true class.

    Attributes:
        image: what the model saw, uint8 ``(H, W, 3)``.
        predicted_map: float32 ``(H, W)``, of the predicted class.
        true_map: float32 ``(H, W)``, of the true class.
        predicted: the predicted class.
        predicted_value: what is written beside it, such as its probability.
        true: the true class.
        true_value: what is written beside that.
        signed: whether values below 0 argue against a class, though there are none here.
        percentile: of the magnitudes, 0..100: the value from which on all have the strongest colour.
    """

    image: NDArray[np.uint8]
    predicted_map: NDArray[np.float32]
    true_map: NDArray[np.float32]
    predicted: str
    predicted_value: str
    true: str
    true_value: str
    signed: bool = False
    percentile: float = 100.0


def triples(tiles: Sequence[Tile], *, shown: bool, method: str = "") -> AxesGrid:
    """A figure with a row for each image: the photo and its true class, the map, and the map over the photo.

    Below the map are its own colours, below the overlay what was predicted, in a box that is white if that is right
    and red if it is wrong (none where that is not known). Returns the Axes (N, 3). No images are an InputError.

    >>> cat = Tile(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32), "cat", "0.97", True, "cat")
    >>> triples([cat, cat], shown=False).shape
    (2, 3)
    """
    if not tiles:
        raise InputError("a row of three panels is drawn for each of one or more images; got none")
    signed, shape = any_signed(tiles), proportion([tile.image for tile in tiles])
    return grid([_triple(tile, signed, shape, method) for tile in tiles], shown=shown)


def _triple(tile: Tile, signed: bool, shape: float, method: str) -> list[Picture]:
    span = _span(tile.map, signed, tile.percentile)
    said = Verdict(name=tile.label, value=tile.value, correct=tile.right)
    truth = Label(name=f"true: {tile.truth}") if tile.truth else None
    over = overlay(tile.image, tile.map, limits=span)
    return [
        Picture(pixels=padded(tile.image, shape), heading=("image",), label=truth),
        _mapped(tile.map, span, shape, (method or "map",)),
        Picture(pixels=padded(over, shape), heading=("over the image",), label=said),
    ]


def _mapped(
    values: NDArray[np.float32],
    span: tuple[float, float],
    shape: float,
    heading: tuple[str, ...],
    label: Label | None = None,
) -> Picture:
    """A map in the colours of a span, with these below it."""
    low, high = span
    beyond = bool(((values < low) | (values > high)).any())
    scale = Scale(colormap=colour.table_name(None, span), low=low, high=high, beyond=beyond)
    pixels = padded(colour.colorize(values, limits=span), shape)
    return Picture(pixels=pixels, heading=heading, label=label, scale=scale)


def contrasts(pairs: Sequence[Pair], *, shown: bool, method: str = "") -> AxesGrid:
    """A figure with a row for each mistake: the photo, the maps of two classes, their difference.

    Both maps of a row have the same colours for the same values. The difference, the map of the predicted class minus
    that of the true one, goes from blue (more for the true class) over white to red (more for the predicted one).
    Returns the Axes (N, 4). No mistakes, and maps of two sizes, are an InputError.

    >>> one = np.ones((8, 8), np.float32)
    >>> pair = Pair(np.zeros((8, 8, 3), np.uint8), one, 0 * one, "cat", "0.97", "dog", "0.02")
    >>> contrasts([pair], shown=False).shape
    (1, 4)
    """
    if not pairs:
        raise InputError("a row of panels is drawn for each of one or more mistakes; got none")
    for pair in pairs:
        if pair.predicted_map.shape != pair.true_map.shape:
            raise InputError(
                f"both maps of a pair are (H, W); got {pair.predicted_map.shape} and {pair.true_map.shape}"
            )
    signed = any(p.signed or bool((np.minimum(p.predicted_map, p.true_map) < 0).any()) for p in pairs)
    shape = proportion([pair.image for pair in pairs])
    return grid([_contrast(pair, signed, shape, method) for pair in pairs], shown=shown)


def _contrast(pair: Pair, signed: bool, shape: float, method: str) -> list[Picture]:
    maps = np.stack([pair.predicted_map, pair.true_map])
    span = _span(maps, signed, pair.percentile)
    difference = maps[0] - maps[1]
    taken = Verdict(name=f"predicted: {pair.predicted}", value=pair.predicted_value, correct=False)
    right = Verdict(name=f"true: {pair.true}", value=pair.true_value, correct=True)
    about = (method,) if method else ()
    return [
        Picture(pixels=padded(pair.image, shape), heading=("image",)),
        _mapped(maps[0], span, shape, (*about, "map of the predicted class"), taken),
        _mapped(maps[1], span, shape, (*about, "map of the true class"), right),
        _mapped(difference, _span(difference, True, pair.percentile), shape, (*about, "predicted − true")),
    ]


def _span(values: NDArray[np.float32], signed: bool, percentile: float) -> tuple[float, float]:
    """The values at the ends of the colours, about 0 where signed; -1..1 if all are 0, which is then the middle."""
    low, high = colour.limits(values, signed or None, percentile=percentile)
    return (-1.0, 1.0) if signed and high == 0 else (low, high)


def padded(pixels: NDArray[np.uint8], proportion: float) -> NDArray[np.uint8]:
    """The picture (H, W, 3) with white on two sides, so that it is `proportion` times as high as wide.

    >>> padded(np.zeros((10, 30, 3), np.uint8), 1.0).shape
    (30, 30, 3)
    """
    height, width = pixels.shape[:2]
    high, wide = max(height, round(width * proportion)), max(width, round(height / proportion))
    whole = np.full((high, wide, 3), 255, np.uint8)
    top, left = (high - height) // 2, (wide - width) // 2
    whole[top : top + height, left : left + width] = pixels
    return whole
