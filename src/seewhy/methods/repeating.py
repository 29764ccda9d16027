"""Methods that ask the model about many changed images, and what makes that faster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ..engine.speed import Speed
from ..errors import InputError
from .base import Method

_DTYPES = ("bfloat16", "float16")
_ROUGH = (
    "dtype={!r} is made for the scores of masked images; gradients of networks with ReLU come out otherwise (saliency "
    "in bfloat16 correlates .40 with that in float32 on a ResNet-50, and .83 on a VGG-16; .9997 on ViT and ConvNeXt)."
)


@dataclass(frozen=True)
class Repeating(Method):
    """A method that runs the whole model for many changed images.

    Args:
        accelerate: try a private copy of the model with batch norms folded and channels last, and use it where it gives
            the same and is at least 1.1 times as fast; ``provenance["faster"]`` of the result says what was used.
        dtype: ``"bfloat16"`` or ``"float16"``: run a private copy in this precision. Fit for scores, not for gradients
            of networks with ReLU.
    """

    accelerate: bool = field(default=False, kw_only=True)
    dtype: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise InputError(f"dtype is one of {', '.join(_DTYPES)} or None, not {self.dtype!r}.")

    @property
    def speed(self) -> Speed:
        """What is to be tried."""
        return Speed(self.accelerate, None if self.dtype is None else getattr(torch, self.dtype))

    @property
    def cautions(self) -> list[str]:
        """What users of gradients are to be told."""
        return [] if self.dtype is None else [_ROUGH.format(self.dtype)]


@dataclass(frozen=True)
class Perturbing(Repeating):
    """A method that asks for the scores of many changed images, and for no gradient.

    Args:
        compile: run a compiled copy. Compiling takes 10 to 30 s, so this is for thousands of evaluations.
    """

    compile: bool = field(default=False, kw_only=True)

    @property
    def speed(self) -> Speed:
        """What is to be tried."""
        return replace(super().speed, compile=self.compile)
