"""Photos: files, Pillow images and arrays of pixels to RGB, without a model and without torch."""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from .errors import (
    ImageFileError,
    ImageFolderError,
    ImageNotFoundError,
    InputError,
    InputTypeError,
    close_matches,
)

Array = NDArray[Any]
Photo: TypeAlias = str | os.PathLike[str] | PIL.Image.Image | NDArray[np.generic]

_ROUNDING = 1e-6  # float pictures may leave 0..1 by this much
_FOLDER_SCAN = 10_000  # names looked at for close matches


def read(photo: Photo) -> NDArray[np.uint8]:
    """The photo as uint8 RGB (H, W, 3): a path, a PIL image or an array (H, W[, 1, 3 or 4]), uint8 or float in 0..1.

    Transparency is laid over white, 16-bit grey scaled to 8 bits, and a file turned as its EXIF says. Raises
    ImageFileError for files, InputError for arrays that are no photo, InputTypeError for anything else.

    >>> read(PIL.Image.new("L", (3, 2))).shape
    (2, 3, 3)
    """
    if isinstance(photo, (str, os.PathLike)):
        path = os.fsdecode(photo)
        check_path(path)
        return np.asarray(rgb(open_file(path), repr(path)))
    if isinstance(photo, PIL.Image.Image):
        check_sides("the photo", photo.size)
        return np.asarray(rgb(decoded(photo, "the photo"), "the photo"))
    if not isinstance(photo, np.ndarray):
        raise InputTypeError(f"a photo is a path, a PIL image or a NumPy array, not {type(photo).__name__}")
    if photo.ndim == 4:
        raise InputError(f"one photo is expected, got an array of shape {photo.shape}")
    check_sides("the photo", photo.shape)
    check_array("the photo", photo)
    if photo.dtype != np.uint8:
        check_unit_range("the photo", photo)
    return np.asarray(rgb(picture(photo), "the photo"))


def check_sides(name: str, shape: tuple[int, ...]) -> None:
    """Refuse what has no pixels."""
    if 0 in shape or not shape:
        raise InputError(f"{name} has no pixels, shape {tuple(shape)}: an empty batch, or a side of length 0.")


def check_finite(name: str, finite: Any) -> None:
    """Refuse what is not `finite` everywhere."""
    bad = int((~finite).sum())
    if bad:
        raise InputError(
            f"{name} has {bad} NaN or infinite values; expected finite pixels. Clean or leave out that image."
        )


def check_path(path: str) -> None:
    """Refuse a path where there is no file."""
    try:
        mode = Path(path).stat().st_mode if path else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        mode = None
    except OSError as error:
        raise ImageFileError(f"{path!r} cannot be read: {error.strerror}.") from error
    if mode is None:
        raise ImageNotFoundError(f"There is no file at {path!r}.{_path_hint(path)}")
    if stat.S_ISDIR(mode):
        raise ImageFolderError(f"{path!r} is a folder; pass its files: sorted(pathlib.Path({path!r}).glob('*.jpg')).")


def _path_hint(path: str) -> str:
    if "://" in path:
        return " Web addresses are not fetched: download the image first."
    try:
        names = [entry.name for entry in islice(Path(path).parent.iterdir(), _FOLDER_SCAN)]
    except (OSError, ValueError):
        return f" The folder {str(Path(path).parent)!r} does not exist or cannot be read."
    return close_matches(Path(path).name, names)


def open_file(path: str) -> PIL.Image.Image:
    """The decoded image, upright by its EXIF orientation."""
    from PIL import ImageOps

    try:
        with PIL.Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (Warning, MemoryError):
        raise
    except Exception as error:  # what Pillow's many readers raise on broken files is not documented
        check_path(path)  # it may have gone since it was named
        reason = "the file is empty" if not Path(path).stat().st_size else str(error)
        raise ImageFileError(f"{path!r} cannot be read as an image: {reason}.") from error


def decoded(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """The image with its pixels read."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise ImageFileError(f"{name} cannot be decoded: {error}.") from error
    return image


def rgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Any Pillow mode as RGB: transparency over white, 16-bit and float grey scaled to 8 bits."""
    if image.mode[0] in "IF":
        image = _eight_bits(image, name)
    if image.mode == "La":  # Pillow has only this way out of it
        image = image.convert("LA")
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise InputError(f"{name} has the Pillow mode {image.mode!r}, which has no way to RGB: {error}.") from error


def _eight_bits(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Grey of modes I;16, I and F, by the smallest usual range (0..1 of floats, 8 or 16 bits) that holds it."""
    values = np.asarray(image).astype(np.float64)
    check_finite(name, np.isfinite(values))
    tops = [65535.0] if image.mode.startswith("I;16") else [1.0, 255.0, 65535.0][image.mode == "I" :]
    top = next((t for t in tops if values.max() <= t), None)
    if top is None or values.min() < 0:
        low, high = values.min(), values.max()
        raise InputError(f"{name} has grey values from {low:g} to {high:g}; scale them to 0..1 and pass a NumPy array.")
    return PIL.Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def check_array(name: str, array: Array) -> None:
    """Refuse an array that is neither a picture nor a batch of pictures."""
    given = f"{name} is a {array.dtype} array of shape {array.shape}"
    if array.dtype == np.bool_:
        raise InputError(f"{given}; pass (array * 255).astype('uint8').")
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        raise InputError(
            f"{given}; pass .astype('uint8') for values in 0..255, or divide by the largest possible value."
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"{given}; expected uint8, or floats in 0..1.")
    if array.ndim == 2 or (array.ndim in (3, 4) and array.shape[-1] in (1, 3, 4)):
        return
    hint = "For other channels pass a float tensor (C, H, W) that is already transformed."
    if array.ndim in (3, 4) and array.shape[-3] in (1, 3, 4):
        order = "1, 2, 0" if array.ndim == 3 else "0, 2, 3, 1"
        hint = f"It looks channels first: transpose it with array.transpose({order})."
    raise InputError(f"{given}; expected (H, W), (H, W, 3 or 4) or (N, H, W, 3). {hint}")


def check_unit_range(name: str, picture: Array) -> None:
    """Refuse float pixels outside 0..1."""
    check_finite(name, np.isfinite(picture))
    low, high = float(picture.min()), float(picture.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        hint = (
            "Divide by 255?"
            if low >= 0 and high <= 255
            else "Scale them to 0..1, or pass a float tensor that is already transformed."
        )
        raise InputError(f"{name} has float values from {low:g} to {high:g}; expected 0..1. {hint}")


def picture(array: Array) -> PIL.Image.Image:
    """From (H, W[, 1, 3 or 4]), uint8 or floats in 0..1."""
    if array.dtype != np.uint8:
        array = np.rint(np.clip(array.astype(np.float64), 0, 1) * 255).astype(np.uint8)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return PIL.Image.fromarray(np.ascontiguousarray(array))
