"""Writing a store: chunk by chunk, so that a run that was stopped at any moment goes on where it was."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..downloads import library
from ..errors import SeewhyError, StoreError
from ..methods import Method
from .layout import Kept, arrays_of, images_per_chunk, images_per_read
from .records import INSTALL, NUMBERS, records
from .store import FORMAT, RECORDS, open_array, read_records, read_words, records_file, written_chunks
from .work import Answer

LOCK = ".seewhy-run.lock"
_OURS = re.compile(rf"{re.escape(LOCK)}|zarr\.json|pictures|{RECORDS}|(values|maps)-\d+|.*\.partial")
SAME = 1e-4  # of the largest value, within which two runs gave the same


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep the store for this process alone; the system lets go of it however the process ends.

    Raises:
        StoreError: another run has it, the folder is something else, or cannot be written.
    """
    filelock: Any = library("filelock", INSTALL)
    with told(path):
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not _is_ours(path)):
            raise StoreError(
                f"{str(path)!r} exists and is no store of maps: give another folder, as in to='maps.zarr'."
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise StoreError(
                f"Another run is writing to {str(path)!r}: wait for it, or give another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _is_ours(path: Path) -> bool:
    """Whether it is a store, or what a run left that was stopped before its store was made, and nothing else."""
    with suppress(SeewhyError):
        return bool(read_words(path))
    return (path / LOCK).exists() and all(_OURS.fullmatch(entry.name) for entry in path.iterdir())


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except SeewhyError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"The store {str(path)!r} cannot be written: {reason}. What was written before stays "
                         "readable; the same run goes on with it.") from error  # fmt: skip


class Writer:
    """Writes answers into a store.

    Args:
        path: the folder, which is locked.
        words: of the store, as `begin` gave them or `read_words`.
    """

    def __init__(self, path: Path, words: Mapping[str, Any]) -> None:
        self._path, self._words = path, words
        self._kept = [Kept.from_words(one) for one in words["maps"]]
        self._chunk: int = words["chunk"]
        self._waiting: list[Answer] = []
        self._arrays: dict[str, Any] = {}

    def add(self, answer: Answer) -> None:
        """Take the next batch, and write its chunk once that is whole."""
        first, last = _numbers(answer)[[0, -1]] // self._chunk
        if first != last:
            raise StoreError("The data set's own batches differ in size, so that they do not fill chunks: give a data "
                             "set of single images.")  # fmt: skip
        if self._waiting and first != _numbers(self._waiting[0])[0] // self._chunk:
            self.flush()
        self._waiting.append(answer.without_input())
        if (_numbers(answer)[-1] + 1) % self._chunk == 0:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a chunk: the arrays first, then the records, which make it count."""
        if not self._waiting:
            return
        answers, self._waiting = self._waiting, []
        first, last = int(_numbers(answers[0])[0]), int(_numbers(answers[-1])[-1])
        chunk = first // self._chunk
        with told(self._path):
            for name, rows in self._rows(answers, chunk * self._chunk, last + 1).items():
                self._write(name, rows, chunk * self._chunk)
            found = records(answers)
            file = records_file(self._path, chunk)
            waiting = file.with_suffix(".partial")
            found.to_parquet(waiting, index=False)
            waiting.replace(file)

    def _rows(self, answers: list[Answer], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """The arrays of a chunk, 0 where an image could not be read."""
        rows: dict[str, NDArray[Any]] = {}
        for answer in answers:
            if not answer.explanations:
                continue
            for name, part in arrays_of(answer.explanations, self._kept, self._words["run"]["pictures"]).items():
                self._check(name, part)
                whole = rows.setdefault(name, np.zeros((stop - start, *part.shape[1:]), part.dtype))
                whole[answer.batch.numbers - start] = part
        return rows

    def _check(self, name: str, part: NDArray[Any]) -> None:
        expected = tuple(self._array(name).shape[1:])
        if part.shape[1:] != expected:
            raise StoreError(f"The {name.replace('-', ' ')} of an image are {part.shape[1:]}, and those before it "
                             f"{expected}: a store holds maps of one size.")  # fmt: skip

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            zarr: Any = library("zarr", INSTALL)
            self._arrays[name] = zarr.open_array(self._path / name, mode="r+")
        return self._arrays[name]

    def _write(self, name: str, rows: NDArray[Any], start: int) -> None:
        array = self._array(name)
        if array.shape[0] < start + len(rows):  # the data set did not say how long it is
            array.resize((start + len(rows), *rows.shape[1:]))
        array[start : start + len(rows)] = rows


def _numbers(answer: Answer) -> NDArray[np.int64]:
    """The numbers of all images of a batch, sorted."""
    missing = [one.number for one in answer.batch.skipped]
    return np.sort(np.concatenate([answer.batch.numbers, np.array(missing, np.int64)]))


def begin(
    path: Path, run: Mapping[str, Any], answer: Answer, methods: Sequence[Method], **words: Any
) -> dict[str, Any]:
    """Make an empty store in a locked folder, its arrays shaped as those of a first `answer` by `methods`.

    `run` is what makes the run the one that it is; `words` are noted besides. Returns all that is noted.
    """
    zarr: Any = library("zarr", INSTALL)
    by_name = {method.label: method for method in methods}
    kept = [Kept.of(one, by_name[one.method], answer.padded) for one in answer.explanations]
    arrays = arrays_of(answer.explanations, kept, run["pictures"])
    images = run["chunk"] or images_per_chunk(arrays, answer.batch.input, run["batch_size"])
    words |= {
        "format": FORMAT,
        "run": run,
        "maps": [one.words for one in kept],
        "size": list(answer.explanations[0].maps.shape[1:]),
        "picture": list(answer.explanations[0].images.shape[1:]),
        "chunk": images,
    }
    with told(path):
        _empty(path)
        for name, array in arrays.items():
            shape = (run["data"]["count"] or 0, *array.shape[1:])
            inner = (images_per_read(array, images), *array.shape[1:])
            zarr.create_array(
                path / name, shape=shape, dtype=array.dtype, shards=(images, *array.shape[1:]), chunks=inner
            )
        (path / RECORDS).mkdir()
        zarr.create_group(path, attributes={"seewhy": words})  # last: only now it is a store
    return words


def _empty(path: Path) -> None:
    """Remove what a run left that was stopped before its store was made."""
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def go_on(path: Path) -> list[int]:
    """Remove what a stopped run left half done; returns the numbers of the chunks that are whole."""
    with told(path):
        for left in path.rglob("*.partial"):
            left.unlink()
        done = written_chunks(path)
        for array in (entry for entry in path.iterdir() if (entry / "zarr.json").is_file()):
            for chunk in (array / "c").glob("*"):
                if int(chunk.name) not in done:
                    shutil.rmtree(chunk) if chunk.is_dir() else chunk.unlink()
    return done


def check_first(path: Path, answer: Answer, words: Mapping[str, Any]) -> None:
    """Refuse to go on where the first images give other results than those in the store.

    Raises:
        StoreError: something changed that no digest tells: a method's code, what the model computes, a transform.
    """
    kept = [Kept.from_words(one) for one in words["maps"]]
    numbers = answer.batch.numbers
    found = arrays_of(answer.explanations, kept, words["run"]["pictures"])
    stored = {name: open_array(path / name)[: int(numbers[-1]) + 1][numbers] for name in found}
    rows, before = records([answer.without_skipped()]), read_records(path, 0).set_index("number").loc[numbers]
    found |= {name: rows[name].to_numpy() for name in NUMBERS}
    stored |= {name: before[name].to_numpy() for name in NUMBERS}
    other = [name.replace("-", " ") for name in found if not _close(stored[name], found[name])]
    if other:
        raise StoreError(
            f"The store {str(path)!r} cannot be gone on with: the first images now give other results "
            f"({', '.join(other)}). The model, a method's code, the transform or the data changed, or one of them is "
            "random. Write to another folder."
        )


def _close(stored: NDArray[Any], part: NDArray[Any]) -> bool:
    """Whether they are equal to rounding, which the number of threads may change."""
    most = float(np.abs(np.nan_to_num(stored)).max(initial=0))
    how: Any = {"rtol": SAME, "atol": SAME * most, "equal_nan": True}
    return stored.shape == part.shape and bool(np.allclose(stored, part, **how))


def chunks_to_do(count: int | None, chunk: int, done: list[int]) -> list[tuple[int, int]]:
    """The ranges of numbers whose chunks are not done; without an end where that is not known."""
    end = sys.maxsize if count is None else count
    ranges, start = [], 0
    for k in done:
        ranges.append((start, k * chunk))
        start = (k + 1) * chunk
    return [(first, stop) for first, stop in [*ranges, (start, end)] if first < stop]
