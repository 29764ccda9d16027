"""Sobol: the share of the score's variance that goes through each cell of a grid."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.quasirandom import SobolEngine

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError
from .baselines import Baseline, check_baseline, make_baseline, sides_of
from .registry import register
from .repeating import Perturbing

_ROUNDING = 4  # units in the last place of scores, within which they are equal
_EQUAL = (
    "Sobol: for some image all masks give the same score but for rounding, so nothing has a share in its variance and "
    "its map is 0. Another baseline= may change the score, or the model in float32."
)


@register("sobol")
@dataclass(frozen=True)
class Sobol(Perturbing):
    """Sobol: the share of the score's variance under random masks in which each cell of a grid takes part.

    Fel et al. 2021, "Look at the Variance!", arXiv 2111.04138, section 3: each cell of a mask is a number from 0, the
    baseline, to 1, the image; the total-order index of a cell is the share of the variance of S that is left where all
    others are known, by Jansen's estimator over a scrambled Sobol sequence. `.values` are ``(N, *grid)``, at least 0:
    1 where all of the variance is due to the cell, alone or together with others, so that they add up to 1 or, as far
    as cells act together, more. They have no sign: a cell that argues against the target varies the score as much.
    It costs ``designs`` times one more than the number of cells forward passes (2080 as it is).

    Args:
        grid: cells along the sides, or one number for each side.
        designs: how many masks of which each cell in turn is drawn again; best a power of two.
        baseline: what shows where a mask is 0: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour),
            ``"blur"``, ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of the sequence's scrambling, which is the same for all images, and of the noise.

    Raises:
        InputError: fewer than 2 designs, too many cells, an unknown baseline, or a number that does not fit.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    >>> explainer.explain(image, "sobol", target=1, grid=(2, 3), designs=8, baseline="mean").values.shape
    (1, 2, 3)
    """

    grid: int | Sequence[int] = 8
    designs: int = 32
    baseline: Baseline = "black"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if whole(self.designs, "designs") < 2:
            raise InputError("A variance needs designs= of at least 2.")
        check_baseline(self.baseline, self.seed)

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """Jansen's estimator of the total-order indices."""
        x, hidden = record.input, make_baseline(self.baseline, record, self.seed)
        size = tuple(x.shape[2:])
        grid = tuple(map(min, sides_of(self.grid, len(size), "grid"), size))
        count, (first, second) = math.prod(grid), self._designs(math.prod(grid), x.device)

        def see_through(rows: Tensor, numbers: Tensor) -> Tensor:
            cell, design = numbers // self.designs - 1, numbers % self.designs
            again = cell[:, None] == torch.arange(count, device=x.device)  # nowhere in the first `designs` masks
            cells = torch.where(again, second[design], first[design]).view(-1, 1, *grid)
            return torch.lerp(hidden[rows], x[rows], F.interpolate(cells, size, mode="nearest-exact").to(x))

        scores = record.evaluations.scores(see_through, (count + 1) * self.designs)
        scores = scores.view(len(x), count + 1, self.designs)
        masked, again = scores[:, 0], scores[:, 1:]
        rounding = _ROUNDING * torch.finfo(x.dtype).eps * masked.abs().amax(1)
        equal = (masked.amax(1) - masked.amin(1) <= rounding)[:, None]
        if equal.any():
            record.warnings.append(_EQUAL)
        indices = (again - masked[:, None]).square().mean(2) / (2 * masked.var(1, keepdim=True))
        return indices.masked_fill(equal, 0).view(len(x), *grid).float()

    def _designs(self, count: int, device: torch.device) -> Tensor:
        """Two independent masks for each design, ``(2, designs, cells)``."""
        if 2 * count > SobolEngine.MAXDIM:
            raise InputError(f"A grid of {count} cells is more than a Sobol sequence has sides for, which is "
                             f"{SobolEngine.MAXDIM // 2}: take a smaller grid=.")  # fmt: skip
        seed = operator.index(self.seed) % 2**63
        engine = SobolEngine(2 * count, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        return engine.draw(self.designs).view(self.designs, 2, count).movedim(1, 0).to(device)
