"""RISE: the mean score of the image seen through random masks that leave a pixel visible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError
from .baselines import Baseline, check_baseline, make_baseline, numbered, sides_of
from .registry import register
from .repeating import Perturbing

_TOGETHER = 64  # masks that are added up at once: their number decides the memory, and no result


@register("rise")
@dataclass(frozen=True)
class Rise(Perturbing):
    """RISE: the mean score of the image seen through random masks that leave a pixel visible.

    Petsiuk, Das, Saenko 2018, "RISE", arXiv 1806.07421, eq. 1: E[S(x ⊙ M) | M(λ) = 1] at each pixel λ, the sum of
    S(x ⊙ M) M(λ) over the masks divided by the sum of M(λ). Eq. 6 divides by what that is on average, the number of
    masks times `probability`, and so has noise wherever scores are far from 0; ``normalised=False`` is that. A mask is
    a grid of 0 and 1, enlarged bilinearly beyond the image's size and shifted at random, by up to a cell (section 3.2).
    `.values` are ``(N, H, W)``: at each pixel the score that is to be expected while it is visible. Only how they
    differ matters, so `.maps` are how far they are above the image's least. For S the paper has probabilities:
    ``target=seewhy.Probability()``. It costs a forward pass for each mask.

    Args:
        masks: how many; the paper has 4000 for VGG-16 and 8000 for ResNet-50.
        cells: of a mask along its sides, or one number for each side.
        probability: of a cell to be left visible.
        baseline: what shows where a mask is 0: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour),
            ``"blur"``, ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of the masks, which are the same for all images, and of the noise.
        normalised: whether to divide by how much of each pixel was visible, and not by eq. 6's expectation of it.

    Raises:
        InputError: `probability` is not between 0 and 1, the baseline is unknown, or another option no number that
            fits.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    >>> explainer.explain(image, "rise", target=1, masks=8, baseline="mean").values.shape
    (1, 16, 24)
    """

    masks: int = 4000
    cells: int | Sequence[int] = 7
    probability: float = 0.5
    baseline: Baseline = "black"
    seed: int = 0
    normalised: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.masks, "masks")
        check_baseline(self.baseline, self.seed)
        if not (isinstance(self.probability, Real) and 0 < self.probability < 1):
            raise InputError(f"probability is that of a cell to be visible, a number between 0 and 1, not "
                             f"{self.probability!r}.")  # fmt: skip

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """Eq. 1, estimated."""
        x, hidden = record.input, make_baseline(self.baseline, record, self.seed)
        size = tuple(x.shape[2:])
        cells = tuple(map(min, sides_of(self.cells, len(size), "cells"), size))

        def see_through(rows: Tensor, numbers: Tensor) -> Tensor:
            return torch.lerp(hidden[rows], x[rows], self._masks(numbers, cells, size)[:, None].to(x))

        scores = record.evaluations.scores(see_through, self.masks)
        total, visible = scores.new_zeros(len(x), math.prod(size)), scores.new_zeros(math.prod(size))
        for first in range(0, self.masks, _TOGETHER):
            numbers = torch.arange(first, min(first + _TOGETHER, self.masks), device=x.device)
            masks = self._masks(numbers, cells, size).flatten(1).double()
            total, visible = total + scores[:, numbers] @ masks, visible + masks.sum(0)
        expected = torch.full_like(visible, self.masks * self.probability)
        times = torch.where(visible > 0, visible, expected) if self.normalised else expected
        return (total / times).view(len(x), *size).float()

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """How far the values are above the least of each image."""
        least = values.flatten(1).amin(1).view(-1, *(1 for _ in size))
        return super().to_maps(values - least, size)

    def _masks(self, numbers: Tensor, cells: Sequence[int], size: Sequence[int]) -> Tensor:
        """The masks of these numbers, 0 to 1, float32 ``(b, *size)``."""
        draws = torch.stack([self._draw(int(number), math.prod(cells) + len(cells)) for number in numbers])
        draws = draws.to(numbers.device)
        masks = (draws[:, len(cells) :] < self.probability).float().view(-1, *cells)
        for shift, count, side in zip(draws.T, cells, size, strict=False):
            masks = torch.einsum("bs...,bsl->b...l", masks, _enlarged(shift, count, side))
        return masks

    def _draw(self, number: int, count: int) -> Tensor:
        """What is drawn for one mask, which depends on nothing but its number and the seed."""
        return torch.rand(count, generator=numbered(self.seed, number))


def _enlarged(shift: Tensor, cells: int, side: int) -> Tensor:
    """The share ``(b, cells, side)`` of each cell in each pixel along a side, moved by `shift` (0 to 1) of a cell."""
    cell = -(-side // cells)  # rounded up, so that the image fits however it is shifted
    shares = F.interpolate(torch.eye(cells)[None], size=(cells + 1) * cell, mode="linear", align_corners=False)[0]
    first = (shift * (cell + 1)).long()
    places = first[:, None] + torch.arange(side, device=shift.device)
    return shares.to(shift.device)[:, places].movedim(1, 0)
