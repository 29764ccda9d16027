"""What layers add: their biases, and where the gradient there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..given import FIRST
from ..layouts import Layout
from .record import Bias
from .rules import kind_of

if TYPE_CHECKING:
    from .capture import Call

_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)  # whose channels are the second side
_LAST = (nn.Linear, nn.LayerNorm)
_NORMS = {
    nn.modules.batchnorm._BatchNorm: {f"{maker}BatchNormBackward" for maker in ("Native", "Cudnn", "Miopen")},
    nn.LayerNorm: {"NativeLayerNormBackward"},
}
_AFTER = 4  # operations at most that a normalisation may do after it


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
        return Bias(label, self._oriented(gradient, last), self.bias, share)

    def _oriented(self, gradient: Tensor, last: bool) -> Tensor:
        """As ``(n, C, *grid)``; summed over what are no positions, ``(n, C)``."""
        if self.layout and not (last and self.layout.name in FIRST.values()):
            return self.layout.channels_first(gradient)
        gradient = gradient.movedim(-1, 1) if last else gradient
        return gradient if self.layout or gradient.dim() == 2 else gradient.flatten(2).sum(2)


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


def edge_of(module: nn.Module, output: Tensor) -> GradientEdge:
    """The edge of what a layer made; of a normalisation without what a module of that kind may do after it.

    As timm's batch norms with an activation, and layer norms of images, which put the channels back in their place.
    """
    edge = get_gradient_edge(output)
    kinds: set[str] = next((kinds for kind, kinds in _NORMS.items() if isinstance(module, kind)), set())
    node: Any = edge.node
    for _ in range(_AFTER if kinds else 0):
        if node is None or kind_of(node) in kinds:
            return edge if node is None else GradientEdge(node, 0)
        node = node.next_functions[0][0] if node.next_functions else None
    return edge
