"""What is put in the place of an image, or of a part of it, to see what was due to it."""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..engine.record import Record
from ..errors import InputError, InputTypeError, close_matches

Baseline: TypeAlias = "str | Tensor | NDArray[Any]"
NAMES = ("black", "white", "mean", "blur", "noise")
_ZEROS = (
    "What the model would get for black is unknown, as its transform does more to colours than weigh and shift them or "
    "it takes no pictures: baseline='black' is 0 here. Say what it is by a tensor, or take 'mean' or 'blur'."
)
_SIGMA = 1 / 20  # of the blur, as a share of the shorter side
_REACH = 3  # how many of them it reaches


def check_baseline(baseline: Any, seed: Any = 0) -> None:
    """Refuse a `baseline=` that is neither a name nor an array of floats, and a `seed=` that is no whole number.

    Raises:
        InputError: an unknown name, or another seed.
        InputTypeError: something else.
    """
    check_seed(seed)
    if isinstance(baseline, str):
        if baseline not in NAMES:
            raise InputError(f"There is no baseline {baseline!r}.{close_matches(baseline, NAMES)} "
                             f"Known: {', '.join(NAMES)}, or a tensor (C, H, W) as the model takes it.")  # fmt: skip
    elif not isinstance(baseline, Tensor | np.ndarray):
        raise InputTypeError(f"baseline is one of {', '.join(NAMES)}, or a tensor (C, H, W) as the model takes it, not "
                             f"{type(baseline).__name__}.")  # fmt: skip
    elif not (baseline.is_floating_point() if isinstance(baseline, Tensor) else baseline.dtype.kind == "f"):
        raise InputTypeError(f"The baseline is {baseline.dtype}; expected floats as the model takes them: no picture, "
                             "which the transform would take first.")  # fmt: skip


def check_seed(seed: Any) -> None:
    """Refuse a seed that is no whole number."""
    try:
        operator.index(seed)
    except TypeError:
        raise InputError(f"seed is a whole number, not {seed!r}.") from None


def generator(seed: int) -> torch.Generator:
    """Of draws that depend on nothing but the seed, which may be any whole number."""
    return torch.Generator().manual_seed(operator.index(seed) % 2**63)


def numbered(seed: int, number: int) -> torch.Generator:
    """Of the draws of one number among those of a seed; no two seeds share any."""
    return generator(operator.index(seed) * 1_000_003 + number)


def make_baseline(baseline: Baseline, record: Record, seed: int = 0) -> Tensor:
    """The baseline of each image of a record, ``(n, C, *sides)``, as the model takes it.

    ``"black"`` and ``"white"`` are what the model's transform makes of these colours (black is 0, with a warning, where
    that is unknown); ``"mean"`` each image's own mean colour; ``"blur"`` the image blurred by a Gaussian whose standard
    deviation is a 20th of its shorter side; ``"noise"`` a picture of noise, each value anywhere in 0..1, drawn by
    `seed`, the same for all images. An array ``(C, H, W)``, or one that can be broadcast to it, is taken as it is.

    Raises:
        InputError: what the transform makes of colours is unknown, or the array has another shape.
    """
    x = record.input
    if not isinstance(baseline, str):
        return _given(torch.as_tensor(baseline), x)
    if baseline == "mean":
        return x.flatten(2).float().mean(2).view(*x.shape[:2], *(1 for _ in x.shape[2:])).to(x).expand_as(x)
    if baseline == "blur":
        return blurred(x.float(), max(min(x.shape[2:]) * _SIGMA, 0.5)).to(x)
    if baseline == "noise":
        draw = torch.rand(x.shape[1:], generator=generator(seed))
        picture = draw.to(x.device).expand(x.shape)
    else:
        picture = torch.full(x.shape, float(baseline == "white"), device=x.device)
    try:
        return record.to_input(picture, x).to(x)
    except InputError:
        if baseline != "black":
            raise
    record.warnings.append(_ZEROS)
    return torch.zeros_like(x)


def _given(baseline: Tensor, x: Tensor) -> Tensor:
    try:
        return baseline.to(x).expand(x.shape[1:]).expand_as(x)
    except RuntimeError:
        raise InputError(f"The baseline has shape {tuple(baseline.shape)}; expected that of one image as the model "
                         f"takes it, {tuple(x.shape[1:])}, or one that can be broadcast to it.") from None  # fmt: skip


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Under a Gaussian of `sigma` pixels along each side in turn; beyond the edges the nearest value goes on."""
    reach = int(np.ceil(_REACH * sigma))
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for side in range(2, x.dim()):
        lines = x.movedim(side, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        x = F.conv1d(padded, kernel).reshape(lines.shape).movedim(-1, side)
    return x


def sides_of(given: Any, count: int, name: str) -> tuple[int, ...]:
    """A length along each of `count` sides, from one for all or one for each.

    Raises:
        InputError: there are more or fewer, or one is no whole number above 0.
    """
    found = tuple(given) if isinstance(given, list | tuple) else (given,) * count
    with suppress(InputError):
        if len(found) == count:
            return tuple(whole(side, name) for side in found)
    raise InputError(f"{name} is a whole number of at least 1, or one for each of the {count} sides, not {given!r}.")
