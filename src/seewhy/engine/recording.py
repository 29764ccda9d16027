"""Recording what the modules of a model return in one run, as far as it can stand for running them again."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import Layer, tensors
from .inputs import ModelInputs
from .passes import run
from .switches import fast_path_off


@dataclass
class _Kept:
    """A tensor of the model's own, and how often it had been changed in place when it was seen; -1 if not counted."""

    tensor: Tensor
    version: int

    @property
    def now(self) -> int:
        """How often it has been changed by now."""
        return -1 if self.tensor.is_inference() else self.tensor._version

    @property
    def changed(self) -> bool:
        """Whether it was changed since, as far as can be told."""
        return self.version < 0 or self.now != self.version


@dataclass
class Call:
    """A call that had finished before the layer: its module, and a copy of what it returned for one image.

    `kept` are the tensors that it returned; `fresh` says that the model changes them in place later on, other than in
    calls that are not made again, so that each replay needs copies of its own. `output` is None where it is of a type
    that cannot be copied.
    """

    module: nn.Module
    output: Any
    kept: list[_Kept]
    fresh: bool = False

    @property
    def stands(self) -> bool:
        """Whether the module need not run again: all it returned has an entry for the one image."""
        found = list(tensors(self.output))
        return bool(found) and all(tensor.dim() and len(tensor) == 1 for tensor in found)

    @property
    def spoilt(self) -> bool:
        """Whether a replay changed in place what is to be answered."""
        return any(not tensor.is_inference() and tensor._version for tensor in tensors(self.output))

    def answer(self, count: int) -> Any:
        """What the module returned, for so many images."""

        def for_all(tensor: Tensor) -> Tensor:
            many = tensor.expand(count, *tensor.shape[1:])
            return many.clone() if self.fresh else many

        return mapped(self.output, for_all)


class Recording:
    """Keeps what modules return in one run of a model until a layer has finished; a context manager.

    Attributes:
        raw: the tensors that the model returned.
        overwrites: whether it changes in place the images that it is given.
        returned: what the layer returned.
        written: whether the model changes that in place later on.
        before: the calls that had finished before it, whose callers had not; then None, for the layer itself. None
            instead of the list where it was not seen to run, as when a module calls it that does not hold it.
        trace: the names of all modules in the order in which they finished.
    """

    def __init__(self, model: nn.Module, layer: Layer) -> None:
        self._model, self._layer = model, layer
        self._names = {module: name for name, module in model.named_modules()}
        holders = (m for m in self._names if m is not layer.module)
        self._above = {module for module in holders if any(part is layer.module for part in module.modules())}
        self._open: list[tuple[nn.Module, list[Call]]] = []  # the calls that are under way
        self._calls, self._thread = 0, threading.get_ident()
        self._trace: list[str] = []
        self.raw: list[Tensor] = []
        self.overwrites = False
        self.returned: Any = None
        self.written = False
        self._kept: list[_Kept] = []
        self.before: list[Call | None] | None = None

    @property
    def trace(self) -> tuple[str, ...]:
        """The names of the modules that ran."""
        return tuple(self._trace)

    def run(self, image: Tensor, inputs: ModelInputs) -> Any:
        """Run the model on one image, which is its own to change; gives what it returns."""
        version = image._version
        raw = run(self._model, image, inputs)
        self.overwrites = image._version > version
        self.raw = [tensor.clone() for tensor in tensors(raw)]
        return raw

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(fast_path_off())
            stack.enter_context(exchanged(self._names, self._called))
            self._stack = stack.pop_all()

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()
        self.written = any(kept.changed for kept in self._kept)
        for call in self.before or []:
            if call:
                call.fresh = any(kept.changed for kept in call.kept)
                call.kept.clear()

    def _called(self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        if self.before is not None or not all(caller in self._above for caller, _ in self._open):
            return self._passed(module, forward(*args, **kwargs))
        earlier = [(kept, kept.now) for _, calls in self._open for call in calls for kept in call.kept]
        self._open.append((module, []))
        try:
            output = forward(*args, **kwargs)
        finally:
            self._open.pop()
        if self._finished(module, output):  # what it changed in place will not be changed, as it will not run
            for kept, version in earlier:
                kept.version += kept.now - version
        return self._passed(module, output)

    def _passed(self, module: nn.Module, output: Any) -> Any:
        self._trace.append(self._names[module])
        return output

    def _finished(self, module: nn.Module, output: Any) -> bool:
        """Keep a call whose caller goes on; gives whether it will not run again."""
        if self.before is not None or not self._open:
            return False
        kept = [_Kept(tensor, -1 if tensor.is_inference() else tensor._version) for tensor in tensors(output)]
        call = Call(module, _copied(output), kept)
        if module is self._layer.module:
            self._calls += 1
            if self._calls == (self._layer.call or 1):
                self.returned, self._kept = call.output, kept
                self.before = [*(call for _, calls in self._open for call in calls), None]
                return True
        self._open[-1][1].append(call)
        return call.stands


@contextmanager
def exchanged(modules: Any, instead: Callable[..., Any]) -> Iterator[None]:
    """Call `instead` with a module and its own forward wherever one of `modules` runs."""
    before = {}
    for module in modules:
        if not isinstance(module, torch.jit.ScriptModule):
            before[module] = vars(module).get("forward")
    try:
        for module in before:
            forward = module.forward
            wrapped = functools.wraps(forward)(functools.partial(instead, module, forward))
            object.__setattr__(module, "forward", wrapped)
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                object.__setattr__(module, "forward", own)


def _copied(value: Any) -> Any:
    """`value` with copies of its tensors; None where it is of a type that cannot be copied."""
    with suppress(Exception):
        return mapped(value, Tensor.clone)
    return None


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with each tensor in it changed; the same types."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        changed = copy(value)
        for key, part in value.items():
            changed[key] = mapped(part, change)
        return changed
    if isinstance(value, list | tuple):
        return _sequence(value, [mapped(part, change) for part in value])
    return value


def _sequence(like: Any, parts: list[Any]) -> Any:
    if hasattr(like, "_fields"):
        return type(like)(*parts)
    try:
        return type(like)(parts)
    except TypeError:
        if not isinstance(like, tuple):
            raise
        return tuple.__new__(type(like), parts)  # a type of the model's own, which is made of something else
