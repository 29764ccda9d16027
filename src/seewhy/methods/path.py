"""Gradients gathered along a path to the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..arguments import whole
from ..engine.record import Needs, Record
from .baselines import Baseline, check_baseline, make_baseline
from .registry import register
from .repeating import Repeating

_INCOMPLETE = 0.05  # of the difference of the scores
_GRADIENT = Needs(input_gradient="plain")


@register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Repeating):
    """Integrated gradients: the gradient along the straight line from a baseline to the image, times the way.

    Sundararajan, Taly, Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365, eq. 1, by Gauss-Legendre
    quadrature. `.values` are ``(N, C, H, W)``, signed: they add up to S(image) − S(baseline), but for the error of
    `steps`, which ``measures["completeness_error"]`` has as a share of that difference; over 5 % a warning says so.
    `.maps` are their sums over the colours. It costs a forward and a backward pass for each step, and two forwards.

    Args:
        steps: points on the line.
        baseline: where it begins: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour), ``"blur"``,
            ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of the noise.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> found = explainer.explain(image, "integrated_gradients", target=1, baseline=torch.zeros(3, 1, 1))
    >>> float(found.measures["completeness_error"][0]) < 0.05
    True
    """

    steps: int = 50
    baseline: Baseline = "black"
    seed: int = 0
    signed = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.steps, "steps")
        check_baseline(self.baseline, self.seed)

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """Eq. 1."""
        record.warnings.extend(self.cautions)
        x, start = record.input, make_baseline(self.baseline, record, self.seed)
        points, weights = (torch.from_numpy(n).to(x.device) for n in np.polynomial.legendre.leggauss(self.steps))
        points, weights = (points + 1) / 2, weights / 2  # from -1..1 to 0..1
        one = (-1, *(1 for _ in x.shape[1:]))

        def on_the_line(rows: Tensor, numbers: Tensor) -> Tensor:
            return torch.lerp(start[rows], x[rows], points[numbers].to(x).view(one))

        total = torch.zeros_like(x, dtype=torch.float32)
        for rows, numbers, passed in record.evaluations.records(on_the_line, self.steps, _GRADIENT):
            total.index_add_(0, rows, passed.input_gradient.float() * weights[numbers].float().view(one))
        values = total * (x - start).float()
        self._measure(record, values, start)
        return values

    def _measure(self, record: Record, values: Tensor, start: Tensor) -> None:
        """How far the values are from adding up to the difference of the scores."""
        change = record.scores.double() - record.evaluations.scores(lambda rows, _: start[rows], 1)[:, 0]
        missing = (values.double().flatten(1).sum(1) - change).abs()
        rounding = 1e-6 * values.double().abs().flatten(1).sum(1)
        error = torch.where(missing <= rounding, 0, missing / change.abs())
        record.measures["completeness_error"] = error
        if float(error.max()) > _INCOMPLETE:
            record.warnings.append(
                f"Integrated gradients miss the difference of the scores by more than {_INCOMPLETE:.0%} of it for some "
                f"image, by how much is measures['completeness_error']: take more steps= than {self.steps}."
            )

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The sum over the colours, which adds up as the values do."""
        return super().to_maps(values.sum(1), size)
