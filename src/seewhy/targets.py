"""What is explained: the target's score, and how scores are read out of whatever a model returns."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .errors import (
    GradientError,
    InputTypeError,
    ModelError,
    NonFiniteError,
    TargetError,
    TargetIndexError,
    UnknownNameError,
)
from .errors import close_matches as offer
from .layers import tensors

CONSTANT_TARGET = "The target does not depend on the model's scores in a way that has a gradient."
_PREFERRED_KEYS = ("logits", "out", "scores", "output")


class Target(ABC):
    """What is explained: a number that is computed from a model's scores.

    Subclass it for targets of your own: `score` must be differentiable.
    """

    @abstractmethod
    def score(self, outputs: Tensor) -> Tensor:
        """The target's score S, ``(n,)``, from the model's scores ``(n, K)``."""

    def classes(self, outputs: Tensor) -> Tensor:
        """The index of the class explained for each image, int64 ``(n,)``; -1 where the target is no class."""
        return torch.full((len(outputs),), -1, dtype=torch.int64)

    @property
    def name(self) -> str:
        """What to call the target where it is no class."""
        return type(self).__name__


@dataclass(frozen=True)
class ClassTarget(Target):
    """The score of one class; of each image's predicted class where `index` is None."""

    index: int | None = None

    def score(self, outputs: Tensor) -> Tensor:
        """The class's column of ``(n, K)``."""
        return outputs.gather(1, self.classes(outputs).to(outputs.device)[:, None])[:, 0]

    def classes(self, outputs: Tensor) -> Tensor:
        """`index` for each image, or where the image's scores are largest."""
        count = outputs.shape[1]
        if self.index is None:
            return outputs.detach().argmax(1).cpu()
        if self.index >= count:
            raise TargetIndexError(f"Target {self.index} is out of range: the model has {count} classes, "
                                   f"0 to {count - 1}.")  # fmt: skip
        return torch.full((len(outputs),), self.index)


@dataclass(frozen=True)
class FunctionTarget(Target):
    """Any function from scores ``(n, K)`` to ``(n,)``."""

    function: Callable[[Tensor], Tensor]

    def score(self, outputs: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(outputs)

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self.function, "__name__", type(self.function).__name__)


@dataclass(frozen=True)
class Selected:
    """The targets' scores of n images.

    Attributes:
        outputs: ``(n, K)``; `scores`: ``(n,)``, both in the graph.
        classes: int64 ``(n,)``, -1 where the target is no class.
        names: of the targets where they are no class.
    """

    outputs: Tensor
    scores: Tensor
    classes: Tensor
    names: tuple[str, ...]

    def detached(self) -> Selected:
        """The same numbers without the graph."""
        return replace(self, outputs=self.outputs.detach(), scores=self.scores.detach())


def select(targets: Sequence[Target], outputs: Tensor) -> Selected:
    """Pick each image's score; `targets` has one for each row of `outputs` ``(n, K)``.

    Raises:
        NonFiniteError: a score is NaN or infinite.
        TargetIndexError: there is no such class.
    """
    if all(target is targets[0] for target in targets):
        scores, classes = _score(targets[0], outputs), targets[0].classes(outputs)
    else:
        rows = list(zip(targets, torch.split(outputs, 1), strict=True))
        scores = torch.cat([_score(target, row) for target, row in rows])
        classes = torch.cat([target.classes(row) for target, row in rows])
    check_finite(scores)
    return Selected(outputs, scores, classes, tuple(target.name for target in targets))


def check_finite(scores: Tensor) -> None:
    """Refuse scores ``(n,)`` or ``(n, K)`` of which one is NaN or infinite.

    Raises:
        NonFiniteError: naming the first image that has one.
    """
    finite = scores.detach().isfinite()
    if not finite.all():
        bad = int((~finite).nonzero()[0][0])
        value = scores[bad][~finite[bad]].flatten()[0].item()
        raise NonFiniteError(
            f"The score of image {bad} is {value}: the model's weights or the input hold NaN or infinite values, or "
            f"overflow in {scores.dtype}."
        )


def _score(target: Target, outputs: Tensor) -> Tensor:
    """The target's score, checked to be one number per image."""
    result = target.score(outputs)
    if not isinstance(result, Tensor) or result.shape != outputs.shape[:1] or not result.is_floating_point():
        given = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise TargetError(
            f"The target {target.name!r} must turn scores {tuple(outputs.shape)} into one number per image, "
            f"({len(outputs)},), and gave {given}."
        )
    return result


@dataclass(frozen=True)
class Scoring:
    """How n images are scored.

    Attributes:
        targets: one for each image.
        pick: takes the scores out of the model's output.
        classes: how many classes the user named, to know the scores among other tensors; None if unknown.
    """

    targets: Sequence[Target]
    pick: Callable[[Any], Tensor] | None = None
    classes: int | None = None

    @property
    def kind(self) -> frozenset[Any]:
        """What kinds of target these are; a layer chosen for one kind may not fit another."""
        functions = (getattr(target, "function", target) for target in self.targets)
        return frozenset(getattr(function, "__code__", type(function)) for function in functions)

    def read(self, raw: Any) -> Selected:
        """The targets' scores in what the model returned."""
        return select(self.targets, read_outputs(raw, len(self.targets), self.pick, self.classes))

    def gradient(self, outputs: Tensor) -> Tensor:
        """dS/d outputs, ``(n, K)``."""
        with torch.enable_grad():
            outputs = outputs.detach().clone().requires_grad_()
            scores = select(self.targets, outputs).scores
            if not scores.requires_grad:
                raise GradientError(CONSTANT_TARGET)
            (gradient,) = torch.autograd.grad(scores.sum(), outputs)
        return gradient


def find_targets(target: Any, count: int, class_names: Mapping[int, str]) -> list[Target]:
    """One `Target` for each of `count` images, from whatever the user gave as ``target=``.

    Raises:
        TargetError: there are neither one nor `count` of them.
        UnknownNameError: no class has that name, or several have it.
    """
    if isinstance(target, Tensor) or type(target).__module__ == "numpy":
        target = target.tolist()
    if isinstance(target, list | tuple):
        if len(target) != count:
            raise TargetError(f"{len(target)} targets for {count} image{'s' * (count != 1)}: "
                              "give one target for all, or one for each.")  # fmt: skip
        return [_find_target(one, class_names) for one in target]
    return [_find_target(target, class_names)] * count


def _find_target(target: Any, class_names: Mapping[int, str]) -> Target:
    if target is None or isinstance(target, Target):
        return ClassTarget() if target is None else target
    if isinstance(target, str):
        return ClassTarget(class_index(target, class_names))
    if isinstance(target, type) and issubclass(target, Target):
        raise InputTypeError(f"target is the class {target.__name__}: make an instance of it, {target.__name__}(...).")
    if callable(target):
        return FunctionTarget(target)
    try:
        if isinstance(target, bool):
            raise TypeError
        index = operator.index(target)
    except TypeError:
        raise InputTypeError(f"target is None, a class index, a class name, a Target, a callable or a list of these, "
                             f"not {type(target).__name__}.") from None  # fmt: skip
    if index < 0:
        raise TargetIndexError(f"Target {index} is negative: classes count from 0.")
    return ClassTarget(index)


def class_index(name: str, class_names: Mapping[int, str]) -> int:
    """The index of the class called `name`: the whole name, or any of its comma-separated parts, in any case.

    >>> class_index("tabby", {0: "goldfish", 1: "tabby, tabby cat"})
    1
    """
    if not class_names:
        raise TargetError(f"The target {name!r} is a name, and no class names are known. "
                          "Give Explainer(..., class_names=...) or an index.")  # fmt: skip
    wanted = name.strip().casefold()
    for parts_of in (_whole, _parts):
        found = [index for index, known in class_names.items() if wanted in parts_of(known)]
        if len(found) > 1:
            some = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
            raise UnknownNameError(f"Several classes are called {name!r}: {some}. Give the index.")
        if found:
            return found[0]
    close = offer(name.strip(), [part.strip() for known in class_names.values() for part in (known, *known.split(","))])
    raise UnknownNameError(f"No class is called {name!r}.{close}")


def _whole(name: str) -> list[str]:
    return [name.strip().casefold()]


def _parts(name: str) -> list[str]:
    return [part.strip().casefold() for part in name.split(",")]


def read_outputs(
    raw: Any, count: int, pick: Callable[[Any], Tensor] | None = None, classes: int | None = None
) -> Tensor:
    """The scores ``(n, K)`` in what a model returned for `count` images.

    Understood: a tensor ``(n, K)`` or ``(n,)``; the first such tensor of a tuple or list; the ``logits`` or ``out`` of
    a mapping or Hugging Face output; of several, that with a column for each of the `classes` that are named.
    `pick` (``Explainer(output=...)``) takes them out of anything else.

    Raises:
        ModelError: no scores are found, or their first dimension is not the batch.
    """
    scores = _first_scores(raw, count, classes) if pick is None else pick(raw)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        given = f"{scores.dtype} tensor" if isinstance(scores, Tensor) else type(raw).__name__
        raise ModelError(f"No scores are found in the model's output, a {given}. Pass Explainer(model, output=...): "
                         "a function from what the model returns to scores (N, K).")  # fmt: skip
    shape = tuple(scores.shape)
    if not shape or shape[0] != count:
        raise ModelError(f"The model returned scores of shape {shape} for {count} image{'s' * (count != 1)}: the first "
                         "dimension is not the batch. Pass Explainer(model, output=...) to pick (N, K).")  # fmt: skip
    if 0 in shape or (scores.dim() > 2 and math.prod(shape[2:]) != 1):
        raise ModelError(f"The model returned an output of shape {shape}, not scores (N, K). "
                         "Pass Explainer(model, output=...) to turn it into scores.")  # fmt: skip
    return scores.reshape(count, -1)


def _first_scores(raw: Any, count: int, classes: int | None) -> Any:
    if isinstance(raw, Mapping):
        key = next((k for k in _PREFERRED_KEYS if isinstance(raw.get(k), Tensor)), None)
        if key is not None:
            return raw[key]
    found = list(tensors(raw))
    floating = [t for t in found if t.is_floating_point() and t.dim()]
    scores = [t for t in floating if t.dim() <= 2 and len(t) == count]
    named = [t for t in scores if t.dim() == 2 and t.shape[1] == classes]
    return next(iter([*named, *scores, *floating, *found]), None)


def probabilities(outputs: Tensor, activation: str | None) -> Tensor:
    """The probabilities ``(n, K)`` of the scores, by ``"softmax"``, ``"sigmoid"``, ``"none"`` or what fits (None)."""
    kind = activation or ("none" if sums_to_one(outputs) else "sigmoid" if outputs.shape[1] == 1 else "softmax")
    outputs = outputs.detach().float()
    return outputs.softmax(1) if kind == "softmax" else outputs.sigmoid() if kind == "sigmoid" else outputs


def sums_to_one(outputs: Tensor) -> bool:
    """Whether each row already is a distribution, so that the "score" is no logit."""
    outputs = outputs.detach().float()
    rows = outputs.sum(1)
    return outputs.shape[1] > 1 and bool((outputs >= 0).all()) and bool(((rows - 1).abs() < 1e-3).all())
