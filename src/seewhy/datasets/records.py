"""What is known of each image of a data set, as a row of a table; also of those that could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..downloads import library
from .work import Answer

if TYPE_CHECKING:
    import pandas as pd

INSTALL = '"seewhy[datasets]"'
_WHOLE = ("number", "label", "prediction", "label_rank", "target")
_REAL = ("probability", "score", "label_probability", "target_score", "target_probability")
NUMBERS = (*_WHOLE[1:], *_REAL)  # all but the image's own
WORDS = ("path", "target_name", "skipped")
COLUMNS = ("number", "path", "label", "prediction", "probability", "score", "label_probability", "label_rank",
           "target", "target_name", "target_score", "target_probability", "skipped")  # fmt: skip


def records(answers: Iterable[Answer]) -> pd.DataFrame:
    """The rows of these answers, by their images' numbers.

    Indices are -1 and other numbers NaN where there is nothing; `skipped` says why an image could not be read, and is
    None for all others.
    """
    parts = [part for answer in answers for part in (_read(answer), _skipped(answer)) if len(part["number"])]
    return table({name: [value for part in parts for value in part[name]] for name in COLUMNS})


def table(columns: dict[str, Sequence[Any]]) -> pd.DataFrame:
    """The columns as a table, each of its own type, by the images' numbers."""
    pd: Any = library("pandas", INSTALL)
    typed = {name: np.array(columns[name], np.int64) for name in _WHOLE}
    typed |= {name: np.array(columns[name], np.float32) for name in _REAL}
    words = {name: pd.Series(list(columns[name]), dtype="object") for name in WORDS}
    found: pd.DataFrame = pd.DataFrame(typed | words, columns=list(COLUMNS))
    return found.sort_values("number", kind="stable", ignore_index=True)


def _read(answer: Answer) -> dict[str, Sequence[Any]]:
    found: dict[str, Any] = {**_nothing(len(answer.batch)), **answer.columns}
    found |= {"number": answer.batch.numbers, "path": answer.batch.sources}
    scored = next((one for one in answer.explanations if any(one.target_names)), None)
    if scored is not None:
        found |= {"target": scored.targets, "target_name": scored.target_names}
        found |= {"target_score": scored.scores, "target_probability": scored.probabilities}
    return found


def _skipped(answer: Answer) -> dict[str, Sequence[Any]]:
    missing = answer.batch.skipped
    known: dict[str, Sequence[Any]] = {
        "number": [one.number for one in missing],
        "path": [one.source for one in missing],
        "skipped": [one.reason for one in missing],
    }
    return {**_nothing(len(missing)), **known}


def _nothing(count: int) -> dict[str, Sequence[Any]]:
    nothing: dict[str, Sequence[Any]] = {name: [-1] * count for name in _WHOLE}
    nothing |= {name: [np.nan] * count for name in _REAL}
    nothing |= {name: [None] * count for name in WORDS}
    return nothing
