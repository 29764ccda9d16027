"""Explanations one at a time, as the view asks for them, and the last of them kept."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cautions import true_classes
from ..errors import ImageIndexError, InputError, InputTypeError, SeewhyError, SeewhyWarning, TargetIndexError
from ..explainer import Explainer, Prediction
from ..explanation import Explanation
from ..images import gather
from ..layers import find_layers
from ..methods import Method
from ..methods.make import make_methods
from ..scoring import find_targets
from ..targets import Class

KEPT = 32  # explanations


@dataclass(frozen=True)
class Pick:
    """What is to be shown: the image's number, the method's name, a layer (None: chosen), a class (None: predicted)."""

    image: int
    method: str
    layer: str | None = None
    target: int | str | None = None


@dataclass(frozen=True)
class Found:
    """What was computed for a pick: the explanation, the image's predictions (best first), and what was warned of."""

    explanation: Explanation
    predictions: tuple[Prediction, ...]
    warnings: tuple[str, ...]


class Maps:
    """The explanations of one explainer and a list of images, computed when first asked for.

    `explain` turns a `Pick` into a `Found`, and keeps the last 32. It raises what `Explainer.explain` raises.

    >>> from seewhy.testing import small_cnn
    >>> maps = Maps(Explainer(small_cnn()), torch.rand(2, 3, 8, 8))
    >>> maps.explain(Pick(1, "saliency")).explanation.map.shape, maps.titles
    ((8, 8), ('image 0', 'image 1'))
    """

    def __init__(self, explainer: Explainer, images: Any, truth: Any = None) -> None:
        if not isinstance(explainer, Explainer):
            hint = " Make one of the model: seewhy.Explainer(model)." if isinstance(explainer, torch.nn.Module) else ""
            raise InputTypeError(f"explainer must be a seewhy.Explainer, not {type(explainer).__name__}.{hint}")
        if explainer._sides != 2:
            raise InputError(
                "The view shows images, and this model takes signals, videos or volumes: its first convolution is a "
                f"Conv{explainer._sides}d. The explanations of explainer.explain() show themselves in a notebook."
            )
        self.explainer = explainer
        self._images = one_by_one(images)
        self.titles = tuple(
            Path(source).name if source else f"image {i}" for i, source in enumerate(gather(self._images).sources)
        )
        self._truth = true_classes(truth, len(self._images), explainer._about)
        self._methods: dict[str, Method] = {}
        self._heard: list[str] = []  # before the first map
        self.explain = functools.lru_cache(KEPT, typed=True)(self._explain)
        self.predictions = functools.lru_cache(KEPT)(self._predictions)

    def add_methods(self, methods: Any) -> list[str]:
        """Make methods known, given as for `Explainer.explain`; returns their names."""
        made = {method.label: method for method in make_methods(methods, {})}
        self._methods.update(made)
        return list(made)

    def method_name(self, method: Any) -> str:
        """The name of a method given by name, class or instance, which is then known."""
        return method if isinstance(method, str) and method in self._methods else self.add_methods([method])[0]

    def method(self, name: str) -> Method:
        """The method of this name: one that was added, else the registered one."""
        return self._methods[self.method_name(name)]

    def layer(self, layer: Any) -> str | None:
        """The name of a layer given by name or as a module, checked to be part of the model; None stays."""
        return None if layer is None else find_layers(self.explainer._inner, layer)[0].label

    def layers(self) -> list[tuple[str, str]]:
        """Name and type of the layers with positions, as the first image runs them."""
        with _listening() as heard:
            table = self.explainer.layers(self._images[0])
        self._heard += heard
        return [(i.name, i.type) for i in table if i.layout != "-"]

    def index_of(self, target: Any) -> int:
        """The index of a class given by index or name."""
        found = find_targets(target, 1, self.explainer._about)[0]
        if not isinstance(found, Class) or not isinstance(found.cls, int):
            raise InputTypeError(f"A class of the view is an index or a name, not {target!r}.")
        predicted = {one.index for one in self.predictions(0)}
        if predicted == set(range(len(predicted))) and found.cls not in predicted and predicted:
            raise TargetIndexError(f"Target {found.cls} is out of range: the model has {len(predicted)} classes.")
        return found.cls

    def typed(self, text: str) -> int | str:
        """What was typed as a class: the name where a class is called so, else the index."""
        text = text.strip()
        try:
            self.index_of(text)
        except SeewhyError:
            if text.isdecimal():
                return int(text)
            raise
        return text

    def _explain(self, pick: Pick) -> Found:
        truth = None if self._truth is None else self._truth[self._number(pick.image)]
        image, method, layer = self._images[self._number(pick.image)], self.method(pick.method), self.layer(pick.layer)
        with _listening() as heard:
            explanation: Explanation = self.explainer.explain(
                image, method, target=pick.target, layer=layer if method.needs.layer else None, truth=truth
            )
            predictions = self.predictions(pick.image)
        told = tuple(dict.fromkeys(self._heard + heard))
        self._heard = []
        return Found(explanation, predictions, told)

    def _number(self, image: Any) -> int:
        try:
            number = operator.index(image)
        except TypeError:
            raise InputTypeError(f"image is the number of an image, not {image!r}.") from None
        if not 0 <= number < len(self._images):
            raise ImageIndexError(f"There is no image {number}: the view has {len(self._images)}, from 0.")
        return number

    def _predictions(self, image: int) -> tuple[Prediction, ...]:
        """Every class of the image, the most probable first; none where the model has no scores to read."""
        try:
            return tuple(self.explainer.predict(self._images[image], top=2**31)[0])
        except SeewhyError:  # a method that needs the scores says so itself
            return ()


def one_by_one(images: Any) -> list[Any]:
    """Whatever `Explainer.explain` takes, as a list of single images.

    >>> len(one_by_one([np.zeros((4, 4)), torch.zeros(3, 3, 4, 4)]))
    4
    """
    several = isinstance(images, list | tuple | Iterator) and not hasattr(images, "read")
    found: list[Any] = []
    for one in images if several else [images]:
        batch = isinstance(one, np.ndarray | torch.Tensor) and one.ndim == 4
        found += list(one) if batch else [one]
    return found


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The texts of seewhy's warnings inside; others go where they always go."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SeewhyWarning)
        yield heard
    for one in caught:
        if issubclass(one.category, SeewhyWarning):
            heard.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
