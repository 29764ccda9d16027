"""Maps of a whole data set on disk: a Zarr group that is read image by image."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ..downloads import library
from ..errors import ImageIndexError, ImageNotFoundError, InputTypeError, StoreError
from ..explanation import Explanation
from ..explanations import Explanations
from .layout import Kept
from .records import INSTALL, WORDS
from .single import Skipped

if TYPE_CHECKING:
    import pandas as pd

    from .evaluation import Evaluation

FORMAT = "seewhy.maps/1"
RECORDS = "predictions"
GREY = 128


class Store:
    """The maps that `Explainer.run` wrote: a sequence over the images that could be read, in the data set's order.

    Only what is asked for is read from disk, also while a run goes on writing (then it has what was there when it was
    opened). `store[3]` is an `Explanations` of one image, a slice or a list of numbers one of several.

    Attributes:
        path: the folder.
        class_names: what the network's classes are called.
        count: how many images the data set has; None where it does not say.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._words = read_words(self.path)
        self._kept = [Kept.from_words(one) for one in self._words["maps"]]
        self._size = tuple(self._words["size"])
        self._chunk: int = self._words["chunk"]
        self._chunks = written_chunks(self.path)
        self.class_names: tuple[str, ...] = tuple(self._words["classes"])
        self.count: int | None = self._words["run"]["data"]["count"]

    def __repr__(self) -> str:
        kept = ", ".join(f"{one.method} at {one.layer}" if one.layer else one.method for one in self._kept)
        of = f" of {self.count:,}" if self.count is not None and not self.complete else ""
        return f"Store({str(self.path)!r}, {len(self):,} images{of}: {kept})"

    @functools.cached_property
    def _listed(self) -> pd.DataFrame:
        """Number and reason of all images that were tried."""
        return self._records(["number", "skipped"])

    def _records(self, columns: list[str] | None = None) -> pd.DataFrame:
        pd: Any = library("pandas", INSTALL)
        parts = [read_records(self.path, chunk, columns) for chunk in self._chunks]
        found: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return found

    @functools.cached_property
    def numbers(self) -> NDArray[np.int64]:
        """Each image's place in the data set, ``(N,)``."""
        listed = self._listed
        return np.asarray(listed["number"][listed["skipped"].isna()], np.int64)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The images that could not be read."""
        missing = self._records(["number", "path", "skipped"]).dropna(subset="skipped")
        return tuple(
            Skipped(int(n), p, r) for n, p, r in missing[["number", "path", "skipped"]].itertuples(index=False)
        )

    @property
    def complete(self) -> bool:
        """Whether every image of the data set was tried; False where it does not say how many it has."""
        return self.count is not None and len(self._listed) == self.count

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Explanations]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Explanations: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int]) -> Explanations: ...

    def __getitem__(self, index: Any) -> Explanations:
        """The explanations of one image, or of those of a slice or list of numbers."""
        if isinstance(index, slice):
            return self._explanations(list(range(len(self))[index]))
        several = isinstance(index, list | tuple | np.ndarray)
        return self._explanations([self._checked(one) for one in (index if several else [index])])

    def _checked(self, index: Any) -> int:
        try:
            i = operator.index(index)
        except TypeError:
            raise InputTypeError(f"a store is indexed by numbers of images or a slice, got {index!r}") from None
        if not -len(self) <= i < len(self):
            raise ImageIndexError(f"image {i} of a store of {len(self)}")
        return i % len(self)

    def _explanations(self, indices: list[int]) -> Explanations:
        if not indices:
            raise ImageIndexError(f"no image is asked for; there are {len(self)}")
        numbers = self.numbers[indices]
        rows, pictures = self._rows(numbers), self._pictures(numbers)
        return Explanations(self._explanation(i, kept, numbers, rows, pictures) for i, kept in enumerate(self._kept))

    def _rows(self, numbers: NDArray[np.int64]) -> pd.DataFrame:
        pd: Any = library("pandas", INSTALL)
        by_chunk = {int(chunk): _of_chunk(self.path, int(chunk)) for chunk in set(numbers // self._chunk)}
        found: pd.DataFrame = pd.concat([by_chunk[n // self._chunk].loc[[n]] for n in numbers])
        return found

    def _explanation(
        self, i: int, kept: Kept, numbers: NDArray[np.int64], rows: pd.DataFrame, pictures: NDArray[np.uint8]
    ) -> Explanation:
        count = len(numbers)
        values = self._array(f"values-{i}", numbers)
        maps = self._array(f"maps-{i}", numbers) if kept.rule == "stored" else kept.maps(values, self._size)
        nan = np.full(count, np.nan, np.float32)
        labels = rows["label"].to_numpy()
        known = bool((labels >= 0).all())
        return Explanation(
            values=values,
            maps=maps,
            images=pictures,
            targets=rows["target"].to_numpy() if kept.scored else np.full(count, -1),
            target_names=tuple(name or "" for name in rows["target_name"]) if kept.scored else ("",) * count,
            scores=rows["target_score"].to_numpy() if kept.scored else nan,
            probabilities=rows["target_probability"].to_numpy() if kept.scored else nan,
            method=kept.method,
            layer=kept.layer,
            truth=tuple(self.class_names[label] for label in labels) if known else None,
            sources=tuple(rows["path"]),
            signed=kept.signed,
            provenance=kept.provenance,
        )

    def _array(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        array = open_array(self.path / name)
        low, high = int(numbers[0]), int(numbers[-1]) + 1
        if len(numbers) == high - low and (np.diff(numbers) == 1).all():
            return np.asarray(array[low:high])
        return np.stack([np.asarray(array[int(number)]) for number in numbers])

    def _pictures(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self._words["run"]["pictures"]:
            found = self._array("pictures", numbers)
        else:
            found = np.full((len(numbers), *self._words["picture"]), GREY, np.uint8)
        found.setflags(write=False)  # so that all explanations share it
        return found

    @property
    def predictions(self) -> pd.DataFrame:
        """What the network said of each image, as `Evaluation.predictions`."""
        from .evaluation import predictions, told_apart

        return predictions(self._records(), told_apart(self.class_names))

    def evaluation(self) -> Evaluation:
        """The judgement over all images in the store, with their maps."""
        from .evaluation import Evaluation

        return Evaluation(self._records(), self.class_names, model=self._words["run"]["model"]["class"], store=self)


Sequence.register(Store)


def open_store(path: str | os.PathLike[str]) -> Store:
    """The store that `Explainer.run` wrote to the folder `path`; nothing of the maps is read yet.

    Raises:
        ImageNotFoundError: there is nothing there.
        StoreError: it is no store, or damaged.
        MissingDependencyError: Zarr, pandas or PyArrow is not installed.
    """
    return Store(path)


def read_words(path: Path) -> dict[str, Any]:
    """What was noted of the run that began the store."""
    zarr: Any = library("zarr", INSTALL)
    if not path.exists():
        raise ImageNotFoundError(f"There is no store at {str(path)!r}.")
    try:
        words: dict[str, Any] = dict(zarr.open_group(path, mode="r").attrs["seewhy"])
    except (KeyError, FileNotFoundError, ValueError, TypeError, NotADirectoryError) as error:
        raise StoreError(f"{str(path)!r} is no store of maps, or one that was just begun.") from error
    if words.get("format") != FORMAT:
        raise StoreError(f"{str(path)!r} is a store of another version ({words.get('format')!r}, not {FORMAT!r}).")
    return words


def open_array(path: Path) -> Any:
    """The Zarr array in the folder, to be read."""
    zarr: Any = library("zarr", INSTALL)
    try:
        return zarr.open_array(path, mode="r")
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(f"The array {str(path)!r} of a store is missing or damaged: {error}.") from error


def records_file(path: Path, chunk: int) -> Path:
    """Where the records of a chunk are; they are written last, so that a chunk with them is whole."""
    return path / RECORDS / f"{chunk:08d}.parquet"


def written_chunks(path: Path) -> list[int]:
    """The numbers of the chunks that are whole."""
    return sorted(int(file.stem) for file in (path / RECORDS).glob("*.parquet") if file.stem.isdigit())


def read_records(path: Path, chunk: int, columns: list[str] | None = None) -> pd.DataFrame:
    """The records of a chunk."""
    pd: Any = library("pandas", INSTALL)
    library("pyarrow", INSTALL)
    try:
        found: pd.DataFrame = pd.read_parquet(records_file(path, chunk), columns=columns)
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(records_file(path, chunk))!r} is damaged: {error}.") from error
    words = {name: found[name].astype(object).where(found[name].notna(), None) for name in WORDS if name in found}
    return found.assign(**words)  # None again, which pandas reads as NaN


def _of_chunk(path: Path, chunk: int) -> pd.DataFrame:
    """The records of a chunk, by number; read again where another store has taken the place of the one read before."""
    file = records_file(path, chunk)
    written = file.stat() if file.exists() else None
    return _cached_records(path, chunk, written and (written.st_mtime_ns, written.st_ino))


@functools.lru_cache(8)
def _cached_records(path: Path, chunk: int, written: Any) -> pd.DataFrame:
    del written
    return read_records(path, chunk).set_index("number", drop=False)
