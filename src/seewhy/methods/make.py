"""The methods that a call asks for, with their options."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..engine.record import Needs
from ..errors import InputError, InputTypeError, MethodError, close_matches
from .base import Method
from .registry import find_method


def options_of(cls: type[Method]) -> list[str]:
    """The names of a method's options."""
    return [f.name for f in fields(cls) if f.init and f.name != "name"]


def make_methods(method: Any, options: dict[str, Any]) -> list[Method]:
    """Instances of the methods asked for by name, class or instance; `options` go to each that declares them.

    Raises:
        InputTypeError: something is no method, or an option is declared by none of them.
        InputError: two of them would have the same name.
    """
    asked = method if isinstance(method, list | tuple) else [method]
    if not asked:
        raise InputError("No method is given: name at least one, as in method='grad_cam'.")
    classes = [find_method(one) if isinstance(one, str) else one for one in asked]
    takers = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, Method)]
    _check_options(options, takers)
    methods = [_make(cls, options) for cls in classes]
    for one in methods:
        if not isinstance(one.needs, Needs):
            raise MethodError(f"`needs` of {one.label!r} must be a seewhy.Needs, not {one.needs!r}.")
    names = [m.label for m in methods]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"Two methods are called {repeated.pop()!r}: give one of them another name=.")
    return methods


def _check_options(options: dict[str, Any], takers: list[type[Method]]) -> None:
    valid = {option for cls in takers for option in options_of(cls)}
    for option in options:
        if option not in valid:
            names = ", ".join(cls.registered_name or cls.__name__ for cls in takers) or "instances, which have theirs"
            known = f"Their options: {', '.join(sorted(valid))}." if valid else _no_options(takers)
            raise InputTypeError(f"No method asked for ({names}) has an option {option!r}."
                                 f"{close_matches(option, valid)} {known}")  # fmt: skip


def _no_options(takers: list[type[Method]]) -> str:
    plain = [cls.__name__ for cls in takers if cls.__annotations__ and "__dataclass_fields__" not in vars(cls)]
    if plain:
        return f"Options are the fields of a dataclass: put @dataclass(frozen=True) on {', '.join(plain)}."
    return "They have no options." if takers else "Set options where the instance is made."


def _make(method: Any, options: dict[str, Any]) -> Method:
    if isinstance(method, Method):
        return method
    if isinstance(method, type) and issubclass(method, Method):
        return method(**{k: v for k, v in options.items() if k in options_of(method)})
    raise InputTypeError(f"A method is a name, a Method subclass or an instance of one, not {method!r}.")
