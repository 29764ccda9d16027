"""How evaluations may be made faster than by the model as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Speed:
    """How evaluations may be made faster than by the model as it is; as the options of methods that ask many times.

    Attributes:
        accelerate: with batch norms folded into convolutions, and channels last in memory.
        dtype: in this precision.
        compile: compiled for one shape.
    """

    accelerate: bool = False
    dtype: torch.dtype | None = None
    compile: bool = False
