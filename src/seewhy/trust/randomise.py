"""Other weights for the length of a ``with`` block, as if nothing had been learned; and layer by layer from the top."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.uses import Uses
from ..methods.baselines import numbered

Learned = Mapping[str, set[nn.Parameter]]


@dataclass(frozen=True)
class Step:
    """Layers whose weights are random together.

    Attributes:
        name: of the layer that the step is called after.
        names: of all of them.
        reaches: bool ``(N,)``, whether the score of each image depends on them.
    """

    name: str
    names: tuple[str, ...]
    reaches: NDArray[np.bool_]

    def below(self, above: Step) -> Step:
        """It, with all of what is `above` it; what it reaches is still its own."""
        return replace(self, names=(*above.names, *self.names))


def learned(model: nn.Module) -> dict[str, set[nn.Parameter]]:
    """The modules that have weights of their own, by name, in the order of the model; each weight once."""
    seen: set[nn.Parameter] = set()
    found = {}
    for name, module in model.named_modules():
        if own := {p for p in module._parameters.values() if p is not None and _random(p)} - seen:
            found[name] = own
        seen |= own
    return found


def steps_down(known: Learned, uses: Sequence[Uses]) -> list[Step]:
    """The layers on which the scores of images depend, the last to be used first.

    A step is a layer with a matrix or kernels, a change of which moves some image's score; scales and offsets that are
    used after it, of norms and biases, go with it, as alone they may leave a map as it is. What the graph hides comes
    last. Where no weight moves any score, each is a step.
    """
    depths = {name: min((_depth(own, one) for one in uses), default=math.inf) for name, own in known.items()}
    hidden = np.array([not one.whole for one in uses])
    found = {name for name, depth in depths.items() if depth < math.inf or hidden.any()}
    reaches = {name: _reaches(known[name], uses) | (hidden if depths[name] == math.inf else False) for name in found}
    if not any(one.any() for one in reaches.values()):
        reaches = dict.fromkeys(found, np.ones(len(uses), bool))
    order = sorted((depths[name], -place, name) for place, name in enumerate(known) if name in found)
    steps: list[Step] = []
    waiting: list[str] = []
    for _, _, name in order:
        waiting.append(name)
        if reaches[name].any():
            steps.append(Step(name, tuple(waiting), reaches[name]))
            waiting = []
    if steps:  # what is used before all of them goes with the lowest
        steps[-1] = replace(steps[-1], names=(*steps[-1].names, *waiting))
    return steps


def _depth(own: set[nn.Parameter], uses: Uses) -> float:
    return min((uses.depths.get(parameter, math.inf) for parameter in own), default=math.inf)


def _reaches(own: set[nn.Parameter], uses: Sequence[Uses]) -> NDArray[np.bool_]:
    large = [parameter for parameter in own if parameter.dim() > 1]
    return np.array([any(parameter in one.moving for parameter in large) for one in uses])


@contextmanager
def randomised(model: nn.Module, names: Sequence[str], seed: int) -> Iterator[None]:
    """The weights of these modules drawn anew, then given back: the same tensors, to the last bit, whatever happens.

    They are normal with each tensor's own mean and standard deviation, so that activations keep their scale; each
    tensor's draw depends on nothing but the seed and the module's place.
    """
    modules = dict(model.named_modules())
    places = {name: place for place, name in enumerate(modules)}
    before: dict[nn.Parameter, Tensor] = {}
    made = [(module, name, value) for module in modules.values() for name, value in _made(module)]
    try:
        for name in names:
            drawn = numbered(seed, places[name])
            for parameter in modules[name]._parameters.values():
                if parameter is not None and parameter not in before and _random(parameter):
                    before[parameter] = parameter.data
                    parameter.data = _like(parameter.data, drawn)
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data
        for module, name, value in made:
            module.__dict__[name] = value


def _made(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What hooks make of parameters before each forward, and leave there (weight_norm, spectral_norm, prune)."""
    kept = dict(module._parameters.items())
    for name in {key.removesuffix("_g").removesuffix("_orig") for key in kept}:
        if name not in kept and isinstance(value := vars(module).get(name), Tensor):
            yield name, value


def _random(parameter: Any) -> bool:
    """Whether a parameter can be drawn anew: one number, or one that is the same everywhere, has no spread."""
    if not parameter.is_floating_point() or parameter.numel() < 2 or parameter.is_meta:
        return False
    values = parameter.detach()
    return bool(values.amax() > values.amin())


def _like(data: Tensor, drawn: torch.Generator) -> Tensor:
    values = data.float()
    fresh = torch.randn(data.shape, generator=drawn).to(data.device)
    return (values.mean() + values.std() * fresh).to(data)
