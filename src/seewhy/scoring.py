"""From targets as the user gives them, and a model's output, to one score for each image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import GradientError, InputTypeError, NonFiniteError, TargetError
from .outputs import KINDS, Outputs, read_outputs
from .regions import Detection, Region
from .similarity import OwnEmbedding, Similarity
from .targets import About, Class, FunctionTarget, Target, Top

CONSTANT_TARGET = "The target does not depend on the model's scores in a way that has a gradient."
_HINTS = {
    "dense": "Region(cls, mask=..., box=...) explains these.",
    "detections": "Detection(box=..., cls=...) explains these.",
    "embedding": "Similarity(to=...) explains it.",
    "scores": "A class, Probability, Contrast or Value explains these.",
}


@dataclass(frozen=True)
class Selected:
    """The targets' scores of n images, or of n pairs of image and target.

    Attributes:
        source: what they were computed from, a row for each image.
        scores: ``(n,)``, in the graph.
        classes: int64 ``(n,)``, -1 where the target is no class.
        names: of what is explained, for each image.
        chances: float32 ``(n,)``, the probability; NaN where undefined.
        outputs: the class scores ``(images, K)``, in the graph, if the targets are computed from these; else None.
    """

    source: Outputs
    scores: Tensor
    classes: Tensor
    names: tuple[str, ...]
    chances: Tensor
    outputs: Tensor | None = None

    def detached(self) -> Selected:
        """The same numbers without the graph."""
        outputs = None if self.outputs is None else self.outputs.detach()
        return replace(self, source=self.source.detached(), scores=self.scores.detach(), outputs=outputs)


def select(targets: Sequence[Target], outputs: Outputs, about: About | None = None) -> Selected:
    """Pick each image's score; `targets` has one for each image of `outputs`.

    Raises:
        NonFiniteError: a score is NaN or infinite.
        TargetIndexError: there is no such class.
        TargetError: the target does not fit what the model gives.
    """
    about = about or About()
    parts = [
        _ask(targets[start], outputs.rows(start, stop), replace(about, first=about.first + start))
        for start, stop in _runs(targets)
    ]
    scores = torch.cat([part.scores for part in parts])
    check_finite(scores, about.first)
    read_scores = all(part.outputs is not None for part in parts)
    return Selected(
        outputs,
        scores,
        torch.cat([part.classes for part in parts]),
        tuple(name for part in parts for name in part.names),
        torch.cat([part.chances for part in parts]),
        outputs.scores if read_scores else None,
    )


def _runs(targets: Sequence[Target]) -> Iterator[tuple[int, int]]:
    """Where a row of the same target starts and stops: it is asked for all of them at once."""
    start = 0
    for _, same in itertools.groupby(targets, key=id):
        stop = start + len(list(same))
        yield start, stop
        start = stop


def _interleaved(parts: Sequence[Selected]) -> Selected:
    """Of n images with k targets each, given target by target, a row for each pair."""

    def mixed(name: str) -> Tensor:
        return torch.stack([getattr(part, name) for part in parts], 1).flatten()

    names = tuple(name for image in zip(*(part.names for part in parts), strict=True) for name in image)
    outputs = None if any(part.outputs is None for part in parts) else parts[0].outputs
    return Selected(parts[0].source, mixed("scores"), mixed("classes"), names, mixed("chances"), outputs)


def _ask(target: Target, outputs: Outputs, about: About) -> Selected:
    """What one target says of all the images of `outputs`."""
    target = _fitting(target, outputs.kind)._resolved(about)
    reads = outputs.kind if target.reads == "any" else target.reads
    found = getattr(outputs, reads, None)
    if found is None:
        given = KINDS[outputs.kind]
        raise TargetError(f"The target {target.name!r} reads {KINDS.get(reads, reads)}, and the model gives {given}. "
                          f"{_HINTS[outputs.kind]} Or Explainer(model, output=...) takes others.")  # fmt: skip
    scores, classes = _score(target, found), target.classes(found)
    names = tuple(target._names(found, classes, about))
    chances = target._chances(found, classes, about)
    return Selected(outputs, scores, classes, names, chances, found if reads == "scores" else None)


def _fitting(target: Target, kind: str) -> Target:
    """What a class means for a model that gives no class scores: that class somewhere in the image."""
    if type(target) is not Class or kind == "scores":
        return target
    if kind == "dense":
        return Region(target.cls)
    if kind == "detections":
        return Detection(cls=target.cls)
    if target.cls is None:
        return OwnEmbedding()
    raise TargetError(f"The target is a class, and the model gives {KINDS[kind]} and no class scores. {_HINTS[kind]}")


def _score(target: Target, found: Any) -> Tensor:
    """The target's score, checked to be one number per image."""
    result = target.score(found)
    shape = (len(found),)
    if not isinstance(result, Tensor) or result.shape != shape or not result.is_floating_point():
        given = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        what = f"scores {tuple(found.shape)}" if isinstance(found, Tensor) else "detections"
        raise TargetError(
            f"The target {target.name!r} must turn {what} into one number per image, {shape}, and gave {given}."
        )
    return result


def check_finite(scores: Tensor, first: int = 0) -> None:
    """Refuse scores ``(n, ...)`` of which one is NaN or infinite; `first` is the number of the first image.

    Raises:
        NonFiniteError: naming the first image that has one.
    """
    finite = scores.detach().isfinite()
    if not finite.all():
        bad = int((~finite).nonzero()[0][0])
        value = scores[bad][~finite[bad]].flatten()[0].item()
        raise NonFiniteError(
            f"The score of image {first + bad} is {value}: the model's weights or the input hold NaN or infinite "
            f"values, or overflow in {scores.dtype}."
        )


@dataclass(frozen=True)
class Scoring:
    """How n images are scored.

    Attributes:
        targets: one for each pair of image and target, those of an image together.
        pick: takes the scores out of the model's output.
        classes: how many classes the user named, to know the scores among other tensors; None if unknown.
        about: what is known of the call.
        each: how many targets each image has.
    """

    targets: Sequence[Target]
    pick: Callable[[Any], Any] | None = None
    classes: int | None = None
    about: About = field(default_factory=About)
    each: int = 1

    @property
    def kind(self) -> frozenset[Any]:
        """What kinds of target these are; a layer chosen for one kind may not fit another."""
        functions = (getattr(target, "function", target) for target in self.targets)
        return frozenset(getattr(function, "__code__", type(function)) for function in functions)

    @property
    def open(self) -> bool:
        """Whether for some image nobody said what is to be explained."""
        return any(isinstance(target, Class) and target.cls is None for target in self.targets)

    def read(self, raw: Any, size: tuple[int, ...] = ()) -> Selected:
        """The targets' scores in what the model returned for an input of height and width `size`; a row for each pair.

        The `source` stays a row for each image.
        """
        outputs = read_outputs(raw, len(self.targets) // self.each, self.pick, self.classes)
        about = replace(self.about, size=tuple(size))
        parts = [select(self.targets[turn :: self.each], outputs, about) for turn in range(self.each)]
        return parts[0] if self.each == 1 else _interleaved(parts)

    def held(self, selected: Selected, size: tuple[int, ...]) -> Scoring:
        """The same, to score changed images: what the targets take from the images stays as it was `selected`."""
        about, source = replace(self.about, size=tuple(size)), selected.source.detached()
        held = []
        for row, target in enumerate(self.targets):
            image = row // self.each
            fitted = _fitting(target, source.kind)._resolved(replace(about, first=about.first + image))
            reads = source.kind if fitted.reads == "any" else fitted.reads
            held.append(fitted.held(getattr(source.rows(image, image + 1), reads)))
        return replace(self, targets=held, about=about)

    def at(self, images: Sequence[int]) -> Scoring:
        """The scoring of these images."""
        return replace(self, targets=[self.targets[i * self.each + turn] for i in images for turn in range(self.each)])

    def gradient(self, outputs: Tensor) -> Tensor:
        """dS/d outputs, ``(n, K)``, a row for each pair, from one for each image."""
        with torch.enable_grad():
            outputs = outputs.detach().repeat_interleave(self.each, 0).requires_grad_()
            scores = select(self.targets, Outputs(scores=outputs), self.about).scores
            if not scores.requires_grad:
                raise GradientError(CONSTANT_TARGET)
            (gradient,) = torch.autograd.grad(scores.sum(), outputs)
        return gradient


def find_targets(target: Any, count: int, about: About | None = None) -> list[Target]:
    """One `Target` for each of `count` images, from whatever the user gave as ``target=``.

    Raises:
        TargetError: there are neither one nor `count` of them.
        UnknownNameError: no class has that name, or several have it.
    """
    about = about or About()
    if isinstance(target, Tensor) or type(target).__module__ == "numpy":
        target = target.tolist()
    if isinstance(target, list | tuple):
        if len(target) != count:
            raise TargetError(f"{len(target)} targets for {count} image{'s' * (count != 1)}: "
                              "give one target for all, or one for each.")  # fmt: skip
        return [found for one in target for found in _for_each(_find_target(one), 1, about)]
    return _for_each(_find_target(target), count, about)


def find_pairs(target: Any, count: int, about: About) -> tuple[list[Target], int]:
    """One `Target` for each pair of image and target, and how many each image has, from what may name several.

    Raises:
        TargetError: images have different numbers of targets, or as in `find_targets`.
    """
    if isinstance(target, Tensor) or type(target).__module__ == "numpy":
        target = target.tolist()
    rows = [target] * count if isinstance(target, Top) else target
    if not (isinstance(rows, list | tuple) and any(isinstance(row, Top | list | tuple) for row in rows)):
        return find_targets(target, count, about), 1
    if len(rows) != count:
        raise TargetError(f"{len(rows)} lists of targets for {count} image{'s' * (count != 1)}: give a list for each, "
                          "as in [[1, 2]] for one image.")  # fmt: skip
    several = [row.targets if isinstance(row, Top) else row if isinstance(row, list | tuple) else [row] for row in rows]
    if len(lengths := {len(row) for row in several}) > 1 or 0 in lengths:
        raise TargetError(f"Each image needs the same number of targets, at least one; given are "
                          f"{', '.join(str(len(row)) for row in several)}.")  # fmt: skip
    flat = [found for row in several for one in row for found in _for_each(_find_target(one), 1, about)]
    return flat, len(several[0])


def _for_each(target: Target, count: int, about: About) -> list[Target]:
    resolved = target._resolved(about)
    return resolved.each(count) if isinstance(resolved, Similarity) else [resolved] * count


def _find_target(target: Any) -> Target:
    if isinstance(target, Target):
        return target
    if isinstance(target, type) and issubclass(target, Target | Top):
        raise InputTypeError(f"target is the class {target.__name__}: make an instance of it, {target.__name__}(...).")
    if isinstance(target, Top):
        raise InputTypeError("Top(k) means several targets of each image, which Explainer.explain takes as its target; "
                             "here is one for each image.")  # fmt: skip
    if isinstance(target, list | tuple):
        raise InputTypeError("A list of lists means several targets of each image, which Explainer.explain takes as "
                             "its target; here is one for each image.")  # fmt: skip
    if callable(target):
        return FunctionTarget(target)
    if target is None or isinstance(target, str) or (hasattr(target, "__index__") and not isinstance(target, bool)):
        return Class(target)
    raise InputTypeError(f"target is None, a class index, a class name, a Target, a callable or a list of these, "
                         f"not {type(target).__name__}.")  # fmt: skip


def with_embeddings(targets: Sequence[Target], embed: Callable[[Any], Tensor]) -> list[Target]:
    """The targets with each image that they compare to replaced by its embedding, computed once by `embed`."""
    each = {id(target): target for target in targets}
    ready = {key: one.embedded(embed) if isinstance(one, Similarity) else one for key, one in each.items()}
    return [ready[id(target)] for target in targets]
