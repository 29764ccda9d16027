"""Judge a classifier over a data set, in one pass."""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import ExitStack
from typing import Any

from ..downloads import library
from .again import Again
from .answers import require_scores
from .evaluation import Evaluation
from .job import Job
from .records import INSTALL, records
from .run import run


def evaluate(*, to: str | os.PathLike[str] | None, **asked: Any) -> Evaluation:
    """The judgement; `asked` is of `Job`. See `Explainer.evaluate`."""
    library("pandas", INSTALL)
    asked["check"] = require_scores
    if asked["method"] is None or asked["method"] == () or asked["method"] == []:
        asked["method"] = ()
        return _predicted(Job(**asked, seen=False))
    return _explained(to, asked)


def _predicted(job: Job) -> Evaluation:
    answers = [answer.without_input() for answer in job.answers()]
    return Evaluation(records(answers), job.classes.names, model=_name(job), again=_again(job))


def _explained(to: str | os.PathLike[str] | None, asked: dict[str, Any]) -> Evaluation:
    with ExitStack() as stack:
        folder = to or stack.enter_context(tempfile.TemporaryDirectory(prefix="seewhy-"))
        store, job = run(folder, chunk=None, pictures=True, lasting=to is not None, **asked)
        found = Evaluation(store._records(), store.class_names, model=_name(job), store=store, again=_again(job))
        weakref.finalize(store, stack.pop_all().close)  # a temporary folder goes with its store
    return found


def _name(job: Job) -> str:
    return type(job.explainer._inner).__name__


def _again(job: Job) -> Again | None:
    return Again(job) if job.reader.seekable else None
