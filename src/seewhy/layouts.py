"""Where the positions are in what a layer returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .errors import LayerError
from .given import FIRST, LAST, SIDES, TOKENS, TOKENS_FIRST, Given, image_axis, picked

_CHANNELS_FIRST_OF = {
    1: (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d,
        nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d,
        nn.FractionalMaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.MaxPool3d, nn.AvgPool3d, nn.LPPool3d,
        nn.FractionalMaxPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d, nn.Upsample),
}  # fmt: skip
# Whose output tells grids and layouts to those after them.
TELLING = (*(kind for kinds in _CHANNELS_FIRST_OF.values() for kind in kinds), nn.LayerNorm, nn.Linear)
_MOST_PREFIX_TOKENS = 16
GIVEN = "given"  # what a layout is called that the user says by a function
Grid: TypeAlias = tuple[int, ...]
Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the positions of an activation are.

    Attributes:
        name: one of `NAMES`, of which ``"tokens"`` is ``(N, prefix + positions, C)``; or ``"given"``.
        grid: ``(h, w)``; ``(l,)`` of a signal, ``(t, h, w)`` of a video or volume.
        prefix: number of tokens before those of the grid (class, distillation, registers).
        picks: for ``"given"``: which element of the flattened output is at each of ``(N, C, *grid)``.
        axis: of the output, along which the images are.
    """

    name: str
    grid: Grid
    prefix: int = 0
    picks: Tensor | None = field(default=None, compare=False, repr=False)
    axis: int = field(default=0, compare=False, repr=False)

    def channels_first(self, activation: Tensor) -> Tensor:
        """The `activation` as ``(N, C, *grid)``."""
        if self.picks is not None:
            return activation.flatten()[self.picks]
        if self.name in FIRST.values():
            return activation
        if self.name in LAST.values():
            return activation.movedim(-1, 1)
        tokens = activation.movedim(0, 1) if self.name == TOKENS_FIRST else activation
        return torch.unflatten(tokens[:, self.prefix :].movedim(-1, 1), 2, self.grid)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an output of this `shape` may have its positions there."""
        if self.picks is not None:
            return int(self.picks.max()) < math.prod(shape)
        if self.name in FIRST.values():
            return shape[2:] == self.grid
        if self.name in LAST.values():
            return shape[1:-1] == self.grid
        return len(shape) == 3 and shape[int(self.name == TOKENS)] == self.prefix + math.prod(self.grid)

    def filled(self, output: Tensor, changed: Tensor) -> Tensor:
        """The `output` of one image, once for each of `changed` ``(b, C, *grid)`` and with that at its positions."""
        if self.name in FIRST.values():
            return changed
        if self.name in LAST.values():
            return changed.movedim(1, -1)
        if self.picks is not None:
            return self._filled_by_picks(output, changed)
        axis = int(self.name == TOKENS_FIRST)
        filled = output.repeat_interleave(len(changed), axis)
        filled.movedim(axis, 0)[:, self.prefix :] = changed.flatten(2).movedim(1, -1)
        return filled

    def _filled_by_picks(self, output: Tensor, changed: Tensor) -> Tensor:
        picks: Any = self.picks
        filled = output.flatten().repeat(len(changed), 1)
        filled[:, picks[0].flatten()] = changed.flatten(1)
        return filled.reshape(-1, *output.shape).movedim(0, self.axis).flatten(self.axis, self.axis + 1)

    def single(self, shape: tuple[int, ...]) -> Layout:
        """The layout of one image's output, where this is that of several, together of this `shape`."""
        if self.picks is None:
            return self
        axis = image_axis(self.picks, shape) or 0
        places = torch.unravel_index(self.picks[:1], shape)
        one = [side // len(self.picks) if i == axis else side for i, side in enumerate(shape)]
        picks = torch.zeros_like(self.picks[:1])
        for place, side in zip(places, one, strict=True):
            picks = picks * side + place
        return replace(self, picks=picks, axis=axis)


class Layouts:
    """Works out the layout of each module's output while the model runs on an input whose sides are `size`.

    It keeps what is certain so far: the grids that convolutions and their like gave (among them the patch embedding
    of a transformer), which layouts were certain for a shape, and which sequences were normalised as tokens are.
    What the user says (`given`) by a function goes before everything; by a name it settles what is not certain.
    """

    def __init__(self, batch: int, size: Grid, *, tokens_first: bool = False, given: Given = None) -> None:
        self._batch, self._size, self._tokens_first, self._given = batch, size, tokens_first, given
        self._sides = len(size)
        self._convolutional = _CHANNELS_FIRST_OF.get(self._sides, ())
        others = tuple(kind for sides, kinds in _CHANNELS_FIRST_OF.items() if sides != self._sides for kind in kinds)
        self._foreign = tuple(set(others) - set(self._convolutional)) + (() if self._sides == 1 else (nn.RNNBase,))
        self._grids: dict[Grid, set[int]] = {}  # in the order in which they were seen last, with their channels
        self._certain: dict[tuple[int, ...], dict[str, set[Order]]] = {}
        self._turned: bool | None = None  # whether the first module that took an image took it with its sides swapped
        self._regroups = False  # whether the model puts positions in other groups, as windows
        self._sequences: set[int] = set()
        self._normed: set[tuple[int, ...]] = set()
        self._doubtful: set[tuple[int, ...]] = set()  # outputs of linear layers, which take channels last

    def take(self, args: Any) -> None:
        """Learn from what the first module gets, whether the model turns its input."""
        if self._turned is None and args and isinstance(args[0], Tensor) and args[0].dim() == self._sides + 2:
            swapped = tuple(args[0].shape[2:]) == self._size[::-1]
            self._turned = swapped and self._size != self._size[::-1]

    def tell(self, module: nn.Module, output: Tensor) -> None:
        """Learn from what `module` returned, if its type says what that is."""
        shape = tuple(output.shape)
        if self._as_tokens_first(shape):
            shape = (shape[1], shape[0], shape[2])
        if isinstance(module, nn.BatchNorm1d) and len(shape) == 2:
            self._normed.add((shape[0] // self._batch, shape[1]))  # tokens of all images in a row, as LeViT has them
        if len(shape) not in (3, self._sides + 2) or shape[0] != self._batch:
            return
        if isinstance(module, self._convolutional) and len(shape) == self._sides + 2:
            self._learn(Layout(FIRST[self._sides], shape[2:]), shape[1], output)
        elif isinstance(module, nn.Linear):
            self._doubtful.add(shape)
            if len(shape) == 3 and not self._grids:
                self._grids |= {grid: {shape[2]} for grid in self._patches(module.in_features, shape[1])}
        elif getattr(module, "normalized_shape", None) == (shape[-1],):
            if len(shape) == 3:
                self._normed.add(shape[1:])
            elif self._fit(shape[1:-1]) or self._regrouped(shape[1:-1]):
                self._learn(Layout(LAST[self._sides], shape[1:-1]), shape[-1], output)

    def see(self, module: nn.Module, output: Tensor) -> Layout | None:
        """The layout of `output`, which `module` just returned; None where it has no positions.

        Raises:
            LayerError: two layouts fit equally well.
        """
        shape = tuple(output.shape)
        self.tell(module, output)
        layout = self._as_given(module, output)
        if layout or not self._sides or not output.is_floating_point():
            return layout
        layout = self._worked_out(module, shape, output)
        if layout is None or math.prod(layout.grid) == 1:
            return None
        if self._turned:
            raise LayerError(
                "The model swaps the sides of its input before anything else, so its layers are turned too. "
                f"Say how: Explainer(..., layout=) takes a function from an output to (N, C, {SIDES[self._sides]})."
            )
        return layout

    def _worked_out(self, module: nn.Module, shape: tuple[int, ...], output: Tensor) -> Layout | None:
        if self._as_tokens_first(shape):
            found = self._of_sequence(module, (shape[1], shape[0], shape[2]))
            return found and replace(found, name=TOKENS_FIRST)
        if len(shape) not in (3, self._sides + 2) or shape[0] != self._batch:
            return None
        if self._sides == 1:
            return self._of_signal(module, output)
        return self._of_sequence(module, shape) if len(shape) == 3 else self._of_grid(module, output)

    def _as_tokens_first(self, shape: tuple[int, ...]) -> bool:
        """Whether this is ``(tokens, N, C)``, which only some modules say of themselves that they take."""
        return self._tokens_first and len(shape) == 3 and shape[1] == self._batch != shape[0]

    def _as_given(self, module: nn.Module, output: Tensor) -> Layout | None:
        """What the user says of this output; None where that says nothing of it."""
        if callable(self._given):
            picks = picked(self._given, output, self._batch, self._sides)
            return None if picks is None else Layout(GIVEN, tuple(picks.shape[2:]), picks=picks)
        layout = None if self._given is None else self._named(self._given, module, tuple(output.shape))
        return layout if layout and math.prod(layout.grid) > 1 else None

    def _named(self, name: str, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        """The layout of this name, where it fits and nothing certain speaks against it."""
        if isinstance(module, self._foreign + self._convolutional):
            return None
        if name in (TOKENS, TOKENS_FIRST):
            return self._named_tokens(name, shape)
        fits = name in (FIRST.get(self._sides), LAST.get(self._sides)) and len(shape) == self._sides + 2
        if not fits or shape[0] != self._batch:
            return None
        certain, doubtful = set(self._certain.get(shape, ())), shape in self._doubtful
        grid = shape[2:] if name in FIRST.values() else shape[1:-1]
        return Layout(name, grid) if self._fit(grid) and (doubtful or certain in (set(), {name})) else None

    def _named_tokens(self, name: str, shape: tuple[int, ...]) -> Layout | None:
        count = shape[name == TOKENS] if len(shape) == 3 else 0
        if len(shape) != 3 or shape[name == TOKENS_FIRST] != self._batch:
            return None
        if name == TOKENS and self._tokens_first and count == self._batch:
            return None
        self._sequences.add(count)
        found = self._of_tokens(count, shape[2], normed=True, said=True)
        return found and replace(found, name=name)

    def _of_grid(self, module: nn.Module, output: Tensor) -> Layout | None:
        shape = tuple(output.shape)
        channels_first = Layout(FIRST[self._sides], shape[2:])
        channels_last = Layout(LAST[self._sides], shape[1:-1])
        if isinstance(module, self._convolutional):
            return channels_first if channels_first.grid in self._grids else None
        first, last = self._fit(channels_first.grid), self._fit(channels_last.grid)
        normed = isinstance(module, nn.LayerNorm) and module.normalized_shape == shape[-1:]
        if normed and last and not self._regroups:
            return channels_last
        if max(first, last) < 2 and self._of_heads(shape):
            return None
        if (first and last) or (last and self._regroups):
            return self._by_precedent(output, channels_first, channels_last)
        return channels_first if first else channels_last if last else None

    def _of_signal(self, module: nn.Module, output: Tensor) -> Layout | None:
        """``(N, C, l)`` where a convolution gave this length, ``(N, prefix + l, C)`` where it is as many tokens."""
        shape = tuple(output.shape)
        first = Layout("NCL", shape[2:]) if shape[2:] in self._grids else None
        if isinstance(module, self._convolutional + self._foreign):
            return first if isinstance(module, self._convolutional) else None
        tokens = self._of_sequence(module, shape)
        if first and tokens:
            return tokens if isinstance(module, nn.Linear) else self._by_precedent(output, first, tokens)
        return first or tokens

    def _learn(self, layout: Layout, channels: int, output: Tensor) -> None:
        if others := self._regrouped(layout.grid):
            self._regroups = True
            if not self._has_aspect(layout.grid) and any(map(self._has_aspect, others)):
                return
            for other in others if self._has_aspect(layout.grid) else ():
                if not self._has_aspect(other):
                    del self._grids[other]
        self._grids[layout.grid] = self._grids.pop(layout.grid, set()) | {channels}
        self._certain.setdefault(tuple(output.shape), {}).setdefault(layout.name, set()).add(_order(output))

    def _regrouped(self, grid: Grid) -> list[Grid]:
        """The known grids of which this may be the positions in other groups: ``(windows, positions)`` and the like."""
        return [known for known in self._grids if known != grid and math.prod(known) == math.prod(grid)]

    def _fit(self, grid: Grid) -> int:
        """2: a grid that a convolution gave; 1: of the input's aspect, to the pixel; 0: neither."""
        if grid in self._grids:
            return 2
        return int(self._has_aspect(grid))

    def _has_aspect(self, grid: Grid) -> bool:
        if self._sides == 1:
            return True
        (h, w), (height, width) = grid[-2:], self._size[-2:]
        inside = all(side <= whole for side, whole in zip(grid, self._size, strict=True))
        return inside and (abs(h - height * w / width) <= 1 or abs(w - width * h / height) <= 1)

    def _of_heads(self, shape: tuple[int, ...]) -> bool:
        """Whether (N, a, b, c) is (N, heads, tokens, d) of an attention."""
        return len(shape) == 4 and (
            shape[2] in self._sequences
            or any(p > 1 and 0 <= shape[2] - p <= _MOST_PREFIX_TOKENS for p in map(math.prod, self._grids))
        )

    def _by_precedent(self, output: Tensor, first: Layout, last: Layout) -> Layout:
        """The one of two layouts that fit which was certain before, for this shape and order in memory."""
        shape, certain = tuple(output.shape), self._certain.get(tuple(output.shape), {})
        names = {name for name, orders in certain.items() if _order(output) in orders}
        names |= {TOKENS} if shape[1:] in self._normed else set()
        unsure = shape in self._doubtful or self._sides == 1  # a tensor that was put in order has no telling one
        doubtful = self._regroups or (names == {first.name} and unsure)
        if len(names) != 1 or doubtful:
            raise LayerError(
                f"The layout of an output of shape {shape} is ambiguous: {first.name} or {last.name}? "
                f'Say which: Explainer(..., layout="{first.name}") or "{last.name}".'
            )
        return first if first.name in names else last

    def _of_sequence(self, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        """Tokens of a known grid after at most one other; of any likely grid if they were normalised as tokens are."""
        _, count, width = shape
        self._sequences.add(count)
        if isinstance(module, self._foreign):
            return None
        normed = (count, width) in self._normed
        if self._sides > 1 and width in map(math.prod, self._grids) and not isinstance(module, nn.LayerNorm):
            if normed and count == width:
                raise LayerError(
                    f"The layout of an output of shape {shape} is ambiguous: tokens first, or channels? "
                    "Say it: Explainer(..., layout=) takes a function from it to (N, C, h, w)."
                )
            if not normed:
                return None  # (N, C, positions), as token-mixing layers have it
        if self._tokens_first and count == self._batch:
            raise LayerError(
                f"The layout of an output of shape {shape} is ambiguous: batch or tokens first? "
                "Say which: Explainer(..., layout=) takes a function from it to (N, C, h, w)."
            )
        return self._of_tokens(count, width, normed=normed)

    def _of_tokens(self, count: int, width: int, *, normed: bool, said: bool = False) -> Layout | None:
        """Tokens of this width of a grid; of one whose channels were as many, if several fit. `said`: by the user."""
        grids = list(self._grids)
        if normed:
            grids = grids or self._by_aspect(count, said)
            grids += [half for grid in grids if not self._holds(grid, width) for half in _merged(grid, count)]
        most = _MOST_PREFIX_TOKENS if normed else 1
        fits = [(count - p, grid) for grid in grids for p in [math.prod(grid)] if 0 <= count - p <= min(most, p)]
        fits = list(dict.fromkeys(fits))
        fits = [fit for fit in fits if width in self._grids.get(fit[1], ())] or fits
        if len(fits) > 1:
            raise LayerError(
                f"The layout of {count} tokens is ambiguous: "
                + " or ".join(f"{prefix} before a grid of {grid}" for prefix, grid in fits)
                + "? Say it: Explainer(..., layout=) takes a function from the output to (N, C, h, w)."
            )
        return Layout(TOKENS, fits[0][1], fits[0][0]) if fits else None

    def _holds(self, grid: Grid, width: int) -> bool:
        """Whether tokens of the whole grid have this width: merged ones are wider, queries beside them are not."""
        return any(w == width and count >= math.prod(grid) for count, w in self._normed)

    def _patches(self, numbers: int, count: int) -> list[Grid]:
        """The grid of so many patches, each of so many numbers, that a linear patch embedding read."""
        if self._sides != 2:
            return []
        areas = {grid: self._size[0] // grid[0] * (self._size[1] // grid[1]) for grid in self._by_aspect(count)}
        return [grid for grid, area in areas.items() if math.prod(grid) == count and not numbers % area]

    def _by_aspect(self, count: int, said: bool = False) -> list[Grid]:
        """Grids of the input's aspect, for patch embeddings that are no convolution.

        As many tokens as the input has rows or columns may be those, unless they are `said` to be of a grid.
        """
        if self._sides == 1:
            return [
                (count - prefix,) for prefix in (0, 1, 2) if count > prefix and not self._size[0] % (count - prefix)
            ]
        if self._sides == 3:
            return []  # patches may be of any length in time
        height, width = self._size
        for prefix in (0, 1, 2):
            for h in range(1, count - prefix + 1):
                w, rest = divmod(count - prefix, h)
                if rest == 0 and h * width == w * height and (said or h * w not in self._size):
                    return [(h, w)]
        return []


def _order(output: Tensor) -> Order:
    """The axes as they lie in memory, but those of one element."""
    axes = [axis for axis, size in enumerate(output.shape) if size > 1]
    return tuple(sorted(axes, key=output.stride, reverse=True))


def _merged(grid: Grid, count: int) -> list[Grid]:
    """The grids at half, a quarter … of the resolution that are as many tokens, but for one more at most."""
    return [half for half in _halvings(grid) if count - math.prod(half) in (0, 1)]


def _halvings(grid: Grid) -> Iterator[Grid]:
    """The grid at half the resolution, again and again; of a video, with all its frames too."""
    halved = tuple((side + 1) // 2 for side in grid)
    while halved != grid:
        if len(grid) == 3:
            yield from _halved_in_space(grid)
        yield halved
        grid, halved = halved, tuple((side + 1) // 2 for side in halved)


def _halved_in_space(grid: Grid) -> Iterator[Grid]:
    t, h, w = grid
    while h > 1 or w > 1:
        h, w = (h + 1) // 2, (w + 1) // 2
        yield t, h, w


def first_convolution(model: nn.Module) -> nn.Conv1d | nn.Conv2d | nn.Conv3d | None:
    """The convolution that a model registered first, which says whether it takes signals, images or volumes."""
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    return next(convolutions, None)
