"""Reading whatever a model returns: class scores, dense scores, detections or an embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import ModelError
from .layers import tensors

KINDS = {
    "scores": "class scores (N, K)",
    "dense": "dense scores (N, K, H, W)",
    "detections": "detections (for each image a dict with boxes, scores and labels)",
    "embedding": "an embedding (N, D)",
}
_SCORES = ("logits", "logits_per_image", "out", "scores", "output")
_EMBEDDINGS = ("image_embeds", "pooler_output", "embedding", "embeddings")
_TOKENS = "last_hidden_state"
_DETECTION = ("boxes", "scores", "labels")

Detections = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Outputs:
    """What a model says of n images, as far as it was found; None for what was not.

    Attributes:
        scores: of the classes, ``(n, K)``.
        dense: of the classes at each position, ``(n, K, H, W)`` or ``(n, K, T, H, W)``.
        detections: for each image ``boxes`` ``(M, 4)`` (x0, y0, x1, y1), ``scores`` ``(M,)``, ``labels`` ``(M,)``.
        embedding: ``(n, D)``.
    """

    scores: Tensor | None = None
    dense: Tensor | None = None
    detections: Detections | None = None
    embedding: Tensor | None = None

    @property
    def kind(self) -> str:
        """Which of `KINDS` is explained where nobody says which."""
        return next(kind for kind in ("detections", "scores", "dense", "embedding") if getattr(self, kind) is not None)

    @property
    def classes(self) -> Tensor | None:
        """The scores or dense scores, of which dimension 1 is the classes; None where there are neither."""
        return getattr(self, self.kind) if self.kind in ("scores", "dense") else None

    def rows(self, start: int, stop: int) -> Outputs:
        """Those of some of the images alone."""
        return self._each(lambda value: value[start:stop])

    def detached(self) -> Outputs:
        """The same without the graph."""
        return self._each(lambda v: v.detach() if isinstance(v, Tensor) else [_detached(one) for one in v])

    def _each(self, change: Callable[[Any], Any]) -> Outputs:
        return Outputs(**{name: change(value) for name, value in vars(self).items() if value is not None})

    @property
    def differentiable(self) -> bool:
        """Whether anything here is in a graph."""
        return any(t.requires_grad for value in vars(self).values() for t in tensors(value))


def _detached(detection: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: detection[name].detach() for name in _DETECTION}


def read_outputs(raw: Any, count: int, pick: Callable[[Any], Any] | None = None, classes: int | None = None) -> Outputs:
    """What a model returned for `count` images.

    Understood: a tensor ``(n, K)``, ``(n,)``, ``(n, K, 1, 1)`` or dense ``(n, K, H, W)``; the first such tensor of a
    tuple or list, scores before dense ones; the ``logits``, ``logits_per_image``, ``out``, ``scores`` or ``output`` of
    a mapping or Hugging Face output, else its ``image_embeds``, ``pooler_output`` or the mean over positions of its
    ``last_hidden_state`` as an embedding; a list of dicts of detections; of several tensors, that with a column for
    each of the `classes` that are named. `pick` (``Explainer(output=...)``) takes one of these out of anything else.

    Raises:
        ModelError: nothing of that is found, or its first dimension is not the batch.
    """
    picked = raw if pick is None else pick(raw)
    if detections := _detections(picked, count):
        return Outputs(detections=detections)
    found = picked if pick is not None else _first_scores(raw, count, classes)
    embedding = _embedding(raw, count) if pick is None else None
    if found is None and embedding is not None:
        return Outputs(embedding=embedding)
    return _classified(found, count, embedding, type(picked).__name__)


def _classified(found: Any, count: int, embedding: Tensor | None, given: str) -> Outputs:
    """Scores or dense scores, by the shape of the tensor that was `found`."""
    if not isinstance(found, Tensor) or not found.is_floating_point():
        given = f"{found.dtype} tensor" if isinstance(found, Tensor) else given
        raise ModelError(f"No scores are found in the model's output, a {given}. Pass Explainer(model, output=...): "
                         "a function from what the model returns to scores (N, K).")  # fmt: skip
    shape = tuple(found.shape)
    _check_batch(shape, count)
    if len(shape) in (4, 5) and math.prod(shape[2:]) > 1 and 0 not in shape:
        return Outputs(dense=found, embedding=embedding)
    if 0 in shape or math.prod(shape[2:]) != 1:
        raise ModelError(f"The model returned an output of shape {shape}, not scores (N, K) or dense scores "
                         "(N, K, H, W). Pass Explainer(model, output=...) to turn it into these.")  # fmt: skip
    scores = found.reshape(count, -1)
    return Outputs(scores=scores, embedding=scores if embedding is None else embedding)


def _check_batch(shape: tuple[int, ...], count: int) -> None:
    if not shape or shape[0] != count:
        raise ModelError(f"The model returned scores of shape {shape} for {count} image{'s' * (count != 1)}: the first "
                         "dimension is not the batch. Pass Explainer(model, output=...) to pick (N, K).")  # fmt: skip


def _first_scores(raw: Any, count: int, classes: int | None) -> Any:
    """What looks most like scores; None where there is nothing but an embedding."""
    if isinstance(raw, Mapping):
        key = next((k for k in _SCORES if isinstance(raw.get(k), Tensor)), None)
        if key is not None:
            return raw[key]
        if any(isinstance(raw.get(key), Tensor) for key in (*_EMBEDDINGS, _TOKENS)):
            return None
    found = list(tensors(raw))
    floating = [t for t in found if t.is_floating_point() and t.dim()]
    batched = [t for t in floating if len(t) == count]
    scores = [t for t in batched if t.dim() <= 2]
    named = [t for t in scores if t.dim() == 2 and t.shape[1] == classes]
    dense = [t for t in batched if t.dim() in (4, 5)]
    return next(iter([*named, *scores, *dense, *floating, *found]), None)


def _embedding(raw: Any, count: int) -> Tensor | None:
    """The embedding ``(n, D)`` that a mapping names."""
    if not isinstance(raw, Mapping):
        return None
    for key in (*_EMBEDDINGS, _TOKENS):
        value = raw.get(key)
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and len(value) == count:
            if key == _TOKENS and value.dim() > 2:  # (n, tokens, D), or (n, D, h, w) of convolutions
                value = value.mean(1) if value.dim() == 3 else value.flatten(2).mean(2)
            return value.flatten(1)
    return None


def _detections(raw: Any, count: int) -> Detections | None:
    """A list of dicts, one for each image; from one dict for all images too, which some detectors return."""
    if _is_detection(raw):
        together = raw["boxes"].dim() == 3
        raw = [{key: raw[key][i] for key in _DETECTION} for i in range(len(raw["boxes"]))] if together else [raw]
    if not isinstance(raw, list | tuple) or not raw or not all(_is_detection(one) for one in raw):
        return None
    if len(raw) != count:
        raise ModelError(f"The model returned detections of {len(raw)} images for {count}: "
                         "the first dimension is not the batch.")  # fmt: skip
    return raw


def _is_detection(raw: Any) -> bool:
    return isinstance(raw, Mapping) and all(isinstance(raw.get(key), Tensor) for key in _DETECTION)


# ------------------------------------------------------------------------------------------------------ probabilities


def probabilities(outputs: Tensor, activation: str | None) -> Tensor:
    """The probabilities of scores ``(n, K, ...)``, by ``"softmax"``, ``"sigmoid"``, ``"none"`` or what fits (None)."""
    return activated(outputs.detach().float(), activation)


def activated(outputs: Tensor, activation: str | None) -> Tensor:
    """As `probabilities`, in the graph."""
    kind = fitting(outputs, activation)
    return outputs.softmax(1) if kind == "softmax" else outputs.sigmoid() if kind == "sigmoid" else outputs


def log_probabilities(outputs: Tensor, activation: str | None) -> Tensor:
    """The logarithms of the probabilities of scores ``(n, K)``, in the graph and without loss of small ones."""
    kind = fitting(outputs, activation)
    if kind == "none":
        return outputs.log()
    return outputs.log_softmax(1) if kind == "softmax" else F.logsigmoid(outputs)


def fitting(outputs: Tensor, activation: str | None) -> str:
    """The `activation`; where it is None, what fits these scores."""
    return activation or ("none" if sums_to_one(outputs) else "sigmoid" if outputs.shape[1] == 1 else "softmax")


def sums_to_one(outputs: Tensor) -> bool:
    """Whether each row (at each position) already is a distribution, so that the "score" is no logit."""
    outputs = outputs.detach().float()
    rows = outputs.sum(1)
    return outputs.shape[1] > 1 and bool((outputs >= 0).all()) and bool(((rows - 1).abs() < 1e-3).all())


def ranked(outputs: Outputs, activation: str | None, top: int) -> list[list[tuple[int, float]]]:
    """The `top` classes of each image with their probabilities, the most probable first.

    Of dense scores the mean probability over positions; of detections the score of each class's best one.

    Raises:
        ModelError: there are no classes, but an embedding.
    """
    if outputs.detections is not None:
        return [_best_detections(one, top) for one in outputs.detections]
    if outputs.classes is None:
        raise ModelError(f"The model gives {KINDS[outputs.kind]} and no class scores, so there are no classes to "
                         "predict. Explain it with Similarity(to=...), or pick scores with output=.")  # fmt: skip
    chances = probabilities(outputs.classes, activation)
    chances = chances.flatten(2).mean(2) if chances.dim() > 2 else chances
    best = chances.cpu().topk(min(top, chances.shape[1]), dim=1)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]


def _best_detections(detection: Mapping[str, Tensor], top: int) -> list[tuple[int, float]]:
    best: dict[int, float] = {}
    for label, score in zip(detection["labels"].tolist(), detection["scores"].tolist(), strict=True):
        best[label] = max(score, best.get(label, -torch.inf))
    return sorted(best.items(), key=lambda pair: -pair[1])[:top]
