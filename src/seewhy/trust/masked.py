"""Faithfulness by masking: what is left of the probability where only what the map shows is left of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor

from ..methods.base import stretched
from ..methods.baselines import Baseline, check_baseline, make_baseline
from .alike import pearson
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer


def average_drop(
    explainer: Explainer, explanation: Any, *, baseline: Baseline = "black", **common: Unpack[Common]
) -> Score:
    """Average drop (Chattopadhay 2018, section 4.1, (i)): the share of the probability that is lost, max(0, Y − O) / Y.

    Y is the probability for the image, O that for the image times its map, which is stretched to 0..1 (a constant map
    shows nothing). Values are in 0..1, not percent; a lower one is better.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=`` and ``target=``.
        baseline: what the image fades to where the map is 0, as for occlusion.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`, with the probabilities as ``numbers["before"]`` and ``numbers["after"]``; undefined where the
        probability is 0, and where there is none but a score that is not above 0.

    Raises:
        SeewhyError: in one of its kinds, where maps and images do not fit, or the images cannot be had again.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 16, 16), "saliency", target=1)
    >>> len(average_drop(explainer, found, baseline="mean"))
    2
    """
    subject, found = _before_and_after(explainer, explanation, baseline, common)
    return Score(name="average_drop", values=_drop(found), higher_is_better=False, numbers=found,
                 provenance=subject.provenance)  # fmt: skip


def average_increase(
    explainer: Explainer, explanation: Any, *, baseline: Baseline = "black", **common: Unpack[Common]
) -> Score:
    """Increase in confidence (Chattopadhay 2018, section 4.1, (ii)): 1 where the probability rises, O > Y, else 0.

    Arguments and result are those of `average_drop`; a higher mean is better.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 16, 16), "saliency", target=1)
    >>> average_increase(explainer, found, baseline="mean").higher_is_better
    True
    """
    subject, found = _before_and_after(explainer, explanation, baseline, common)
    return Score(name="average_increase", values=found["after"] > found["before"], higher_is_better=True,
                 numbers=found, provenance=subject.provenance)  # fmt: skip


def adcc(explainer: Explainer, explanation: Any, *, baseline: Baseline = "black", **common: Unpack[Common]) -> Score:
    """ADCC (Poppi 2021, eq. 6): the harmonic mean of coherency, 1 − complexity and 1 − average drop, each in 0..1.

    Coherency is how far explaining the image times its map gives the same map again, their correlation from −1..1 to
    0..1; complexity the mean of the map, stretched to 0..1. A higher value is better. It explains again: for plain maps
    give ``method=`` (and ``layer=``).

    Arguments are those of `average_drop`; the three parts are among the result's `numbers`. It is undefined where the
    map is the same everywhere, which shows nothing and would get the best of values.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=1)
    >>> sorted(adcc(explainer, found, baseline="mean").numbers)
    ['average_drop', 'coherency', 'complexity']
    """
    check_baseline(baseline)
    subject = Subject(explainer, explanation, probability=True, **common)
    _ = subject.method  # refused before anything is computed

    flat = subject.maps.reshape(len(subject), -1)

    def compute(chunk: Chunk) -> Found:
        shown = _shown(chunk, baseline)
        maps = stretched(chunk.maps)
        again = torch.from_numpy(subject.again(chunk, shown).maps.copy()).to(maps)
        after = chunk.ask.scores(lambda rows, _: shown[rows], 1)[:, 0]
        return {
            "coherency": (1 + pearson(maps, again)) / 2,
            "complexity": maps.flatten(1).mean(1),
            "before": chunk.record.scores,
            "after": after,
        }

    found = subject.each(compute)
    found["coherency"] = np.where(np.ptp(flat, 1) > 0, found["coherency"], np.float32(np.nan))
    drop = _drop(found)
    parts = [torch.from_numpy(part) for part in (found["coherency"], 1 - found["complexity"], 1 - drop)]
    values = 3 / sum((1 / part.double() for part in parts), torch.zeros(1))  # 1 / 0 is inf, and the mean then 0
    return Score(
        name="adcc", values=values.float().numpy(), higher_is_better=True, provenance=subject.provenance,
        numbers={"coherency": found["coherency"], "complexity": found["complexity"], "average_drop": drop},
    )  # fmt: skip


def _before_and_after(
    explainer: Explainer, explanation: Any, baseline: Baseline, common: Common
) -> tuple[Subject, dict[str, Any]]:
    check_baseline(baseline)
    subject = Subject(explainer, explanation, probability=True, **common)

    def compute(chunk: Chunk) -> Found:
        shown = _shown(chunk, baseline)
        return {
            "before": chunk.record.scores,
            "after": chunk.ask.scores(lambda rows, _: shown[rows], 1)[:, 0],
        }

    return subject, subject.each(compute)


def _shown(chunk: Chunk, baseline: Baseline) -> Tensor:
    """The images as far as their maps show them."""
    x, start = chunk.record.input, make_baseline(baseline, chunk.record)
    return torch.lerp(start, x, stretched(chunk.maps)[:, None].to(x))


def _drop(found: Any) -> Any:
    before, after = (torch.from_numpy(found[name]) for name in ("before", "after"))
    return torch.where(before > 0, (before - after).relu() / before, torch.nan).numpy()
