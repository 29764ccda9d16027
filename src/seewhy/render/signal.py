"""Signals: curves over time, each channel in a lane of its own, with the map as colour behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from . import colour
from .overlay import overlay

Floats: TypeAlias = NDArray[np.float64]
Ticks: TypeAlias = tuple[tuple[float, str], ...]  # where, in pixels, and what is written there

WIDEST = 1000  # pixels; a longer signal has several samples to a pixel
LANES = 32  # more channels than this are rows of a picture, too low for curves
HEIGHT, TALLEST, LOWEST = 480, 160, 16  # pixels: of all lanes together, and of one at most and at least
STRIP = 48  # pixels: the height of a map alone
PALE = 0.8  # opacity of the colours behind a curve, which black must be read on
LIGHTER = 1.25  # how far beyond the span the colour table goes, whose ends are too dark for a curve
INK, RULE = (20, 20, 20), 205
TEXTS = 6  # numbers along a side


def lanes(
    signal: ArrayLike,
    heat: ArrayLike | None = None,
    *,
    alpha: float | None = None,
    colormap: str | None = None,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """A signal's channels as curves over time, a lane each, on the colours of the map; uint8 (H, W, 3), W 501..1000.

    `signal` is (C, L) or (C, L, 3), uint8: each channel as grey levels, 0 at the foot of its lane and 255 at its top.
    `heat` (L,) has a value per sample, None for none: white is 0, red argues for and blue against, with the ends of
    `limits` (None: of the map itself) the strongest; `colormap` is another table, `alpha` another opacity. Beyond 1,000
    samples a pixel column spans the least to the greatest level of its samples, and has the colour of the value of
    largest magnitude. More than 32 channels are rows of a grey picture, with the map over it as on a photo. Other
    shapes are an InputError.

    >>> lanes(np.zeros((2, 30), np.uint8), np.ones(30)).shape
    (321, 990, 3)
    """
    levels = _levels(signal)
    values = None if heat is None else _per_column(as_trace(heat, levels.shape[1]))
    if len(levels) > LANES:
        picture = rows(levels)
        behind = np.zeros(1) if values is None else values
        tiled = np.broadcast_to(behind, (len(picture), len(behind)))
        return overlay(picture, tiled, alpha=alpha, colormap=colormap, limits=limits)
    height = _lane(len(levels))
    ground = np.full((1, _width(levels.shape[1]), 3), 255, np.uint8)
    if values is not None:
        ground = tint(values[None], colormap=colormap, limits=limits, alpha=alpha)
    whole = np.full((len(levels) * (height + 1) - 1, ground.shape[1], 3), RULE, np.uint8)
    for i, channel in enumerate(levels):
        lane = np.ascontiguousarray(ground.repeat(height, axis=0))
        _draw_curve(lane, channel)
        whole[i * (height + 1) : i * (height + 1) + height] = lane
    return whole


def as_trace(heat: ArrayLike, length: int) -> Floats:
    """The map of a signal as float64 (L,), checked to be so long."""
    array = np.asarray(heat)
    if array.shape != (length,) or array.dtype.kind not in "buif":
        raise InputError(
            f"the map of a signal of {length} samples is numbers ({length},), got {array.shape} of {array.dtype}"
        )
    return array.astype(np.float64)


def _levels(signal: ArrayLike) -> NDArray[np.uint8]:
    array = np.asarray(signal)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 3 else array
    if array.ndim != 2 or array.size == 0 or array.dtype != np.uint8:
        raise InputError(f"a signal to draw is uint8 (C, L) or (C, L, 3), got {np.shape(signal)} of {array.dtype}")
    return array


def tint(
    heat: ArrayLike,
    *,
    colormap: str | None = None,
    limits: tuple[float, float] | None = None,
    alpha: float | None = None,
) -> NDArray[np.uint8]:
    """The map (H, W) in colours that black is readable on, uint8 (H, W, 3): white at 0, red above and blue below.

    >>> tint(np.array([[-1.0, 0.0, 1.0]])).tolist()
    [[[77, 131, 187], [249, 248, 248], [192, 69, 85]]]
    """
    heat = colour.as_map(heat)
    span = colour.limits(heat) if limits is None else limits
    page = np.full((*heat.shape, 3), 255, np.uint8)
    most = LIGHTER * max(abs(span[0]), abs(span[1]))
    ends = (-most, most) if colormap is None else span
    heat = np.clip(heat, *span)
    return overlay(page, heat, alpha=PALE if alpha is None else alpha, colormap=colormap or colour.SIGNED, limits=ends)


def strip(heat: ArrayLike, colormap: str | None = None, limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """The map (L,) of a signal alone, as a band of colours over time: uint8 (48, W, 3).

    >>> strip(np.arange(4.0)).shape
    (48, 1000, 3)
    """
    values = np.asarray(heat)
    columns = _per_column(as_trace(values, values.size))
    return colour.colorize(columns[None].repeat(STRIP, axis=0), colormap, limits)


def rows(grey: ArrayLike) -> NDArray[np.uint8]:
    """Each channel of uint8 (C, L) as a row of a grey picture, enlarged where small; uint8 (H, W, 3).

    Beyond 1,000 samples a pixel column is the mean of its samples.

    >>> rows(np.zeros((80, 50), np.uint8)).shape
    (480, 1000, 3)
    """
    levels = _levels(grey)
    starts, times = _bins(levels.shape[1])
    counts = np.diff(starts, append=levels.shape[1])
    mean = np.add.reduceat(levels.astype(np.float64), starts, axis=1) / counts
    wide = np.rint(mean).astype(np.uint8).repeat(times, axis=1).repeat(_row(len(levels)), axis=0)
    return wide[..., None].repeat(3, axis=2)


def _row(count: int) -> int:
    return max(1, min(STRIP, HEIGHT // count))


def _lane(count: int) -> int:
    return max(LOWEST, min(TALLEST, HEIGHT // count))


def _bins(length: int) -> tuple[NDArray[np.intp], int]:
    """Where the samples of each column begin, and how many pixels wide a column is."""
    columns = min(length, WIDEST)
    return np.arange(columns) * length // columns, WIDEST // columns


def _width(length: int) -> int:
    columns = min(length, WIDEST)
    return columns * (WIDEST // columns)


def _per_column(heat: Floats) -> Floats:
    """At each pixel the value of largest magnitude, so that no peak is lost."""
    starts, times = _bins(len(heat))
    low, high = np.fmin.reduceat(heat, starts), np.fmax.reduceat(heat, starts)
    return np.where(np.abs(low) > np.abs(high), low, high).repeat(times)


def _draw_curve(lane: NDArray[np.uint8], levels: NDArray[np.uint8]) -> None:
    import cv2

    starts, times = _bins(len(levels))
    ends = np.stack([np.minimum.reduceat(levels, starts), np.maximum.reduceat(levels, starts)], axis=1)
    place = np.repeat((np.arange(len(starts)) + 0.5) * times - 0.5, 2)
    place, ends = np.r_[0, place, lane.shape[1] - 1], np.r_[levels[0], ends.ravel(), levels[-1]]
    edge = max(1.0, 0.08 * len(lane))
    height = len(lane) - 1 - edge - ends / 255 * (len(lane) - 1 - 2 * edge)
    points = np.rint(np.stack([place, height], axis=1) * 16).astype(np.int32)
    cv2.polylines(lane, [points[:, None]], False, INK, 2 if len(lane) > 60 else 1, cv2.LINE_AA, shift=4)


# --------------------------------------------------------------------------------------------- what stands at the sides


def time_ticks(length: int) -> Ticks:
    """Numbers of samples to write below a signal, and where in pixels.

    >>> time_ticks(4)
    ((124.5, 'sample 0'), (374.5, '1'), (624.5, '2'), (874.5, '3'))
    """
    pixel = _width(length) / length
    return _said("sample", ((i, (i + 0.5) * pixel - 0.5) for i in _round_numbers(length, TEXTS)))


def channel_ticks(count: int, *, curves: bool = True) -> Ticks:
    """Numbers of channels to write beside lanes, or beside `rows`, and where in pixels; none for a single one.

    >>> channel_ticks(2)
    ((79.5, 'channel 0'), (240.5, '1'))
    """
    step, part = (_lane(count) + 1, _lane(count)) if curves and count <= LANES else (_row(count), _row(count))
    numbers = _round_numbers(count, 2 * TEXTS) if count > 1 else range(0)
    return _said("channel", ((i, i * step + (part - 1) / 2) for i in numbers))


def _said(what: str, places: Iterable[tuple[int, float]]) -> Ticks:
    return tuple((at, str(i) if i else f"{what} 0") for i, at in places)


def _round_numbers(count: int, most: int) -> range:
    """At most `most` round numbers from 0 that lie below the count."""
    steps = (factor * 10**power for power in range(19) for factor in (1, 2, 5))
    return range(0, count, next(step for step in steps if step * most >= count))
