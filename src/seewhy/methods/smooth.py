"""Any gradient method, smoothed over noisy copies of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError, InputTypeError
from .base import Method
from .baselines import check_seed, numbered
from .make import make_methods
from .registry import register
from .repeating import Repeating


@dataclass(frozen=True)
class Noisy(Repeating):
    """A gradient method, taken together over copies of the image with noise.

    Args:
        base: the method, by name, class or instance: ``"saliency"``, ``"guided_backprop"``, ``"grad_cam"``,
            ``IntegratedGradients(steps=10)`` …
        samples: how many copies.
        noise: the noise's standard deviation as a share of the image's range.
        seed: of the noise, which is the same for all images.

    Raises:
        InputError: `noise` is not above 0, or another option is no number that fits.
        InputTypeError: `base` is no method, or several.
    """

    base: Any = "saliency"
    samples: int = 50
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.samples, "samples")
        check_seed(self.seed)
        if not (isinstance(self.noise, Real) and 0 < self.noise < float("inf")):
            raise InputError(f"noise is a share of the image's range, a number above 0, not {self.noise!r}.")
        if isinstance(self.base, list | tuple):
            raise InputTypeError(f"base is one method, not {len(self.base)}: ask once for each, with a "
                                 "name= of its own.")  # fmt: skip
        _ = self._method  # refused here if it is none

    @cached_property
    def _method(self) -> Method:
        """The method that is smoothed."""
        return make_methods(self.base, {})[0]

    @property
    def needs(self) -> Needs:
        """To ask the model again, where the base method looks at a layer also there."""
        needs = self._method.needs
        return Needs(activation=needs.layer, head=needs.head, evaluations=self.speed)

    def moments(self, record: Record) -> tuple[Tensor, Tensor]:
        """The mean of the base method's values over the samples, and that of their squares, float64."""
        record.warnings.extend(self.cautions)
        x = record.input
        spread = self.noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, *(1 for _ in x.shape[1:]))

        def with_noise(rows: Tensor, numbers: Tensor) -> Tensor:
            draws = torch.stack([self._draw(int(number), x) for number in numbers])
            return x[rows] + spread[rows] * draws.to(x)

        totals: list[Tensor] = []
        for rows, _, passed in record.evaluations.records(with_noise, self.samples, self._method.needs):
            values = self._method.compute(passed).double()
            totals = totals or [values.new_zeros(len(x), *values.shape[1:]) for _ in range(2)]
            for power, total in enumerate(totals, 1):
                total.index_add_(0, rows, values**power / self.samples)
            record.warnings.extend(said for said in passed.warnings if said not in record.warnings)
            if again := vars(passed).get("evaluations"):
                record.warnings.extend(said for said in again.warnings if said not in record.warnings)
        mean, square = totals
        return mean, square

    def _draw(self, number: int, x: Tensor) -> Tensor:
        """The noise of one sample, which depends on nothing but its number and the seed."""
        return torch.randn(x.shape[1:], generator=numbered(self.seed, number))

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """As the base method's."""
        return self._method.to_maps(values, size)


@register("smooth_grad")
@dataclass(frozen=True)
class SmoothGrad(Noisy):
    """SmoothGrad: the mean of a gradient method over copies of the image with noise.

    Smilkov et al. 2017, "SmoothGrad", arXiv 1706.03825, section 3: the mean over `samples` of the base method's values
    for x + N(0, s²), s being `noise` times the range of the image's values as the model takes it. `.values` and
    `.maps` are as those of the base method. It costs those of the base method for each sample.

    Args:
        base: the method that is smoothed, by name, class or instance: ``"saliency"``, ``"guided_backprop"``,
            ``"grad_cam"``, ``IntegratedGradients(steps=10)`` …
        samples: how many copies.
        noise: the noise's standard deviation as a share of the image's range.
        seed: of the noise, which is the same for all images.

    Raises:
        InputError: `noise` is not above 0, or another option is no number that fits.
        InputTypeError: `base` is no method, or several.
    """

    def compute(self, record: Record) -> Tensor:
        """The mean over the samples."""
        return self.moments(record)[0].float()

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """As the base method's."""
        return self._method.signed


@register("square_grad")
@dataclass(frozen=True)
class SquareGrad(Noisy):
    """SquareGrad: the mean square of a gradient method over copies of the image with noise.

    Hooker et al. 2018, "A Benchmark for Interpretability Methods in Deep Neural Networks", arXiv 1806.10758, section 4
    (SmoothGrad-Squared). `.values` have the shape of the base method's, at least 0. It costs those of the base method
    for each sample. Options are those of `SmoothGrad`.
    """

    def compute(self, record: Record) -> Tensor:
        """The mean square."""
        return self.moments(record)[1].float()


@register("var_grad")
@dataclass(frozen=True)
class VarGrad(Noisy):
    """VarGrad: the variance of a gradient method over copies of the image with noise.

    Adebayo et al. 2018, "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values",
    arXiv 1810.03307, section 2: how much the values change from sample to sample; the mean itself counts for nothing.
    `.values` have the shape of the base method's, at least 0. It costs those of the base method for each sample.
    Options are those of `SmoothGrad`.
    """

    def compute(self, record: Record) -> Tensor:
        """The mean square less the square of the mean."""
        mean, square = self.moments(record)
        return (square - mean**2).clamp(min=0).float()
