"""What may be wrong between a model's output and what the user said of it: told once, or refused."""

from __future__ import annotations

from typing import Any

from .errors import TargetError, TargetIndexError, warn
from .outputs import KINDS, Outputs, sums_to_one
from .scoring import Scoring, Selected, find_targets
from .targets import About, Class


class Cautions:
    """Warns, each once, of what an `Explainer` had to assume.

    Args:
        classes: how many class names were given; None if unknown.
        activation: as for `Explainer`.
    """

    def __init__(self, classes: int | None, activation: str | None) -> None:
        self._classes, self._activation = classes, activation
        self._said: set[str] = set()

    def check(self, selected: Selected | None, scoring: Scoring) -> None:
        """Look at what was explained, if there was a score."""
        if selected is None:
            return
        if scoring.open and selected.source.kind == "embedding":
            self._say(
                "The model gives an embedding and no class scores, so what makes each image's own embedding is "
                "explained. Similarity(to=...) explains its likeness to another image or embedding."
            )
        self.check_outputs(selected.source)

    def check_outputs(self, source: Outputs) -> None:
        """Look at what the model gives."""
        outputs = source.classes
        if outputs is None:
            return
        if self._classes not in (None, outputs.shape[1]):
            count = outputs.shape[1]
            hint = "give the name of the class that it stands for alone." if count == 1 else "names may be wrong."
            self._say(
                f"{self._classes} class names were given, and the model has {count} score{'s' * (count != 1)}: {hint}"
            )
        if self._activation is None and sums_to_one(outputs):
            self._say(
                "The model's scores already sum to 1, so they are taken as probabilities. The gradient of a "
                "probability depends on the other classes too: explain the logits if you can (output=)."
            )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn(message)


def true_classes(truth: Any, count: int, about: About) -> list[int] | None:
    """The index of each image's true class, as the user gave them; None where nothing was given."""
    if truth is None:
        return None
    targets = find_targets(truth, count, about)
    indices = [target.cls for target in targets if isinstance(target, Class) and isinstance(target.cls, int)]
    if len(indices) < count:
        raise TargetError("truth is a class, by index or name, for each image.")
    return indices


def class_labels(indices: list[int] | None, about: About) -> tuple[str, ...] | None:
    """The names of the true classes."""
    return None if indices is None else tuple(about.name(index) for index in indices)


def check_truth(indices: list[int] | None, selected: Selected, about: About) -> None:
    """Refuse true classes that cannot be compared with what is explained."""
    if indices is None:
        return
    pairs = zip(selected.classes.tolist(), selected.names, strict=True)
    other = next((name for index, name in pairs if index >= 0 and name != about.name(index)), None)
    if other or selected.source.scores is None:
        what = f"the target is {other!r}" if other else f"the model gives {KINDS[selected.source.kind]}"
        raise TargetError(f"truth says whether the class that is explained is right, and {what}: leave truth out.")
    count = selected.source.scores.shape[1]
    if max(indices) >= count:
        raise TargetIndexError(
            f"truth {max(indices)} is out of range: the model has {count} classes, 0 to {count - 1}."
        )
