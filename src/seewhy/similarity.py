"""Targets for embeddings: what makes an image like another, and what makes its own embedding."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import TargetError, close_matches
from .targets import Builtin, Target

_METRICS = {"cosine": "similarity to", "dot": "dot product with", "euclidean": "−distance to"}
_OF_IMAGE = "an image"


@dataclass(frozen=True, eq=False)
class Similarity(Builtin):
    """How much alike an image's embedding and another are, for networks that give embeddings ``(N, D)``.

    Args:
        to: an embedding, ``(D,)``; one for each image, ``(N, D)``; or an image, as anything that `Explainer.explain`
            takes, of which the model's embedding is computed first.
        metric: ``"cosine"`` of the angle between them, -1..1; ``"dot"``, their dot product; ``"euclidean"``, minus
            their distance, at most 0.

    Cosine and distance are at their extreme where the two embeddings are equal: there the gradient is 0, and there is
    nothing to explain.

    Raises:
        TargetError: an unknown metric, or `to` is of another length than the model's embedding.

    >>> Similarity(torch.tensor([3.0, 4.0]), metric="dot").score(torch.tensor([[1.0, 1.0]]))
    tensor([7.])
    """

    to: Any
    metric: Literal["cosine", "dot", "euclidean"] = "cosine"
    reads: ClassVar[str] = "embedding"
    _class_fields: ClassVar[tuple[str, ...]] = ()
    _label: ClassVar[str] = "an embedding"

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise TargetError(f"metric is one of {', '.join(_METRICS)}, not {self.metric!r}."
                              f"{close_matches(str(self.metric), _METRICS)}")  # fmt: skip

    def score(self, outputs: Tensor) -> Tensor:
        """The similarity of each row of ``(n, D)``."""
        to = self._vector(outputs).expand_as(outputs)
        if self.metric == "dot":
            return (outputs * to).sum(1)
        if self.metric == "cosine":
            alike, scores = _equal(F.normalize(outputs), F.normalize(to)), F.cosine_similarity(outputs, to)
        else:
            alike, scores = _equal(outputs, to), -torch.linalg.vector_norm(outputs - to, dim=1)
        return torch.where(alike, scores.detach(), scores)  # there the gradient is 0, and would be rounding else

    def _vector(self, outputs: Tensor) -> Tensor:
        """The other embedding, ``(D,)``."""
        vector = _as_embedding(self.to)
        if vector is None or vector.dim() != 1:
            raise TargetError("Similarity to an image needs the model: give it as target= to Explainer.explain.")
        if len(vector) != outputs.shape[1]:
            raise TargetError(f"The embedding given as to= has {len(vector)} numbers, and the model's has "
                              f"{outputs.shape[1]}.")  # fmt: skip
        return vector.to(outputs.device, outputs.dtype)

    @property
    def name(self) -> str:
        """How and to what, as in "similarity to cat.jpg"."""
        return f"{_METRICS[self.metric]} {self._label}"

    def each(self, count: int) -> list[Target]:
        """One for each of `count` images, where `to` may hold an embedding for each."""
        vectors = _as_embedding(self.to)
        if vectors is None or vectors.dim() == 1:
            return [self] * count
        if len(vectors) == 1:
            return [self._with(to=vectors[0])] * count
        if len(vectors) != count:
            raise TargetError(f"{len(vectors)} embeddings for {count} image{'s' * (count != 1)} in Similarity(to=...): "
                              "give one for all, (D,), or one for each, (N, D).")  # fmt: skip
        return [self._with(to=vector) for vector in vectors]

    def embedded(self, embed: Callable[[Any], Tensor]) -> Similarity:
        """The same with an image replaced by its embedding, which `embed` computes."""
        if _as_embedding(self.to) is not None:
            return self
        path = self.to if isinstance(self.to, str | os.PathLike) else getattr(self.to, "filename", None)
        return self._with(to=embed(self.to), _label=Path(os.fsdecode(path)).name if path else _OF_IMAGE)


def _as_embedding(to: Any) -> Tensor | None:
    """Embeddings ``(D,)`` or ``(N, D)`` as a tensor; None where it is no embedding, but an image."""
    if isinstance(to, np.ndarray) and (to.ndim == 1 or (to.ndim == 2 and to.dtype.kind == "f")):
        to = torch.from_numpy(np.ascontiguousarray(to))
    if not isinstance(to, Tensor) or to.dim() not in (1, 2):
        return None
    return to.detach() if to.is_floating_point() else to.float()


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """For each row whether the two are equal but for rounding, ``(n,)``."""
    gap, size = (torch.linalg.vector_norm(v.detach().float(), dim=1) for v in (one - other, other))
    rounding = 16 * torch.finfo(one.dtype).eps
    return torch.le(gap, rounding * size)


@dataclass(frozen=True)
class OwnEmbedding(Target):
    """The dot product of an image's embedding with itself, held constant: what makes the embedding as it is.

    The label-free explanation of Crabbé and van der Schaar 2022, arXiv 2203.01928, section 2: where there is no class
    to ask for, every number of the embedding counts by its own value.
    """

    reads: ClassVar[str] = "embedding"

    def score(self, outputs: Tensor) -> Tensor:
        """The sum over d of e_d and its constant copy."""
        return (outputs * outputs.detach()).sum(1)

    def held(self, outputs: Tensor) -> Target:
        """The dot product with this embedding."""
        return Similarity(outputs[0].detach(), metric="dot")

    @property
    def name(self) -> str:
        """What it is called."""
        return "its own embedding"
