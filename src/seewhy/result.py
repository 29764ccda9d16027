"""What functions return besides maps: frozen NumPy arrays that show, save and reopen themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import storage
from .errors import InputError
from .render import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 1200  # pixels of a picture in a notebook


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result:
    """Base of such results: its fields are read-only NumPy arrays, dicts of them, and plain words.

    Subclasses override `plot`, and `_size` for the size of its figure in inches.

    Attributes:
        provenance: the model's class, and what was asked.
    """

    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _frozen(getattr(self, one.name)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it on the Axes, or on those of a new figure of pyplot's, which is never shown for you."""
        raise NotImplementedError

    @property
    def _drawable(self) -> bool:
        """Whether there is anything to draw."""
        return True

    def _size(self) -> tuple[float, float]:
        return 6.4, 4.8

    def _axes(self, ax: Axes | None) -> Axes:
        return figure.axes(ax, self._size())

    def _png(self, widest: int = figure.LONGEST) -> bytes:
        page = figure.new(self._size(), shown=False, layout="constrained")
        return figure.png(self.plot(page.add_subplot()), widest=widest)

    def _repr_png_(self) -> bytes | None:
        try:
            return self._png(WIDEST)
        except Exception:  # a notebook falls back on the text form
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it: `.png` the picture as `plot` draws it, `.npz` the arrays, without a suffix both (where there is
        something to draw).

        Parent folders are made. Another suffix is an InputError.
        """
        stem, suffixes = storage.parts(path)
        if len(suffixes) > 1 and not self._drawable:
            suffixes = [".npz"]
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix in suffixes:
            file = stem.with_name(stem.name + suffix)
            if suffix.lower() == ".png":
                file.write_bytes(self._png())
            else:
                arrays, words = self._parts()
                storage.write(file, arrays, words, form=self._form())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What `save` wrote at `path`, with or without `.npz`; the same arrays to the last bit.

        No file there is an ImageNotFoundError (a FileNotFoundError), another kind of file an InputError.
        """
        path = Path(path)
        if not path.name:
            raise InputError(f"load takes the path of a saved result, not {str(path)!r}.")
        file = path if path.suffix.lower() == ".npz" or path.is_file() else path.with_name(path.name + ".npz")
        stored, _ = storage.read(file, form=cls._form())
        try:
            for name, keys in stored.pop("dicts").items():
                stored[name] = {key: stored.pop(f"{name}.{i}") for i, key in enumerate(keys)}
            return cls(**stored)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise storage.damaged(file, error) from error

    @classmethod
    def _form(cls) -> str:
        return f"{cls.__module__.rpartition('.')[0]}.{cls.__name__}/1"

    def _parts(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays, and what JSON can hold; a dict of arrays as one array each, with the keys in `dicts`."""
        arrays: dict[str, np.ndarray] = {}
        words: dict[str, Any] = {"dicts": {}}
        for name, value in ((one.name, getattr(self, one.name)) for one in fields(self)):
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif isinstance(value, Mapping) and any(isinstance(part, np.ndarray) for part in value.values()):
                arrays |= {f"{name}.{i}": part for i, part in enumerate(value.values())}
                words["dicts"][name] = list(value)
            else:
                words[name] = dict(value) if isinstance(value, Mapping) else value
        return arrays, words

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
        return _again, (type(self), plain)


def _again(kind: type[Result], values: dict[str, Any]) -> Result:
    return kind(**values)


def _frozen(value: Any) -> Any:
    """A read-only form of `value` that nobody else can change."""
    if isinstance(value, np.ndarray):
        base = value.base if isinstance(value.base, np.ndarray) else value
        if value.flags.writeable or base.flags.writeable:
            value = value.copy()
        value.setflags(write=False)
        return value
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(part) for key, part in value.items()})
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value
