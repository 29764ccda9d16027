"""How an explanation came about, so that what it explains can be asked about again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .engine.inputs import ModelInputs
from .images import Images
from .methods import Method
from .targets import Target


@dataclass(frozen=True, eq=False)
class Origin:
    """What an explanation was made of; it lives as long as the explanation, and is not saved with it.

    Attributes:
        images: all that were given, as they were given: files are opened again, arrays are the user's own.
        inputs: what else the model got.
        targets: one for each row.
        method: what made the maps.
        layers: the names of those that it looked at.
    """

    images: Images
    inputs: ModelInputs
    targets: Sequence[Target]
    method: Method | None = None
    layers: tuple[str, ...] = ()

    def part(self, rows: slice) -> Origin:
        """That of some rows, which know their images by number."""
        return replace(self, targets=self.targets[rows])

    def by(self, method: Method, layers: Sequence[str]) -> Origin:
        """That of the maps that this method made."""
        return replace(self, method=method, layers=tuple(layers))
