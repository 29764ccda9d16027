"""The methods by name: the built-in ones, those that the user registers, and those of other distributions.

A distribution brings methods by the entry-point group ``seewhy.methods``; they are loaded at the first look-up.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from ..errors import InputError, InputTypeError, UnknownNameError, close_matches, warn
from .base import Method

GROUP = "seewhy.methods"
M = TypeVar("M", bound=type[Method])

_registry: dict[str, type[Method]] = {}
_waiting = [GROUP]  # emptied by the first look-up
_lock = threading.RLock()  # a plug-in may look methods up while it is imported


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a `Method` known by `name`.

    Raises:
        InputError: the name is taken by another method.
        InputTypeError: what is decorated is no `Method` subclass.
    """
    if not isinstance(name, str):
        raise InputTypeError("@seewhy.register needs a name: @seewhy.register('my_method').")

    def add(cls: M) -> M:
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise InputTypeError(f"@register({name!r}) decorates a subclass of seewhy.Method, not {cls!r}.")
        known = _registry.get(name)
        if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"There is a method {name!r} already: {known.__module__}.{known.__qualname__}.")
        cls.registered_name = name
        _registry[name] = cls
        return cls

    return add


def list_methods() -> dict[str, str]:
    """Every registered method: its name and a one-line description.

    >>> list_methods()["saliency"]
    'Saliency: the gradient of the score at the input.'
    """
    _load_plugins()
    return {name: (cls.__doc__ or "").strip().split("\n")[0] for name, cls in sorted(_registry.items())}


def find_method(name: str) -> type[Method]:
    """The method registered by `name`.

    Raises:
        UnknownNameError: there is none; close matches are offered.
    """
    _load_plugins()
    if name not in _registry:
        raise UnknownNameError(f"There is no method {name!r}.{close_matches(name, _registry)} "
                               f"Known: {', '.join(sorted(_registry))}.")  # fmt: skip
    return _registry[name]


def _load_plugins() -> None:
    """Register what other distributions bring, once; what fails is left out, and told."""
    with _lock:
        waiting = _waiting.copy()
        _waiting.clear()
        try:
            found = [entry for group in waiting for entry in entry_points(group=group)]
            problems = [_problem(entry) for entry in sorted(found, key=lambda e: (_distribution(e), e.name))]
        except BaseException:  # interrupted: the next look-up tries again
            _waiting.extend(waiting)
            raise
    for problem in filter(None, problems):
        warn(problem)


def _problem(entry: EntryPoint) -> str | None:
    """Load one; what to say if that fails. What a module registered that failed to import does not stay."""
    before = set(_registry)
    try:
        _load(entry)
    except (Exception, SystemExit) as error:
        for name in set(_registry) - before:
            if _registry[name].__module__ not in sys.modules:
                del _registry[name]
        return (
            f"The method {entry.name!r} ({entry.value}) of the distribution {_distribution(entry)!r} is left out: "
            f"{type(error).__name__}: {error}"
        )
    return None


def _load(entry: EntryPoint) -> None:
    cls = entry.load()
    own = vars(cls).get("registered_name") if isinstance(cls, type) else None
    if own and own != entry.name:
        raise InputError(f"its class is registered as {own!r}, and the entry point is called {entry.name!r}.")
    register(entry.name)(cls)


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"
