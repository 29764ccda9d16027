"""Working round a fault of torch: for one image, batch norm's backward may read its gradient in the wrong order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def straighten(nodes: Iterable[Node]) -> None:
    """Have every batch norm and instance norm of a graph get its gradient in an order that it reads rightly.

    On the CPU (seen in torch 2.14) its backward mixes up channels and positions without a word where the first
    dimension is 1 and either its input or its gradient, but not both, is a sequence of tokens seen as a grid: channels
    last, with a stride of the first dimension that is of neither order. It always reads plain channels last rightly.
    """
    for node in nodes:
        if node.name().startswith("NativeBatchNormBackward"):
            node.register_prehook(_Straightened(_has_odd_input(node)))


class _Straightened:
    """A hook that copies the gradient if need be."""

    def __init__(self, always: bool) -> None:
        self._always = always

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        if gradient is None or (not self._always and gradient.is_contiguous()):  # nearly always: so it is brief
            return gradients
        if gradient.dim() not in _LAST or gradient.shape[0] > 1:
            return gradients
        if not (self._always or _is_odd(gradient)):
            return gradients
        straight = torch.empty_like(gradient, memory_format=_LAST[gradient.dim()])
        return (straight.copy_(gradient), *gradients[1:])


def _has_odd_input(node: Any) -> bool:
    """Whether the input that a node keeps is odd; also where that cannot be seen, as in a checkpoint."""
    kept = getattr(node._raw_saved_input, "data", None)  # to unpack it would use it up in a checkpoint
    return _is_odd(kept) if isinstance(kept, Tensor) else True


def _is_odd(tensor: Tensor) -> bool:
    """Whether this is one image whose first stride is not that of its size, which no other operation minds."""
    return len(tensor) == 1 and not tensor.is_contiguous() and tensor.stride(0) != tensor.numel()
