"""Many images, batch by batch: whatever `explain` takes, and data sets, loaders, generators and folders besides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..arguments import BATCH_SIZE, whole
from ..errors import InputError, InputTypeError
from ..images import Images, gather
from ..progress import bar

if TYPE_CHECKING:
    from ..explainer import Explainer

_IMAGE_KEYS = ("pixel_values", "image", "images", "img")
_LABEL_KEYS = ("label", "labels", "target", "fine_label")


@dataclass(frozen=True)
class Batch:
    """Some of the images, in order.

    Attributes:
        input: the model's input ``(n, C, H, W)``, where the model is.
        pictures: what the model sees, uint8 ``(n, H, W, 3)``; none unless wanted.
        labels: index or name of each image's true class; empty where nothing says it.
        sources: each image's file; None for what was none.
        first: the number of the first image.
        given: the images before the transform, for another network's.
    """

    input: Tensor
    pictures: NDArray[np.uint8]
    labels: tuple[int | str, ...]
    sources: tuple[str | None, ...]
    first: int
    given: Images


class Stream:
    """Images to look at, a batch at a time; iterating loads them, and keeps none.

    Args:
        explainer: whose transform and model the images are for.
        images: what `explain` takes, a `DataLoader`, a `Dataset`, a folder of photos (searched to its depths; where it
            has several folders their names are the labels), or any iterator. Items and batches may be pairs
            ``(image, label)`` or mappings with ``"image"`` and ``"label"``.
        batch_size: images per pass; None: 16, of a loader its own.
        progress: whether to show a progress bar. None: where it takes more than 2 s, on a terminal or in a notebook.
        doing: what the bar says.
        seen: whether the pictures of what the model sees are wanted; else there are none.

    Attributes:
        classes: the names of the classes that labels are indices of, where the data set knows them; else empty.
        count: how many images there are; None where only the end will tell.
    """

    def __init__(
        self,
        explainer: Explainer,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        doing: str = "looking",
        seen: bool = True,
    ) -> None:
        self._seen = seen
        self._explainer, self._progress, self._doing = explainer, progress, doing
        self._size = None if batch_size is None else whole(batch_size, "batch_size")
        if isinstance(images, str | os.PathLike) and Path(images).is_dir():
            images = _in_folder(Path(images))
        if not isinstance(images, list | tuple | Iterator | Dataset | DataLoader):
            images = gather(images, explainer._sides)
        self._images = images
        source = images.dataset if isinstance(images, DataLoader) else images
        self.classes = tuple(map(str, getattr(source, "classes", None) or ()))
        self.count = _count(images, source)

    def __iter__(self) -> Iterator[Batch]:
        first = 0
        with bar(self._progress, self.count, doing=self._doing, unit="image") as shown:
            for images, labels in self._given():
                found = images if isinstance(images, Images) else gather(images, self._explainer._sides, first)
                count = len(found)
                batch, pictures = self._explainer._load(found, 0, count, seen=self._seen)
                yield Batch(batch, pictures, _plain(labels, count, first), found.sources, first, found)
                first += count
                shown.update(count)
        if not first:
            raise InputError("There are no images: the data set or iterator is empty.")

    def _given(self) -> Iterator[tuple[Any, Any]]:
        """Chunks of images with their labels."""
        images, size = self._images, self._size or BATCH_SIZE
        if isinstance(images, DataLoader):
            for batch in images:
                yield from _cut(*_pair(batch), self._size)
            return
        if isinstance(images, Images):
            yield from ((images.part(start, start + size), None) for start in range(0, len(images), size))
            return
        items = map(_pair, _each(images))
        while chunk := list(islice(items, size)):
            labels = [label for _, label in chunk]
            yield [image for image, _ in chunk], None if all(label is None for label in labels) else labels


def _count(images: Any, source: Any) -> int | None:
    if isinstance(source, IterableDataset) or isinstance(images, Iterator):
        return None
    if isinstance(images, DataLoader):  # a sampler may take some of them only
        batches = len(images)
        return None if images.batch_size is None else min(batches * images.batch_size, len(source))
    return len(images) if hasattr(images, "__len__") else None


def _each(images: Any) -> Iterator[Any]:
    """The items of a sequence, iterator or data set."""
    if isinstance(images, Dataset) and not isinstance(images, IterableDataset):
        return (images[i] for i in range(len(images)))  # type: ignore[arg-type]
    return iter(images)


def _pair(item: Any) -> tuple[Any, Any]:
    """The image or images, and the label or labels if there are any, of one item or batch."""
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGE_KEYS if key in item), None)
        if image is None:
            raise InputTypeError(
                f"An item of the data set is a mapping with {', '.join(map(repr, item))}; expected one of "
                f"{', '.join(map(repr, _IMAGE_KEYS))}, and the label in {', '.join(map(repr, _LABEL_KEYS))}."
            )
        return image, next((item[key] for key in _LABEL_KEYS if key in item), None)
    if isinstance(item, list | tuple):
        if not item:
            raise InputTypeError("An item of the data set is empty; expected an image, or (image, label).")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _cut(images: Any, labels: Any, size: int | None) -> Iterator[tuple[Any, Any]]:
    """A loader's batch in chunks of `size`; None: as it is."""
    step = size or max(len(images), 1)
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        yield images[part], None if labels is None else labels[part]


def _plain(labels: Any, count: int, first: int) -> tuple[int | str, ...]:
    """Labels as integers or names."""
    if labels is None:
        return ()
    labels = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
    plain: list[Any] = [one.item() if isinstance(one, Tensor | np.generic) else one for one in labels]
    for i, label in enumerate(plain):
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise InputTypeError(
                f"The label of image {first + i} is {label!r}; expected the index or the name of a class."
            )
    if len(plain) != count:
        raise InputError(f"{len(plain)} labels for the {count} images from number {first} on: one is needed for each.")
    return tuple(plain)


def _in_folder(folder: Path) -> Sequence[Any]:
    """The photos in a folder; with the names of the folders that they lie in, where these are several."""
    from ..bulk import find_photos

    files = [str(photo.content) for photo in find_photos([str(folder)])]
    names = [Path(file).parent.name for file in files]
    return list(zip(files, names, strict=True)) if len(set(names)) > 1 else files


def as_labels(given: Any, streamed: Sequence[int | str], count: int) -> tuple[int | str, ...]:
    """The labels of all `count` images: those `given` to the function, else those that came with the images, if any.

    Raises:
        InputError: there are not as many as images.
    """
    if given is not None:
        return _plain(given, count, 0)
    if streamed and len(streamed) != count:
        raise InputError(f"{len(streamed)} of {count} images have a label: all or none must have one.")
    return tuple(streamed)
