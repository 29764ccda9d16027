"""A map over a photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from . import colour

STRONGEST = 0.85  # the hottest spot still lets the photo through


def overlay(
    image: ArrayLike,
    heat: ArrayLike,
    *,
    alpha: float | None = None,
    colormap: str | None = None,
    limits: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """The map's colours over the photo, uint8 (H, W, 3) at the photo's size.

    `image` is (H, W), (H, W, 1) or (H, W, 3), uint8 or float in 0..1; `heat` is (h, w), resized bilinearly where the
    sizes differ, and a uint8 mask counts as 0..1. With `alpha=None` the opacity grows with |map|, from 0 at 0 to 0.85
    at the end of `limits`, and beyond is as at the end; a number in 0..1 is the opacity everywhere. Either way a map
    of zeros leaves every pixel as it was, and so does NaN at its own pixel. Wrong shapes or ranges are an InputError.

    >>> photo = np.full((2, 2, 3), 51, np.uint8)
    >>> bool((overlay(photo, np.zeros((2, 2)), alpha=0.5) == photo).all())
    True
    """
    photo = as_photo(image)
    heat = colour.as_map(heat)
    span = colour.limits(heat) if limits is None else limits
    heat = resized(heat, (photo.shape[0], photo.shape[1]))
    colours = colour.colorize(heat, colormap, span)
    opacity = _opacity(heat, span, alpha)[..., None]
    return np.rint(photo + opacity * (colours - photo)).astype(np.uint8)


def _opacity(heat: NDArray[np.float64], span: tuple[float, float], alpha: float | None) -> NDArray[np.float64]:
    """At each pixel; as the colours, that of a value beyond the span is its end's."""
    if not (alpha is None or (isinstance(alpha, int | float | np.number) and 0 <= alpha <= 1)):
        raise InputError(f"alpha is an opacity in 0..1, or None to follow the map; got {alpha!r}")
    empty = not np.nan_to_num(heat, nan=0.0).any()
    if alpha is not None:
        return np.where(np.isnan(heat), 0.0, 0.0 if empty else alpha)
    magnitude = np.abs(np.nan_to_num(np.clip(heat, *span), nan=0.0))
    most = max(abs(span[0]), abs(span[1]))
    return np.zeros_like(heat) if empty else np.asarray(STRONGEST * magnitude / (most or 1.0))


def as_photo(image: ArrayLike) -> NDArray[np.float64]:
    """The photo as float64 (H, W, 3) in 0..255; grey is repeated, floats are read as 0..1.

    >>> as_photo(np.array([[1.0]])).tolist()
    [[[255.0, 255.0, 255.0]]]
    """
    array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise InputError(f"a photo is (H, W), (H, W, 1) or (H, W, 3), got {np.shape(image)}")
    if array.dtype != np.uint8:
        array = _from_unit(array)
    return np.repeat(array, 3 // array.shape[2], axis=2).astype(np.float64)


def _from_unit(array: NDArray[np.generic]) -> NDArray[np.float64]:
    if array.dtype.kind != "f":
        raise InputError(f"a photo is uint8 or float in 0..1, got {array.dtype}. Convert it with .astype('uint8').")
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(f"a float photo lies in 0..1, got {array.min()}..{array.max()}. Is it 0..255? Divide by 255.")
    return np.rint(array.astype(np.float64) * 255)


def resized(array: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """The map (h, w) bilinearly at `size` (H, W) in pixels, corners not aligned; as it is where the size is right.

    >>> resized(np.ones((2, 3)), (4, 5)).shape
    (4, 5)
    """
    import cv2

    if array.shape == size:
        return array
    return np.asarray(cv2.resize(array, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float64)
