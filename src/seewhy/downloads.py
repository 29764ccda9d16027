"""Weights from elsewhere: what fails for want of a network or a library fails quickly, and says what to do."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .errors import MissingDependencyError, ModelError, SeewhyError

INSTEAD = "Give a file of weights (weights='FILE', --weights FILE), or none (weights=None, --weights none)."
_PATIENCE = 5.0  # seconds for a server to answer
_FOLDER = "Give a folder that save_pretrained made, as in hf:folder."


@contextmanager
def downloading(name: str, hub: bool = False, instead: bool = True) -> Iterator[None]:
    """What fails for want of a network fails quickly and says so; `instead`: weights are all that is downloaded."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or 2 * _PATIENCE)
    try:
        with _hub() if hub else nullcontext():
            yield
    except SeewhyError:
        raise
    except Exception as error:  # what the libraries raise is not documented
        local = Path(name).is_dir() or isinstance(error, ValueError | RuntimeError)
        reason = str(error).strip().split("\n")[0].rstrip(".")
        what = f"{'Loading' if local else 'Downloading'} {name!r} failed ({type(error).__name__}: {reason})."
        raise ModelError(what if local and not instead else f"{what} {INSTEAD if instead else _FOLDER}") from error
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _hub() -> Iterator[None]:
    """Hugging Face's hub, or only what is cached of it where it does not answer: it would try again for a minute."""
    library("huggingface_hub")
    constants: Any = importlib.import_module("huggingface_hub.constants")
    utils: Any = importlib.import_module("huggingface_hub.utils")
    before = constants.HF_HUB_OFFLINE
    try:
        utils.get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # of whichever HTTP library it uses, or because the user said offline
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def library(name: str, package: str = "") -> Any:
    """The library of this name; a MissingDependencyError where it is not installed. `package`: what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        what = name.partition(".")[0]
        raise MissingDependencyError(f"This needs {what}. Install it with: pip install {package or name}") from error
