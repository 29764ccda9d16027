"""What layers add: their biases, and where the gradient there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..layouts import Layout
from .record import Bias
from .rules import kind_of

if TYPE_CHECKING:
    from .capture import Call

_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)  # whose channels are the second side
_LAST = (nn.Linear, nn.LayerNorm)
_NORMS = {"NativeBatchNormBackward", "CudnnBatchNormBackward", "MiopenBatchNormBackward"}
_FUSED = 3  # operations that a batch norm of timm may do after it


@dataclass(frozen=True)
class Adding:
    """A call of a layer that added a bias.

    Attributes:
        edge: where autograd finds the gradient of what it was added to.
        bias: ``(C,)``.
    """

    call: Call
    layout: Layout | None
    edge: GradientEdge
    bias: Tensor

    def found(self, label: str, gradient: Tensor) -> Bias:
        """What a method gets of it, for the gradient that autograd found there."""
        last = isinstance(self.call.module, _LAST)
        weights = self.bias if last else self.bias.view(-1, *(1 for _ in gradient.shape[2:]))
        share = (gradient * weights).flatten(1).sum(1, dtype=torch.float64)
        if self.layout is None:
            gradient = (gradient.movedim(-1, 1) if last else gradient).flatten(2).sum(2)
        return Bias(label, self.layout.channels_first(gradient) if self.layout else gradient, self.bias, share)


def added(module: Any) -> Tensor | None:
    """What a module adds to each channel; None where it adds nothing."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
        return _of_batch_norm(module).detach()
    bias = getattr(module, "bias", None) if isinstance(module, _FIRST + _LAST) else None
    return bias.detach() if isinstance(bias, Tensor) and bias.dim() == 1 else None


def _of_batch_norm(module: Any) -> Tensor:
    scale = (1 if module.weight is None else module.weight) / (module.running_var + module.eps).sqrt()
    found: Tensor = (0 if module.bias is None else module.bias) - module.running_mean * scale
    return found


def edge_before_activation(module: nn.Module, output: Tensor) -> GradientEdge:
    """The edge of an output; of a batch norm with an activation fused in, that of the batch norm itself."""
    edge = get_gradient_edge(output)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        node: Any = edge.node
        for _ in range(_FUSED):
            if node is None or kind_of(node) in _NORMS:
                break
            node = node.next_functions[0][0] if node.next_functions else None
        if node is not None and kind_of(node) in _NORMS:
            return GradientEdge(node, 0)
    return edge
