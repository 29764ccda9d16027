"""How images climb: the numbers of each way to do it."""

from __future__ import annotations

from dataclasses import dataclass

from .wobble import Wobble


@dataclass(frozen=True)
class Recipe:
    """How images climb.

    Attributes:
        steps: how many.
        rate: of each step: Adam's; where `normalised`, the root mean square of the change of the pixels, in 0..1.
        wobble: how the image is shaken; None: not at all.
        calm: what Adam adds to the root of its second moments, the gradient having a root mean square of 1 in each
            image: with more of it, what hardly matters moves less, and pictures have less grain.
        normalised: whether steps follow the gradient divided by its root mean square, instead of Adam's.
        margin: the part of the image's side that is cut off at both ends at last.
    """

    steps: int
    rate: float
    wobble: Wobble | None
    calm: float = 1e-8
    normalised: bool = False
    margin: float = 0.0

    def canvas(self, size: int) -> int:
        """The side of the image that climbs, so that `size` pixels remain without the margins."""
        return round(size / (1 - 2 * self.margin))


RECIPES = {
    "fourier": Recipe(128, 0.05, Wobble(), calm=0.3),
    "maco": Recipe(128, 0.3, Wobble(1 / 8, (1.0, 2.0), 5.0, 0.05)),
    "classic": Recipe(30, 0.03, None, normalised=True, margin=1 / 8),
}
