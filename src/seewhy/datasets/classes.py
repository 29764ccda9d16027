"""The classes of a data set beside those of a network: which index each label means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputTypeError, TargetError, TargetIndexError, UnknownNameError, close_matches, warn
from ..inside.items import scalar
from ..targets import class_index


class Classes:
    """Turns labels into the network's indices.

    Labels that are names are looked up among the network's class names (any comma-separated part of them, in any case);
    indices of a data set that names its classes by these names; all others are the network's indices. Where the network
    has no names, the data set's are taken, if there are as many.

    Args:
        data_names: of the classes that the data set's indices are of; empty where it knows none.
        folders: the sorted names of the folders that are labels; empty where there are none.
        model_names: ``{index: name}``; empty where there are none.
        renamed: from a label of the data set to the network's class, index or name.
    """

    def __init__(
        self,
        data_names: Sequence[str],
        folders: Sequence[str],
        model_names: Mapping[int, str],
        renamed: Mapping[Any, int | str] | None = None,
    ) -> None:
        self._data, self._folders, self._renamed = tuple(data_names), tuple(folders), dict(renamed or {})
        self._model = dict(model_names)
        self._known: dict[int | str, int] = {}
        self._assumed = False  # that classes are in one order, which was said
        self.count: int | None = None

    def saw(self, count: int, *, single: bool = False) -> None:
        """Learn that the network has `count` classes; `single`: two, of which it scores the second alone.

        Raises:
            TargetError: the data set has more.
        """
        if self.count == count:
            return
        self.count, self._known = count, {}
        if single and len(self._model) == 1:
            (name,) = self._model.values()
            self._model = {0: f"not {name}", 1: name}
        if not self._model and self._data and len(self._data) != count and not self._renamed:
            raise TargetError(f"The data set has {len(self._data)} classes and the network {count}, and nothing says "
                              f"which is which. {_ADVICE}")  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """What the network's classes are called: its names, else the data set's, else ``class 3``."""
        count = self.count or 0
        own = self._data if len(self._data) == count else self._folders if len(self._folders) == count else ()
        known = self._model or dict(enumerate(own))
        return tuple(known.get(index, f"class {index}") for index in range(count))

    def indices(self, labels: Sequence[Any]) -> NDArray[np.int64]:
        """The network's class of each label, -1 where it is None.

        Raises:
            InputTypeError: a label is neither an index nor a name.
            UnknownNameError: no class of the network is called so.
            TargetIndexError: the network has no class of that index.
        """
        return np.array([-1 if label is None else self._index(scalar(label)) for label in labels], np.int64)

    def _index(self, label: Any) -> int:
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise InputTypeError(
                f"A label is the index or the name of a class, not {label!r} ({type(label).__name__})."
            )
        if label not in self._known:
            found = self._found(label)
            if found < 0 or (self.count is not None and found >= self.count):
                raise TargetIndexError(
                    f"The label {label!r} is no class of the network's {self.count}, 0 to {(self.count or 0) - 1}."
                )
            self._known[label] = found
        return self._known[label]

    def _found(self, label: int | str) -> int:
        if self._renamed:
            return self._by_renaming(label)
        if isinstance(label, str):
            return self._by_name(label)
        if not self._data or not self._model or not 0 <= label < len(self._data):
            return label
        if self._in_order:
            return label
        try:
            return class_index(self._data[label], self._model)
        except UnknownNameError as error:
            if len(self._data) == len(self._model) and not self._shared():
                self._assume("The data set calls its classes otherwise than the network does")
                return label
            raise UnknownNameError(f"{error} It is a class of the data set. {_ADVICE}") from None

    @cached_property
    def _in_order(self) -> bool:
        """Whether the data set has the network's classes in the same order, each called by one of its names."""
        pairs = ((name, self._model.get(index)) for index, name in enumerate(self._data))
        return len(self._data) == len(self._model) and all(own and _parts(name) & _parts(own) for name, own in pairs)

    def _shared(self) -> bool:
        """Whether any class of the data set is called as one of the network's."""
        known = set().union(*map(_parts, self._model.values()))
        return any(_parts(name) & known for name in self._data)

    def _by_renaming(self, label: int | str) -> int:
        name = self._data[label] if isinstance(label, int) and 0 <= label < len(self._data) else label
        found = self._renamed.get(label, self._renamed.get(name))
        if found is None:
            near = close_matches(str(name), map(str, self._renamed))
            raise UnknownNameError(f"labels= says nothing of the label {name!r}.{near}")
        return class_index(found, self._model) if isinstance(found, str) else int(found)

    def _by_name(self, label: str) -> int:
        if self._model:
            try:
                return class_index(label, self._model)
            except UnknownNameError as error:
                raise UnknownNameError(f"{error} It is a label of the data set. {_ADVICE}") from None
        known = self._data or self._folders
        if label not in known or self.count not in (None, len(known)):
            raise TargetError(f"The label {label!r} is a name, and the network's classes have none. {_ADVICE}")
        if known is self._folders:
            self._assume("The network has no class names")
        return known.index(label)

    def _assume(self, why: str) -> None:
        if not self._assumed:
            self._assumed = True
            warn(f"{why}, so its classes are taken to be in the order of the data set's: "
                 f"0 is {(self._data or self._folders)[0]!r}. {_ADVICE}")  # fmt: skip


def _parts(name: str) -> set[str]:
    return {part.strip().casefold() for part in (name, *name.split(","))}


_ADVICE = (
    "Give Explainer(..., class_names=[...]), or labels={label: class}, from the data set's labels to the network's "
    "classes."
)
