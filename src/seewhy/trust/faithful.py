"""Faithfulness by order: does the score fall where the map says, and does it rise there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import real, whole
from ..errors import InputError
from ..methods.baselines import Baseline, check_baseline, check_seed, make_baseline, numbered
from .impute import impute
from .order import area, ranks, replaced
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

_STEPS = 224  # RISE changes 224 pixels of 224 x 224 at a time
_SHARE = "share of the positions, most relevant first"


def deletion(
    explainer: Explainer,
    explanation: Any,
    *,
    step: int | None = None,
    baseline: Baseline = "black",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Deletion (Petsiuk 2018, algorithm 1): the area under the probability while the most relevant pixels go first.

    Values are in 0..1, a lower one is better. Where a target has no probability, its score is taken.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=`` and ``target=``.
        step: how many positions go at a time; None: a 224th of them, the paper's 224 pixels.
        baseline: what comes in their place, as for occlusion; the paper's is the mean colour, 0 after normalisation,
            a ``torch.zeros(1)``.
        seed: of the order of positions where the map is the same, which is random.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` with the curve ``"deletion"`` over the share that is gone.

    Raises:
        SeewhyError: in one of its kinds, where maps and images do not fit, or the images cannot be had again.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 16, 16), "saliency", target=1)
    >>> deletion(explainer, found, step=32, baseline="mean").curves["deletion"].shape
    (2, 9)
    """
    return _one_way("deletion", explainer, explanation, step, baseline, seed, common)


def insertion(
    explainer: Explainer,
    explanation: Any,
    *,
    step: int | None = None,
    baseline: Baseline = "blur",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Insertion (Petsiuk 2018, section 4.1): the area under the probability while the most relevant pixels come first.

    It begins with the image blurred. Arguments are those of `deletion`; a higher value is better.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 16, 16), "saliency", target=1)
    >>> insertion(explainer, found, step=32).higher_is_better
    True
    """
    return _one_way("insertion", explainer, explanation, step, baseline, seed, common)


def _one_way(
    name: Literal["deletion", "insertion"], explainer: Explainer, explanation: Any, step: int | None,
    baseline: Baseline, seed: int, common: Common,
) -> Score:  # fmt: skip
    check_baseline(baseline, seed)
    subject = Subject(explainer, explanation, probability=True, **common)
    positions = subject.maps[0].size
    step = -(-positions // _STEPS) if step is None else whole(step, "step")
    counts = torch.tensor([*range(0, positions, step), positions])

    def compute(chunk: Chunk) -> Found:
        x, start = chunk.record.input, make_baseline(baseline, chunk.record, seed)
        few = counts.to(x.device)
        whole_image = chunk.record.scores.double()[:, None]
        if name == "deletion":
            change = replaced(x, start, ranks(chunk.maps, seed), few[1:])
            curve = torch.cat([whole_image, chunk.ask.scores(change, len(few) - 1)], 1)
        else:
            change = replaced(start, x, ranks(chunk.maps, seed), few[:-1])
            curve = torch.cat([chunk.ask.scores(change, len(few) - 1), whole_image], 1)
        return {"curve": curve, "values": area(curve, few / positions)}

    found = subject.each(compute)
    return Score(
        name=name, values=found["values"], higher_is_better=name == "insertion", curves={name: found["curve"]},
        steps=(counts / positions).numpy(), axis=_SHARE, provenance=subject.provenance,
    )  # fmt: skip


def road(
    explainer: Explainer,
    explanation: Any,
    *,
    order: Literal["both", "morf", "lerf"] = "both",
    fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    noise: float = 0.01,
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """ROAD, remove and debias (Rong 2022): the probability where the most or least relevant pixels are imputed.

    What is removed is filled in by noisy linear imputation, so that the shape of the hole tells nothing: each pixel is
    the mean of its eight neighbours, those beside it with weight 1/6 and those across with 1/12 (a linear system).

    Args:
        explainer: of the network.
        explanation: as for `deletion`.
        order: ``"morf"``: the most relevant first, lower is better; ``"lerf"``: the least relevant first, higher is
            better; ``"both"``: half the difference, least minus most, higher is better.
        fractions: of the pixels that are removed, each in 0..1; values are the mean over them.
        noise: the standard deviation that is added to what is filled in, in the model's units.
        seed: of the noise, which is the same for all images, and of the order where the map is the same.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` with the curves ``"morf"`` and ``"lerf"``, as far as they were asked for.

    Raises:
        InputError: `fractions` are not between 0 and 1, or the inputs are no images.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> sorted(road(explainer, explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=1)).curves)
    ['lerf', 'morf']
    """
    if order not in ("both", "morf", "lerf"):
        raise InputError(f"order is 'morf', 'lerf' or 'both', not {order!r}.")
    what = "shares of the image between 0 and 1, at least one of them"
    given: list[Any] = list(fractions) if isinstance(fractions, Sequence | np.ndarray) else [fractions]
    shares = [real(share, "fractions", what, lambda number: 0 < number < 1) for share in given or [None]]
    check_seed(seed)
    subject = Subject(explainer, explanation, probability=True, **common)
    if subject.maps.ndim != 3:
        raise InputError("ROAD fills in pixels from their neighbours: it is for images.")
    counts = torch.tensor([max(1, round(share * subject.maps[0].size)) for share in shares])

    def removed(chunk: Chunk, maps: Tensor) -> Tensor:
        x, places = chunk.record.input, ranks(maps, seed)
        few = counts.to(x.device)

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            holes = places[rows] < few[numbers].view(-1, 1, 1)
            draws = torch.stack([torch.randn(x.shape[1:], generator=numbered(seed, int(k))) for k in numbers])
            filled = impute(x[rows].float(), holes) + noise * draws.to(x.device)
            return torch.where(holes[:, None], filled.to(x), x[rows])

        found: Tensor = chunk.ask.scores(change, len(few))
        return found

    def compute(chunk: Chunk) -> Found:
        ways = {"morf": chunk.maps, "lerf": -chunk.maps}
        return {name: removed(chunk, maps) for name, maps in ways.items() if order in (name, "both")}

    curves = subject.each(compute)
    values = (curves["lerf"] - curves["morf"]) / 2 if order == "both" else curves[order]
    return Score(
        name="road" if order == "both" else f"road ({order})", values=values.mean(1), curves=curves,
        higher_is_better=order != "morf", steps=np.array(shares, np.float32), axis="share of the pixels removed",
        provenance=subject.provenance,
    )  # fmt: skip


def pixel_flipping(
    explainer: Explainer,
    explanation: Any,
    *,
    patch: int = 9,
    steps: int = 100,
    baseline: Baseline = "noise",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Region perturbation, or pixel flipping (Samek 2017, eq. 12): by how much the score falls, most relevant first.

    The image is cut into regions that do not overlap; one after the other, the most relevant first, is replaced. The
    value is the mean of S(image) − S(changed) over the L + 1 states, the first of which is the image itself: the area
    over the perturbation curve, in units of the score; a higher one is better.

    Args:
        explainer: of the network.
        explanation: as for `deletion`.
        patch: the side of a region in pixels; 1 flips single pixels (Bach 2015).
        steps: L, how many regions are replaced; all where there are fewer.
        baseline: what comes in their place; the paper's is uniform noise.
        seed: of the noise, and of the order of regions where the map is the same.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` with the curve ``"score"``.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 18, 18), "saliency", target=1)
    >>> pixel_flipping(explainer, found, baseline="mean").curves["score"].shape
    (1, 5)
    """
    check_baseline(baseline, seed)
    side, most = whole(patch, "patch"), whole(steps, "steps")
    subject = Subject(explainer, explanation, **common)
    sides = subject.maps.shape[1:]
    regions = int(np.prod([-(-length // side) for length in sides]))
    counts = torch.arange(1, min(most, regions) + 1)

    def compute(chunk: Chunk) -> Found:
        x, start = chunk.record.input, make_baseline(baseline, chunk.record, seed)
        places = enlarged(ranks(pooled(chunk.maps, side), seed), side, sides)
        clean = chunk.record.scores.double()[:, None]
        changed = chunk.ask.scores(replaced(x, start, places, counts.to(x.device)), len(counts))
        curve = torch.cat([clean, changed], 1)
        return {"score": curve, "values": (clean - curve).mean(1)}

    found = subject.each(compute)
    return Score(
        name="pixel_flipping", values=found["values"], higher_is_better=True, curves={"score": found["score"]},
        steps=np.arange(len(counts) + 1, dtype=np.float32), axis=f"regions of {side} pixels a side that are replaced",
        provenance=subject.provenance,
    )  # fmt: skip


def pooled(maps: Tensor, side: int) -> Tensor:
    """The mean over regions of so many pixels a side; those at the end may be smaller."""
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[maps.dim() - 1]
    sides = [min(side, length) for length in maps.shape[1:]]
    found: Tensor = pool(maps[:, None], sides, ceil_mode=True)[:, 0]
    return found


def enlarged(regions: Tensor, side: int, sides: Sequence[int]) -> Tensor:
    """The number of each region at all of its pixels ``(n, *sides)``."""
    for axis, length in enumerate(sides, 1):
        regions = regions.repeat_interleave(side, axis).narrow(axis, 0, length)
    return regions
