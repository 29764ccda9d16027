"""Stability: does a change of the image that nobody sees change the map?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch

from ..arguments import real, whole
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

    def compute(chunk: Chunk) -> Found:
        x = chunk.record.input
        flat = x.flatten(1)
        reach = radius * (flat.amax(1) - flat.amin(1)).view(-1, *(1 for _ in x.shape[1:]))
        before = subject.values(chunk).flatten(1).double()
        most = torch.zeros(len(x), dtype=torch.float64)
        for number in range(count):
            moved = x + reach * noise(x.shape[1:], seed, number).to(x)
            after = torch.from_numpy(subject.again(chunk, moved).values.copy()).flatten(1).double()
            most = torch.maximum(most, (after - before).norm(dim=1))
        size = before.norm(dim=1)
        return {"values": torch.where(size > 0, most / size, torch.nan)}

    values = subject.each(compute)["values"]
    return Score(name="max_sensitivity", values=values, higher_is_better=False, provenance=subject.provenance)


def noise(shape: Any, seed: int, number: int) -> torch.Tensor:
    """Uniform noise in −1..1, which depends on nothing but the seed and its number."""
    return 2 * torch.rand(tuple(shape), generator=numbered(seed, number)) - 1
