"""Other weights for the length of a ``with`` block, as if nothing had been learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..methods.baselines import generator


def learned(model: nn.Module) -> dict[str, set[nn.Parameter]]:
    """The modules that have weights of their own, by name, in the order of the model; each weight once."""
    seen: set[nn.Parameter] = set()
    found = {}
    for name, module in model.named_modules():
        if own := {p for p in module._parameters.values() if p is not None and _random(p)} - seen:
            found[name] = own
        seen |= own
    return found


@contextmanager
def randomised(model: nn.Module, names: Sequence[str], seed: int) -> Iterator[None]:
    """The weights of these modules drawn anew, then given back: the same tensors, to the last bit, whatever happens.

    They are normal with each tensor's own mean and standard deviation, so that activations keep their scale; each
    tensor's draw depends on nothing but the seed and the module's place.
    """
    places = {name: place for place, (name, _) in enumerate(model.named_modules())}
    before: dict[nn.Parameter, Tensor] = {}
    try:
        for name in names:
            drawn = generator(seed * 1_000_003 + places[name])
            for parameter in model.get_submodule(name)._parameters.values():
                if parameter is not None and parameter not in before and _random(parameter):
                    before[parameter] = parameter.data
                    parameter.data = _like(parameter.data, drawn)
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data


def _random(parameter: Any) -> bool:
    """Whether a parameter can be drawn anew: one number, or one that is the same everywhere, has no spread."""
    return bool(parameter.is_floating_point() and parameter.numel() > 1 and not parameter.is_meta)


def _like(data: Tensor, drawn: torch.Generator) -> Tensor:
    values = data.float()
    fresh = torch.randn(data.shape, generator=drawn).to(data.device)
    return (values.mean() + values.std() * fresh).to(data)
