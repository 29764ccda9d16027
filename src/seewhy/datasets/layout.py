"""How maps lie in a store: at the resolution at which the method gave them, with how they become maps of the input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..explanation import Explanation
from ..methods import Method
from ..methods.activation import Activations

SHARD = 64 << 20  # bytes of all arrays that one chunk of images takes at most, where nobody says how many images
MOST = 1024  # images of a chunk
READ = 1 << 18  # bytes that are read at least to get one image


@dataclass(frozen=True)
class Kept:
    """One method's maps at one layer, as a store keeps them.

    Attributes:
        method: the method's name.
        layer: the layer's; None for a method that looks at none.
        shape: of one image's values.
        rule: how maps come of values: ``"usual"``, as `Method.to_maps` does, or ``"activations"``, as that method does;
            or ``"stored"``, where they come otherwise and are kept beside the values.
        signed: whether values below 0 argue against the target.
        scored: whether a target was explained.
        provenance: the method's options and the versions used.
    """

    method: str
    layer: str | None
    shape: tuple[int, ...]
    rule: str
    signed: bool
    scored: bool
    provenance: Mapping[str, str]

    @classmethod
    def of(cls, one: Explanation, method: Method, padded: bool) -> Kept:
        """How to keep what a `method` gave; `padded`: grids of layers cover more than the input, as with detectors."""
        size = one.maps.shape[1:]
        cut = padded and one.values.shape[-len(size) :] != size
        own = type(method).to_maps
        rule = next((name for name, known in RULES.items() if type(known).to_maps is own and not cut), "stored")
        scored = any(one.target_names) or bool(np.isfinite(one.scores).any())
        return cls(one.method, one.layer, one.values.shape[1:], rule, one.signed, scored, dict(one.provenance))

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Kept:
        """What `words` noted."""
        return cls(**{**words, "shape": tuple(words["shape"])})

    @property
    def words(self) -> dict[str, Any]:
        """It, as JSON can hold it."""
        return asdict(replace(self, provenance=dict(self.provenance)))

    def maps(self, values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        """The maps ``(n, *size)`` of these values."""
        return RULES[self.rule].to_maps(torch.from_numpy(np.array(values)), size).numpy()


RULES = {"usual": Method(), "activations": Activations()}


def images_per_chunk(arrays: Mapping[str, NDArray[Any]], batch: Tensor, batch_size: int) -> int:
    """How many images a chunk has: whole batches, that take 64 MiB with the model's input, and at most 1,024 images."""
    image = sum(math.prod(array.shape[1:]) * array.itemsize for array in arrays.values()) + batch[0].nbytes
    return max(1, min(SHARD // max(image, 1), MOST) // batch_size) * batch_size


def images_per_read(array: NDArray[Any], chunk: int) -> int:
    """How many images lie together in a chunk, so that a few bytes are read to get one: a divisor of `chunk`."""
    least = max(1, READ // max(1, math.prod(array.shape[1:]) * array.itemsize))
    return max(n for n in range(1, min(least, chunk) + 1) if chunk % n == 0)


def arrays_of(explanations: Sequence[Explanation], kept: Sequence[Kept], pictures: bool) -> dict[str, NDArray[Any]]:
    """The arrays to be stored of a batch, by their names in the store."""
    found: dict[str, NDArray[Any]] = {"pictures": explanations[0].images} if pictures else {}
    for i, (one, how) in enumerate(zip(explanations, kept, strict=True)):
        found[f"values-{i}"] = one.values
        if how.rule == "stored":
            found[f"maps-{i}"] = one.maps
    return found
