"""What an image is made to excite: channels, neurons, classes, directions, and sums of these with weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputTypeError, LayerError, ModelError
from ..targets import About, Class

BORDER = 2  # positions at each end of a grid's side that are left out, but at most an eighth of it


@dataclass(frozen=True)
class Seen:
    """What one run gave for images that share an objective.

    Attributes:
        activations: by the layer as the objective names it, ``(n, C, *grid)``, or ``(n, C)`` without positions.
        scores: the class scores ``(n, K)``; None where no objective asks for them.
    """

    activations: Mapping[Any, Tensor]
    scores: Tensor | None = None


class Objective:
    """Base of what `maximize` climbs: a number for each image, to be added, subtracted and weighted.

    ``a + 2 * b`` and ``-a`` are new objectives, and `a` and `b` stay as they are. A subclass says which `layers` it
    needs and whether it needs the class `scores`, and gives its numbers in `value`.

    >>> Channel("layer4", 3) - 0.5 * Channel("layer4", 7)
    channel 3 of layer4 - 0.5 * channel 7 of layer4
    """

    scores: bool = False

    @property
    def layers(self) -> Sequence[Any]:
        """The layers that are needed, by name or module."""
        return ()

    @property
    def name(self) -> str:
        """What pictures call it."""
        return repr(self)

    def value(self, seen: Seen) -> Tensor:
        """The objective ``(n,)`` of n images, in the graph."""
        raise NotImplementedError

    def resolved(self, about: About, labels: Mapping[Any, str]) -> Objective:  # noqa: ARG002
        """The same with the names of classes looked up, and layers by their labels instead of modules."""
        return self

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            raise InputTypeError(f"An objective and {other!r} cannot be summed: the other is no objective.")
        return Sum((*_terms(self), *_terms(other)))

    def __sub__(self, other: Objective) -> Objective:
        return self + (-other)

    def __neg__(self) -> Objective:
        return self * -1.0

    def __mul__(self, weight: float) -> Objective:
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
            raise InputTypeError(f"An objective is multiplied by a number, not by {weight!r}.")
        return Sum(tuple((own * float(weight), one) for own, one in _terms(self)))

    __rmul__ = __mul__

    def __truediv__(self, weight: float) -> Objective:
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or weight == 0:
            raise InputTypeError(f"An objective is divided by a number other than 0, not by {weight!r}.")
        return self * (1 / float(weight))


@dataclass(frozen=True, repr=False)
class Sum(Objective):
    """Several objectives with weights; what ``+``, ``-`` and ``*`` make."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def layers(self) -> Sequence[Any]:
        """Those of all terms."""
        return tuple(dict.fromkeys(layer for _, one in self.terms for layer in one.layers))

    @property
    def scores(self) -> bool:  # type: ignore[override]
        """Whether any term needs the class scores."""
        return any(one.scores for _, one in self.terms)

    def value(self, seen: Seen) -> Tensor:
        """The weighted sum."""
        return torch.stack([weight * one.value(seen) for weight, one in self.terms]).sum(0)

    def resolved(self, about: About, labels: Mapping[Any, str]) -> Objective:
        """The sum of the terms resolved."""
        return Sum(tuple((weight, one.resolved(about, labels)) for weight, one in self.terms))

    def __repr__(self) -> str:
        first, *rest = [(weight, one.name) for weight, one in self.terms]
        begun = f"{'-' if first[0] < 0 else ''}{_weighted(abs(first[0]), first[1])}"
        return begun + "".join(f" {'-' if w < 0 else '+'} {_weighted(abs(w), name)}" for w, name in rest)


def _weighted(weight: float, name: str) -> str:
    return name if weight == 1 else f"{weight:g} * {name}"


def _terms(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    return objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


@dataclass(frozen=True, repr=False)
class _AtLayer(Objective):
    """An objective that looks at one layer, by its name or the module."""

    layer: Any

    @property
    def layers(self) -> Sequence[Any]:
        """The one."""
        return (self.layer,)

    def resolved(self, about: About, labels: Mapping[Any, str]) -> Objective:  # noqa: ARG002
        """The same with the layer's label."""
        return replace(self, layer=labels.get(self.layer, self.layer))

    @property
    def _where(self) -> str:
        return f"of {self.layer if isinstance(self.layer, str) else type(self.layer).__name__}"

    def _channels(self, seen: Seen, index: int = 0) -> Tensor:
        """The layer's activation, with at least `index` + 1 channels."""
        activation = seen.activations[self.layer]
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise InputTypeError(f"A channel is a whole number, from 0 on, not {index!r}.")
        if not 0 <= index < activation.shape[1]:
            raise InputError(f"There is no channel {index} {self._where}: it has {activation.shape[1]}, from 0 on.")
        return activation


@dataclass(frozen=True, repr=False)
class Channel(_AtLayer):
    """The mean activation of one channel over its positions but the border.

    The border, where padding is seen, is two positions at each end of a side, or an eighth of it if that is less.

    At a layer without positions it is the unit itself.
    """

    index: int

    def value(self, seen: Seen) -> Tensor:
        """The mean over the inner positions, ``(n,)``."""
        inner = _inner(self._channels(seen, self.index)[:, self.index])
        return inner.flatten(1).mean(1) if inner.dim() > 1 else inner

    def __repr__(self) -> str:
        return f"channel {self.index} {self._where}"


def _inner(grid: Tensor) -> Tensor:
    """A grid ``(n, *sides)`` without its border."""
    for axis, side in enumerate(grid.shape[1:], 1):
        border = min(BORDER, side // 8)
        grid = grid.narrow(axis, border, side - 2 * border)
    return grid


@dataclass(frozen=True, repr=False)
class Neuron(_AtLayer):
    """The activation of one channel at one position of the grid, `(row, column)`; None: the middle one."""

    index: int
    position: tuple[int, ...] | None = None

    def value(self, seen: Seen) -> Tensor:
        """The activation there, ``(n,)``."""
        grid = self._channels(seen, self.index)[:, self.index]
        sides = tuple(grid.shape[1:])
        place = tuple(side // 2 for side in sides) if self.position is None else tuple(self.position)
        if len(place) != len(sides) or not all(0 <= at < side for at, side in zip(place, sides, strict=True)):
            raise InputError(f"There is no position {place} {self._where}, whose grid is {sides}.")
        for at in place:
            grid = grid[:, at]
        return grid

    def __repr__(self) -> str:
        at = "the middle" if self.position is None else self.position
        return f"channel {self.index} at {at} {self._where}"


@dataclass(frozen=True, repr=False, eq=False)
class Direction(_AtLayer):
    """The projection of a layer's mean activation (without the border) on a direction `vector` ``(C,)``, as given."""

    vector: Any

    def value(self, seen: Seen) -> Tensor:
        """The dot product, ``(n,)``."""
        activation = self._channels(seen)
        vector = torch.as_tensor(self.vector, dtype=activation.dtype, device=activation.device)
        if vector.shape != activation.shape[1:2]:
            raise InputError(
                f"The direction has shape {tuple(vector.shape)}, and the layer {activation.shape[1]} channels."
            )
        inner = _inner(activation.flatten(0, 1)) if activation.dim() > 2 else activation
        means = inner.flatten(1).mean(1).view(activation.shape[:2]) if activation.dim() > 2 else activation
        return means @ vector

    def __repr__(self) -> str:
        return f"direction {self._where}"


@dataclass(frozen=True, repr=False)
class Diversity(_AtLayer):
    """How little the images of one objective resemble each other: minus their mean cosine of Gram matrices, -1..1.

    Channels' correlations are compared (Olah 2017, "Feature visualization"), so it needs ``copies=`` of 2 or more.
    """

    def value(self, seen: Seen) -> Tensor:
        """For each image minus its mean similarity to the others, ``(n,)``."""
        activation = self._channels(seen)
        if activation.dim() < 3 or len(activation) < 2:
            raise InputError("Diversity compares the images of one objective at a layer with positions: give copies=2.")
        flat = activation.flatten(2)
        gram = torch.nn.functional.normalize((flat @ flat.mT).flatten(1), dim=1)
        alike = gram @ gram.mT
        return -(alike.sum(1) - alike.diagonal()) / (len(flat) - 1)

    def __repr__(self) -> str:
        return f"diversity {self._where}"


@dataclass(frozen=True, repr=False)
class Function(_AtLayer):
    """Any function of a layer's activation ``(n, C, *grid)``, in torch, to one number for each image ``(n,)``."""

    function: Callable[[Tensor], Tensor]

    def value(self, seen: Seen) -> Tensor:
        """What the function gives, checked."""
        activation = self._channels(seen)
        result = self.function(activation)
        if not isinstance(result, Tensor) or result.shape != activation.shape[:1]:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(f"The objective must give a tensor ({len(activation)},), a number per image; got {given}.")
        return result

    def __repr__(self) -> str:
        return f"{getattr(self.function, '__name__', type(self.function).__name__)} {self._where}"


@dataclass(frozen=True, repr=False)
class Logit(Objective):
    """The score of a class, by its index or name; a logit, unless the model gives something else."""

    cls: int | str
    scores = True

    def resolved(self, about: About, labels: Mapping[Any, str]) -> Objective:  # noqa: ARG002
        """The class by its index, keeping the name for pictures."""
        found = None if self.cls is None else Class(self.cls)._resolved(about).cls
        if not isinstance(found, int):
            raise InputTypeError(f"Logit is of a class, by its index or name, not {self.cls!r}.")
        return _Score(found, about.name(found))

    def __repr__(self) -> str:
        return f"class {self.cls}"


@dataclass(frozen=True, repr=False)
class _Score(Objective):
    """The score of a class that was looked up."""

    index: int
    title: str
    scores = True

    def value(self, seen: Seen) -> Tensor:
        """The score, ``(n,)``."""
        if seen.scores is None:
            raise ModelError("The model gives no class scores: maximize a channel of a layer, or pick with output=.")
        if self.index >= seen.scores.shape[1]:
            raise InputError(f"There is no class {self.index}: the model has {seen.scores.shape[1]}, from 0 on.")
        return seen.scores[:, self.index]

    def __repr__(self) -> str:
        return self.title


def channel_numbers(given: Any, width: int, most: int) -> list[int]:
    """The channels asked for of a layer that has `width`: one number or several; None: the first `most`.

    Raises:
        InputError: none is named, or one that the layer does not have.
    """
    if given is None:
        return list(range(min(width, most)))
    try:
        numbers = list(given) if isinstance(given, Iterable) else [given]
        found = [-1 if isinstance(one, bool | np.bool_) else operator.index(one) for one in numbers]
    except TypeError:
        raise InputTypeError(f"Channels are whole numbers, as in channels=range(16), not {given!r}.") from None
    if not found:
        raise InputError("The list of channels is empty: name at least one, or leave channels out.")
    for number, one in zip(numbers, found, strict=True):
        if not 0 <= one < width:
            raise InputError(f"There is no channel {number!r}: the layer has {width}, 0 to {width - 1}.")
    return found


def make_objectives(objective: Any, layer: Any) -> list[Objective]:
    """The objectives that are given: one or a list of `Objective` and functions of the layer's activation.

    Raises:
        InputError: none is given, or a layer that none of them looks at.
        InputTypeError: something else is given.
    """
    several = list(objective) if isinstance(objective, list | tuple) else [objective]
    if not several:
        raise InputError("The list of objectives is empty: give at least one.")
    if layer is not None and all(isinstance(one, Objective) for one in several):
        raise InputError("An Objective names its own layers: leave layer= out, which is for channels= and functions.")
    return [_find(one, layer) for one in several]


def _find(objective: Any, layer: Any) -> Objective:
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, type) or not callable(objective):
        raise InputTypeError(
            f"objective is an Objective such as inside.Channel(layer, 3), a function, or a list; not {objective!r}."
        )
    if layer is None:
        raise LayerError("A function of activations needs the layer that it looks at: give layer=.")
    return Function(layer, objective)


__all__ = [
    "Channel",
    "Direction",
    "Diversity",
    "Function",
    "Logit",
    "Neuron",
    "Objective",
    "Seen",
    "channel_numbers",
    "make_objectives",
]
