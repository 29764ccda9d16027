"""Tables of an evaluation as lists that JSON can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MOST = 40  # classes that a matrix can show
PAIRS = 100  # most confused pairs that a list shows


def classes_table(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """The columns' names, which of them are counts, and a row per class: its name and numbers (None for NaN).

    >>> import pandas as pd
    >>> classes_table(pd.DataFrame({"recall": [0.5], "support": [2.0]}, index=["cat"]))
    {'columns': ['recall', 'support'], 'counts': [False, True], 'rows': [['cat', 0.5, 2.0]]}
    """
    if table is None or table.empty:
        return None
    numbers = _numbers(table, "classes")
    rows = [[str(name), *map(_number, row)] for name, row in zip(table.index, numbers, strict=True)]
    columns = [str(name) for name in table.columns]
    counts = [name == "support" or table.dtypes.iloc[i].kind in "iu" for i, name in enumerate(columns)]
    return {"columns": columns, "counts": counts, "rows": rows}


def confusion_table(table: pd.DataFrame | None) -> dict[str, Any] | None:
    """Up to 40 classes the whole matrix, else the most confused pairs, as true class, predicted class and count.

    `totals` are the images of each true class, which the counts are shares of.

    >>> import pandas as pd
    >>> confusion_table(pd.DataFrame([[2, 1]], index=["cat"], columns=["cat", "dog"]))
    {'true': ['cat'], 'predicted': ['cat', 'dog'], 'totals': [3], 'counts': [[2, 1]]}
    """
    if table is None or table.empty:
        return None
    numbers = _numbers(table, "confusion")
    if not (np.isfinite(numbers).all() and (numbers >= 0).all() and (numbers == np.floor(numbers)).all()):
        raise InputError("a confusion matrix has counts: whole numbers of 0 or more")
    counts = numbers.astype(np.int64)
    names = {"true": [str(name) for name in table.index], "predicted": [str(name) for name in table.columns]}
    named = {**names, "totals": counts.sum(1).tolist()}
    if max(counts.shape) <= MOST:
        return {**named, "counts": counts.tolist()}
    return {**named, "pairs": _pairs(counts, names)}


def _pairs(counts: NDArray[np.int64], names: dict[str, list[str]]) -> list[list[int]]:
    """Places in the names of true and predicted class, and the count, most first; of mistakes only."""
    wrong = np.asarray(names["true"], object)[:, None] != np.asarray(names["predicted"], object)[None]
    mistakes = np.where(wrong, counts, 0).astype(np.int64)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
    found = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [[int(i), int(j), int(counts[i, j])] for i, j in found if mistakes[i, j]]


def _numbers(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(table.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` is a table of numbers with the classes as its index: {error}") from error


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
