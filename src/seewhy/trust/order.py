"""The pixels of a map in order of relevance, and images of which the first or the others are taken away."""

from __future__ import annotations

import torch
from torch import Tensor

from ..engine.evaluations import Change
from ..methods.baselines import generator


def ranks(maps: Tensor, seed: int = 0) -> Tensor:
    """The place of each position ``(n, *sides)``, 0 for the greatest; equal ones are in an order drawn by `seed`.

    A constant map is thus a random order, and not one from top to bottom, which would favour what stands there.
    """
    flat = maps.flatten(1)
    drawn = torch.randperm(flat.shape[1], generator=generator(seed)).to(flat.device)
    order = drawn[flat[:, drawn].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def replaced(x: Tensor, start: Tensor, places: Tensor, counts: Tensor) -> Change:
    """Change number k: what stands at the first ``counts[k]`` places of `x` ``(n, C, *sides)`` comes from `start`."""

    def change(rows: Tensor, numbers: Tensor) -> Tensor:
        few = counts[numbers].view(-1, *(1 for _ in places.shape[1:]))
        return torch.where((places[rows] < few)[:, None], start[rows], x[rows])

    return change


def area(curves: Tensor, at: Tensor) -> Tensor:
    """The area under each curve ``(n, L)`` over `at` ``(L,)`` in 0..1, by trapezoids."""
    return torch.trapezoid(curves.double(), at.to(curves.device).double(), dim=1)
