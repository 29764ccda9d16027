"""Several methods' explanations of the same images: a mapping, its grid of pictures, its folder."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import pictures, storage
from .errors import ImageNotFoundError, InputError, InputTypeError, UnknownNameError, close_matches
from .explanation import WIDEST, Explanation, read, write
from .pictures import Limits
from .render import figure, panel

Key: TypeAlias = str | tuple[str, str]

ROWS = 8  # images at most in a notebook's picture
SEEN = {2: "signal", 3: "image", 4: "frames"}  # by the dimensions of the maps


class Explanations(Mapping[Key, Explanation]):
    """Several methods' explanations of the same images, as a mapping.

    A layer method is at `(method, layer)`, others at `method`; `["grad_cam"]` and `in` also find the one at a layer
    where there is one. Two of the same name are an InputError, an unknown name an UnknownNameError.

    >>> len(Explanations([]))
    0
    """

    def __init__(self, explanations: Iterable[Explanation]) -> None:
        self._of: dict[Key, Explanation] = {}
        for one in explanations:
            if not isinstance(one, Explanation):
                raise InputTypeError(f"Explanations holds Explanation objects, got {type(one).__name__}")
            key = one.method if one.layer is None else (one.method, one.layer)
            if key in self._of:
                raise InputError(
                    f"two explanations are called {_said(key)}: give each its own name=, as in GradCAM(name='mine')"
                )
            self._of[key] = one

    def __getitem__(self, key: Key) -> Explanation:
        if key in self._of:
            return self._of[key]
        layers = [known for known in self._of if not isinstance(known, str) and known[0] == key]
        if len(layers) == 1:
            return self._of[layers[0]]
        if layers:
            raise UnknownNameError(f"{key!r} is there for several layers: take one of {', '.join(map(str, layers))}")
        known = ", ".join(map(_said, self._of)) or "nothing"
        raise UnknownNameError(f"no explanation is called {_said(key)}.{self._near(key)} Here: {known}")

    def _near(self, key: Any) -> str:
        return close_matches(_said(key), map(_said, self._of)) or close_matches(str(key), [_name(k) for k in self._of])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __repr__(self) -> str:
        images = max((len(one) for one in self._of.values()), default=0)
        return f"Explanations({', '.join(map(_said, self._of))}; images={images})"

    def plot(self, *, style: str | None = None, limits: Limits = "shared") -> panel.AxesGrid:
        """Draw a row per image: what the model saw with its label, then every map; returns the Axes as an array.

        `style` is as in `Explanation.image`, for those explanations that can be drawn so. `limits` says whether the
        images of one method and layer have the same colour range (``"shared"``) or each its ``"own"``; a pair
        ``(low, high)`` is for all maps.
        """
        return panel.grid(self._rows(style=style, limits=limits), shown=True)

    def _rows(
        self, most: int | None = None, *, style: str | None = None, limits: Limits = "shared"
    ) -> list[list[panel.Picture]]:
        counts = {_said(key): len(one) for key, one in self._of.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"a grid needs explanations of the same images, got {counts or 'none'}")
        first = next(iter(self._of.values()))
        if other := [key for key, one in self._of.items() if not _same(one.images, first.images)]:
            raise InputError(f"a grid needs explanations of the same images; {_said(other[0])} is of others")
        takers = [pictures.fits(one, style) for one in self._of.values()]
        if not any(takers):
            raise InputError(f"style={style!r} fits none of {', '.join(map(_said, self._of))}")
        parts = [one[:most] for one in self._of.values()]
        columns = [
            _unlabelled(one, parts[0], style if takes else None, limits)
            for one, takes in zip(parts, takers, strict=True)
        ]
        total = next(iter(counts.values()))
        seen = _beside(parts[0], f"first {most} of {total}" if most and total > most else None)
        return [list(row) for row in zip(seen, *columns, strict=True)]

    def _png(self, widest: int = figure.LONGEST, most: int | None = None, **how: Any) -> bytes:
        return figure.png(panel.grid(self._rows(most, **how), shown=False)[0, 0], widest=widest)

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST, ROWS)
        except Exception:  # a notebook falls back on the text form
            return None

    def save(self, path: str | os.PathLike[str], *, style: str | None = None, limits: Limits = "shared") -> None:
        """Write all of it: the labelled grid as one picture to a ``.png``, or everything into a folder.

        The folder gets each explanation's arrays and picture, as in `grad_cam-layer4.npz`, and the grid as `panel.png`.
        `style` and `limits` are those of `plot`. The name of another kind of file is an InputError.
        """
        folder = Path(path)
        if folder.suffix.lower() in storage.OTHER_FILES:
            raise InputError(
                f"save to a folder, or to a .png (the grid only); got {folder.suffix!r} in {folder.name!r}"
            )
        picture = self._png(style=style, limits=limits)
        if folder.suffix.lower() == ".png":
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.write_bytes(picture)
            return
        used = {"panel"}
        for i, one in enumerate(self._of.values()):
            own = style if pictures.fits(one, style) else None
            write(one, folder / _stem(one, used), [".npz", ".png"], one._png(style=own, limits=limits), order=i)
        (folder / "panel.png").write_bytes(picture)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Explanations:
        """The explanations that `save` wrote into the folder, in their order."""
        files = sorted(Path(folder).glob("*.npz"))
        if not files:
            raise ImageNotFoundError(f"there is no explanation (.npz) in the folder {str(folder)!r}")
        return Explanations(one for one, _ in sorted(map(read, files), key=operator.itemgetter(1)))


def _same(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> bool:
    return images is others or np.array_equal(images, others)


def _name(key: Key) -> str:
    return key if isinstance(key, str) else key[0]


def _said(key: Any) -> str:
    return f"{key[0]!r} at {key[1]!r}" if isinstance(key, tuple) and len(key) == 2 else repr(key)


def _beside(one: Explanation, note: str | None) -> list[panel.Picture]:
    """The first column: what the model saw, with the labels."""
    what = SEEN[one.maps.ndim]
    heading = (what, note) if note else (what,)
    return [
        replace(seen, heading=(*heading, *seen.heading), label=pictures.label(one, i))
        for i in pictures.drawable(one)
        for seen in [pictures.seen(one, i)]
    ]


def _unlabelled(one: Explanation, first: Explanation, style: str | None, limits: Limits) -> list[panel.Picture]:
    """A column of maps, labelled only where they explain something else than the first column says."""
    same = [a == b for a, b in zip(one.target_names, first.target_names, strict=True)]
    drawn = pictures.draw(one, style, limits, beside=True)
    numbered = style == "channels"  # else as in the first column
    return [
        replace(p, label=None if s else p.label, down=p.down if numbered else ())
        for p, s in zip(drawn, same, strict=True)
    ]


def _stem(one: Explanation, used: set[str]) -> str:
    """A file name of plain characters that is not used yet."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(filter(None, (one.method, one.layer))))[:120].strip("._-")
    names = (f"{plain or 'explanation'}{end}" for end in ("", *(f"-{i}" for i in range(2, len(used) + 3))))
    name = next(n for n in names if n.casefold() not in used)
    used.add(name.casefold())
    return name
