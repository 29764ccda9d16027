"""Explain a whole data set into a store, from the start or from where an earlier run was stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import whole
from ..downloads import library
from ..errors import InputError
from .identity import check_same, identity
from .job import Job
from .records import INSTALL
from .store import Store, read_words
from .work import Answer
from .writing import Writer, begin, check_first, chunks_to_do, go_on, locked


def run(
    to: str | os.PathLike[str], *, chunk: int | None, pictures: bool, lasting: bool = True, **asked: Any
) -> tuple[Store, Job]:
    """The store at `to` with everything in it, and the job; `asked` is of `Job`. See `Explainer.run`.

    `lasting`: whether anybody may go on with it later.
    """
    path = Path(to)
    require_libraries()
    with locked(path):
        job, words, stored = prepared(path, chunk, pictures, asked, lasting=lasting)
        if stored is None:
            _from_the_start(path, job, words)
        elif todo := left_to_do(path, job, stored):
            writer = Writer(path, stored)
            for answer in job.answers(todo):
                writer.add(answer)
            writer.flush()
    return Store(path), job


def require_libraries() -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    for name in ("filelock", "pandas", "pyarrow", "zarr"):
        library(name, INSTALL)


def prepared(
    path: Path, chunk: int | None, pictures: bool, asked: dict[str, Any], *, lasting: bool = True
) -> tuple[Job, dict[str, Any], dict[str, Any] | None]:
    """The job that is `asked`, what it is in words, and those of the store that an equal one began, if any.

    Raises:
        StoreError: another run began the store.
    """
    if chunk is not None:
        whole(chunk, "chunk")
    stored = read_words(path) if (path / "zarr.json").exists() else None
    if stored:  # the same again, where nothing else is said
        asked = asked | {"batch_size": asked.get("batch_size") or stored["run"]["batch_size"]}
        chunk = chunk or stored["run"]["chunk"]
    job = Job(**asked)
    check_fit(job, chunk, lasting)
    words = identity(job, chunk, pictures)
    if stored:
        check_same(path, words, stored["run"])
    return job, words, stored


def check_fit(job: Job, chunk: int | None, lasting: bool) -> None:
    """Refuse what cannot be written into a store, or not gone on with.

    Raises:
        InputError: no method, chunks that are no whole batches, or images in another order each time.
    """
    if not job.methods:
        raise InputError(
            "run() keeps maps: name a method, as in method='grad_cam'. evaluate() makes predictions alone."
        )
    if chunk is not None and chunk % job.reader.batch_size:
        raise InputError(f"chunk={chunk} must be whole batches of {job.reader.batch_size} images.")
    if not job.reader.ordered and (lasting or job.reader.seekable):
        raise InputError("A run that can be gone on with needs the same images in the same order each time, and this "
                         "loader or iterator cannot give them: give the data set itself.")  # fmt: skip


def _from_the_start(path: Path, job: Job, words: Mapping[str, Any]) -> None:
    writer: Writer | None = None
    waiting = []
    for answer in job.answers():
        waiting.append(answer)
        if writer is None and answer.explanations:
            writer = Writer(path, first_words(path, job, words, answer))
        if writer:
            for one in waiting:
                writer.add(one)
            waiting = []
    if writer:
        writer.flush()


def left_to_do(path: Path, job: Job, stored: dict[str, Any]) -> list[tuple[int, int]]:
    """The ranges of images that a stopped run left undone, whose remains are removed.

    Raises:
        StoreError: the first images give other results now.
    """
    done, chunk = go_on(path), stored["chunk"]
    todo = chunks_to_do(job.reader.count, chunk, done)
    job.work.use(stored["layers"])
    if 0 in done:
        again = job.reader.batches([(0, min(chunk, job.reader.count or chunk))])
        first = next((one for one in map(job.work, again) if one.explanations), None)
        if first:
            check_first(path, first, stored)
        job.work.empty.clear()  # these images were counted before
    return todo


def first_words(path: Path, job: Job, words: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """Make the store, shaped as a first answer."""
    return begin(path, words, answer, job.methods, classes=list(job.classes.names), layers=list(job.work.layers))
