"""What a classifier said of an image, in a box whose colour says whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .panel import RED_BOX, SMALL, WHITE_BOX, Label
from .text import fit

GREY_BOX = {**WHITE_BOX, "facecolor": "#dddddd"}


@dataclass(frozen=True, kw_only=True)
class Verdict(Label):
    """A label that is told whether it is right, as two classes can have one name; `correct` is None if unknown."""

    correct: bool | None = None

    @property
    def right(self) -> bool | None:
        """Whether the name is the true one; None where that is not known."""
        return self.correct

    @property
    def box(self) -> dict[str, Any]:
        """The look of its box: white if right, red if wrong, grey if unknown."""
        return {True: WHITE_BOX, False: RED_BOX, None: GREY_BOX}[self.correct]

    @property
    def ink(self) -> str:
        """The colour of its letters."""
        return "white" if self.correct is False else "black"

    def lines(self, width: float) -> str:
        """At most five lines of `width` points: the name on up to two, the value, and the truth if it is wrong.

        >>> Verdict(name="cat", value="0.97", truth="dog", correct=False).lines(100).splitlines()
        ['cat 0.97', 'true: dog']
        """
        said = Label(name=self.name, value=self.value).lines(width)
        wrong = self.correct is False and self.truth
        return f"{said}\n{fit(f'true: {self.truth}', width, SMALL)}" if wrong else said


@dataclass(frozen=True)
class Tile:
    """An image with its map and what was said of it.

    Attributes:
        image: what the model saw, uint8 ``(H, W, 3)``.
        map: float32 ``(H, W)``.
        label: what is written in the box, such as the predicted class.
        value: what is written beside it, such as its probability.
        right: whether the label is right; None where that is not known.
        truth: the true class, where known.
        signed: whether values below 0 argue against the label, though there are none here.
        percentile: of the magnitudes, 0..100: the value from which on all have the strongest colour.
    """

    image: NDArray[np.uint8]
    map: NDArray[np.float32]
    label: str
    value: str = ""
    right: bool | None = None
    truth: str = ""
    signed: bool = False
    percentile: float = 100.0

    @property
    def verdict(self) -> Verdict:
        """The words in the box."""
        return Verdict(name=self.label, value=self.value, truth=self.truth or None, correct=self.right)


def any_signed(tiles: Sequence[Tile]) -> bool:
    """Whether one of the maps needs colours for negative values, and with it all that stand beside it."""
    return any(tile.signed or bool((tile.map < 0).any()) for tile in tiles)


def proportion(images: Sequence[NDArray[np.uint8]]) -> float:
    """The height of a cell, in its widths, in which all images (H, W, 3) look well, 0.25..2.5.

    That of the images, if they are alike; 1, if some are upright and others lie.

    >>> proportion([np.zeros((30, 40, 3), np.uint8)]), proportion([np.zeros((s, 9, 3), np.uint8) for s in (5, 12)])
    (0.75, 1.0)
    """
    ratios = [image.shape[0] / image.shape[1] for image in images]
    return float(np.clip(min(max(ratios), max(1.0, min(ratios))), 0.25, 2.5))


def end_of(tiles: Sequence[Tile]) -> str:
    """What the strongest colour stands for, each map having its own."""
    found = {tile.percentile for tile in tiles}
    return "max" if found <= {100.0} else f"{found.pop():g}th percentile" if len(found) == 1 else "end"
