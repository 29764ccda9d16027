"""Layouts that the user says, by name or by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .errors import InputError, InputTypeError, close_matches

FIRST, LAST = {1: "NCL", 2: "NCHW", 3: "NCTHW"}, {2: "NHWC", 3: "NTHWC"}  # by the number of the input's sides
TOKENS, TOKENS_FIRST = "tokens", "tokens first"
NAMES = (*FIRST.values(), *LAST.values(), TOKENS, TOKENS_FIRST)
SIDES = {1: "l", 2: "h, w", 3: "t, h, w"}
Rearrange: TypeAlias = Callable[[Tensor], Tensor | None]
Given: TypeAlias = "str | Rearrange | None"


def check_given(layout: Any) -> None:
    """Refuse a `layout=` that is neither a name, nor a function, nor None."""
    if isinstance(layout, str) and layout not in NAMES:
        raise InputError(
            f"layout is one of {', '.join(NAMES)}, or a function; got {layout!r}.{close_matches(layout, NAMES)}"
        )
    if not (layout is None or isinstance(layout, str) or callable(layout)):
        raise InputTypeError(f"layout is one of {', '.join(NAMES)}, or a function, not {type(layout).__name__}.")


def picked(given: Rearrange, output: Tensor, count: int, sides: int) -> Tensor | None:
    """Which element of the flattened `output` the user's function puts at each of ``(count, C, *grid)``.

    It is run on element numbers, so that it is the same for gradients. None where it says nothing of this output.

    Raises:
        InputError: it gives another shape, computes with the values, or mixes the images.
    """
    shape = tuple(output.shape)
    numbers = torch.arange(output.numel(), dtype=torch.float64).reshape(shape)
    try:
        found = given(numbers)
    except Exception as error:
        error.add_note(f"seewhy: raised by the function given as layout=, for an output of shape {shape}.")
        raise
    if found is None:
        return None
    if not isinstance(found, Tensor) or found.dim() != sides + 2 or len(found) != count or not found.numel():
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"The function given as layout= turned an output of shape {shape} into {got}; expected "
            f"({count}, C, {SIDES[sides]}), or None to have it worked out."
        )
    picks = found.long()
    repeats = torch.bincount(picks.flatten().clamp(0, output.numel()))
    if not (found == picks).all() or repeats.max() > 1 or len(repeats) > output.numel():
        raise InputError(
            f"The function given as layout= computes with the values of an output of shape {shape}. It may only pick, "
            "split and reorder elements (slices, permute, reshape), since gradients go through it too."
        )
    if image_axis(picks, shape) is None:
        raise InputError(
            f"The function given as layout= mixes the {count} images of an output of shape {shape}: along no axis do "
            "the elements that it gives image i all belong to it. Which axis of the output is the batch?"
        )
    return picks.to(output.device)


def image_axis(picks: Tensor, shape: tuple[int, ...]) -> int | None:
    """The axis along which the elements `picks` (N, …) of image i are all at i, or at its share of a longer axis.

    None where they are so along none.
    """
    count = len(picks)
    places = torch.unravel_index(picks.flatten(1), shape)
    image = torch.arange(count, device=picks.device)[:, None]
    exact = {axis: places[axis] for axis, size in enumerate(shape) if size == count}
    shares = {axis: places[axis] // (size // count) for axis, size in enumerate(shape) if size % count == 0}
    return next((axis for axis, place in (exact or shares).items() if bool((place == image).all())), None)
