"""Gradients along a way from a baseline to the image, which add up to the difference of the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError
from .base import missed
from .baselines import Baseline, blurred, check_baseline, check_seed, make_baseline, numbered
from .gradient import GradientMethod
from .registry import register
from .repeating import Repeating

_INCOMPLETE = 0.05  # of the difference of the scores, above which the values are not to be taken for a sum


@dataclass(frozen=True)
class Path(Repeating, GradientMethod):
    """Contributions of the values of the input that add up to the difference of two scores.

    `.values` are ``(N, C, H, W)``, signed; `.maps` their sums over the colours.

    Args:
        steps: points on the way.
    """

    steps: int = 50
    signed = True
    called: ClassVar[str]  # in messages, in the plural

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.steps, "steps")

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    @property
    def passed(self) -> Needs:
        """What is asked of each point."""
        return Needs(input_gradient=self.rule)

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The sum over the colours, which adds up as the values do."""
        return super().to_maps(values.sum(1), size)

    def measure(self, record: Record, values: Tensor, start: Tensor) -> Tensor:
        """The values, and how far they are from adding up to the difference to the scores of the baseline `start`."""
        change = record.scores.double() - record.evaluations.scores(lambda rows, _: start[rows], 1)[:, 0]
        record.measures["completeness_error"] = error = missed(values, change)
        if float(error.max()) > _INCOMPLETE and not self.libra:
            record.warnings.append(
                f"{self.called} miss the difference of the scores by more than {_INCOMPLETE:.0%} of it for some "
                f"image, by how much is measures['completeness_error']: take more steps= than {self.steps}."
            )
        return values


@register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(Path):
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

    baseline: Baseline = "black"
    seed: int = 0
    called = "Integrated gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline, self.seed)

    def compute(self, record: Record) -> Tensor:
        """Eq. 1."""
        record.warnings.extend(self.cautions)
        x, start = record.input, make_baseline(self.baseline, record, self.seed)
        points, weights = (torch.from_numpy(n).to(x.device) for n in np.polynomial.legendre.leggauss(self.steps))
        points, weights = (points + 1) / 2, weights / 2  # from -1..1 to 0..1
        total = torch.zeros_like(x, dtype=torch.float32)
        on_the_line = line(start, x, points)
        for rows, numbers, passed in record.evaluations.records(on_the_line, self.steps, self.passed):
            total.index_add_(0, rows, passed.input_gradient.float() * _each(weights[numbers].float(), x))
        return self.measure(record, total * (x - start).float(), start)


@register("idgi")
@dataclass(frozen=True)
class IDGI(IntegratedGradients):
    """IDGI: each change of the score along the line, shared out by the squares of the gradient.

    Yang, Wang, Bilgic 2023, "IDGI: A Framework to Eliminate Explanation Noise from Integrated Gradients", arXiv
    2303.14242, eq. 7 and algorithm 1, on the straight line: the sum over steps of g² / sum(g²) · (S_next − S). Parts of
    the gradient that do not go along with the score's change get no share. `.values` are ``(N, C, H, W)``, at least 0
    where the score only rises, and add up to S(image) − S(baseline); `.maps` are their sums over the colours. It costs
    two forward passes and a backward pass for each step.

    Args:
        steps: points on the line.
        baseline: where it begins, as for `IntegratedGradients`.
        seed: of the noise.
    """

    called = "IDGI's values"

    def compute(self, record: Record) -> Tensor:
        """Algorithm 1."""
        record.warnings.extend(self.cautions)
        x, start = record.input, make_baseline(self.baseline, record, self.seed)
        on_the_line = line(start, x, torch.linspace(0, 1, self.steps + 1, dtype=torch.float64, device=x.device))
        changes = record.evaluations.scores(on_the_line, self.steps + 1).diff(dim=1)
        total = torch.zeros_like(x, dtype=torch.float32)
        for rows, numbers, passed in record.evaluations.records(on_the_line, self.steps, self.passed):
            squares = passed.input_gradient.double() ** 2
            sums = squares.flatten(1).sum(1)
            shares = torch.where(sums > 0, changes[rows, numbers] / torch.where(sums > 0, sums, 1), 0)
            total.index_add_(0, rows, (squares * _each(shares, x)).float())
        return self.measure(record, total, start)


@register("blur_ig")
@dataclass(frozen=True)
class BlurIG(Path):
    """Blur integrated gradients: the gradient along the way from the blurred image to the sharp one, times the way.

    Xu, Venugopalan, Sundararajan 2020, "Attribution in Scale and Space", arXiv 2004.03383, eq. 3: there is no baseline
    to choose, and no colour that gets nothing. The standard deviation of the Gaussian falls from `blur` to 0 in squares
    of equal steps, finer where more changes. `.values` are ``(N, C, H, W)``, signed: they add up to S(image) −
    S(blurred), but for the error in ``measures["completeness_error"]``; over 5 % a warning says so. `.maps` are their
    sums over the colours. It costs a forward and a backward pass for each step, and two forwards.

    Args:
        steps: how often the image gets sharper.
        blur: the greatest standard deviation, in pixels; None: a quarter of the shorter side.

    Raises:
        InputError: `blur` is no number above 0.
    """

    blur: float | None = None
    called = "Blur integrated gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur is not None and not (isinstance(self.blur, Real) and 0 < self.blur < float("inf")):
            raise InputError(f"blur is the greatest standard deviation in pixels, a number above 0, not {self.blur!r}.")

    def compute(self, record: Record) -> Tensor:
        """Eq. 3, at the middle of each step."""
        record.warnings.extend(self.cautions)
        x = record.input
        most = min(x.shape[2:]) / 4 if self.blur is None else float(self.blur)

        def at(rows: Tensor, times: Tensor) -> Tensor:
            """The images at times from 0, the most blurred, to 1."""
            sigmas = most * (1 - times) ** 2
            parts = zip(rows.tolist(), sigmas.tolist(), strict=True)
            return torch.cat([blurred(x[row : row + 1].float(), sigma) if sigma else x[row : row + 1].float()
                              for row, sigma in parts])  # fmt: skip

        def half_way(rows: Tensor, numbers: Tensor) -> Tensor:
            return at(rows, (numbers + 0.5) / self.steps).to(x)

        total = torch.zeros_like(x, dtype=torch.float32)
        for rows, numbers, passed in record.evaluations.records(half_way, self.steps, self.passed):
            way = at(rows, (numbers + 1) / self.steps) - at(rows, numbers / self.steps)
            total.index_add_(0, rows, passed.input_gradient.float() * way)
        every = torch.arange(len(x), device=x.device)
        return self.measure(record, total, at(every, torch.zeros(len(x))).to(x))


@register("guided_ig")
@dataclass(frozen=True)
class GuidedIG(Path):
    """Guided integrated gradients: a way to the image on which the values with the least gradient go first.

    Kapishnikov et al. 2021, "Guided Integrated Gradients", arXiv 2106.09788, algorithm 1: at each step the `fraction`
    of the values with the least gradient are moved towards the image, until the distance left is that of the straight
    line; none is further from that line than `away` of the whole way. So noise in the gradient is passed by early.
    Which values are the least is a choice that rounding may turn where gradients are nearly equal, and the more with a
    large `away`: images are asked about one at a time, so that a map is the same in any batch, but another machine,
    another number of threads or `accelerate` may lead another way. `.values` are
    ``(N, C, H, W)``, signed: they add up to S(image) − S(baseline), but for the error in
    ``measures["completeness_error"]``; over 5 % a warning says so. `.maps` are their sums over the colours. It costs a
    forward and a backward pass for each step, one after the other and image by image, and two forwards.

    Args:
        steps: how many.
        baseline: where the way begins, as for `IntegratedGradients`.
        fraction: of the values, which move at once.
        away: how far the way may be from the straight line, as a share of it: 0 is the line itself, 1 no limit.
        seed: of the noise.

    Raises:
        InputError: `fraction` is not in 0..1, or `away` is not.
    """

    baseline: Baseline = "black"
    fraction: float = 0.25
    away: float = 0.02
    seed: int = 0
    called = "Guided integrated gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline, self.seed)
        for name, least in (("fraction", 1e-6), ("away", 0)):
            given: Any = getattr(self, name)
            if isinstance(given, bool) or not (isinstance(given, Real) and least <= float(given) <= 1):
                raise InputError(f"{name} is a share, a number {'above' if least else 'from'} 0 to 1, not {given!r}.")

    def compute(self, record: Record) -> Tensor:
        """Algorithm 1."""
        record.warnings.extend(self.cautions)
        x, start = record.input, make_baseline(self.baseline, record, self.seed)
        total, now = torch.zeros_like(x, dtype=torch.float32), start.float()
        with record.evaluations.apart(self.steps) as asked:
            for step in range(self.steps):
                here = now
                for rows, _, passed in asked.records(partial(_picked, here.to(x)), 1, self.passed):
                    gradient = passed.input_gradient.float()
                    moved = self._moved(here[rows], x[rows].float(), start[rows].float(), gradient, step)
                    now = now.index_copy(0, rows, moved)
                    total.index_add_(0, rows, gradient * (moved - here[rows]))
        return self.measure(record, total, start)

    def _moved(self, now: Tensor, end: Tensor, start: Tensor, gradient: Tensor, step: int) -> Tensor:
        """Where a step from `now` leads."""
        share = (step + 1) / self.steps
        nearest = torch.lerp(start, end, max(share - self.away, 0.0))
        furthest = torch.lerp(start, end, min(share + self.away, 1.0))
        left = _distance(start, end) * (1 - share)
        forward = (end - start).sign()
        now = torch.where((nearest - now) * forward > 0, nearest, now)  # what fell too far behind
        far = ((furthest - now) * forward <= 0).flatten(1)  # as far as they may go
        slopes = gradient.abs().flatten(1).masked_fill(far, torch.inf)
        for _ in range(math.ceil(1 / self.fraction) + 1):
            way, least = furthest - now, _least(slopes, self.fraction)
            first, slopes = least.view_as(now), slopes.masked_fill(least, torch.inf)
            gain = (way * first).abs().flatten(1).sum(1)
            wanted = _distance(now, end) - left
            part = torch.where(gain > 0, (wanted / gain.clamp(min=1e-30)).clamp(0, 1), 0)
            part = _each(part, now)
            now = torch.where(first, torch.where(part < 1, now + part * way, furthest), now)  # there, and not nearly
            if bool((wanted <= gain * (1 + 1e-6)).all()):
                break
        return now


def _least(slopes: Tensor, fraction: float) -> Tensor:
    """Which values are among the `fraction` of all with the least slope; it is infinite where they cannot move."""
    count = math.ceil(fraction * slopes.shape[1])
    return (slopes <= slopes.kthvalue(count, dim=1, keepdim=True).values) & slopes.isfinite()


def _picked(images: Tensor, rows: Tensor, _: Tensor) -> Tensor:
    return images[rows]


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().flatten(1).sum(1)


@register("gradient_shap")
@dataclass(frozen=True)
class GradientShap(Repeating, GradientMethod):
    """GradientSHAP: gradients at points drawn between noisy copies of the image and baselines, times the way.

    Lundberg, Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv 1705.07874, as Captum and shap
    have it (expected gradients, Erion et al. 2019, arXiv 1906.10670, eq. 2): the mean over `samples` of dS/dx at
    x' + a (x + noise − x'), times (x + noise − x'), a being uniform in 0..1 and x' one of the baselines. `.values` are
    ``(N, C, H, W)``, signed; in expectation they add up to the mean of S(image) − S(baseline). `.maps` are their sums
    over the colours. It costs a forward and a backward pass for each sample.

    Args:
        samples: how many.
        baseline: one, as for `IntegratedGradients`, or a list of them, each as likely.
        noise: the noise's standard deviation as a share of the image's range.
        seed: of all draws, which are the same for all images.

    Raises:
        InputError: `noise` is below 0, or another option is no number that fits.
    """

    samples: int = 50
    baseline: Baseline | Sequence[Baseline] = "black"
    noise: float = 0.0
    seed: int = 0
    signed = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.samples, "samples")
        check_seed(self.seed)
        if not self._baselines:
            raise InputError("The list of baselines is empty: give one at least.")
        for one in self._baselines:
            check_baseline(one, self.seed)
        if isinstance(self.noise, bool) or not (isinstance(self.noise, Real) and 0 <= self.noise < float("inf")):
            raise InputError(f"noise is a share of the image's range, a number of at least 0, not {self.noise!r}.")

    @property
    def _baselines(self) -> list[Any]:
        return list(self.baseline) if isinstance(self.baseline, list | tuple) else [self.baseline]

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """The mean over the samples."""
        record.warnings.extend(self.cautions)
        x = record.input
        starts = torch.stack([make_baseline(cast("Baseline", one), record, self.seed) for one in self._baselines])
        spread = _each(self.noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)), x)

        def drawn(rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
            """Where a sample begins, and the way from there."""
            draws = [self._draw(int(number), x) for number in numbers]
            start = torch.stack([starts[which, row] for (which, _, _), row in zip(draws, rows.tolist(), strict=True)])
            noise = torch.stack([noise for _, _, noise in draws]).to(x)
            return start, x[rows] + spread[rows] * noise - start

        def between(rows: Tensor, numbers: Tensor) -> Tensor:
            start, way = drawn(rows, numbers)
            shares = torch.tensor([self._draw(int(number), x)[1] for number in numbers], device=x.device)
            return start + _each(shares.to(x), x) * way

        total = torch.zeros_like(x, dtype=torch.float32)
        passed_needs = Needs(input_gradient=self.rule)
        for rows, numbers, passed in record.evaluations.records(between, self.samples, passed_needs):
            _, way = drawn(rows, numbers)
            total.index_add_(0, rows, passed.input_gradient.float() * way.float() / self.samples)
        return total

    def _draw(self, number: int, x: Tensor) -> tuple[int, float, Tensor]:
        """Which baseline, how far from it, and the noise, of one sample: by its number and the seed alone."""
        source = numbered(self.seed, number)
        which = int(torch.randint(len(self._baselines), (), generator=source))
        return which, float(torch.rand((), generator=source)), torch.randn(x.shape[1:], generator=source)

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The sum over the colours, which adds up as the values do."""
        return super().to_maps(values.sum(1), size)


def line(start: Tensor, end: Tensor, points: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A change that gives the images at so many `points` of 0..1 on the straight line between two batches."""

    def on_the_line(rows: Tensor, numbers: Tensor) -> Tensor:
        return torch.lerp(start[rows], end[rows], _each(points[numbers], end).to(end))

    return on_the_line


def _each(numbers: Tensor, images: Tensor) -> Tensor:
    """A number for each image, to be multiplied with them."""
    return numbers.view(-1, *(1 for _ in images.shape[1:]))
