"""Anything image-like in; a batch for the model, and what the model saw as uint8, out."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from . import photos
from .errors import InputError, InputTypeError
from .preprocessing import Preprocessing, resolve_preprocessing

__all__ = ["Images", "Preprocessing", "gather", "resolve_preprocessing"]

Array = NDArray[Any]

ACCEPTED = (
    "a path, a PIL image, a NumPy array (H, W[, 3 or 4]) or (N, H, W, 3), a tensor (C, H, W) or (N, C, H, W), "
    "or a list of these"
)


_FORMS = {
    1: "float (C, L) or (N, C, L), since the model takes signals (its first convolution is a Conv1d)",
    2: "(C, H, W) or (N, C, H, W)",
    3: "float (C, T, H, W) or (N, C, T, H, W), since the model takes videos or volumes (its first is a Conv3d)",
}

# ------------------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True, eq=False)
class _Item:
    """One image as given: a picture still to be opened and transformed, or a tensor already transformed."""

    name: str  # how messages call it
    content: Callable[[], PIL.Image.Image] | torch.Tensor
    source: str | None = None


class Images:
    """The images that the user gave, in order; files are decoded only when they are loaded.

    `sources` holds the path of each image as it was given, None for what was no file.
    """

    def __init__(self, items: list[_Item]) -> None:
        self._items = items
        self._first_shape: tuple[int, ...] | None = None  # of the first chunk, to which later ones must be equal
        self.sources: tuple[str | None, ...] = tuple(item.source for item in items)

    def __len__(self) -> int:
        return len(self._items)

    def part(self, start: int, stop: int) -> Images:
        """Those from `start` to before `stop`."""
        return Images(self._items[start:stop])

    def joined(self, others: Images) -> Images:
        """These, and then the others."""
        return Images(self._items + others._items)

    def load(
        self, start: int, stop: int, preprocessing: Preprocessing, *, seen: bool = True
    ) -> tuple[torch.Tensor, NDArray[np.uint8]]:
        """The model batch, float (n, C, H, W), and what the model saw, uint8 (n, H, W, 3), of images `start` to `stop`.

        `stop` itself is not included; without pictures (n = 0) unless they are to be `seen`. Raises InputError where
        sizes differ after the transform, ImageFileError where a file cannot be read. An exception inside the user's
        transform passes through, with a note of which image it was.
        """
        items = self._items[start:stop]
        tensors = [_model_input(item, preprocessing) for item in items]
        self._check_shapes(items, tensors)
        pictures = _what_the_model_saw(items, tensors, preprocessing) if seen else np.zeros((0, 0, 0, 3), np.uint8)
        device = next((t.device for t in tensors if t.device.type != "cpu"), torch.device("cpu"))
        return torch.stack([t.to(device) for t in tensors]), pictures

    def _check_shapes(self, items: list[_Item], tensors: list[torch.Tensor]) -> None:
        shapes = {} if self._first_shape is None else {self._first_shape: self._items[0].name}
        for item, tensor in zip(items, tensors, strict=True):
            shapes.setdefault(tuple(tensor.shape), item.name)
        if len(shapes) > 1:
            sizes = ", ".join(f"{shape} ({name})" for shape, name in islice(shapes.items(), 5))
            raise InputError(
                f"The images differ in size (C, H, W) after the transform: {sizes}. "
                "Pass a transform that makes them equal, or explain them one at a time."
            )
        self._first_shape = next(iter(shapes), None)


def gather(inputs: Any, sides: int = 2, first: int = 0) -> Images:
    """Everything image-like that the user may pass, checked, but not yet decoded.

    Accepts a path, PIL image, NumPy array (H, W[, 3 or 4]) or (N, H, W, 3) of uint8 or of floats in 0..1, a uint8
    tensor (C, H, W) or (N, C, H, W): pictures, which the transform takes; a float tensor (C, H, W) or (N, C, H, W):
    already transformed; or a list, tuple or iterator of these. For a model of signals (`sides` = 1), float tensors and
    arrays (C, L) or (N, C, L); of videos and volumes (`sides` = 3), (C, T, H, W) or (N, C, T, H, W). Messages number
    the images from `first`.

    Raises InputTypeError for anything else, InputError for shapes and values that are no image, and
    ImageNotFoundError or ImageFolderError for paths.

    >>> len(gather([np.zeros((4, 6, 3), np.uint8), torch.zeros(2, 3, 8, 8)]))
    3
    """
    several = isinstance(inputs, (list, tuple, Iterator)) and not isinstance(inputs, io.IOBase)
    items: list[_Item] = []
    for value in inputs if several else (inputs,):
        items += _items(value, first + len(items), sides)
    if not items:
        raise InputError(f"The list of images is empty: an empty batch. Pass {ACCEPTED}.")
    return Images(items)


def _items(value: Any, index: int, sides: int) -> list[_Item]:
    name = f"image {index}"
    if sides == 3 and isinstance(value, (str, os.PathLike, PIL.Image.Image)):
        raise InputError(f"{name} is a picture or a file; expected {_FORMS[sides]}.")
    if isinstance(value, (str, os.PathLike)):
        path = os.fsdecode(value)
        photos.check_path(path)
        return [_Item(f"image {index} ({path!r})", partial(photos.open_file, path), path)]
    if isinstance(value, PIL.Image.Image):
        photos.check_sides(name, value.size)
        return [_Item(name, partial(photos.decoded, value, name))]
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and sides != 2 and value.ndim - sides in (0, 1, 2):
        value = torch.from_numpy(value)
    if isinstance(value, np.ndarray):
        return _array_items(value, index)
    if isinstance(value, torch.Tensor):
        return _tensor_items(value, index, sides)
    hint = " Open it first with PIL.Image.open." if isinstance(value, (bytes, bytearray, io.IOBase)) else ""
    raise InputTypeError(f"{name} is of type {type(value).__name__}; expected {ACCEPTED}.{hint}")


def _array_items(array: Array, index: int) -> list[_Item]:
    photos.check_sides(f"image {index}", array.shape)
    photos.check_array(f"image {index}", array)
    items = []
    for i, picture in enumerate(array if array.ndim == 4 else array[None], index):
        if picture.dtype != np.uint8:
            photos.check_unit_range(f"image {i}", picture)
        items.append(_Item(f"image {i}", partial(photos.picture, picture)))
    return items


def _tensor_items(tensor: torch.Tensor, index: int, sides: int) -> list[_Item]:
    photos.check_sides(f"image {index}", tensor.shape)
    other = sides != 2 and tensor.is_floating_point() and tensor.ndim in (sides + 1, sides + 2)
    if not other:
        _check_tensor(f"image {index}", tensor, sides)
    items = []
    for i, image in enumerate(tensor if tensor.ndim == (sides if other else 2) + 2 else tensor[None], index):
        if image.is_floating_point():
            if not image.sum(dtype=torch.float32).isfinite():  # a quick look
                photos.check_finite(f"image {i}", torch.isfinite(image))
            items.append(_Item(f"image {i}", image))
        else:
            items.append(_Item(f"image {i}", partial(_tensor_picture, image)))
    return items


def _check_tensor(name: str, tensor: torch.Tensor, sides: int) -> None:
    given = f"{name} is a {tensor.dtype} tensor of shape {tuple(tensor.shape)}"
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise InputError(f"{given}; pass tensor.to(torch.uint8) for a picture of 0..255, or a float tensor.")
    if tensor.ndim not in (3, 4) or (sides == 3 and tensor.ndim == 3 and tensor.is_floating_point()):
        hint = " Add the channels with tensor[None]." if tensor.ndim == sides else ""
        raise InputError(f"{given}; expected {_FORMS[sides]}.{hint}")
    if tensor.dtype == torch.uint8 and tensor.shape[-3] not in (1, 3, 4):
        order = "2, 0, 1" if tensor.ndim == 3 else "0, 3, 1, 2"
        hint = f" Use tensor.permute({order})." if tensor.shape[-1] in (1, 3, 4) else ""
        raise InputError(f"{given}; a picture has 1, 3 or 4 channels, first.{hint}")


def _tensor_picture(tensor: torch.Tensor) -> PIL.Image.Image:
    return photos.picture(tensor.permute(1, 2, 0).cpu().numpy())


# ------------------------------------------------------------------------------------------- into the model, and back


def _model_input(item: _Item, preprocessing: Preprocessing) -> torch.Tensor:
    if isinstance(item.content, torch.Tensor):
        return item.content
    picture = photos.rgb(item.content(), item.name)
    if preprocessing.assumed:
        preprocessing.say_once(
            f"No transform was given: {preprocessing.description}. "
            "Pass transform=... if the model was trained otherwise."
        )
    try:
        result = preprocessing.transform(picture)
    except Exception as error:
        error.add_note(f"seewhy: raised by the transform for {item.name}")
        raise
    return _transformed(result, item.name)


def _transformed(result: Any, name: str) -> torch.Tensor:
    """The transform's result as a float tensor (C, H, W), or an error that says what came instead."""
    expected = f"for {name}; expected a float tensor (C, H, W)."
    if not isinstance(result, torch.Tensor):
        hint = ' Take its ["pixel_values"].' if isinstance(result, Mapping) else " End it with transforms.ToTensor()."
        raise InputTypeError(f"The transform returned {type(result).__name__} {expected}{hint}")
    given = f"The transform returned a {result.dtype} tensor of shape {tuple(result.shape)} {expected}"
    if not result.is_floating_point():
        raise InputError(f"{given} Add transforms.v2.ToDtype(torch.float32, scale=True).")
    image: torch.Tensor = result[0] if result.ndim == 4 and len(result) == 1 else result
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(given)
    if not image.sum(dtype=torch.float32).isfinite():  # a quick look
        photos.check_finite(f"The transform's result for {name}", torch.isfinite(image))
    return image


def _what_the_model_saw(
    items: list[_Item], tensors: list[torch.Tensor], preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    pictures = []
    notes: dict[str, None] = {}
    for item, tensor in zip(items, tensors, strict=True):
        values = tensor.detach().cpu().float().numpy()
        guess = preprocessing.assumed and isinstance(item.content, torch.Tensor)
        shown, note = _shown(values, preprocessing, guess) if values.ndim > 2 else (_traces(values), "")
        levels = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
        pictures.append(np.moveaxis(np.broadcast_to(levels, (3, *shown.shape[1:])), 0, -1))
        notes |= {note: None} if note else {}
    for note in notes:
        preprocessing.say_once(f"Pictures are shown stretched from their least to greatest value: {note}.")
    return np.ascontiguousarray(np.stack(pictures))


def _shown(values: Array, preprocessing: Preprocessing, guess: bool) -> tuple[Array, str]:
    """Values (C, H, W) as 0..1 of one or three channels, and why they had to be stretched; empty if they had not."""
    if len(values) not in (1, 3):
        return _stretched(values.mean(0, keepdims=True)), f"with {len(values)} channels, their mean is shown"
    undone = _unnormalised(values, preprocessing, guess)
    if undone is None:
        return _stretched(values), "their normalisation is unknown (pass a transform with torchvision's Normalize)"
    return undone, ""


def _unnormalised(values: Array, preprocessing: Preprocessing, guess: bool) -> Array | None:
    """Values (C, H, W) as 0..1; None where nothing tells how. `guess`: nobody said that mean and std hold here."""
    undone: Array | None = None
    if guess and _within(values, 0):
        return values
    if preprocessing.mean is not None and preprocessing.std is not None:
        ones = (1,) * (values.ndim - 1)
        mean, std = (np.array(v, np.float32).reshape(-1, *ones) for v in (preprocessing.mean, preprocessing.std))
        undone = values * std + mean if len(mean) in (1, len(values)) else None
    if undone is None:
        return values if _within(values, 0) else None
    return undone if not guess or _within(undone, 0.1) else None


def _within(values: Array, slack: float) -> bool:
    return bool(values.min() >= -slack and values.max() <= 1 + slack)


def _traces(values: Array) -> Array:
    """A signal (C, L) as a picture (1, C, L): a row for each channel, from its own least to its greatest value."""
    return np.stack([_stretched(channel) for channel in values])[None]


def _stretched(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.full_like(values, 0.5) if high == low else np.asarray((values - low) / (high - low))
