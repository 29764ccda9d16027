"""Maps of one layer's grid, and those of several layers fused into one."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import InputError, close_matches
from .base import Method

FUSES = ("mean", "max", "layercam")


@dataclass(frozen=True)
class Fusing(Method):
    """A method that gives a map of one layer's grid, and may give one of several layers.

    Args:
        fuse: None: a map for each layer. ``"mean"``, ``"max"``, ``"layercam"``: one of all of them.
    """

    fuse: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.fuse is not None and self.fuse not in FUSES:
            raise InputError(f"fuse is one of {', '.join(FUSES)} or None, not {self.fuse!r}."
                             f"{close_matches(str(self.fuse), FUSES)}")  # fmt: skip
