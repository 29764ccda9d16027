"""Occlusion: how far the score falls where a window of the image is hidden."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..engine.record import Needs, Record
from ..errors import InputError
from .base import cut
from .baselines import Baseline, check_baseline, make_baseline, sides_of
from .registry import register
from .repeating import Perturbing

_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_SPREAD = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@register("occlusion")
@dataclass(frozen=True)
class Occlusion(Perturbing):
    """Occlusion: how far the score falls where a window of the image is hidden.

    Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901, section 4.2. `.values`
    are ``(N, H, W)``, at each pixel the mean of S − S_hidden over the windows that cover it: positive where hiding
    lowers the score. It costs a forward pass for each window; those that hiding does not change are skipped.

    Args:
        window: pixels of its sides, or one for each side.
        stride: pixels from one window to the next, at most those of the window, or one for each side.
        baseline: what hides: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour), ``"blur"``,
            ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of the noise.

    Raises:
        InputError: the stride leaves gaps, or the baseline is unknown.

    >>> import seewhy, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    >>> image = torch.ones(1, 3, 2, 2)
    >>> found = seewhy.Explainer(model).explain(image, "occlusion", target=1, window=1, stride=1, baseline=0 * image[0])
    >>> bool(abs(found.map - model[1].weight[1].reshape(3, 2, 2).sum(0).detach().numpy()).max() < 1e-6)
    True
    """

    window: int | Sequence[int] = 32
    stride: int | Sequence[int] = 16
    baseline: Baseline = "mean"
    seed: int = 0
    signed = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline, self.seed)

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """The mean fall of the score over the windows that cover each pixel."""
        x, hidden = record.input, make_baseline(self.baseline, record, self.seed)
        size = x.shape[2:]
        window = tuple(map(min, sides_of(self.window, len(size), "window"), size))
        stride = sides_of(self.stride, len(size), "stride")
        if any(step > width < side for step, width, side in zip(stride, window, size, strict=True)):
            raise InputError(f"With a window of {self.window} and a stride of {self.stride} some pixels stay unhidden.")
        counts = [-(-(side - width) // step) + 1 for side, width, step in zip(size, window, stride, strict=True)]
        starts = torch.tensor(list(itertools.product(*(range(n) for n in counts))), device=x.device)
        starts = starts * torch.tensor(stride, device=x.device)

        def hide(rows: Tensor, numbers: Tensor) -> Tensor:
            return torch.where(_windows(starts[numbers], window, size)[:, None], hidden[rows], x[rows])

        differs = (x != hidden).any(1, keepdim=True).float()
        changes = _POOL[len(size)](_padded(differs, counts, window, stride), window, stride).flatten(1) > 0
        falls = record.scores.double()[:, None] - record.evaluations.scores(hide, len(starts), changes)
        falls = falls.nan_to_num(0).view(len(x), 1, *counts)
        ones = falls.new_ones(1, 1, *window)
        spread, covered = (_SPREAD[len(size)](t, ones, stride=stride) for t in (falls, torch.ones_like(falls[:1])))
        return cut((spread / covered)[:, 0], size).float()


def _windows(starts: Tensor, window: Sequence[int], size: Sequence[int]) -> Tensor:
    """Where the windows at these corners ``(b, sides)`` are, bool ``(b, *size)``."""
    inside = torch.ones((), dtype=torch.bool, device=starts.device)
    for axis, (width, side) in enumerate(zip(window, size, strict=True)):
        places = torch.arange(side, device=starts.device)
        along = (places >= starts[:, axis, None]) & (places < starts[:, axis, None] + width)
        inside = inside & along.view(len(starts), *(side if i == axis else 1 for i in range(len(size))))
    return inside


def _padded(differs: Tensor, counts: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Filled up so that the last windows, which may reach beyond the image, fit."""
    wanted = [(n - 1) * step + width for n, width, step in zip(counts, window, stride, strict=True)]
    lacking = [max(0, whole - side) for whole, side in zip(wanted, differs.shape[2:], strict=True)]
    return F.pad(differs, [pad for more in reversed(lacking) for pad in (0, more)])
