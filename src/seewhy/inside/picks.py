"""Which channels of a layer to keep, as the user picks or ranks them, and what is kept of the layer's output."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.capture import Captured
from ..errors import InputError, InputTypeError, NonFiniteError, UnknownNameError, close_matches
from ..layers import Layer, find_layers
from .statistics import Statistics, statistics

if TYPE_CHECKING:
    from ..explainer import Explainer


@dataclass(frozen=True)
class Picks:
    """Which channels the user wants, checked as far as can be before the model runs."""

    channels: Any
    top: int | None
    by: str
    target: Any

    def __post_init__(self) -> None:
        if self.by not in ("activation", "gradient"):
            near = close_matches(str(self.by), ("activation", "gradient"))
            raise InputError(f"by is 'activation' or 'gradient', not {self.by!r}.{near}")
        if self.by == "activation" and self.target is not None:
            raise InputError("target= is of by='gradient': activations are the same for every class.")
        if self.top is not None and self.channels is not None:
            raise InputError("Give channels= (their numbers) or top= (how many), one of the two.")
        if self.top is not None:
            whole(self.top, "top")

    def of_layers(self, explainer: Explainer, layers: Sequence[Layer]) -> dict[str, list[int]]:
        """The numbers of the channels to keep, of each layer for which some are given."""
        labels = [one.label for one in layers]
        if self.channels is None:
            return {}
        if not isinstance(self.channels, Mapping):
            return dict.fromkeys(labels, _numbers(self.channels))
        picked = {}
        for key, numbers in self.channels.items():
            if isinstance(key, tuple):
                raise InputTypeError(f"channels= is a dict by layer, each by name or as the module, not {key!r}.")
            (one,) = find_layers(explainer._inner, key)
            if one.label not in labels:
                raise UnknownNameError(
                    f"channels= has {one.label!r}, which is none of the layers looked at: {', '.join(labels[:8])}"
                    f"{' …' * (len(labels) > 8)}.{close_matches(one.label, labels)}"
                )
            picked[one.label] = _numbers(numbers)
        return picked


def _numbers(given: Any) -> list[int]:
    """Numbers of channels as a list, each once."""
    try:
        found = [_index(one) for one in (given if isinstance(given, Iterable) else [given])]
    except (TypeError, ValueError):
        raise InputTypeError(f"channels are whole numbers, as range(16), or a dict of these; not {given!r}.") from None
    twice = [number for number, times in Counter(found).items() if times > 1]
    if twice:
        raise InputError(f"channels= names {', '.join(map(str, twice[:5]))} more than once.")
    if not found:
        raise InputError("channels= is empty: name at least one, or leave it out for all.")
    return found


def _index(number: Any) -> int:
    if isinstance(number, bool | np.bool_):
        raise TypeError
    return operator.index(number)


@dataclass(frozen=True)
class Kept:
    """What is kept of a layer."""

    name: str
    shape: tuple[int, ...]
    activation: NDArray[np.float32]
    numbers: NDArray[np.int64]
    values: NDArray[np.float32]
    statistics: Statistics

    @classmethod
    def of(cls, layer: Captured, gradient: Tensor | None, picked: Sequence[int] | None, top: int | None) -> Kept:
        """Rank or pick the channels of one layer's output."""
        value = layer.value[0].cpu().double().numpy()
        single = value.astype(np.float32)
        if not np.isfinite(single).all():
            raise NonFiniteError(
                f"Layer {layer.label!r} returned NaN, infinite values or some beyond float32 for this image: the "
                "model's weights hold some, or it overflows. Layers that come before it can be looked at: name them."
            )
        each = value if gradient is None else value * gradient.reshape(layer.value.shape)[0].cpu().double().numpy()
        flat = each.reshape(len(value), -1)
        values = flat.mean(1) if gradient is None else flat.sum(1)
        numbers = _in_order(layer.label, values, picked, top)
        return cls(
            layer.label,
            value.shape,
            single[numbers],
            numbers,
            values[numbers].astype(np.float32),
            statistics(value),
        )


def _in_order(
    label: str, values: NDArray[np.float64], picked: Sequence[int] | None, top: int | None
) -> NDArray[np.int64]:
    """The numbers of the channels to keep, in order."""
    count = len(values)
    wrong = [number for number in picked or () if not 0 <= number < count]
    if wrong:
        raise InputError(
            f"Layer {label!r} has {count} channels, numbered from 0 to {count - 1}; there is no "
            f"{', '.join(map(str, wrong[:5]))}{' …' * (len(wrong) > 5)}."
        )
    ranked = np.argsort(-values, kind="stable")[:top]
    return np.asarray(picked if picked is not None else np.arange(count) if top is None else ranked, np.int64)
