"""From where to where, in a run, a call of a module went that gave a sequence of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..given import LAST, TOKENS_FIRST, image_axis
from ..layers import tensors
from ..layouts import GIVEN, Layout
from .rules import kind_of

if TYPE_CHECKING:
    from .capture import Call

_ADD = "AddBackward"
_CARRYING = {_ADD, "ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward", "PermuteBackward", "TransposeBackward",
             "CloneBackward", "ToCopyBackward", "BackwardHookFunctionBackward"}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A call of a module that gave a sequence: when it began and ended, by autograd's count of operations.

    Attributes:
        output: ``(n, tokens, C)``; without values where those are not kept.
        axis: along which the images are in what the module returned.
        residual: whether that is a tensor that the module got, and something added to it.
    """

    call: Call
    began: int
    ended: int
    output: Tensor
    axis: int
    residual: bool

    def holds(self, number: int, numbers: Iterable[int]) -> bool:
        """Whether of the operations of these `numbers` that one ran in this call, and no other."""
        return [n for n in numbers if self.began < n <= self.ended] == [number]


def span_of(call: Call, args: Any, output: Tensor, layout: Layout | None, keep: bool) -> Span | None:
    """The span of a call that got `args`; None where its output is no sequence. `keep`: also the values of that."""
    axis = _images_axis(output, layout)
    if layout and layout.name in LAST.values():
        sequence = output.flatten(1, -2)
    elif output.dim() == 3:
        sequence = output.movedim(axis, 0)
    else:
        return None
    began = max((operation(tensor) for tensor in tensors(args)), default=-1)
    kept = sequence.clone() if keep else sequence.detach().to("meta")
    return Span(call, began, operation(output), kept, axis, _is_residual(output, args))


def as_tokens(layout: Layout, shape: tuple[int, ...]) -> tuple[int, Layout | None] | None:
    """How many tokens an output of this shape is made of, and where the positions are in them; None if it has none.

    Of these no layout where the user says by a function that they are not in a row.
    """
    if layout.picks is None:
        return layout.prefix + math.prod(layout.grid), layout
    if len(shape) != 3:
        return None
    axis = 1 - (image_axis(layout.picks, shape) or 0)
    places = torch.unravel_index(layout.picks[0, 0].flatten(), shape)[axis]
    first = int(places[0])
    in_a_row = torch.equal(places, torch.arange(first, first + len(places), device=places.device))
    return shape[axis], Layout(GIVEN, layout.grid, first) if in_a_row else None


def operation(tensor: Tensor) -> int:
    """The number of the operation that made a tensor, of all that autograd recorded in this thread; -1 if none did."""
    return -1 if tensor.grad_fn is None else tensor.grad_fn._sequence_nr()


def _images_axis(output: Tensor, layout: Layout | None) -> int:
    """The axis along which the images are in an output."""
    if layout and layout.picks is not None:
        return image_axis(layout.picks, tuple(output.shape)) or 0
    return int(layout is not None and layout.name == TOKENS_FIRST)


def _is_residual(output: Tensor, args: Any) -> bool:
    """Whether an output is a tensor among `args` plus something, views and copies aside."""
    given = {tensor.grad_fn for tensor in tensors(args)} - {None}
    stack = [(output.grad_fn, False)]  # nodes, and whether a sum lies between them and the output
    seen = set(stack)
    while stack:
        node, summed = stack.pop()
        if node in given and summed:
            return True
        if node is None or node in given or kind_of(node) not in _CARRYING:
            continue
        fresh = {(following, summed or kind_of(node) == _ADD) for following, _ in node.next_functions} - seen
        seen |= fresh
        stack.extend(fresh)
    return False
