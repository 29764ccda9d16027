"""Progress bars: silent where the work is short or nobody watches."""

from __future__ import annotations

from typing import Any

PATIENCE = 2  # seconds without a bar, unless one is asked for


def bar(progress: bool | None, total: int | None, *, doing: str, unit: str) -> Any:
    """A progress bar of tqdm's over `total` things (None: unknown), called `doing`.

    `progress` None: one that shows after 2 s, and on a terminal or in a notebook only; True or False: always or never.

    >>> with bar(False, 3, doing="looking", unit="image") as shown:
    ...     _ = shown.update(3)
    """
    from tqdm.auto import tqdm

    quiet = progress is None
    how = {"disable": None, "delay": PATIENCE, "leave": False} if quiet else {"disable": not progress}
    return tqdm(total=total, desc=doing, unit=unit, **how)
