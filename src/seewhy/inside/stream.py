"""Many images, batch by batch: whatever `explain` takes, and data sets, loaders, generators and folders besides."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from .items import LABEL_KEYS, chunks, plain

if TYPE_CHECKING:
    from ..explainer import Explainer

_IMAGES = (str, bytes, os.PathLike, np.ndarray, Tensor, Mapping, io.IOBase)  # can be iterated, but are no collections


@dataclass(frozen=True)
class Batch:
    """Some of the images, in order.

    Attributes:
        input: the model's input ``(n, C, H, W)``, where the model is.
        pictures: what the model sees, uint8 ``(n, H, W, 3)``; none unless wanted.
        labels: index or name of each image's true class; empty where nothing says it.
        sources: each image's file; None for what was none.
        first: the number of the first image.
    """

    input: Tensor
    pictures: NDArray[np.uint8]
    labels: tuple[int | str, ...]
    sources: tuple[str | None, ...]
    first: int


class Stream:
    """Images to look at, a batch at a time; iterating loads them, and keeps none.

    Args:
        explainer: whose transform and model the images are for.
        images: what `explain` takes, a `DataLoader`, a `Dataset`, a folder of photos (searched to its depths; where it
            has several folders their names are the labels), or anything to be iterated. Items and batches may be
            pairs ``(image, label)`` or mappings with ``"image"`` and ``"label"``, and an item several images.
        batch_size: images per pass; None: 16, of a loader its own.
        progress: whether to show a progress bar. None: where it takes more than 2 s, on a terminal or in a notebook.
        doing: what the bar says.
        seen: whether the pictures of what the model sees are wanted; else there are none.
        labelled: whether labels are wanted; else they are passed by, whatever they are.

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
        labelled: bool = True,
    ) -> None:
        self._seen, self._labelled = seen, labelled
        self._explainer, self._progress, self._doing = explainer, progress, doing
        self._size = None if batch_size is None else whole(batch_size, "batch_size")
        if isinstance(images, str | os.PathLike) and Path(images).is_dir():
            images = folder_items(Path(images))
        if isinstance(images, _IMAGES) or not isinstance(images, Iterable | Dataset):
            images = gather(images, explainer._sides)
        self._images = images
        source = images.dataset if isinstance(images, DataLoader) else images
        self.classes = class_names_of(source)
        self.count = _count(images, source)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, first in self.gathered():
            batch, pictures = self._explainer._load(images, 0, len(images), seen=self._seen)
            known = () if labels is None else plain(labels, len(images), first)
            yield Batch(batch, pictures, known, images.sources, first)

    def gathered(self) -> Iterator[tuple[Images, Any, int]]:
        """The images before any transform, chunk by chunk, with their labels and the number of the first."""
        first = 0
        with bar(self._progress, self.count, doing=self._doing, unit="image") as shown:
            for images, labels in self.given():
                found = images if isinstance(images, Images) else gather(images, self._explainer._sides, first)
                yield found, labels, first
                first += len(found)
                shown.update(len(found))
        if not first:
            raise InputError("There are no images: the data set or iterator is empty.")

    def given(self) -> Iterator[tuple[Any, Any]]:
        """Chunks of images with their labels."""
        images, usual, sides = self._images, self._size or BATCH_SIZE, self._explainer._sides
        if isinstance(images, Images):
            return ((images.part(start, start + usual), None) for start in range(0, len(images), usual))
        batched = isinstance(images, DataLoader) and (images.batch_size or images.batch_sampler) is not None
        size = self._size if batched else usual
        return chunks(_each(images), size, sides, batched=batched, labelled=self._labelled)


def class_names_of(source: Any, label: str | None = None) -> tuple[str, ...]:
    """The class names that a data set knows, or the one that it is a part of; `label`: the column of labels."""
    while not hasattr(source, "classes") and hasattr(source, "dataset"):
        source = source.dataset
    if not hasattr(source, "classes") and hasattr(source, "datasets"):  # one after another: where all agree
        found = set(map(class_names_of, source.datasets))
        return found.pop() if len(found) == 1 else ()
    classes = getattr(source, "classes", None)
    if classes is None and isinstance(features := getattr(source, "features", None), Mapping):  # of Hugging Face
        columns = (features[key] for key in (label, *LABEL_KEYS) if key in features)
        classes = next((column.names for column in columns if hasattr(column, "names")), None)
    if not isinstance(classes, list | tuple | np.ndarray):
        return ()
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in classes)  # ImageNet's synonyms


def _count(images: Any, source: Any) -> int | None:
    if isinstance(source, IterableDataset) or not hasattr(images, "__len__"):
        return None
    if isinstance(images, DataLoader):  # a sampler may take some of them only
        most = len(source) if hasattr(source, "__len__") else math.inf
        return None if images.batch_size is None else int(min(len(images) * images.batch_size, most))
    return len(images)


def _each(images: Any) -> Iterator[Any]:
    """The items of a sequence, iterator or data set, the batches of a loader."""
    if isinstance(images, Dataset) and not isinstance(images, IterableDataset):
        if not hasattr(images, "__len__"):
            raise InputTypeError(
                f"The data set {type(images).__name__} has no length: give it a __len__, or wrap it in a DataLoader "
                "with a sampler."
            )
        return (images[i] for i in range(len(images)))
    return iter(images)


def folder_items(folder: Path) -> Sequence[Any]:
    """The photos in a folder; with the names of the folders that they lie in, where it has no photos of its own."""
    from ..bulk import find_photos

    for link in folder.iterdir():
        if link.is_symlink() and link.is_dir() and not folder.resolve().is_relative_to(link.resolve()):
            raise InputError(
                f"{str(link)!r} is a link to a folder, and such are not followed: give a list of pairs (path, label)."
            )
    files = [str(photo.content) for photo in find_photos([str(folder)])]
    if any(Path(file).parent == folder for file in files):
        return files
    return [(file, Path(file).parent.name) for file in files]


def as_labels(given: Any, streamed: Sequence[int | str], count: int) -> tuple[int | str, ...]:
    """The labels of all `count` images: those `given` to the function, else those that came with the images, if any.

    Raises:
        InputTypeError: they are no list, or one is neither an index nor a name.
        InputError: there are not as many as images.
    """
    if given is not None:
        return plain(given, count, 0)
    if streamed and len(streamed) != count:
        raise InputError(f"{len(streamed)} of {count} images have a label: all or none must have one.")
    return tuple(streamed)
