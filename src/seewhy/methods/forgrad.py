"""A gradient without its high frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..engine.record import Needs, Record
from ..errors import InputError, InputTypeError
from .base import Method
from .make import make_methods
from .registry import register


@register("forgrad")
@dataclass(frozen=True)
class ForGrad(Method):
    """FORGrad: a gradient method whose values have lost their high frequencies.

    Muzellec et al. 2023, "Saliency Strikes Back: How Filtering Out High Frequencies Improves White-Box Explanations",
    arXiv 2307.09591: of the Fourier transform of the base method's values what is above `cutoff` along any side is left
    out (so a square stays; the authors' library xplique keeps a disc). Much of a convolutional network's gradient up
    there comes from its strides and pooling. The paper chooses the cut-off for each network by how faithful its maps
    are; the default is not so chosen. `.values` and `.maps` are as those of the base method. It costs what the base
    method does.

    Args:
        base: a method of the input, by name, class or instance: ``"saliency"``, ``IntegratedGradients(steps=20)`` …
        cutoff: the highest frequency that stays, as a share of the highest there is; 1 leaves all.

    Raises:
        InputError: `cutoff` is no share above 0.
        InputTypeError: `base` is no method, or several.
        ModelError: what the base method raises.
    """

    base: Any = "saliency"
    cutoff: float = 0.15

    def __post_init__(self) -> None:
        if isinstance(self.cutoff, bool) or not (isinstance(self.cutoff, Real) and 0 < self.cutoff <= 1):
            raise InputError(
                f"cutoff is the share of frequencies that stay, above 0 and at most 1, not {self.cutoff!r}."
            )
        if isinstance(self.base, list | tuple):
            raise InputTypeError(f"base is one method, not {len(self.base)}: ask for forgrad once for each, with a "
                                 "name= of its own.")  # fmt: skip
        if _looks_inside(self._method):
            raise InputError(f"base is a method that explains the input, and {self._method.label!r} explains a layer. "
                             "'saliency' and 'integrated_gradients' are some.")  # fmt: skip

    @cached_property
    def _method(self) -> Method:
        return make_methods(self.base, {})[0]

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """As the base method's."""
        return self._method.signed

    @property
    def needs(self) -> Needs:
        """Those of the base method."""
        return self._method.needs

    def compute(self, record: Record) -> Tensor:
        """The transform, what is kept of it, and back."""
        values = self._method.compute(record).float()
        sides = tuple(range(2, values.dim())) if values.dim() == record.input.dim() else tuple(range(1, values.dim()))
        spectrum = torch.fft.fftn(values, dim=sides)
        for side in sides:
            frequencies = torch.fft.fftfreq(values.shape[side], device=values.device).abs()
            kept = (frequencies <= self.cutoff / 2).view(-1, *(1 for _ in range(values.dim() - side - 1)))
            spectrum = spectrum * kept
        filtered: Tensor = torch.fft.ifftn(spectrum, dim=sides).real
        return filtered

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """As the base method's."""
        return self._method.to_maps(values, size)


def _looks_inside(method: Method) -> bool:
    """Whether what it gives is at a layer, also around another."""
    if inner := getattr(method, "_method", None):
        return _looks_inside(inner)
    return method.needs.layer or method.needs.head or bool(method.needs.attention)
