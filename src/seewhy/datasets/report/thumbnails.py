"""Photos and maps as small pictures that fit into a page's text."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ...render import colour

TINY = 64  # pixels: up to this side, every pixel is to be seen and kept as it is
STEP = 3  # of an opacity in 0..255: too fine to be seen, and a quarter less of a file
CLIP = 99.0  # percentile: a few pixels of an input gradient dwarf all others


def photo(picture: NDArray[np.uint8], side: int) -> str:
    """The photo (h, w, 3) as a data URI, made smaller where its longer side has more than `side` pixels.

    A JPEG, or without loss where the photo has at most 64 x 64 pixels.

    >>> photo(np.zeros((8, 8, 3), np.uint8), 112)[:23]
    'data:image/webp;base64,'
    """
    small = shrunk(picture, side)
    if max(small.shape[:2]) <= TINY:
        return _encoded(small, "WEBP", lossless=True)
    return _encoded(small, "JPEG", quality=80)


def heat(values: NDArray[np.float32], side: int, signed: bool | None = None) -> str:
    """The map (h, w) in the usual colours as a data URI, the more opaque the larger |map|; NaN is transparent.

    The last colour, wholly opaque, is that of the 99th percentile of |map| after shrinking. `signed` is as for
    `render.colour.limits`.

    >>> heat(np.eye(8, dtype=np.float32), 112)[:23]
    'data:image/webp;base64,'
    """
    small = shrunk(values.astype(np.float64), side)
    span = colour.limits(small, signed, percentile=CLIP)
    most = max(abs(span[0]), abs(span[1])) or 1.0
    opacity = np.abs(np.nan_to_num(np.clip(small, *span), nan=0.0)) / most
    tiny = max(small.shape) <= TINY
    step = 1 if tiny else STEP
    opacities = step * np.rint(255 // step * opacity)
    pixels = np.dstack([colour.colorize(small, limits=span), opacities.astype(np.uint8)])
    return _encoded(pixels, "WEBP", **({"lossless": True} if tiny else {"quality": 60, "method": 2}))


def scale(signed: bool) -> str:
    """The colours of a map from its least to its largest value, a strip as a data URI.

    >>> scale(True)[:22]
    'data:image/png;base64,'
    """
    return _encoded(colour.colorize(np.linspace(-1.0 if signed else 0.0, 1.0, 128)[None]), "PNG")


def as_uri(data: bytes, kind: str) -> str:
    """The bytes of a picture as a data URI; `kind` is "png", "jpeg" or "webp".

    >>> as_uri(b"abc", "png")
    'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def shrunk(array: NDArray[Any], side: int) -> NDArray[Any]:
    """The array (h, w) or (h, w, 3) with its longer side brought down to `side` by averaging; never enlarged.

    >>> shrunk(np.zeros((224, 112)), 112).shape, shrunk(np.zeros((8, 9)), 112).shape
    ((112, 56), (8, 9))
    """
    import cv2

    height, width = array.shape[:2]
    if max(height, width) <= side:
        return array
    share = side / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA))


def _encoded(pixels: NDArray[np.uint8], form: str, **how: int) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, form, **how)
    return as_uri(file.getvalue(), form.lower())
