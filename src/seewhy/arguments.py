"""What users pass to an `Explainer`, made plain at the border."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from .errors import InputError, InputTypeError

BATCH_SIZE = 16  # images per pass


def named_classes(names: Sequence[str] | Mapping[int, str] | None) -> dict[int, str]:
    """Class names as ``{index: name}``; empty where there are none."""
    try:
        if isinstance(names, str):
            raise TypeError
        pairs = names.items() if isinstance(names, Mapping) else enumerate(() if names is None else names)
        return {operator.index(index): str(name) for index, name in pairs}
    except TypeError:
        given = "one string" if isinstance(names, str) else type(names).__name__
        raise InputTypeError(f"class_names is a sequence of names or {{index: name}}, not {given}.") from None


def parsed_device(device: str | torch.device | None) -> torch.device | None:
    """The device that the user names."""
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"There is no device {device!r}: give 'cpu', 'cuda', 'cuda:1' …, or leave it out.") from error


def device_of(model: nn.Module, wanted: torch.device | None) -> torch.device | None:
    """Where inputs go: to the model's first tensor; what the user says only where the model has none of its own."""
    kept = itertools.chain(model.parameters(), model.buffers())
    where = next((tensor.device for tensor in kept if not tensor.is_meta), None)  # offloaded weights are on "meta"
    if where is None or wanted is None:
        return where or wanted
    if wanted.type != where.type or wanted.index not in (None, where.index):
        raise InputError(f"device={str(wanted)!r}, but the model is on {str(where)!r}: move it, or leave device out.")
    return where


def chunks(count: int, batch_size: int | None) -> Iterator[tuple[int, int]]:
    """The start and stop of each chunk of `count` images."""
    step = BATCH_SIZE if batch_size is None else whole(batch_size, "batch_size")
    return ((start, min(start + step, count)) for start in range(0, count, step))


def real(number: Any, name: str, what: str, fits: Callable[[float], bool]) -> float:
    """`number` as a float that fits; `name` and `what` it is are what messages call it."""
    if not isinstance(number, Real) or isinstance(number, bool) or not fits(float(number)):
        raise InputError(f"{name} is {what}, not {number!r}.")
    return float(number)


def whole(number: Any, name: str) -> int:
    """`number` as a whole one of at least 1; `name` is what messages call it."""
    try:
        found = operator.index(number)
    except TypeError:
        found = 0
    if found < 1 or isinstance(number, bool):
        raise InputError(f"{name} must be a whole number of at least 1, not {number!r}.")
    return found
