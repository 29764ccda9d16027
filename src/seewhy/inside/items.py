"""What data sets and loaders hand out: images with their labels, one at a time or several."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ..errors import InputError, InputTypeError

_IMAGE_KEYS = ("pixel_values", "image", "images", "img")
LABEL_KEYS = ("label", "labels", "target", "fine_label")
Columns: TypeAlias = tuple[str, str | None] | None


def chunks(
    items: Iterable[Any], size: int | None, sides: int, *, batched: bool, labelled: bool = True
) -> Iterator[tuple[Any, Any]]:
    """The images of `items` in chunks of at most `size` (None: of any), with their labels, None where there are none.

    An item is an image, a pair ``(image, label)`` or a mapping with them, or several images in one of these forms.
    `batched`: it is what a loader made of several items, which may be a list of them. `labelled`: whether labels are
    wanted; else they are passed by, whatever they are.
    """
    waiting: list[tuple[Any, Any]] = []
    for item in items:
        for images, given in _parts(item, sides) if batched else [pair(item)]:
            labels = given if labelled else None
            several = isinstance(images, list | tuple) or _many(images, sides)
            waiting += [] if several else [(images, labels)]
            if waiting and (several or len(waiting) == size):
                yield _joined(waiting)
                waiting = []
            if several:
                yield from _cut(images, labels, size)
        if batched and waiting:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _parts(batch: Any, sides: int) -> list[tuple[Any, Any]]:
    """The images and labels of what a loader made: of all as one pair, or of each in a list of items."""
    if not (isinstance(batch, list | tuple) and batch):
        return [pair(batch)]
    first, *others = batch
    if _many(first, sides) or _is_item(first, others) or _are_listed(first, others):
        return [pair(batch)]
    return [pair(item) for item in batch]


def _is_item(first: Any, others: list[Any]) -> bool:
    """Whether an image and one other thing are that image and its label, as of a loader that undoes its batches."""
    return len(others) == 1 and _is_picture(first) and _is_label(others[0])


def _are_listed(first: Any, others: list[Any]) -> bool:
    """Whether these are a list of images, and at most a list of labels."""
    if not isinstance(first, list | tuple) or len(others) > 1 or not all(map(_may_be_image, first)):
        return False
    return not (others and isinstance(others[0], list | tuple) and any(map(_is_picture, others[0])))


def _many(images: Any, sides: int) -> bool:
    """Whether an array or tensor has a dimension for the images."""
    return isinstance(images, Tensor | np.ndarray) and images.ndim == sides + 2


def _is_label(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0)


def _is_picture(value: Any) -> bool:
    return hasattr(value, "convert") or (isinstance(value, Tensor | np.ndarray) and value.ndim > 1)


def _may_be_image(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "__fspath__") or _is_picture(value)


def _are_files(item: Any) -> bool:
    """Whether an item is a list of files, and not one of them with its label."""
    if not isinstance(item, list) or len(item) < 2 or not all(isinstance(one, str | os.PathLike) for one in item):
        return False
    return all(isinstance(one, os.PathLike) or Path(one).is_file() for one in item[1:])


def pair(item: Any, columns: Columns = None) -> tuple[Any, Any]:
    """The image or images, and the label or labels if there are any, of one item or batch.

    `columns`: the names of both in a mapping; None: the usual ones.
    """
    if isinstance(item, Mapping):
        return _columns(item, columns)
    if _are_files(item):
        return item, None
    if isinstance(item, list | tuple):
        if not item:
            raise InputTypeError("An item of the data set is empty; expected an image, or (image, label).")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _columns(item: Mapping[str, Any], columns: Columns) -> tuple[Any, Any]:
    images, labels = (_IMAGE_KEYS, LABEL_KEYS) if columns is None else ((columns[0],), tuple(filter(None, columns[1:])))
    image = next((item[key] for key in images if key in item), None)
    if image is None or (columns and not all(key in item for key in labels)):
        wanted = "one of " + ", ".join(map(repr, images)) + ", and the label in " + ", ".join(map(repr, labels))
        raise InputTypeError(
            f"An item of the data set is a mapping with {', '.join(map(repr, item))}; expected {wanted}."
        )
    return image, next((item[key] for key in labels if key in item), None)


def _joined(items: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any] | None]:
    labels = [label for _, label in items]
    return [image for image, _ in items], None if all(label is None for label in labels) else labels


def _cut(images: Any, labels: Any, size: int | None) -> Iterator[tuple[Any, Any]]:
    """Several images in chunks of `size`; None: as they are."""
    labels = None if labels is None else listed(labels)
    step = size or max(len(images), 1)
    if labels is not None and len(labels) != len(images):
        step = len(images)  # an error, which is told of all of them
    for start in range(0, len(images), step):
        stop = len(images) if step == len(images) else start + step
        yield images[start:stop], labels if labels is None or step == len(images) else labels[start:stop]


def plain(labels: Any, count: int, first: int = 0) -> tuple[int | str, ...]:
    """The labels of `count` images, of which `first` is the number of the first, as integers or names.

    Raises:
        InputTypeError: one is neither.
        InputError: there are not as many as images.
    """
    found = [scalar(one) for one in listed(labels)]
    for i, label in enumerate(found):
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise InputTypeError(
                f"The label of image {first + i} is {_short(label)}; expected the index or the name of a class."
            )
    if len(found) != count:
        raise InputError(f"{len(found)} labels for the {count} images from number {first} on: one is needed for each.")
    return tuple(found)


def listed(labels: Any) -> list[Any]:
    """Labels as a list; arrays and tensors ``(N,)`` or ``(N, 1)``, too."""
    if isinstance(labels, Tensor | np.ndarray):
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        labels = labels.tolist()  # a plain number where there is no dimension
    if isinstance(labels, str | bytes | Mapping) or not isinstance(labels, Iterable):
        raise InputTypeError(f"Labels are a list with one for each image, not {_short(labels)}.")
    return list(labels)


def _short(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return reprlib.repr(value)


def scalar(label: Any) -> Any:
    """A label as a plain number, if it is an array of one."""
    if isinstance(label, Tensor | np.ndarray | np.generic) and math.prod(label.shape) == 1:
        return label.item()
    return label
