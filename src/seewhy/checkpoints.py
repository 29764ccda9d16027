"""Files of weights: read without running any code, and put into a network strictly."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .errors import InputError, InputTypeError, MissingDependencyError, ModelError, close_matches

State: TypeAlias = Mapping[str, Any]

_WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_SHOWN = 3


def read(path: str | os.PathLike[str] | State | None, model: nn.Module) -> State:
    """The state dict in a file, or as it is given, by the names that `model` uses.

    ``{"state_dict": …}`` and the like are looked into; what a wrapper (DataParallel, Lightning, `torch.compile`) put
    before all names is taken off.

    Raises:
        InputError: there is no such file, or it holds no state dict.
        ModelError: it holds more than weights, which only running its code would load.
    """
    if isinstance(path, Mapping):
        return _without_prefix(path, model.state_dict().keys())
    try:
        file = Path(os.fspath(path or ""))
    except TypeError:
        raise InputTypeError(
            f"weights is 'DEFAULT', None, a file or a state dict, not {type(path).__name__}."
        ) from None
    if not file.is_file():
        there = file.parent.iterdir() if file.parent.is_dir() else ()
        near = close_matches(file.name, [entry.name for entry in islice(there, 10_000)])
        raise InputError(f"There is no file of weights at {str(file)!r}.{near} Give a state dict, 'none' or 'default'.")
    stored = _safetensors(file) if file.suffix.lower() == ".safetensors" else _pickled(file)
    return _without_prefix(_unwrapped(stored, file), model.state_dict().keys())


def number_of_classes(state: State, model: nn.Module) -> int | None:
    """The classes of a checkpoint that fits `model` but for their number; None where it fits, or fits in no such way.

    >>> number_of_classes(nn.Linear(4, 7).state_dict(), nn.Linear(4, 1000))
    7
    """
    own = model.state_dict()
    if own.keys() != state.keys():
        return None
    pairs = [(_shape(state[name]), _shape(own[name])) for name in own]
    differ = [(a, b) for a, b in pairs if a != b]
    counts = {(a[:1], b[:1]) for a, b in differ}
    if len(counts) != 1 or any(a[1:] != b[1:] for a, b in differ):
        return None
    return next(iter(counts))[0][0]


def fill(model: nn.Module, state: State, path: str | os.PathLike[str] | None) -> None:
    """Put the weights into the model.

    Raises:
        ModelError: some are missing, unexpected or of another shape; the model keeps what it had.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    other = [
        f"{name} {_shape(state[name])} for {_shape(own[name])}"
        for name in own
        if name in state and _shape(state[name]) != _shape(own[name])
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    problems = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise ModelError(
            f"The weights in {str(path)!r} do not fit {type(model).__name__}, which has {len(own)}: "
            f"{'; '.join(problems)}. Name the network that they were trained in."
        )
    model.load_state_dict(state, strict=False)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _safetensors(file: Path) -> Any:
    try:
        reader: Any = importlib.import_module("safetensors.torch")
    except ImportError as error:
        message = f"{file.name} needs safetensors. Install it with: pip install safetensors"
        raise MissingDependencyError(message) from error
    try:
        return reader.load_file(file)
    except Exception as error:  # its own error, which is no public name
        raise _unreadable(file, error) from error


def _pickled(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if needed is None:
            raise _unreadable(file, error) from error
        raise ModelError(
            f"{str(file)!r} holds more than weights (a {needed[1]}), and loading that could run any code. "
            "Where you trust it, load it in Python and save the weights alone: "
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from error
    except Exception as error:  # of the zip reader, of pickle, of the system
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> InputError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return InputError(
        f"{str(file)!r} cannot be read as weights ({reason}). Expected what torch.save(model.state_dict(), …) writes."
    )


def _unwrapped(stored: Any, file: Path) -> State:
    while isinstance(stored, Mapping):
        inside = next((stored[key] for key in _WRAPPINGS if isinstance(stored.get(key), Mapping)), None)
        if inside is None:
            break
        stored = inside
    if not isinstance(stored, Mapping) or not any(isinstance(value, Tensor) for value in stored.values()):
        keys = f" with {_first([str(key) for key in stored])}" if isinstance(stored, Mapping) else ""
        raise InputError(
            f"{str(file)!r} holds a {type(stored).__name__}{keys}; expected a state dict: names to tensors."
        )
    return {str(name): value for name, value in stored.items()}


def _without_prefix(state: State, names: Any) -> State:
    """`state` without the ``module.``, ``model.`` … that all its names begin with, where that makes them fit."""
    shorter = state
    while not names & shorter.keys():
        starts = {name.partition(".")[0] for name in shorter}
        if len(starts) != 1 or not all("." in name for name in shorter):
            return state
        shorter = {name.partition(".")[2]: value for name, value in shorter.items()}
    return shorter
