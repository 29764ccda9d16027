"""Stability: does a change of the image that nobody sees change the map?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import real, whole
from ..explanation import Explanation
from ..methods.baselines import check_seed, numbered
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer


def max_sensitivity(
    explainer: Explainer,
    explanation: Any,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Max-sensitivity (Yeh 2019, definition 2): the most that noise within a radius changes the attribution.

    The greatest of ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖ over random δ, each value of which is within the radius; a lower value is
    better, and 1 as if the map had gone. It explains again: for plain maps give ``method=`` (and ``layer=``).

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=``, ``target=`` and ``method=``.
        radius: of the noise, as a share of the image's range.
        samples: how many changed images.
        seed: of the noise, which is the same for all images.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where the attribution is 0 everywhere.

    Raises:
        InputError: nothing says how the maps were made, or `radius` is not above 0.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=1)
    >>> 0 < max_sensitivity(explainer, found, samples=3).mean < 1
    True
    """
    check_seed(seed)
    count = whole(samples, "samples")
    radius = real(radius, "radius", "a share of the image's range above 0", lambda number: number > 0)
    subject = Subject(explainer, explanation, **common)
    _ = subject.method  # refused before anything is computed

    values = most_changed(subject, radius, count, seed, lambda made: made.values)
    return Score(name="max_sensitivity", values=values, higher_is_better=False, provenance=subject.provenance)


def most_changed(
    subject: Subject, radius: float, count: int, seed: int, part: Callable[[Explanation], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """By how much a part of each explanation changes at most, of its size; NaN where it is 0 everywhere."""

    def compute(chunk: Chunk) -> Found:
        x = chunk.record.input
        flat = x.flatten(1)
        reach = radius * (flat.amax(1) - flat.amin(1)).view(-1, *(1 for _ in x.shape[1:]))
        rows = slice(chunk.start, chunk.start + len(x))
        made = subject.explanation
        before = _numbers(part(subject.again(chunk, x)) if made is None else part(made)[rows])
        most = torch.zeros(len(x), dtype=torch.float64)
        for number in range(count):
            moved = x + reach * noise(x.shape[1:], seed, number).to(x)
            most = torch.maximum(most, (_numbers(part(subject.again(chunk, moved))) - before).norm(dim=1))
        size = before.norm(dim=1)
        return {"values": torch.where(size > 0, most / size, torch.nan)}

    return subject.each(compute)["values"]


def _numbers(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(values.copy()).flatten(1).double()


def noise(shape: Any, seed: int, number: int) -> torch.Tensor:
    """Uniform noise in −1..1, which depends on nothing but the seed and its number."""
    return 2 * torch.rand(tuple(shape), generator=numbered(seed, number)) - 1
