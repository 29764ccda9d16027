"""Faithfulness by sums: is what is attributed what is lost when it goes?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from ..arguments import real, whole
from ..errors import InputError
from ..methods.base import Method
from ..methods.baselines import Baseline, check_baseline, generator, numbered
from ..methods.make import make_methods
from ..methods.superpixels import Segmenting
from .alike import pearson
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

_SENSITIVITIES = ("saliency", "guided_backprop", "deconvnet", "guided_grad_cam")


def mufidelity(
    explainer: Explainer,
    explanation: Any,
    *,
    grid: int = 9,
    subset: float = 0.2,
    samples: int = 200,
    baseline: Baseline | None = None,
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """µFidelity (Bhatt 2020, definition 3): do random sets fetch what they are attributed? The correlation of the two.

    Sets of cells of a grid are drawn; for each, the attribution is summed over it and the score's fall is measured when
    it is replaced. The value is their Pearson correlation, −1..1; a higher one is better.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=`` and ``target=``. Raw values of the input
            are taken where there are any, with their signs.
        grid: cells along each side.
        subset: the share of the cells in a set, between 0 and 1.
        samples: how many sets.
        baseline: what comes in their place, as for occlusion; None: what the method measured against, else black.
        seed: of the sets, which are the same for all images.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where the attribution or the score does not change from set to set.

    Raises:
        SeewhyError: in one of its kinds, where maps and images do not fit, or the images cannot be had again.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 18, 18), "input_x_gradient", target=1)
    >>> bool((abs(mufidelity(explainer, found, samples=20, baseline="mean").values) <= 1).all())
    True
    """
    check_baseline("black" if baseline is None else baseline, seed)
    cells, count = whole(grid, "grid"), whole(samples, "samples")
    subset = real(subset, "subset", "a share of the cells between 0 and 1", lambda number: 0 < number < 1)
    subject = Subject(explainer, explanation, **common)
    sides = subject.maps.shape[1:]
    number = cells ** len(sides)
    few = min(max(1, round(subset * number)), number - 1)
    drawn = torch.rand(count, number, generator=generator(seed)).argsort(1).argsort(1) < few
    where = _cells(sides, cells)

    def compute(chunk: Chunk) -> Found:
        x, start = chunk.record.input, subject.start(chunk, baseline, seed)
        sets, cell = drawn.to(x.device), where.to(x.device)

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            return torch.where(sets[numbers][:, cell][:, None], start[rows], x[rows])

        falls = chunk.record.scores.double()[:, None] - chunk.ask.scores(change, count)
        per_cell = torch.zeros(len(x), number, dtype=torch.float64, device=x.device)
        per_cell.index_add_(1, cell.flatten(), chunk.attribution.double().sum(1).flatten(1))
        sums = per_cell @ sets.double().mT
        found = pearson(sums, falls)
        still = (falls.amax(1) == falls.amin(1)) | (sums.amax(1) == sums.amin(1)) | _same_everywhere(chunk.attribution)
        return {"values": torch.where(still, torch.nan, found)}

    values = subject.each(compute)["values"]
    return Score(name="mufidelity", values=values, higher_is_better=True, provenance=subject.provenance)


def infidelity(
    explainer: Explainer,
    explanation: Any,
    *,
    perturbation: Literal["square", "noise"] = "square",
    window: int | None = None,
    noise: float = 0.2,
    samples: int = 100,
    baseline: Baseline | None = None,
    sensitivity: bool | None = None,
    normalise: bool = True,
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Infidelity (Yeh 2019, eq. 1): the mean of (Iᵀ Φ − (S(x) − S(x − I)))² over random changes I of the image.

    Args:
        explainer: of the network.
        explanation: as for `mufidelity`.
        perturbation: ``"square"``: I is what makes the image the baseline within a square (section 4.2); ``"noise"``:
            Gaussian noise.
        window: the square's side in pixels; None: a quarter of the shorter side.
        noise: the noise's standard deviation as a share of the image's range.
        samples: how many changes.
        baseline: what is put into the square, and what attributions that are shares of the score are taken against;
            None: what the method measured against, else black.
        sensitivity: whether Φ says what a unit of input does to the score, as gradients do, so that Iᵀ Φ is the sum of
            its products with I; or has a share of the score for each place, of which I takes the share I / (x −
            baseline). None: the former for gradients (saliency, guided backprop, SmoothGrad …), else the latter.
        normalise: scale Φ by the number, at least 0, that makes the value least, as scales of maps differ by method
            (Yeh 2019, section 4.1); then 0 is the least and the mean square of the changes the greatest possible value,
            which an inverted map has.
        seed: of the changes, which are the same for all images but for the noise's scale.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` in squared units of the score; a lower value is better. ``numbers["scale"]`` is the number by which Φ
        was scaled, and ``numbers["worst"]`` what attributing nothing would give.

    Raises:
        InputError: an option is out of its range.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "input_x_gradient", target=1)
    >>> score = infidelity(explainer, found, samples=20, baseline="mean")
    >>> bool(score.mean <= score.numbers["worst"][0])
    True
    """
    check_baseline("black" if baseline is None else baseline, seed)
    count = whole(samples, "samples")
    if perturbation not in ("square", "noise"):
        raise InputError(f"perturbation is 'square' or 'noise', not {perturbation!r}.")
    noise = real(noise, "noise", "a share of the image's range above 0", lambda number: number > 0)
    subject = Subject(explainer, explanation, **common)
    side = max(1, min(subject.maps.shape[1:]) // 4) if window is None else whole(window, "window")
    local = is_sensitivity(subject.known_method) if sensitivity is None else sensitivity

    def compute(chunk: Chunk) -> Found:
        x = chunk.record.input
        alone = local and perturbation == "noise"  # without any baseline
        reach = (x - (0 if alone else subject.start(chunk, baseline, seed))).double()
        sums = torch.zeros(len(x), count, dtype=torch.float64, device=x.device)

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            if perturbation == "square":
                holes = torch.stack([_square(x.shape[2:], side, seed, int(k)) for k in numbers])[:, None].to(x.device)
                moved = torch.where(holes, reach[rows], 0)
                shares = holes.double()
            else:
                draws = torch.stack([draw(x.shape[1:], seed, int(k)) for k in numbers]).to(x.device)
                moved = noise * _ranges(x)[rows].double() * draws.double()
                shares = torch.where(reach[rows] != 0, moved / reach[rows], 0)
            weighed = chunk.attribution[rows].double() * (moved if local else shares)
            if not local and chunk.attribution.shape[1] == 1 and perturbation == "noise":
                weighed = weighed / x.shape[1]  # a number for all colours is shared by them
            sums[rows, numbers] = weighed.flatten(1).sum(1)
            return (x[rows].double() - moved).to(x)

        falls = chunk.record.scores.double()[:, None] - chunk.ask.scores(change, count)
        squares = (sums**2).sum(1)
        fitted = (sums * falls).sum(1) / torch.where(squares > 0, squares, 1)
        scale = fitted.clamp(min=0) if normalise else torch.ones_like(fitted)
        return {
            "values": ((scale[:, None] * sums - falls) ** 2).mean(1),
            "scale": scale,
            "worst": (falls**2).mean(1),
        }

    found = subject.each(compute)
    return Score(name="infidelity", values=found.pop("values"), higher_is_better=False, numbers=found,
                 provenance=subject.provenance)  # fmt: skip


def completeness(
    explainer: Explainer, explanation: Any, *, baseline: Baseline | None = None, **common: Unpack[Common]
) -> Score:
    """Completeness (Sundararajan 2017, section 3): by how much the attributions' sum misses S(x) − S(baseline).

    The value is what is missed as a share of that difference; 0 is best. Gradients and class activation maps
    do not claim to add up, and are far from it.

    Args:
        explainer: of the network.
        explanation: as for `mufidelity`; of an `Explanation` the sum of its raw values.
        baseline: what the attributions are taken against, as for occlusion; None: what the method itself measured, its
            ``measures["completeness_error"]``, else against its own baseline, or black.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`, with the sum as ``numbers["sum"]`` and S(x) − S(baseline) as ``numbers["difference"]`` where these
        were measured here; undefined where the latter is 0 and the sum is not.

    Raises:
        InputError: values are those of superpixels, or against several baselines.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> how = {"target": 1, "steps": 200, "baseline": "mean"}
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "integrated_gradients", **how)
    >>> completeness(explainer, found).mean < 0.05
    True
    """
    check_baseline("black" if baseline is None else baseline)
    subject = Subject(explainer, explanation, **common)
    own = subject.explanation.measures.get("completeness_error") if subject.explanation else None
    if baseline is None and own is not None:
        return Score(name="completeness", values=own, higher_is_better=False, provenance=subject.provenance)
    if isinstance(subject.known_method, Segmenting):
        raise InputError("Each pixel of this map has the value of its whole superpixel, so pixels do not add up.")
    values = subject.maps if subject.explanation is None else subject.explanation.values
    sums = torch.from_numpy(values.reshape(len(values), -1).sum(1, dtype=np.float64))

    def compute(chunk: Chunk) -> Found:
        start = subject.start(chunk, baseline)
        there = chunk.ask.scores(lambda rows, _: start[rows], 1)[:, 0]
        return {"difference": chunk.record.scores.double() - there}

    difference = torch.from_numpy(subject.each(compute)["difference"]).double()
    missed = (sums - difference).abs()
    share = torch.where(missed == 0, 0.0, torch.where(difference != 0, missed / difference.abs(), torch.nan))
    return Score(
        name="completeness", values=share.numpy(), higher_is_better=False, provenance=subject.provenance,
        numbers={"sum": sums.numpy(), "difference": difference.numpy()},
    )  # fmt: skip


def _same_everywhere(attribution: Tensor) -> Tensor:
    each = attribution.sum(1).flatten(1)
    return each.amax(1) == each.amin(1)


def is_sensitivity(method: Method | None) -> bool:
    """Whether values of a method are what a unit of input does to the score, and not shares of it."""
    base = getattr(method, "base", None)  # what SmoothGrad and others go around has the units of its own values
    if base is not None:
        return is_sensitivity(make_methods(base, {})[0])
    return method is not None and method.registered_name in _SENSITIVITIES


def draw(shape: Any, seed: int, number: int) -> Tensor:
    """Standard normal noise, which depends on nothing but the seed and its number."""
    return torch.randn(tuple(shape), generator=numbered(seed, number))


def _square(sides: Any, side: int, seed: int, number: int) -> Tensor:
    """True within a square, or cube, at a random place inside the image."""
    drawn = torch.rand(len(sides), generator=numbered(seed, number)).tolist()
    found = torch.zeros(tuple(sides), dtype=torch.bool)
    corner = [int(share * (max(length - side, 0) + 1)) for share, length in zip(drawn, sides, strict=True)]
    found[tuple(slice(first, first + side) for first in corner)] = True
    return found


def _ranges(x: Tensor) -> Tensor:
    """The range of the values of each image ``(n, 1, …)``."""
    flat = x.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *(1 for _ in x.shape[1:]))


def _cells(sides: Any, count: int) -> Tensor:
    """The number of the cell of a grid of so many a side that each position is in."""
    found = torch.zeros(tuple(sides), dtype=torch.long)
    for axis, length in enumerate(sides):
        along = torch.arange(length) * count // length
        found = found * count + along.view(-1, *(1 for _ in sides[axis + 1 :]))
    return found
