"""What a method is: what it needs of the passes, and the mathematics over what they gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.record import Needs
from ..errors import MethodError


@dataclass(frozen=True)
class Method:
    """A way to explain a score: what it needs of the passes, and the mathematics over what they gave.

    Args:
        name: what to call its results; the registered name unless given. Two instances of a method need two names.

    To write one, subclass it, set `needs` and override `compute`; options are the fields of a dataclass. Override
    `to_maps` only if the raw values become a map in an unusual way, and set `signed = True` if values of its maps below
    0 argue against the target. Hooks, batches, devices, resizing and drawing are not its business.

    >>> from dataclasses import dataclass
    >>> import seewhy
    >>> @seewhy.register("activation_norm")
    ... @dataclass(frozen=True)
    ... class ActivationNorm(seewhy.Method):
    ...     \"\"\"The p-norm of the activation over channels.\"\"\"
    ...
    ...     p: float = 2.0
    ...     needs = seewhy.Needs(activation=True)
    ...
    ...     def compute(self, record):
    ...         return record.activation.norm(self.p, dim=1)
    >>> "activation_norm" in seewhy.list_methods()
    True
    """

    name: str | None = field(default=None, kw_only=True)
    registered_name: ClassVar[str] = ""
    signed: ClassVar[bool] = False  # whether values below 0 argue against the target: drawn in two colours about 0

    @property
    def label(self) -> str:
        """What its results are called: its own `name`, else the registered one."""
        return self.name or self.registered_name or type(self).__name__

    @property
    def needs(self) -> Needs:
        """What `compute` finds in its record."""
        raise MethodError(f"{type(self).__name__} must set `needs = Needs(...)`.")

    def compute(self, record: Any) -> Tensor:
        """The attribution of n images from a `Record` (a `LayerRecord` where something is needed at a layer).

        Returns a float tensor, ``(n, C, H, W)`` for an attribution of the input and ``(n, h, w)`` for one of positions.
        """
        raise MethodError(f"{type(self).__name__} must override compute(record), here of {record!r}.")

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The maps ``(n, *size)`` at the `size` of the input: bilinear, or the largest magnitude over the colours."""
        return upsample(values if values.dim() == len(size) + 1 else values.abs().amax(1), size)


_ROUNDING = 1e-6  # of the sum of magnitudes
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by the number of sides


def upsample(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps ``(n, h, w)`` at ``(H, W)``, bilinear with pixel centres aligned (``align_corners=False``).

    Of signals ``(n, l)``, linear; of videos and volumes ``(n, t, h, w)``, trilinear.
    """
    if tuple(values.shape[1:]) == tuple(size):
        return values
    return F.interpolate(values[:, None].float(), tuple(size), mode=_LINEAR[len(size)], align_corners=False)[:, 0]


def cut(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``(n, ...)`` without what goes beyond `size`: the padding that a model adds right and below."""
    return maps[(slice(None), *map(slice, size))]


def weighted_sum(weights: Tensor, activation: Tensor) -> Tensor:
    """ReLU(sum over k of w_k A_k), ``(n, *sides)``, for weights ``(n, C)``."""
    return torch.einsum("nc,nc...->n...", weights.double(), activation.double()).relu().float()


def stretched(maps: Tensor) -> Tensor:
    """Each from its least value at 0 to its greatest at 1; 0 where it is the same everywhere."""
    flat = maps.flatten(1)
    low, high = (t.view(-1, *(1 for _ in maps.shape[1:])) for t in (flat.amin(1), flat.amax(1)))
    return torch.where(high > low, (maps - low) / (high - low), 0)


def missed(values: Tensor, whole: Tensor) -> Tensor:
    """By how much the sums of values ``(n, ...)`` miss what they should add up to ``(n,)``, as a share of that."""
    values = values.double().flatten(1)
    missing = (values.sum(1) - whole).abs()
    return torch.where(missing <= _ROUNDING * values.abs().sum(1), 0, missing / whole.abs())


def as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as an option may be given."""
    return (names,) if isinstance(names, str) else tuple(names)
