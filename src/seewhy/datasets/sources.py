"""Which file an image of a data set comes from, where that can be told without reading it."""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import Any

_LISTS = ("samples", "imgs", "image_paths", "paths", "files")  # of files, or of pairs that begin with one


def source_of(data: Any, number: int) -> str | None:
    """The path of image `number`; None where nothing says it.

    Known of torchvision's `ImageFolder` and its kin, of lists of paths, and of `Subset` and `ConcatDataset` of these.

    >>> source_of([("a.png", 0), ("b.png", 1)], 1)
    'b.png'
    """
    if hasattr(data, "indices") and hasattr(data, "dataset"):
        return source_of(data.dataset, int(data.indices[number]))
    if hasattr(data, "cumulative_sizes") and hasattr(data, "datasets"):
        part = bisect_right(data.cumulative_sizes, number)
        return source_of(data.datasets[part], number - ([0, *data.cumulative_sizes][part]))
    if isinstance(data, list | tuple):
        return _path(data[number])
    for name in _LISTS:
        listed = getattr(data, name, None)
        if isinstance(listed, list | tuple) and len(listed) == len(data):
            return _path(listed[number])
    return None


def _path(item: Any) -> str | None:
    first = item[0] if isinstance(item, list | tuple) and item else item
    return os.fsdecode(first) if isinstance(first, str | os.PathLike) else None
