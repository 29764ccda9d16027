"""How the model is called: where the images go among its other inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputTypeError

HERE = ...  # stands for the images


@dataclass(frozen=True)
class ModelInputs:
    """What the model is called with: ``...`` among them stands for the images, ``[...]`` for a list of them.

    Attributes:
        args: positional ones.
        kwargs: those by name.
    """

    args: tuple[Any, ...] = (HERE,)
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extra(self) -> bool:
        """Whether the model gets other tensors besides the images."""
        return any(isinstance(value, Tensor) for value in _leaves([self.args, dict(self.kwargs)]))

    def part(self, start: int, stop: int, count: int) -> ModelInputs:
        """That for some of `count` images: tensors with an entry for each are cut."""

        def cut(value: Any) -> Any:
            return value[start:stop] if isinstance(value, Tensor) and value.dim() and len(value) == count else value

        return ModelInputs(_mapped(self.args, cut), _mapped(dict(self.kwargs), cut))

    def picked(self, images: Sequence[int], count: int) -> ModelInputs:
        """That for a batch made of these of `count` images: tensors with an entry for each follow."""

        def pick(value: Any) -> Any:
            per_image = isinstance(value, Tensor) and value.dim() and len(value) == count
            return value[torch.as_tensor(images, device=value.device)] if per_image else value

        return ModelInputs(_mapped(self.args, pick), _mapped(dict(self.kwargs), pick)) if self.extra else self

    def arguments(self, batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments with `batch` in place; other tensors are copies, as models may change them."""

        def put(value: Any) -> Any:
            if value is HERE:
                return batch
            return value.detach().to(batch.device, copy=True) if isinstance(value, Tensor) else value

        return _mapped(self.args, put, batch), _mapped(dict(self.kwargs), put, batch)


def make_inputs(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> ModelInputs:
    """What the model is called with: what the user gives beside the images, which come first unless ``...`` says where.

    Raises:
        InputTypeError: `args` is no sequence or `kwargs` no mapping with names.
    """
    if isinstance(args, str | Tensor) or not isinstance(args, Sequence):
        raise InputTypeError(f"model_args is a tuple of further inputs of the model, not {type(args).__name__}: (x,).")
    if not isinstance(kwargs, Mapping | None) or not all(isinstance(name, str) for name in kwargs or ()):
        raise InputTypeError(f"model_kwargs is a dict of further inputs of the model by name, not {kwargs!r}.")
    given = ModelInputs(tuple(args), dict(kwargs or {}))
    placed = any(value is HERE for value in _leaves([given.args, dict(given.kwargs)]))
    return given if placed else ModelInputs((HERE, *given.args), given.kwargs)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]


def _mapped(value: Any, change: Callable[[Any], Any], batch: Tensor | None = None) -> Any:
    """`value` with each leaf changed; a list of ``...`` alone becomes the images one by one, given a `batch`."""
    if batch is not None and isinstance(value, list) and len(value) == 1 and value[0] is HERE:
        return list(batch)
    if isinstance(value, dict):
        return type(value)({name: _mapped(part, change, batch) for name, part in value.items()})
    if isinstance(value, list | tuple):
        parts = [_mapped(part, change, batch) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value)
