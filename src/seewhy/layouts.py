"""Where the positions are in what a layer returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .errors import InputError, InputTypeError, LayerError, close_matches

_CHANNELS_FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d,
    nn.FractionalMaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.PixelShuffle,
)  # fmt: skip
TELLING = (*_CHANNELS_FIRST, nn.LayerNorm, nn.Linear)  # whose output tells grids and layouts to those after them
_SEQUENTIAL = (nn.RNNBase, nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)  # of signals, not of tokens
_MOST_PREFIX_TOKENS = 16
Grid = tuple[int, int]
Given: TypeAlias = "str | Callable[[Tensor], Tensor | None] | None"
NAMES = ("NCHW", "NHWC", "tokens")


@dataclass(frozen=True)
class Layout:
    """Where the positions of an activation are.

    Attributes:
        name: ``"NCHW"``, ``"NHWC"`` (channels last), ``"tokens"`` ``(N, prefix + h*w, C)``, or ``"given"``.
        grid: ``(h, w)``.
        prefix: number of tokens before those of the grid (class, distillation, registers).
        picks: for ``"given"``: which element of the flattened output is at each of ``(N, C, h, w)``.
    """

    name: str
    grid: Grid
    prefix: int = 0
    picks: Tensor | None = field(default=None, compare=False, repr=False)

    def to_nchw(self, activation: Tensor) -> Tensor:
        """The `activation` as ``(N, C, h, w)``."""
        if self.picks is not None:
            return activation.flatten()[self.picks]
        if self.name == "NCHW":
            return activation
        if self.name == "NHWC":
            return activation.movedim(-1, 1)
        return torch.unflatten(activation[:, self.prefix :].movedim(-1, 1), 2, self.grid)


class Layouts:
    """Works out the layout of each module's output while the model runs on an input of ``(H, W)`` = `size`.

    It keeps what is certain so far: the grids that convolutions and their like gave (among them the patch embedding
    of a transformer), which layouts were certain for a shape, and which sequences were normalised as tokens are.
    What the user says (`given`) by a function goes before everything; by a name it settles what is not certain.
    """

    def __init__(self, batch: int, size: Grid, *, tokens_first: bool = False, given: Given = None) -> None:
        self._batch, self._size, self._tokens_first, self._given = batch, size, tokens_first, given
        self._grids: list[Grid] = []
        self._certain: dict[tuple[int, ...], set[str]] = {}
        self._sequences: set[int] = set()
        self._normed: set[tuple[int, ...]] = set()
        self._doubtful: set[tuple[int, ...]] = set()  # outputs of linear layers, which take channels last

    def tell(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        """Learn from what `module` returned, if its type says what that is."""
        if len(shape) not in (3, 4) or shape[0] != self._batch:
            return
        if len(shape) == 4 and isinstance(module, _CHANNELS_FIRST):
            self._learn(Layout("NCHW", (shape[2], shape[3])), shape)
        elif len(shape) == 4 and isinstance(module, nn.Linear):
            self._doubtful.add(shape)
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
        layout = self._as_given(module, output)
        if layout or len(shape) not in (3, 4) or shape[0] != self._batch or not output.is_floating_point():
            return layout
        layout = self._of_sequence(module, shape) if len(shape) == 3 else self._of_image(module, shape)
        return layout if layout and layout.grid[0] * layout.grid[1] > 1 else None

    def _as_given(self, module: nn.Module, output: Tensor) -> Layout | None:
        """What the user says of this output; None where that says nothing of it."""
        if callable(self._given):
            return self._picked(self._given, output)
        layout = None if self._given is None else self._named(self._given, module, tuple(output.shape))
        return layout if layout and layout.grid[0] * layout.grid[1] > 1 else None

    def _named(self, name: str, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        """The layout of this name, where it fits and nothing certain speaks against it."""
        if len(shape) != (3 if name == "tokens" else 4) or shape[0] != self._batch:
            return None
        if isinstance(module, _SEQUENTIAL + _CHANNELS_FIRST):
            return None
        if name == "tokens":
            self._sequences.add(shape[1])
            return None if self._tokens_first and shape[1] == self._batch else self._of_tokens(shape[1], normed=True)
        certain, doubtful = self._certain.get(shape, set()), shape in self._doubtful
        _, a, b, c = shape
        grid = (b, c) if name == "NCHW" else (a, b)
        return Layout(name, grid) if self._fit(grid) and (doubtful or certain in (set(), {name})) else None

    def _picked(self, given: Callable[[Tensor], Tensor | None], output: Tensor) -> Layout | None:
        """What the user's function does to element numbers, so that it is the same for gradients."""
        shape = tuple(output.shape)
        numbers = torch.arange(output.numel(), dtype=torch.float64).reshape(shape)
        try:
            found = given(numbers)
        except Exception as error:
            error.add_note(f"seewhy: raised by the function given as layout=, for an output of shape {shape}.")
            raise
        if found is None:
            return None
        if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != self._batch or not found.numel():
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"The function given as layout= turned an output of shape {shape} into {got}; expected "
                f"({self._batch}, C, h, w), or None to have it worked out."
            )
        picks = found.long()
        repeats = torch.bincount(picks.flatten().clamp(0, output.numel()))
        if not (found == picks).all() or repeats.max() > 1 or len(repeats) > output.numel():
            raise InputError(
                f"The function given as layout= computes with the values of an output of shape {shape}. It may only "
                "pick, split and reorder elements (slices, permute, reshape), since gradients go through it too."
            )
        if not _keeps_images_apart(picks, shape):
            raise InputError(
                f"The function given as layout= mixes the {self._batch} images of an output of shape {shape}: along no "
                "axis do the elements that it gives image i all belong to it. Which axis of the output is the batch?"
            )
        return Layout("given", (picks.shape[2], picks.shape[3]), picks=picks.to(output.device))

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
        if len(names) != 1 or (names == {"NCHW"} and shape in self._doubtful):
            raise LayerError(
                f"The layout of an output of shape {shape} is ambiguous: channels first or last? "
                'Say which: Explainer(..., layout="NCHW") or "NHWC".'
            )
        _, a, b, c = shape
        return Layout("NCHW", (b, c)) if "NCHW" in names else Layout("NHWC", (a, b))

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
            raise LayerError(
                f"The layout of an output of shape {shape} is ambiguous: batch or tokens first? "
                "Say which: Explainer(..., layout=) takes a function from it to (N, C, h, w)."
            )
        return self._of_tokens(count, normed=normed)

    def _of_tokens(self, count: int, *, normed: bool) -> Layout | None:
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


def _keeps_images_apart(picks: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether along one axis the elements `picks` (N, …) of image i are all at i, or at its share of a longer axis."""
    count = len(picks)
    places = torch.unravel_index(picks.flatten(1), shape)
    image = torch.arange(count)[:, None]
    exact = [place for place, size in zip(places, shape, strict=True) if size == count]
    shares = [place // (size // count) for place, size in zip(places, shape, strict=True) if size % count == 0]
    return any(bool((place == image).all()) for place in exact or shares)


def _halvings(grid: Grid) -> Iterator[Grid]:
    h, w = grid
    while h > 1 or w > 1:
        h, w = (h + 1) // 2, (w + 1) // 2
        yield h, w


def check_given(layout: Any) -> None:
    """Refuse a `layout=` that is neither a name, nor a function, nor None."""
    if isinstance(layout, str) and layout not in NAMES:
        raise InputError(
            f"layout is one of {', '.join(NAMES)}, or a function; got {layout!r}.{close_matches(layout, NAMES)}"
        )
    if not (layout is None or isinstance(layout, str) or callable(layout)):
        raise InputTypeError(f"layout is one of {', '.join(NAMES)}, or a function, not {type(layout).__name__}.")
