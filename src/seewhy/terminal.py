"""Talking to the terminal: lines that any encoding can show, one-line warnings and errors, a reader that hangs up."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from .errors import SeewhyWarning

PATIENCE = 2.0  # seconds without a progress bar
_bars: list[Any] = []  # what is drawn on the terminal meanwhile


def say(text: str) -> None:
    """One line on stdout, as the terminal's encoding can show it; nobody reading is no reason to stop working."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        _write(text.encode(encoding, "replace").decode(encoding), sys.stdout)
    except BrokenPipeError:
        to_nowhere()


def tell(kind: str, message: object) -> None:
    """One line on stderr, whatever lines the message has."""
    _write(f"seewhy: {kind}: {' '.join(str(message).split())}", sys.stderr)


def fail(error: object) -> int:
    """Tell the error; returns the exit code."""
    tell("error", error)
    return 1


def to_nowhere() -> None:
    """Send what is still printed nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(line: str, stream: TextIO) -> None:
    for bar in _bars:  # not through the middle of it; it is drawn again at its next step
        bar.clear()
    stream.write(f"{line}\n")


@contextmanager
def progress(total: int, unit: str) -> Iterator[Any]:
    """A progress bar on stderr, where that is a terminal, once the work takes longer than `PATIENCE`."""
    from tqdm import tqdm

    with tqdm(total=total, delay=PATIENCE, disable=None, unit=unit, leave=False) as bar:
        _bars.append(bar)
        try:
            yield bar
        finally:
            _bars.remove(bar)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Show each warning of seewhy's once, as one line, and none of other libraries."""
    told: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            tell("warning", message)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SeewhyWarning)
        warnings.showwarning = show
        yield


def quieten_transformers() -> None:
    """Leave out its reports, which the errors repeat, and its progress bars where there is no terminal."""
    try:
        logging: Any = importlib.import_module("transformers.utils.logging")
    except ImportError:
        return  # which is told when it is needed
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
