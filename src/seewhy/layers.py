"""Layers: finding them by name, listing them, and which of them the automatic choice may take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

from torch import Tensor, nn

from .errors import InputTypeError, LayerError, UnknownNameError, close_matches
from .given import FIRST
from .layouts import Layout

_RESAMPLING = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_POINTWISE = (nn.Linear, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@dataclass(frozen=True)
class Layer:
    """A module that the user named.

    Attributes:
        name: dotted name; `module`: itself.
        call: the number of its call, from 1, where it runs several times.
        relu: whether the functional ReLU after it belongs to it, as where CAM is defined on DenseNet.
    """

    name: str
    module: nn.Module
    call: int | None = None
    relu: bool = False

    @property
    def label(self) -> str:
        """The name as the user writes it: ``"name"``, ``"name#2"``, ``"name+relu"``."""
        return self.name + (f"#{self.call}" if self.call else "") + ("+relu" if self.relu else "")


@dataclass(frozen=True)
class LayerInfo:
    """One layer that ran.

    Attributes:
        name: dotted name, ``"name#2"`` for the second call of a module used several times.
        type: class name of the module.
        shape: shape of its output, the batch first.
        layout: ``"NCHW"``, ``"NHWC"``, ``"tokens"`` …, ``"given"`` (by a function) or ``"-"`` (no positions).
        chosen: whether ``layer=None`` would choose it.
        why: why it is chosen, or passed over; empty for those that come before the chosen one.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    layout: str
    chosen: bool = False
    why: str = ""


class LayerTable(list[LayerInfo]):
    """A list of `LayerInfo` that shows as a table, and so do its slices."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> LayerInfo: ...

    @overload
    def __getitem__(self, index: slice) -> LayerTable: ...

    def __getitem__(self, index: SupportsIndex | slice) -> LayerInfo | LayerTable:
        return LayerTable(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def __repr__(self) -> str:
        rows = [("layer", "type", "output", "layout", "")]
        rows += [(i.name, i.type, str(i.shape), i.layout, f"<- chosen: {i.why}" if i.chosen else i.why) for i in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile wrappers."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def is_compiled(module: nn.Module) -> bool:
    """Whether this is what ``torch.compile(module)`` returns; without importing the compiler."""
    return (type(module).__name__, type(module).__module__) == ("OptimizedModule", "torch._dynamo.eval_frame")


def find_layers(model: nn.Module, layer: Any) -> list[Layer]:
    """The layers that a `layer=` argument names: a dotted name, a module, or a list of these.

    Raises:
        UnknownNameError: no module has that name, or the module is not part of the model.
        InputTypeError: neither a name nor a module.
    """
    if isinstance(layer, list | tuple):
        return [found for one in layer for found in find_layers(model, one)]
    if layer is model or layer == "":
        raise LayerError("The layer is the whole model: name one inside it; explainer.layers() lists them.")
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return [Layer(name, module)]
        raise UnknownNameError(f"The {type(layer).__name__} given as layer is not part of this model.")
    if not isinstance(layer, str):
        raise InputTypeError(f"layer is a name, a module or a list of these, not {type(layer).__name__}.")
    return [_find_by_name(model, layer)]


def _find_by_name(model: nn.Module, label: str) -> Layer:
    modules = dict(model.named_modules(remove_duplicate=False))
    if label in modules:
        return Layer(label, modules[label])
    named, plus = label.removesuffix("+relu"), label.endswith("+relu")
    name, mark, call = named.rpartition("#")
    if named in modules or not mark:
        name, call = named, ""
    if name not in modules or not name:
        children = ", ".join(child for child, _ in model.named_children())
        raise UnknownNameError(f"The model has no layer {name!r}.{close_matches(name, modules)} "
                               f"Its children: {children}. explainer.layers() lists all.")  # fmt: skip
    if call and (not call.isdecimal() or int(call) < 1):
        raise UnknownNameError(f"{label!r}: after '#' comes the number of the call, from 1, as in '{name}#2'.")
    return Layer(name, modules[name], int(call) if call else None, plus)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a module's output (tensor, tuple, list, mapping, nested), in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def with_first_tensor(value: Any, tensor: Tensor) -> Any:
    """`value` with its first tensor replaced by `tensor`; the same types, the original untouched."""
    if isinstance(value, Tensor):
        return tensor
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    key, part = next((k, v) for k, v in items if next(tensors(v), None) is not None)
    replaced = with_first_tensor(part, tensor)
    if isinstance(value, dict):
        changed = value.copy() if type(value) is dict else type(value)(**value)
        changed[key] = replaced
        return changed
    parts = [replaced if i == key else v for i, v in enumerate(value)]
    if type(value) in (tuple, list):
        return type(value)(parts)
    try:
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    except TypeError:  # a type of the model's own; it goes on with the tensor that it gave
        return value


def unfit(module: nn.Module, layout: Layout | None) -> str:
    """Why the automatic choice may not take a layer of this type and layout; empty where it may.

    A pool that only resamples gives way to its input; among tokens and channels-last, a bare linear layer,
    activation, dropout or identity is a step within a block.
    """
    if layout is None:
        return "no positions"
    if isinstance(module, _RESAMPLING):
        return "only resamples"
    within = layout.name not in FIRST.values() and (isinstance(module, _POINTWISE) or _is_activation(module))
    return "a step within a block" if within else ""


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
