"""Filling in what was removed from an image, by what is around it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))  # Rong 2022, section 4
_NEAR = 1e-4  # of what is to be balanced, at which the solution is near enough
_MOST = 2000  # steps towards it


def impute(x: Tensor, holes: Tensor) -> Tensor:
    """The image ``(n, C, H, W)`` with each pixel of the holes, bool ``(n, H, W)``, the weighted mean of its neighbours.

    That is a linear system (Rong 2022): beside a pixel the weight is 1/6, across 1/12, beyond the edge there is none.
    It is symmetric and positive definite as long as something is left, so conjugate gradients solve it; each image
    stops by itself, so that no other changes its result.
    """
    gone = holes[:, None].to(x)
    around = _around(torch.ones_like(x[:1]))
    wanted = gone * _around(x * (1 - gone))

    def balance(part: Tensor) -> Tensor:
        return gone * (around * part - _around(part))

    found = gone * _guess(x, 1 - gone)
    residual = wanted - balance(found)
    along, size = residual, _dot(residual, residual)
    enough = _NEAR**2 * _dot(wanted, wanted)
    for _ in range(_MOST):
        going = size > enough
        if not going.any():
            break
        ahead = balance(along)
        pace = torch.where(going, size / _dot(along, ahead).clamp(min=1e-30), 0)
        found = found + pace * along
        residual = residual - pace * ahead
        after = _dot(residual, residual)
        along = torch.where(going, residual + (after / size.clamp(min=1e-30)) * along, along)
        size = torch.where(going, after, size)
    return torch.where(gone > 0, found, x)


def _around(x: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours of each pixel."""
    kernel = torch.tensor(_WEIGHTS, device=x.device, dtype=x.dtype).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((1, 2, 3), keepdim=True)


def _guess(x: Tensor, kept: Tensor) -> Tensor:
    """To begin with: the mean of what is left nearby, at the least distance at which anything is."""
    if min(x.shape[2:]) == 1:
        total = (x * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp(min=1)
        return torch.where(kept > 0, x, total)
    share = F.avg_pool2d(kept, 2, ceil_mode=True)
    mean = F.avg_pool2d(x * kept, 2, ceil_mode=True) / share.clamp(min=1e-12)
    coarse = _guess(torch.where(share > 0, mean, 0), (share > 0).to(x))
    up = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(kept > 0, x, up)
