"""Layers: finding them by name, and where the positions are in what they return."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

import torch
from torch import Tensor, nn

from .errors import InputTypeError, LayerError, UnknownNameError, close_matches

_CHANNELS_FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d,
    nn.FractionalMaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle,
)  # fmt: skip
TELLING = (*_CHANNELS_FIRST, nn.LayerNorm)  # modules whose output tells grids and layouts to those after them
_RESAMPLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_SEQUENTIAL = (nn.RNNBase, nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)  # of signals, not of tokens
_POINTWISE = (nn.Linear, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_MOST_PREFIX_TOKENS = 16
Grid = tuple[int, int]


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
        layout: ``"NCHW"``, ``"NHWC"``, ``"tokens"`` or ``"-"`` (no positions).
        chosen: whether ``layer=None`` would choose it.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    layout: str
    chosen: bool = False


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
        rows += [(i.name, i.type, str(i.shape), i.layout, "<- chosen" if i.chosen else "") for i in self]
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
    named, plus, _ = label.partition("+relu")
    name, _, call = named.partition("#")
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules or not name:
        children = ", ".join(child for child, _ in model.named_children())
        raise UnknownNameError(f"The model has no layer {name!r}.{close_matches(name, modules)} "
                               f"Its children: {children}. explainer.layers() lists all.")  # fmt: skip
    if call and (not call.isdecimal() or int(call) < 1):
        raise UnknownNameError(f"{label!r}: after '#' comes the number of the call, from 1, as in '{name}#2'.")
    return Layer(name, modules[name], int(call) if call else None, bool(plus))


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


@dataclass(frozen=True)
class Layout:
    """Where the positions of an activation are.

    Attributes:
        name: ``"NCHW"``, ``"NHWC"`` (channels last) or ``"tokens"`` ``(N, prefix + h*w, C)``.
        grid: ``(h, w)``.
        prefix: number of tokens before those of the grid (class, distillation, registers).
    """

    name: str
    grid: Grid
    prefix: int = 0

    def to_nchw(self, activation: Tensor) -> Tensor:
        """A view of `activation` as ``(N, C, h, w)``."""
        if self.name == "NCHW":
            return activation
        if self.name == "NHWC":
            return activation.movedim(-1, 1)
        return torch.unflatten(activation[:, self.prefix :].movedim(-1, 1), 2, self.grid)


class Layouts:
    """Works out the layout of each module's output while the model runs on an input of ``(H, W)`` = `size`.

    It keeps what is certain so far: the grids that convolutions and their like gave (among them the patch embedding
    of a transformer), which layouts were certain for a shape, and which sequences were normalised as tokens are.
    """

    def __init__(self, batch: int, size: Grid, *, tokens_first: bool = False) -> None:
        self._batch, self._size, self._tokens_first = batch, size, tokens_first
        self._grids: list[Grid] = []
        self._certain: dict[tuple[int, ...], set[str]] = {}
        self._sequences: set[int] = set()
        self._normed: set[tuple[int, ...]] = set()

    def tell(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        """Learn from what `module` returned, if its type says what that is."""
        if len(shape) not in (3, 4) or shape[0] != self._batch:
            return
        if len(shape) == 4 and isinstance(module, _CHANNELS_FIRST):
            self._learn(Layout("NCHW", (shape[2], shape[3])), shape)
        elif getattr(module, "normalized_shape", None) == (shape[-1],):
            if len(shape) == 3:
                self._normed.add(shape[1:])
            elif self._fit((shape[1], shape[2])):
                self._learn(Layout("NHWC", (shape[1], shape[2])), shape)

    def see(self, module: nn.Module, output: Tensor) -> Layout | None:
        """The layout of `output`, which `module` just returned; None where it has no positions.

        Raises:
            LayerError: two layouts fit equally well.
        """
        shape = tuple(output.shape)
        self.tell(module, shape)
        if len(shape) not in (3, 4) or shape[0] != self._batch or not output.is_floating_point():
            return None
        layout = self._of_sequence(module, shape) if len(shape) == 3 else self._of_image(module, shape)
        return layout if layout and layout.grid[0] * layout.grid[1] > 1 else None

    def _of_image(self, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        _, a, b, c = shape
        if isinstance(module, _CHANNELS_FIRST):
            return Layout("NCHW", (b, c))
        first, last = self._fit((b, c)), self._fit((a, b))
        if isinstance(module, nn.LayerNorm) and module.normalized_shape == (c,) and last:
            return Layout("NHWC", (a, b))
        if max(first, last) < 2 and self._of_heads(b):
            return None
        if first == last != 0:
            return self._by_precedent(shape)
        if first == last:
            return None
        return Layout("NCHW", (b, c)) if first > last else Layout("NHWC", (a, b))

    def _learn(self, layout: Layout, shape: tuple[int, ...]) -> None:
        if layout.grid in self._grids:
            self._grids.remove(layout.grid)
        self._grids.append(layout.grid)
        self._certain.setdefault(shape, set()).add(layout.name)

    def _fit(self, grid: Grid) -> int:
        """2: a grid that a convolution gave; 1: of the input's aspect, to the pixel; 0: neither."""
        if grid in self._grids:
            return 2
        (h, w), (height, width) = grid, self._size
        return int(
            h <= height and w <= width and (abs(h - height * w / width) <= 1 or abs(w - width * h / height) <= 1)
        )

    def _of_heads(self, tokens: int) -> bool:
        """Whether (N, a, b, c) is (N, heads, tokens, d) of an attention."""
        return tokens in self._sequences or any(
            h * w > 1 and 0 <= tokens - h * w <= _MOST_PREFIX_TOKENS for h, w in self._grids
        )

    def _by_precedent(self, shape: tuple[int, ...]) -> Layout:
        names = self._certain.get(shape, set())
        if len(names) != 1:
            raise LayerError(f"The layout of an output of shape {shape} is ambiguous: channels first or last?")
        return Layout("NCHW", shape[2:]) if "NCHW" in names else Layout("NHWC", shape[1:3])  # type: ignore[arg-type]

    def _of_sequence(self, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        """Tokens of a known grid after at most one other; of any likely grid if they were normalised as tokens are."""
        _, count, width = shape
        self._sequences.add(count)
        if isinstance(module, _SEQUENTIAL):
            return None
        normed = (count, width) in self._normed
        if not normed and width in {h * w for h, w in self._grids}:
            return None  # (N, C, positions), as token-mixing layers have it
        if self._tokens_first and count == self._batch:
            raise LayerError(f"The layout of an output of shape {shape} is ambiguous: batch or tokens first?")
        grids = list(reversed(self._grids))
        if normed:
            grids = grids or self._by_aspect(count)
            grids += [half for grid in grids for half in _halvings(grid) if count - half[0] * half[1] in (0, 1)]
        most = _MOST_PREFIX_TOKENS if normed else 1
        fits = [(count - h * w, (h, w)) for h, w in grids if 0 <= count - h * w <= min(most, h * w)]
        if not fits:
            return None
        prefix, grid = min(fits, key=lambda fit: fit[0])
        return Layout("tokens", grid, prefix)

    def _by_aspect(self, count: int) -> list[Grid]:
        """Grids of the input's aspect, for patch embeddings that are no convolution."""
        height, width = self._size
        for prefix in (0, 1, 2):
            for h in range(1, count - prefix + 1):
                w, rest = divmod(count - prefix, h)
                if rest == 0 and h * width == w * height:
                    return [(h, w)]
        return []


def _halvings(grid: Grid) -> Iterator[Grid]:
    h, w = grid
    while h > 1 or w > 1:
        h, w = (h + 1) // 2, (w + 1) // 2
        yield h, w


def is_candidate(module: nn.Module, layout: Layout) -> bool:
    """Whether the automatic choice may take a layer of this type and layout.

    A pool that only resamples gives way to its input; among tokens and channels-last, a bare linear layer,
    activation, dropout or identity is a step within a block.
    """
    if isinstance(module, _RESAMPLING):
        return False
    return layout.name == "NCHW" or not (isinstance(module, _POINTWISE) or _is_activation(module))


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__ and not isinstance(module, nn.MultiheadAttention)
