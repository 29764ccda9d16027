"""What a method is, and the registry that finds one by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn import functional as F

from ..engine.record import Needs
from ..errors import InputError, InputTypeError, MethodError, UnknownNameError, close_matches

_registry: dict[str, type[Method]] = {}
M = TypeVar("M", bound="type[Method]")


@dataclass(frozen=True)
class Method:
    """A way to explain a score: what it needs of the passes, and the mathematics over what they gave.

    Args:
        name: what to call its results; the registered name unless given. Two instances of a method need two names.

    To write one, subclass it, set `needs` and override `compute`; options are the fields of a dataclass. Override
    `to_maps` only if the raw values become a map in an unusual way. Hooks, batches, devices, resizing and drawing are
    not its business.

    >>> from dataclasses import dataclass
    >>> import seewhy
    >>> @seewhy.register("activation_norm")
    ... @dataclass(frozen=True)
    ... class ActivationNorm(seewhy.Method):
    ...     \"\"\"The p-norm of the activation over channels.\"\"\"
    ...
    ...     p: float = 2.0
    ...     needs = seewhy.Needs(activation=True)
    ...
    ...     def compute(self, record):
    ...         return record.activation.norm(self.p, dim=1)
    >>> "activation_norm" in seewhy.list_methods()
    True
    """

    name: str | None = field(default=None, kw_only=True)
    registered_name: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """What its results are called: its own `name`, else the registered one."""
        return self.name or self.registered_name or type(self).__name__

    @property
    def needs(self) -> Needs:
        """What `compute` finds in its record."""
        raise MethodError(f"{type(self).__name__} must set `needs = Needs(...)`.")

    def compute(self, record: Any) -> Tensor:
        """The attribution of n images from a `Record` (a `LayerRecord` where something is needed at a layer).

        Returns a float tensor, ``(n, C, H, W)`` for an attribution of the input and ``(n, h, w)`` for one of positions.
        """
        raise MethodError(f"{type(self).__name__} must override compute(record), here of {record!r}.")

    def to_maps(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """The maps ``(n, H, W)`` at the `size` of the input: bilinear, or the largest magnitude over the colours."""
        return upsample(values if values.dim() == 3 else values.abs().amax(1), size)


def upsample(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``(n, h, w)`` at ``(H, W)``, bilinear with pixel centres aligned (``align_corners=False``)."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as an option may be given."""
    return (names,) if isinstance(names, str) else tuple(names)


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
    return {name: (cls.__doc__ or "").strip().split("\n")[0] for name, cls in sorted(_registry.items())}


def find_method(name: str) -> type[Method]:
    """The method registered by `name`.

    Raises:
        UnknownNameError: there is none; close matches are offered.
    """
    if name not in _registry:
        raise UnknownNameError(f"There is no method {name!r}.{close_matches(name, _registry)} "
                               f"Known: {', '.join(sorted(_registry))}.")  # fmt: skip
    return _registry[name]


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
