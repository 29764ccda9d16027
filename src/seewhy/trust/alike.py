"""How alike two maps are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import InputError, close_matches
from ..methods.base import stretched
from ..methods.baselines import blurred

Alike: TypeAlias = Literal["spearman", "pearson", "ssim"]
_WINDOW, _C1, _C2 = 1.5, 0.01**2, 0.03**2  # Wang 2004, section III-C: the standard deviation in pixels, and constants


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of the values of maps ``(n, *sides)`` with those of others, ``(n,)`` in −1..1, float64.

    Two that are each the same everywhere are alike (1); one such is like no other (0).
    """
    a, b = (maps.flatten(1).double() for maps in (one, other))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    flat_a, flat_b = (_constant(maps) for maps in (one, other))
    size = a.norm(dim=1) * b.norm(dim=1)
    found = (a * b).sum(1) / torch.where(flat_a | flat_b | (size == 0), 1, size)
    return torch.where(flat_a & flat_b, 1.0, torch.where(flat_a | flat_b, 0.0, found)).clamp(-1, 1)


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of the ranks of values; equal ones have the mean of their ranks."""
    return pearson(_ranked(one), _ranked(other))


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity (Wang 2004, eq. 13) of maps, each stretched to 0..1, ``(n,)`` in −1..1."""
    a, b = (stretched(maps.double())[:, None] for maps in (one, other))

    def local(x: Tensor) -> Tensor:
        return blurred(x, _WINDOW)

    mean_a, mean_b = local(a), local(b)
    both = local(a * b) - mean_a * mean_b
    spread = local(a * a) - mean_a**2 + local(b * b) - mean_b**2
    light: Tensor = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    found: Tensor = (light * (2 * both + _C2) / (spread + _C2)).flatten(1).mean(1)
    return found


ALIKE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"spearman": spearman, "pearson": pearson, "ssim": ssim}


def find_alike(name: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The similarity called so.

    Raises:
        InputError: there is none.
    """
    if name not in ALIKE:
        raise InputError(f"similarity is one of {', '.join(ALIKE)}, not {name!r}.{close_matches(str(name), ALIKE)}")
    return ALIKE[name]


def _constant(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return flat.amax(1) == flat.amin(1)


def _ranked(maps: Tensor) -> Tensor:
    """The rank of each value in its map, float64; that of equal ones is the mean of theirs."""
    return torch.stack([_ranks(one) for one in maps.flatten(1)]).view(maps.shape)


def _ranks(values: Tensor) -> Tensor:
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = count.cumsum(0).double() - (count - 1) / 2
    return ranks[place]
