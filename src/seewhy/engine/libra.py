"""The rule "libra": what weighs is a constant, so that gradient times input adds up as in ReLU networks.

Mehri et al. 2024, "LibraGrad", arXiv 2411.16760. Of each product only what is weighed passes the gradient on, not the
weight that was computed from the input as well: attention's softmax, the gates x·g(x) of GELU and SiLU, sigmoids that
scale channels, the deviation that a layer norm divides by. Where both sides of a product are alike, each passes half.
What is left is homogeneous: the gradient times the input, with the shares of the biases, is the score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional as F

from .rules import Gradients, Hook, kind_of

_GATES: dict[str, Callable[[Tensor], Tensor]] = {  # of activations x·g(x): g
    "Silu": torch.sigmoid,
    "Hardswish": F.hardsigmoid,
    "Mish": lambda x: torch.tanh(F.softplus(x)),
}
_BALANCED = {"GELU", "SiLU", "Hardswish", "Mish", "LeakyReLU", "PReLU"}  # the last two as they are
_WEIGHTS = {"Softmax", "SafeSoftmax", "Sigmoid", "Hardsigmoid", "Tanh", "Erf", "Rsqrt", "Reciprocal"}
_PRODUCTS = {"Mul", "Bmm"}
_THROUGH = 12  # operations between a weight and the product that it goes into, which only reshape, shift or scale it
_NOTHING = (
    "The rule 'libra' finds nothing to balance in this model, so its gradient is the plain one: it has no attention, "
    "layer norms or gated activations."
)


def balanced(nodes: list[Node], others: Counter[str]) -> tuple[list[tuple[Node, Hook]], str | None]:
    """The hooks on the nodes of a graph, and the warning that it needs; `others` are its activations but ReLU."""
    hooks = [(node, hook) for node in nodes if (hook := _hook(node))]
    left = {name: count for name, count in others.items() if name not in _BALANCED}
    if left:
        listed = ", ".join(f"{count} {name}" for name, count in left.items())
        return hooks, f"The rule 'libra' passes the plain gradient through {listed}, where it does not add up."
    return hooks, None if hooks else _NOTHING


def _hook(node: Any) -> Hook | None:
    """What balances the gradient at a node; None where there is nothing to balance."""
    stem = kind_of(node).removesuffix("Backward")
    if stem == "Gelu" or stem in _GATES:
        return _gate(node, stem)
    if stem == "NativeLayerNorm":
        return _layer_norm(node)
    if stem == "Div":
        return _only(0) if _both(node) else None
    return _product(node) if stem in _PRODUCTS and _both(node) else None


def _gate(node: Any, stem: str) -> Hook:
    """x·g(x) passes on g(x)."""

    def hook(results: Gradients, incoming: Gradients) -> Gradients:
        if results[0] is None or incoming[0] is None:
            return results
        x = node._saved_self
        gate = _gelus(x, node._saved_approximate) if stem == "Gelu" else _GATES[stem](x)
        return (incoming[0] * gate, *results[1:])

    return hook


def _gelus(x: Tensor, approximate: str) -> Tensor:
    """GELU's g(x), 1/2 at 0."""
    return torch.where(x == 0, 0.5, F.gelu(x, approximate=approximate) / torch.where(x == 0, 1, x))


def _layer_norm(node: Any) -> Hook:
    """(x − mean) / deviation with a deviation that is constant."""

    def hook(results: Gradients, incoming: Gradients) -> Gradients:
        if results[0] is None or incoming[0] is None:
            return results
        over = tuple(range(-len(node._saved_normalized_shape), 0))
        weight = node._saved_weight
        gradient = incoming[0] if weight is None else incoming[0] * weight
        centred = gradient - gradient.mean(over, keepdim=True)
        return ((centred * node._saved_result2).to(results[0].dtype), *results[1:])

    return hook


def _both(node: Node) -> bool:
    """Whether both sides of a product depend on the input."""
    return sum(parent is not None for parent, _ in node.next_functions[:2]) == 2


def _product(node: Node) -> Hook:
    """The side that is weighed passes the gradient on; where neither is the weight, each passes half."""
    weights = [_is_weight(parent) for parent, _ in node.next_functions[:2]]
    return _scaled(0.5) if weights[0] == weights[1] else _only(weights.index(False))


def _only(side: int) -> Hook:
    def hook(results: Gradients, _: Gradients) -> Gradients:
        return tuple(
            result if result is None or index == side else torch.zeros_like(result)
            for index, result in enumerate(results)
        )

    return hook


def _scaled(factor: float) -> Hook:
    def hook(results: Gradients, _: Gradients) -> Gradients:
        return tuple(result if result is None else result * factor for result in results)

    return hook


def _is_weight(node: Node | None) -> bool:
    """Whether a side of a product is a weight, but for operations that take nothing else that depends on the input."""
    for _ in range(_THROUGH):
        if node is None:
            return False
        if kind_of(node).removesuffix("Backward") in _WEIGHTS:
            return True
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        node = parents[0] if len(parents) == 1 else None
    return False
