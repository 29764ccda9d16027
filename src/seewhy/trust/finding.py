"""The answers of `Explainer.check`: a finding for each question, and the panel of all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import InputError, UnknownNameError, close_matches
from ..explanation import Explanation
from ..render import figure
from ..result import WIDEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 4  # maps in a panel
Answer: TypeAlias = Literal["yes", "unclear", "no", "not asked"]
QUESTIONS = {
    "evidence": "Is there evidence where it looks?",
    "faithful": "Does the score follow it?",
    "target": "Does it change with the target?",
    "weights": "Does it change with the weights?",
    "stable": "Is it stable?",
    "complete": "Does it add up?",
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a map.

    Attributes:
        name: ``"evidence"``, ``"faithful"``, ``"target"``, ``"weights"``, ``"stable"`` or ``"complete"``.
        answer: ``"yes"`` speaks for the map, ``"no"`` against it; ``"unclear"``; or ``"not asked"``.
        sentence: what that means, in words.
        value: the number that was compared, the mean over the maps; NaN where there is none.
        threshold: from where on the answer is no; NaN where there is none.
        what: what the value is.
        source: of test and threshold.
        limits: what the value is held against, in words.
        numbers: what else was measured.
    """

    name: str
    answer: Answer
    sentence: str
    value: float = math.nan
    threshold: float = math.nan
    what: str = ""
    source: str = ""
    limits: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What was asked."""
        return QUESTIONS[self.name]

    @property
    def measured(self) -> str:
        """The number and what it is held against in words, where there is anything.

        >>> Finding("stable", "yes", "It is.", 0.25, 1.0, "change", limits="no from 1").measured
        'change 0.25, no from 1'
        """
        return f"{self.what} {self.value:.3g}, {self.limits}".replace("-", "−") if self.limits else ""

    def __repr__(self) -> str:
        return f"Finding({self.name}: {self.answer}{f', {self.measured}' if self.measured else ''})"


@dataclass(frozen=True, eq=False, repr=False)
class Check:
    """What speaks for and against a map; what `Explainer.check` returns. ``check["weights"]`` is one `Finding`.

    Attributes:
        findings: the answer to each question.
        explanation: what was checked.
    """

    findings: tuple[Finding, ...]
    explanation: Explanation

    def __getitem__(self, name: str) -> Finding:
        found = next((one for one in self.findings if one.name == name), None)
        if found is None:
            raise UnknownNameError(f"There is no question {name!r}.{close_matches(str(name), QUESTIONS)} "
                                   f"They are: {', '.join(QUESTIONS)}.")  # fmt: skip
        return found

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that speak against the map."""
        return tuple(one for one in self.findings if one.answer == "no")

    @property
    def verdict(self) -> str:
        """One sentence on all findings."""
        asked = [one for one in self.findings if one.answer != "not asked"]
        if alarms := self.alarms:
            return f"Do not read it as evidence: {len(alarms)} of {len(asked)} tests speak{'s' * (len(alarms) == 1)} " \
                   "against it."  # fmt: skip
        if unclear := [one.name for one in asked if one.answer == "unclear"]:
            return f"Read it with care: {len(unclear)} of {len(asked)} tests {'are' if len(unclear) > 1 else 'is'} " \
                   f"unclear ({', '.join(unclear)})."  # fmt: skip
        return f"Nothing speaks against it in {len(asked)} tests."

    def __str__(self) -> str:
        marks = {"yes": "+", "no": "-", "unclear": "~", "not asked": " "}
        lines = [f"{self._name()}, {self._about()}: {self.verdict}"]
        for one in self.findings:
            measured = f" ({one.measured})" if one.measured else ""
            lines.append(f"{marks[one.answer]} {one.question} {one.sentence}{measured}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        answers = ", ".join(f"{one.name}={one.answer}" for one in self.findings)
        return f"Check({self._name()}, {answers})"

    def _name(self) -> str:
        layer = f" at {self.explanation.layer!r}" if self.explanation.layer else ""
        return f"{self.explanation.method}{layer}"

    def _about(self) -> str:
        """What is explained; of several maps, how many."""
        one = self.explanation
        if len(one) > 1:
            return f"{len(one):,} maps"
        chance = "" if math.isnan(one.probabilities[0]) else f" {one.probabilities[0]:.2f}"
        return f"{one.target_names[0]}{chance}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The map, the verdict, and each answer with its sentence, number and threshold."""
        from ..render import check as drawing

        if ax is None:
            ax = figure.new(drawing.size_of(len(self)), shown=True).add_axes(drawing.PLACE)
        return self._draw(ax)

    def _draw(self, ax: Axes) -> Axes:
        from ..render import check as drawing

        rows = [drawing.Row(one.question, one.answer, one.sentence, one.measured) for one in self.findings]
        few = f"the first {_SHOWN} of " if len(self.explanation) > _SHOWN else ""
        picture, caption = self.explanation[:_SHOWN].image(), few + self._about()
        drawing.draw(ax, picture, caption, f"{self._name()}: {self.verdict}", rows)
        return ax

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the panel as a picture; parent folders are made. Another suffix than `.png` is an InputError."""
        file = Path(path)
        if file.suffix.lower() != ".png":
            raise InputError(f"A check is saved as a picture, as in 'check.png', not {str(path)!r}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._png())

    def _png(self, widest: int = figure.LONGEST) -> bytes:
        from ..render import check as drawing

        page = figure.new(drawing.size_of(len(self)), shown=False)
        return figure.png(self._draw(page.add_axes(drawing.PLACE)), widest=widest)

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST)
        except Exception:  # a notebook falls back on the text form
            return None
