"""Data sets, read image by image: what cannot be read is passed by and listed."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, default_collate

from ..arguments import BATCH_SIZE, whole
from ..errors import InputError, InputTypeError, MissingImagesError
from ..images import Images, gather
from ..inside.items import Columns, pair, scalar
from ..inside.stream import Stream, class_names_of, folder_items
from .loaders import WORKING, as_before, generators_of, is_shuffled, loader_count, order_of
from .single import How, Loaded, One, Skipped

if TYPE_CHECKING:
    from ..explainer import Explainer

_NOT_SEVERAL = (str, bytes, os.PathLike, Tensor, np.ndarray, Mapping)
PATIENCE = 100  # images none of which can be read, before it is said to be hopeless


@dataclass(frozen=True)
class Batch:
    """Some images of a data set, as the model takes them.

    Attributes:
        numbers: int64 ``(n,)``, each image's place in the data set, from 0.
        input: ``(n, C, H, W)``, on the CPU or where the data set's own tensors are.
        pictures: what the model sees, uint8 ``(n, H, W, 3)``; none unless wanted.
        labels: of each image as the data set gives it, None where it gives none.
        sources: each image's file; None for what was none.
        skipped: those among them that could not be read.
    """

    numbers: NDArray[np.int64]
    input: Tensor
    pictures: NDArray[np.uint8]
    labels: tuple[Any, ...]
    sources: tuple[str | None, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)


class _Pairs(IterableDataset[Any]):
    """Image and label of each mapping, by the names of their columns; a new iteration each time."""

    def __init__(self, data: Any, columns: Columns) -> None:
        self.dataset, self._columns = data, columns

    def __iter__(self) -> Iterator[Any]:
        return (pair(item, self._columns) for item in self.dataset)


class Reader:
    """Reads a data set in batches.

    Args:
        explainer: whose transform and model the images are for.
        data: a folder of photos (searched to its depths; the names of several folders are the labels), a list of
            paths or images, pairs ``(image, label)`` or mappings, an array or tensor of images, a torch `Dataset`, a
            `DataLoader`, a Hugging Face `datasets.Dataset`, or anything to be iterated.
        columns: the names of image and label in the mappings that the data set gives; None: the usual ones.
        batch_size: images per pass; None: 16, of a loader its own.
        workers: processes that read and transform; 0: this one. A loader has its own.
        strict: whether an image that cannot be read is an error.
        seen: whether the pictures of what the model sees are wanted.
        labels: of each image, instead of those that the data set gives.

    Attributes:
        classes: the names of the classes that labels are indices of, where the data set knows them; else empty.
        folders: the names of the folders that are the labels, sorted; empty where there are none.
        count: how many images there are; None where only the end will tell.
        batch_size: images per pass.
        seekable: whether images can be read again by their number.
        ordered: whether each iteration gives the same images in the same order; a loader that shuffles is read in the
            order of its data set.
        data: the data set, or what is iterated.
        arrays: those that the data set is known to hold, in memory.
    """

    def __init__(
        self,
        explainer: Explainer,
        data: Any,
        *,
        columns: Columns = None,
        batch_size: int | None = None,
        workers: int = 0,
        strict: bool = False,
        seen: bool = True,
        labels: Sequence[Any] | None = None,
    ) -> None:
        self._explainer, self._workers = explainer, workers
        self._how = How(explainer._preprocessing, explainer._sides, columns, strict, seen, labels)
        self._loader: DataLoader[Any] | None = None
        self._generators = generators_of(data)
        self.ordered = True
        data = _listed(data)
        if isinstance(data, DataLoader):
            data = self._of_loader(data, batch_size)
        self.folders: tuple[str, ...] = ()
        if isinstance(data, str | os.PathLike) and Path(data).is_dir():
            data = folder_items(Path(data))
            self.folders = tuple(sorted({label for _, label in data} if isinstance(data[0], tuple) else ()))
        held = (data, getattr(data, "data", None), *getattr(data, "tensors", ()))
        self.arrays = tuple(array for array in held if isinstance(array, Tensor | np.ndarray))
        if isinstance(data, Images | Tensor | np.ndarray | str | os.PathLike | PIL.Image.Image):
            data = gather(data, explainer._sides)
        size = None if batch_size is None else whole(batch_size, "batch_size")
        own = self._loader.batch_size if self._loader is not None else getattr(data, "batch_size", None)
        self.batch_size: int = size or (own if isinstance(own, int) else None) or BATCH_SIZE
        self.data, self.seekable = data, _has_numbers(data)
        self._stream = None if self.seekable else self._of_iterable(data, size)
        self.classes = self._stream.classes if self._stream else class_names_of(data, columns[1] if columns else None)
        self.count = self._stream.count if self._stream else self._count()
        self._shape: tuple[tuple[int, ...], str] | None = None
        if self.count == 0:
            raise InputError("There are no images: the data set is empty.")
        if labels is not None:
            self._check_labels(labels)

    def _check_labels(self, labels: Sequence[Any]) -> None:
        """Refuse labels beside the data set that are not one for each image, or of whose classes nothing says which."""
        if self.seekable and len(labels) != len(self.data):
            raise _uneven(len(labels), len(self.data))
        names = self._explainer._names
        other = [i for i, name in enumerate(self.classes) if name != names.get(i)] if names else []
        if other and any(isinstance(scalar(label), int) for label in labels):
            raise InputError(
                f"labels= are indices, and the data set calls its classes otherwise than the network: {other[0]} is "
                f"{self.classes[other[0]]!r}, and {names.get(other[0])!r}. Give names of the network's classes."
            )

    def _of_loader(self, loader: DataLoader[Any], batch_size: int | None) -> Any:
        """The data set behind a loader that only cuts it into batches; another loader as it is."""
        stream = isinstance(loader.dataset, IterableDataset)
        self.ordered = loader.batch_size is not None and (stream or isinstance(loader.sampler, SequentialSampler))
        plain = loader.collate_fn is default_collate and loader.batch_sampler is not None
        if stream or not (plain and _has_numbers(loader.dataset)):
            if batch_size is not None:
                raise InputError("This loader makes its own batches: leave batch_size out, or give its data set.")
            return loader
        self._loader, self.ordered = loader, self.ordered or is_shuffled(loader)
        return loader.dataset

    def _of_iterable(self, data: Any, size: int | None) -> Stream:
        if isinstance(data, Mapping):
            raise InputTypeError(f"A {type(data).__name__} is no data set: give one of its values, of "
                                 f"{', '.join(map(repr, islice(data, 5)))}.")  # fmt: skip
        if not isinstance(data, Iterable | Dataset):
            raise InputTypeError(
                f"A data set is a folder, a list of images, a Dataset or DataLoader, or can be iterated; "
                f"{type(data).__name__} is none of these."
            )
        if isinstance(data, Iterator):
            self.ordered = False
        if columns := self._how.columns:
            if isinstance(data, DataLoader):
                raise InputError("columns= names those of a data set; this loader makes batches of its own form.")
            data = _Pairs(data, columns)
        return Stream(self._explainer, data, batch_size=size, progress=False, labelled=self._how.labels is None)

    def _count(self) -> int | None:
        if self._loader is None:
            return len(self.data)
        count = loader_count(self._loader)
        return None if count is None else count - count % self.batch_size if self._loader.drop_last else count

    def batches(self, numbers: Iterable[tuple[int, int]] | None = None) -> Iterator[Batch]:
        """The images in batches of `batch_size`, some of which may be passed by.

        `numbers`: pairs of the first number of a range and the one after its last, each in batches of its own; None:
        all of them. Random states are used as the data set uses them.

        Raises:
            InputError: images of different sizes, or, where all are asked for, none of the first 100 can be read.
        """
        tried, read = 0, 0
        first: Skipped | None = None
        for batch in self._read(numbers):
            tried, read = tried + len(batch) + len(batch.skipped), read + len(batch)
            first = first or next(iter(batch.skipped), None)
            if numbers is None and first and not read and tried >= PATIENCE:
                break
            yield batch
        if numbers is None and first and not read:
            where = f" ({first.source!r})" if first.source else ""
            raise MissingImagesError(f"None of the first {tried} images can be read. Image {first.number}{where}: "
                                     f"{first.reason}")  # fmt: skip
        if not tried and numbers is None:
            raise InputError("There are no images: the data set or iterator is empty.")

    def _read(self, numbers: Iterable[tuple[int, int]] | None) -> Iterator[Batch]:
        with as_before(self._generators):
            yield from self._from_stream(numbers) if self._stream else self._by_number(numbers)

    @property
    def loaded(self) -> Loaded:
        """The images by number, as other processes can read them."""
        return Loaded(self.data, self._how)

    def showing(self) -> Reader:
        """The same, with pictures of what the model sees."""
        other = copy.copy(self)
        other._how = replace(self._how, seen=True)
        return other

    def some(self, numbers: Sequence[int]) -> Batch:
        """The images of these numbers, in this order.

        Raises:
            InputError: the data set can only be read from its beginning.
        """
        if not self.seekable:
            raise InputError("The data set can only be read once through, so images cannot be looked up in it again: "
                             "give a Dataset or a list, or keep the maps with method=.")  # fmt: skip
        loaded = self.loaded
        return self.batch([loaded[int(number)] for number in numbers])

    def _by_number(self, numbers: Iterable[tuple[int, int]] | None) -> Iterator[Batch]:
        for found in DataLoader(
            self.loaded,
            batch_sampler=self._sampler(numbers),
            collate_fn=_as_it_is,
            generator=torch.Generator().manual_seed(0) if self._loader is None else self._loader.generator,
            **self._settings(),
        ):
            yield self.batch(found)

    def _sampler(self, numbers: Iterable[tuple[int, int]] | None) -> list[Any]:
        """The numbers of each batch; in order, but for a loader that takes some of the images only."""
        size = self.batch_size
        if self._loader is not None and not self.ordered:
            order = order_of(self._loader, self.count, self.batch_size)
            return [order[i : i + size] for i in range(0, len(order), size)]
        ranges = [(0, self.count or 0)] if numbers is None else numbers
        return [range(start, min(start + size, stop)) for first, stop in ranges for start in range(first, stop, size)]

    def _settings(self) -> dict[str, Any]:
        """Of the loader, for reading in several processes."""
        if self._loader is None:
            return {"num_workers": self._workers}
        return {name: getattr(self._loader, name) for name in WORKING}

    def _from_stream(self, numbers: Iterable[tuple[int, int]] | None) -> Iterator[Batch]:
        assert self._stream is not None
        wanted, first, beside = None if numbers is None else list(numbers), 0, self._how.labels
        for images, labels in _noted(self._stream.given()):
            count = len(images)
            known = [None] * count if labels is None else list(labels)
            if len(known) != count:
                raise InputError(
                    f"{len(known)} labels for the {count} images from number {first} on: one is needed for each."
                )
            if beside is not None and len(beside) < first + count:
                raise _uneven(len(beside), first + count, "or more")
            if wanted is None or any(start <= first < stop for start, stop in wanted):
                single = images if isinstance(images, list | tuple) else [images[i : i + 1] for i in range(count)]
                ones = zip(single, known, strict=True)
                yield self.batch([self._how.image(first + i, *one, None) for i, one in enumerate(ones)])
            first += count
        if beside is not None and len(beside) != first:
            raise _uneven(len(beside), first)

    def batch(self, found: Sequence[One | Skipped]) -> Batch:
        """Images, and what could not be read, as one batch.

        Raises:
            InputError: images are of different sizes.
        """
        ones = [one for one in found if isinstance(one, One)]
        for one in ones:
            shape, name = tuple(one.input.shape), f"image {one.number}{f' ({one.source!r})' if one.source else ''}"
            known, first = self._shape = self._shape or (shape, name)
            if shape != known:
                raise InputError(
                    f"The images differ in size (C, H, W) after the transform: {known} ({first}), {shape} ({name}). "
                    "Pass a transform that makes them equal."
                )
        return Batch(
            np.array([one.number for one in ones], np.int64),
            torch.stack([one.input for one in ones]) if ones else torch.zeros(0),
            _stacked([one.picture for one in ones if one.picture is not None]),
            tuple(one.label for one in ones),
            tuple(one.source for one in ones),
            tuple(one for one in found if isinstance(one, Skipped)),
        )


def _has_numbers(data: Any) -> bool:
    """Whether images can be asked for by their number."""
    if isinstance(data, Images):
        return True
    if isinstance(data, (*_NOT_SEVERAL, IterableDataset, DataLoader)):
        return False
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _listed(data: Any) -> Any:
    """Tables of pandas as a list of mappings, their columns and arrays of paths as a list; all else as it is."""
    if hasattr(data, "iloc"):  # not by number: a table's are names, in any order
        return data.to_dict("records") if data.ndim == 2 else data.to_list()
    return data.tolist() if isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "UO" else data


def _noted(given: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The same; an error in them says where."""
    count = 0
    try:
        for images, labels in given:
            yield images, labels
            count += len(images)
    except Exception as error:
        error.add_note(f"seewhy: from image {count} of the data set on. What is iterated cannot be gone on with after "
                       "an error; of a Dataset with a length, or a list of paths, the image is passed by.")  # fmt: skip
        raise


def _uneven(labels: int, images: int, more: str = "") -> InputError:
    return InputError(f"{labels} labels for {images}{more and f' {more}'} images: one is needed for each.")


def _as_it_is(found: Any) -> Any:
    return found


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack(pictures) if pictures else np.zeros((0, 0, 0, 3), np.uint8)
