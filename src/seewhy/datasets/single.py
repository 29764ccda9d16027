"""One image of a data set: read and transformed, or why it could not be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..images import Images, gather
from ..inside.items import Columns, pair
from .damage import is_broken
from .sources import source_of

if TYPE_CHECKING:
    from ..preprocessing import Preprocessing


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read.

    Attributes:
        number: its place in the data set, from 0.
        source: its file; None for what was none.
        reason: why, in the words of what tried to read it.
    """

    number: int
    source: str | None
    reason: str


@dataclass(frozen=True)
class One:
    """An image as the model takes it, its picture if that is wanted, and what the data set says of it."""

    number: int
    input: Tensor
    picture: NDArray[np.uint8] | None
    label: Any
    source: str | None


@dataclass(frozen=True)
class How:
    """How an image is read; goes to the workers of a loader."""

    preprocessing: Preprocessing
    sides: int
    columns: Columns
    strict: bool
    seen: bool
    labels: Sequence[Any] | None = None  # given beside the data set

    def item(self, number: int, item: Any, source: str | None) -> One | Skipped:
        """The image of an item of the data set, or why there is none."""
        return self.image(number, *pair(item, self.columns), source)

    def image(self, number: int, image: Any, label: Any, source: str | None) -> One | Skipped:
        """The image, or why there is none."""
        source = os.fsdecode(image) if isinstance(image, str | os.PathLike) else source
        try:
            images = image if isinstance(image, Images) else gather(image, self.sides, number)
            if len(images) != 1:
                raise InputError(f"Item {number} of the data set holds {len(images)} images; expected one in each.")
            batch, pictures = images.load(0, 1, self.preprocessing, seen=self.seen)
        except Exception as error:
            return self.broken(number, source, error)
        label = label if self.labels is None else self.labels[number]
        return One(number, batch[0], pictures[0] if self.seen else None, label, source)

    def broken(self, number: int, source: str | None, error: Exception) -> Skipped:
        """What is noted of an error in reading; raises it where that is no fault of the file."""
        if self.strict or not is_broken(error):
            error.add_note(f"seewhy: image {number} of the data set{f' ({source!r})' if source else ''}")
            raise error
        return Skipped(number, source, f"{error}" or type(error).__name__)


class Loaded(Dataset[Any]):
    """The images of a data set by number, each read and transformed, or the reason why not."""

    def __init__(self, data: Any, how: How) -> None:
        self._data, self._how = data, how

    def __getitem__(self, number: int) -> One | Skipped:
        source = source_of(self._data, number)
        try:
            item = self._data.part(number, number + 1) if isinstance(self._data, Images) else self._data[number]
        except Exception as error:
            return self._how.broken(number, source, error)
        return self._how.item(number, item, source)
