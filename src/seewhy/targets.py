"""What is explained: a number that is computed from what a model says of an image."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from .arguments import whole
from .errors import InputTypeError, TargetError, TargetIndexError, UnknownNameError
from .errors import close_matches as offer
from .outputs import activated, fitting, log_probabilities, probabilities


@dataclass(frozen=True)
class About:
    """What is known of a call besides the model's outputs.

    Attributes:
        names: of the classes.
        activation: how scores become probabilities, as for `Explainer`.
        size: the input's height and width (of a video: frames, height and width).
        first: the number of the first image.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    activation: str | None = None
    size: tuple[int, ...] = ()
    first: int = 0

    def index(self, cls: Any) -> int | None:
        """The index of a class given by index or name; None stays.

        Raises:
            UnknownNameError: no class is called so, or several are.
            InputTypeError: neither an index nor a name.
            TargetIndexError: a negative index.
        """
        if cls is None or isinstance(cls, str):
            return None if cls is None else class_index(cls, self.names)
        try:
            if isinstance(cls, bool):
                raise TypeError
            index = operator.index(cls)
        except TypeError:
            raise InputTypeError(f"A class is given by index or name, not {type(cls).__name__}.") from None
        if index < 0:
            raise TargetIndexError(f"Target {index} is negative: classes count from 0.")
        return index

    def name(self, index: int) -> str:
        """The name of a class; ``class 7`` where none is known."""
        return class_name(self.names, index)

    def short(self, index: int) -> str:
        """The first part of its name, for names that are made of it."""
        return self.name(index).split(",")[0].strip()


class Target(ABC):
    """What is explained: a number that is computed from what a model says of an image.

    Subclass it for targets of your own: `score` must be differentiable. It gets the class scores ``(n, K)``, or what
    `reads` names: ``"scores"``, ``"dense"`` scores ``(n, K, H, W)``, ``"detections"`` (for each image a dict with
    boxes, scores and labels) or an ``"embedding"`` ``(n, D)``.

    >>> import seewhy, torch
    >>> class Sum(seewhy.Target):
    ...     def score(self, outputs):
    ...         return outputs.sum(1)
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=Sum()).target_names
    ('Sum',)
    """

    reads: ClassVar[str] = "scores"

    @abstractmethod
    def score(self, outputs: Any) -> Tensor:
        """The target's score S, ``(n,)``, from the model's scores ``(n, K)``, or what it `reads`."""

    def classes(self, outputs: Any) -> Tensor:
        """The index of the class explained for each image, int64 ``(n,)``; -1 where the target is no class."""
        return torch.full((len(outputs),), -1, dtype=torch.int64)

    @property
    def name(self) -> str:
        """What to call the target where it is no class."""
        return type(self).__name__

    def held(self, outputs: Any) -> Target:
        """The target with whatever it takes from an image fixed as it is in this one; `outputs` are of it alone.

        Methods that change the image go on to ask for what was explained, though another class comes out then.
        """
        del outputs
        return self

    def _resolved(self, about: About) -> Target:
        """The target with what is known of the call."""
        del about
        return self

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        """What to call it, for each image."""
        del outputs
        return [about.name(index) if index >= 0 else self.name for index in classes.tolist()]

    def _chances(self, outputs: Any, classes: Tensor, about: About) -> Tensor:
        """The probabilities ``(n,)`` of `classes`; NaN where undefined."""
        unknown = torch.full((len(classes),), torch.nan)
        if self.reads != "scores" or not (classes >= 0).any():
            return unknown
        chances = column(probabilities(outputs, about.activation), classes.clamp(min=0)).cpu()
        return torch.where(classes < 0, unknown, chances)


class Builtin(Target):
    """A target that knows of the call: its `_class_fields` may be names."""

    _class_fields: ClassVar[tuple[str, ...]] = ("cls",)
    _about: About = About()

    def _resolved(self, about: About) -> Self:
        return self._with(_about=about, **{name: about.index(getattr(self, name)) for name in self._class_fields})

    def _with(self, **changed: Any) -> Self:
        """A copy with some attributes changed, those that are no arguments too."""
        changed_copy = copy.copy(self)
        for name, value in changed.items():
            object.__setattr__(changed_copy, name, value)
        return changed_copy

    def _in_range(self, cls: Any, count: int) -> int | None:
        """The index of `cls`, which must be one of `count` classes."""
        index = self._about.index(cls)
        if index is not None and index >= count:
            raise TargetIndexError(f"Target {index} is out of range: the model has {count} classes, 0 to {count - 1}.")
        return index

    def _classes_of(self, cls: Any, outputs: Tensor) -> Tensor:
        """`cls` for each image, or where None the class with the greatest score."""
        index = self._in_range(cls, outputs.shape[1])
        return outputs.detach().argmax(1).cpu() if index is None else torch.full((len(outputs),), index)

    def of(self, cls: int) -> Target:
        """The same asked of a class; itself where it is of none."""
        return self._with(cls=cls) if hasattr(self, "cls") else self


@dataclass(frozen=True)
class Class(Builtin):
    """The score of one class, by index or name; of each image's predicted class where it is None.

    It is what ``target=3`` and ``target="tabby"`` mean. Where the model gives dense scores it stands for `Region`,
    where it gives detections for `Detection`.

    >>> Class(1).score(torch.tensor([[0.5, 2.0], [4.0, 3.0]]))
    tensor([2., 3.])
    """

    cls: int | str | None = None

    def score(self, outputs: Tensor) -> Tensor:
        """The class's column of ``(n, K)``."""
        return column(outputs, self.classes(outputs))

    def classes(self, outputs: Tensor) -> Tensor:
        """The class for each image, or where the image's scores are largest."""
        return self._classes_of(self.cls, outputs)

    def held(self, outputs: Tensor) -> Target:
        """That class, whatever is predicted."""
        return self._with(cls=int(self.classes(outputs)[0]))


@dataclass(frozen=True)
class Ranked(Class):
    """The score of the class that comes at place `rank` of the image's greatest scores, from 0."""

    rank: int = 0

    @property
    def name(self) -> str:
        """As the user asked for it."""
        return "Top"

    def classes(self, outputs: Tensor) -> Tensor:
        """The class for each image."""
        if self.rank >= outputs.shape[1]:
            count = outputs.shape[1]
            raise TargetIndexError(f"Top({self.rank + 1}): the model has only {count} class{'es' * (count != 1)}.")
        return outputs.detach().topk(self.rank + 1, dim=1).indices[:, -1].cpu()

    def held(self, outputs: Tensor) -> Target:
        """That class, whatever its place."""
        return self.of(int(self.classes(outputs)[0]))

    def of(self, cls: int) -> Target:
        """A class, whatever its place."""
        return Class()._with(_about=self._about, cls=cls)


@dataclass(frozen=True)
class Top:
    """The `k` classes with each image's greatest scores, as ``target=`` of `Explainer.explain`.

    The first axis of an explanation then runs over pairs of image and class, the best class first; its ``image_index``
    says which image each is of. One forward pass serves all classes of an image.

    Raises:
        InputError: `k` is no whole number of at least 1.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(2, 3, 16, 16), "saliency", target=Top(3))
    >>> len(found), found.image_index.tolist()
    (6, [0, 0, 0, 1, 1, 1])
    """

    k: int

    def __post_init__(self) -> None:
        whole(self.k, "Top(k)")

    @property
    def targets(self) -> list[Target]:
        """One for each place."""
        return [Ranked(rank=rank) for rank in range(self.k)]


@dataclass(frozen=True)
class Probability(Builtin):
    """The probability of one class, by index or name, 0..1; of each image's predicted class where it is None.

    Its gradient depends on the other classes too: what argues for a rival argues against this one.

    >>> Probability(1).score(torch.tensor([[0.0, 0.0]]))
    tensor([0.5000])
    """

    cls: int | str | None = None
    _held: ClassVar[str] = ""  # what fits the scores of the image itself, which those of a changed one may not tell

    @property
    def _activation(self) -> str | None:
        return self._held or self._about.activation

    def score(self, outputs: Tensor) -> Tensor:
        """The class's column of the probabilities."""
        return column(activated(outputs, self._activation), self.classes(outputs))

    def classes(self, outputs: Tensor) -> Tensor:
        """The class for each image."""
        return self._classes_of(self.cls, outputs)

    def held(self, outputs: Tensor) -> Target:
        """That class, whatever is predicted."""
        return self._with(cls=int(self.classes(outputs)[0]), _held=fitting(outputs, self._activation))

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        del outputs
        return [f"P({about.short(index)})" for index in classes.tolist()]


@dataclass(frozen=True)
class LogProbability(Probability):
    """The natural logarithm of a class's probability, at most 0: the negative of the cross-entropy loss.

    Its gradient does not vanish where the probability is near 0 or 1.

    >>> LogProbability(1).score(torch.tensor([[0.0, 0.0]]))
    tensor([-0.6931])
    """

    def score(self, outputs: Tensor) -> Tensor:
        """The class's column of the logarithms."""
        return column(log_probabilities(outputs, self._activation), self.classes(outputs))

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        return [f"log {name}" for name in super()._names(outputs, classes, about)]


@dataclass(frozen=True)
class Contrast(Builtin):
    """Why this class rather than that: the score of `cls` minus that of `minus`, by index or name.

    Args:
        cls: None: each image's predicted class.
        minus: None: the class with the greatest score of all others.

    Raises:
        TargetError: both are the same class, or the model has only one.

    >>> Contrast().score(torch.tensor([[0.5, 2.0, 1.0]]))
    tensor([1.])
    """

    cls: int | str | None = None
    minus: int | str | None = None
    _class_fields: ClassVar[tuple[str, ...]] = ("cls", "minus")

    def score(self, outputs: Tensor) -> Tensor:
        """The difference of two columns."""
        classes = self.classes(outputs)
        return column(outputs, classes) - column(outputs, self._others(outputs, classes))

    def classes(self, outputs: Tensor) -> Tensor:
        """The class that is argued for."""
        return self._classes_of(self.cls, outputs)

    def held(self, outputs: Tensor) -> Target:
        """Those two classes, whatever is predicted."""
        classes = self.classes(outputs)
        return self._with(cls=int(classes[0]), minus=int(self._others(outputs, classes)[0]))

    def _others(self, outputs: Tensor, classes: Tensor) -> Tensor:
        """The class that is argued against, for each image."""
        if outputs.shape[1] < 2:
            raise TargetError("Contrast needs at least two classes, and the model has one: target=0 explains it.")
        if self.minus is None:
            rest = outputs.detach().scatter(1, classes.to(outputs.device)[:, None], -torch.inf)
            return self._classes_of(None, rest)
        others = self._classes_of(self.minus, outputs)
        if (same := (others == classes).nonzero().flatten().tolist()) and len(same):
            image, name = self._about.first + same[0], self._about.name(int(classes[same[0]]))
            raise TargetError(f"Contrast of {name!r} with itself for image {image} is always 0: give another class as "
                              "minus, or None for the runner-up.")  # fmt: skip
        return others

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        pairs = zip(classes.tolist(), self._others(outputs, classes).tolist(), strict=True)
        return [self._pair(one, other, about) for one, other in pairs]

    def _pair(self, one: int, other: int, about: About) -> str:
        name = about.short if about.short(one) != about.short(other) else about.name
        return f"{name(one)} − {name(other)}"


@dataclass(frozen=True)
class Value(Builtin):
    """One of the numbers that a model gives, as it is, for regression: no class, no probability.

    Args:
        index: which of them, from 0, or its name among the ``class_names``.

    >>> Value(1).score(torch.tensor([[20.0, 31.5]]))
    tensor([31.5000])
    """

    index: int | str = 0
    _class_fields: ClassVar[tuple[str, ...]] = ("index",)

    def score(self, outputs: Tensor) -> Tensor:
        """The column of ``(n, K)``."""
        return column(outputs, self._classes_of(self._checked(), outputs))

    def _checked(self) -> int | str:
        if self.index is None:
            raise InputTypeError("Value takes the index of an output, from 0, or its name, not None.")
        return self.index

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        index = int(self._classes_of(self._checked(), outputs)[0])
        return [about.names.get(index, f"output {index}")] * len(classes)


@dataclass(frozen=True)
class FunctionTarget(Target):
    """Any function from scores ``(n, K)`` to ``(n,)``.

    Where the model gives no scores: from dense scores, detections or the embedding, as the model gives them.
    """

    function: Callable[[Any], Tensor]
    reads = "any"

    def score(self, outputs: Any) -> Tensor:
        """What the function gives."""
        return self.function(outputs)

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self.function, "__name__", type(self.function).__name__)


def column(outputs: Tensor, classes: Tensor) -> Tensor:
    """Of scores ``(n, K, ...)`` those of each image's class, ``(n, ...)``."""
    return outputs[torch.arange(len(outputs), device=outputs.device), classes.to(outputs.device)]


def class_name(names: Mapping[int, str], index: int) -> str:
    """The name of a class; ``class 7`` where none is known."""
    return names.get(index, f"class {index}")


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
