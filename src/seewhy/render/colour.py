"""Maps to colours, with ranges that say what they show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, UnknownNameError, close_matches

MAGNITUDE, SIGNED = "inferno", "RdBu_r"
NEUTRAL = 128  # the grey of pixels that have no value


def as_map(heat: ArrayLike) -> NDArray[np.float64]:
    """The map as float64 (H, W); a uint8 mask's 0..255 is read as 0..1.

    >>> as_map(np.array([[0, 255]], np.uint8))
    array([[0., 1.]])
    """
    array = np.asarray(heat)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "buif":
        raise InputError(f"a map is an array of numbers (H, W), got shape {array.shape} of {array.dtype}")
    return array.astype(np.float64) / (255 if array.dtype == np.uint8 else 1)


def limits(heat: ArrayLike, signed: bool | None = None, *, percentile: float = 100.0) -> tuple[float, float]:
    """The range that colours should span: 0..max for a map without negative values, else -m..m with m = max |map|.

    `signed` forces one or the other (False: min(0, min)..max). NaN and infinite values are ignored; a map of zeros
    gives (0.0, 0.0). A `percentile` below 100 takes that percentile of |map| for the largest, where it is not 0. Units
    are the map's own.

    >>> limits(np.array([[0.0, 2.0]])), limits(np.array([[-3.0, 2.0]]))
    ((0.0, 2.0), (-3.0, 3.0))
    """
    array = np.asarray(heat, dtype=np.float64)
    array = array[np.isfinite(array)]
    if array.size == 0:
        return 0.0, 0.0
    low, high = float(array.min()), float(array.max())
    if signed or (signed is None and low < 0):
        most = _most(np.abs(array), percentile)
        return -most, most
    return min(0.0, low), max(0.0, _most(array, percentile) if low >= 0 else high)


def _most(magnitude: NDArray[np.float64], percentile: float) -> float:
    return float(np.percentile(magnitude, percentile)) or float(magnitude.max())


def scaled(heat: NDArray[np.float64], span: tuple[float, float]) -> NDArray[np.float64]:
    """The map with `span` taken to 0..1 and clipped; NaN stays NaN, and an empty span gives 0.

    >>> scaled(np.array([[0.0, 1.0, 8.0]]), (0.0, 4.0))
    array([[0.  , 0.25, 1.  ]])
    """
    low, high = span
    return np.asarray((np.clip(heat, low, high) - low) / ((high - low) or 1.0))


def table_name(colormap: str | None, span: tuple[float, float]) -> str:
    """The colour table's name: the one asked for, else the diverging one for a span below 0 and inferno above.

    >>> table_name(None, (0.0, 1.0)), table_name(None, (-1.0, 1.0))
    ('inferno', 'RdBu_r')
    """
    return colormap or (SIGNED if span[0] < 0 else MAGNITUDE)


def _table(name: str) -> Any:
    import matplotlib as mpl

    if not isinstance(name, str) or name not in mpl.colormaps:
        near = close_matches(str(name), mpl.colormaps)
        raise UnknownNameError(f"no colour table is called {name!r}.{near} matplotlib.colormaps lists them all.")
    return mpl.colormaps[name]


def colorize(
    heat: ArrayLike, colormap: str | None = None, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """The map in colours, uint8 (H, W, 3): inferno over 0..max, or RdBu_r over -m..m where the map has negative values.

    `heat` is (H, W), `colormap` any name in matplotlib.colormaps, `limits` the values of the first and last colour
    (values beyond them get those colours); of RdBu_r, whose white is at 0, only the part between them is used where
    they are not symmetric. NaN becomes a neutral grey. An unknown name is an UnknownNameError.

    >>> colorize(np.array([[0.0, 1.0, np.nan]]), "gray").tolist()
    [[[0, 0, 0], [255, 255, 255], [128, 128, 128]]]
    """
    heat = as_map(heat)
    span = _limits(heat) if limits is None else limits
    name = table_name(colormap, span)
    most = max(abs(span[0]), abs(span[1]))
    unit = scaled(np.clip(heat, *span), (-most, most) if name == SIGNED else span)
    colours = _table(name)(np.nan_to_num(unit), bytes=True)[..., :3]
    return np.where(np.isnan(unit)[..., None], np.uint8(NEUTRAL), colours)


def in_colour(values: ArrayLike, most: float | None = None) -> NDArray[np.uint8]:
    """A signed attribution per colour, (3, H, W), as a picture about mid-grey: uint8 (H, W, 3).

    0 is 128, +`most` white of that colour and -`most` black; larger values are clipped. None takes the largest |value|.
    NaN is 128.

    >>> in_colour(np.array([[[1.0]], [[0.0]], [[-3.0]]]), 2.0).tolist()
    [[[191, 128, 0]]]
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 3 or array.shape[0] != 3 or array.size == 0:
        raise InputError(f"an attribution of three colours is (3, H, W), got shape {array.shape}")
    most = limits(array, signed=True)[1] if most is None else most
    unit = np.clip(np.nan_to_num(array / (most or 1.0)), -1, 1)
    return np.asarray(np.rint(127.5 + 127.5 * unit).transpose(1, 2, 0).astype(np.uint8))


_limits = limits  # `colorize` has an argument of this name
