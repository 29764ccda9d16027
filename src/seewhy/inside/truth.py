"""Labels of a data set beside the classes of a network: how they are called, and which predictions are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, close_matches, warn


@dataclass(frozen=True)
class Truth:
    """What is known of the labels of the images.

    Attributes:
        labels: index or name of each image's class; empty where there are none.
        data_names: of the classes that the indices are of, where the data set knows them.
        model_names: of the classes that the network predicts.
        predicted: the index of each image's predicted class; None where there is none.
        count: how many classes the network has; 0 where there are none.
    """

    labels: tuple[int | str, ...]
    data_names: Sequence[str]
    model_names: Mapping[int, str]
    predicted: NDArray[np.int64] | None
    count: int

    def __post_init__(self) -> None:
        for i, label in enumerate(self.labels):
            if isinstance(label, int) and (label < 0 or (self.data_names and label >= len(self.data_names))):
                most = f"the {len(self.data_names)} classes of the data set" if self.data_names else "classes, from 0"
                raise InputError(f"The label of image {i} is {label}: no index of {most}.")

    @property
    def beyond(self) -> bool:
        """Whether labels are indices that cannot be of the network's classes."""
        return bool(self.count) and any(isinstance(label, int) and label >= self.count for label in self.labels)

    def names(self) -> tuple[str, ...] | None:
        """The labels by name: the data set's, else the network's, else the index as text."""
        if not self.labels:
            return None
        known = dict(enumerate(self.data_names)) or ({} if self.beyond else self.model_names)
        return tuple(label if isinstance(label, str) else known.get(label, str(label)) for label in self.labels)

    def predictions(self) -> tuple[str, ...] | None:
        """The predicted classes by name: the network's, else the data set's if as many, else the index as text."""
        if self.predicted is None:
            return None
        known = dict(enumerate(self.data_names)) if len(self.data_names) == self.count else {}
        known = dict(self.model_names) or known
        return tuple(known.get(index, str(index)) for index in self.predicted.tolist())

    def correct(self) -> NDArray[np.bool_] | None:
        """Which predictions are the label; None where the two cannot be compared.

        They are by name where both the labels and the network's classes have names, else by index.
        """
        if self.predicted is None or not self.labels:
            return None
        named = bool(self.data_names) or any(isinstance(label, str) for label in self.labels)
        if named and self.model_names:
            return self._by_name(self.predicted)
        return self._by_index(self.predicted)

    def _by_index(self, predicted: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        if any(isinstance(label, str) for label in self.labels):
            return None
        if self.data_names and len(self.data_names) != self.count:
            return None
        if self.beyond:
            warn(f"The label {max(map(int, self.labels))} is beyond the network's {self.count} classes, so no image is "
                 "called misclassified. Give labels= as indices of these, from 0, or as names.")  # fmt: skip
            return None
        return np.array(np.array(self.labels) == predicted)

    def _by_name(self, predicted: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        names = self.names() or ()
        meant = {name: _called(name, self.model_names) for name in dict.fromkeys(names)}
        unknown = [name for name, indices in meant.items() if not indices]
        if unknown:
            if len(unknown) < len(meant) or len(self.data_names) == self.count:  # else of another set of classes
                warn(f"No class of the network is called {unknown[0]!r}, so no image is called misclassified."
                     f"{close_matches(unknown[0], self.model_names.values())} Give labels= as the network's names, "
                     "or Explainer(..., class_names=...) the data set's.")  # fmt: skip
            return None
        pairs = zip(names, predicted.tolist(), strict=True)
        return np.array([index in meant[name] for name, index in pairs])


def _called(name: str, model_names: Mapping[int, str]) -> frozenset[int]:
    """The indices of the classes called `name`, the whole of it, else one of its comma-separated parts, in any case."""
    wanted = name.strip().casefold()
    exact = frozenset(i for i, known in model_names.items() if known.strip().casefold() == wanted)
    parts = ((i, known.casefold().split(",")) for i, known in model_names.items())
    return exact or frozenset(i for i, known in parts if wanted in map(str.strip, known))
