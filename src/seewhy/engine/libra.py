"""The rule "libra": what weighs is a constant, so that gradient times input adds up as in ReLU networks.

Mehri et al. 2024, "LibraGrad", arXiv 2411.16760. Of each product only what is weighed passes the gradient on, not the
weight that was computed from the input as well: attention's softmax, the gates x·g(x) of GELU and SiLU, sigmoids that
scale channels, the deviation that a layer, group or instance norm divides by. Where both sides of a product are alike,
each passes half, and of a power or a product of n values each its n-th part. What is left is homogeneous: the gradient
times the input, with the shares of the biases, is the score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional as F

from .rules import PLAIN, Gradients, Hook, bounds, find_activations, kind_of

_GATES: dict[str, Callable[[Tensor], Tensor]] = {  # of activations x·g(x): g
    "Silu": torch.sigmoid,
    "Hardswish": F.hardsigmoid,
    "Mish": lambda x: torch.tanh(F.softplus(x)),
}
_BALANCED = {"GELU", "SiLU", "Hardswish", "Mish", "LeakyReLU", "PReLU"}  # the last two as they are
_WEIGHTS = {
    "Softmax", "SafeSoftmax", "Sigmoid", "Hardsigmoid", "Tanh", "Erf", "Erfc", "Exp", "Exp2", "Rsqrt", "Reciprocal",
}  # fmt: skip
_BENT = _WEIGHTS | {  # what is in no proportion to its input
    "LogSoftmax", "Log", "Log2", "Log10", "Log1P", "Logsumexp", "Logaddexp", "Expm1", "Sin", "Cos", "Tan", "Atan",
    "Asin", "Acos", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Var", "VarMean", "Cumprod",
}  # fmt: skip
_PRODUCTS = {  # which side is the first of the two that are multiplied
    "Mul": 0, "Div": 0, "Bmm": 0, "Mm": 0, "Mv": 0, "Dot": 0, "Convolution": 0,
    "Addcmul": 1, "Addcdiv": 1, "Addmm": 1, "Addmv": 1, "Baddbmm": 1, "Addbmm": 1,
}  # fmt: skip
_QUOTIENTS = {"Div", "Addcdiv"}
_THROUGH = 12  # operations between a weight and the product that it goes into, which only reshape, shift or scale it
_NOTHING = (
    "The rule 'libra' finds nothing to balance in this model, so its gradient is the plain one: it has no attention, "
    "norms of layers or groups, or gated activations."
)


def balanced(nodes: list[Node]) -> tuple[list[tuple[Node, Hook]], str | None]:
    """The hooks on the `nodes` of a graph, of which the first is the score's, and the warning that it needs."""
    hooks = [(node, hook) for node in nodes if (hook := _hook(node))]
    if left := _unbalanced(nodes[:1]):
        listed = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
        return hooks, f"The rule 'libra' passes the plain gradient through {listed}, where it does not add up."
    return hooks, None if hooks else _NOTHING


def _unbalanced(scores: list[Node]) -> Counter[str]:
    """What the gradient passes under the rule, and should not have to."""
    passed = list(_passed(scores))
    left = Counter({n: count for n, count in find_activations(passed, PLAIN).others.items() if n not in _BALANCED})
    left.update(_stem(node).removeprefix("Safe") for node in passed if _is_bent(node))
    return left


def _passed(scores: list[Node]) -> Iterator[Node]:
    """The nodes that the gradient passes from `scores` on: not what weights were made of."""
    stack, seen = list(scores), set(scores)
    while stack:
        yield (node := stack.pop())
        weight = _weight(node)
        fresh = {parent for side, (parent, _) in enumerate(node.next_functions) if parent and side != weight} - seen
        seen |= fresh
        stack.extend(fresh)


def _hook(node: Node) -> Hook | None:
    """What balances the gradient at a node; None where there is nothing to balance."""
    stem = _stem(node)
    if stem in _GATES or stem in _IN_PLACE_OF:
        return _instead(node, _IN_PLACE_OF.get(stem, _gated))
    if stem.endswith("BatchNorm"):  # by statistics of its own it is an instance norm, in an image of all channels
        return _instead(node, _instance_norm) if getattr(node, "_saved_training", False) else None
    if (degree := _degree(node)) is not None:
        return _divided(degree)
    return _product(node) if _pair(node) else None


def _stem(node: Node) -> str:
    return kind_of(node).removesuffix("Backward")


def _instead(node: Any, passes: Callable[[Any, Tensor], Tensor]) -> Hook:
    """A hook that gives to the node's input what `passes` of the gradient that came."""

    def hook(results: Gradients, incoming: Gradients) -> Gradients:
        if results[0] is None or incoming[0] is None:
            return results
        return (passes(node, incoming[0]).to(results[0].dtype), *results[1:])

    return hook


def _gated(node: Any, gradient: Tensor) -> Tensor:
    """x·g(x) passes on g(x)."""
    return gradient * _GATES[_stem(node)](node._saved_self)


def _gelu(node: Any, gradient: Tensor) -> Tensor:
    """GELU's g(x) is 1/2 at 0."""
    x = node._saved_self
    gate = torch.where(x == 0, 0.5, F.gelu(x, approximate=node._saved_approximate) / torch.where(x == 0, 1, x))
    return gradient * gate


def _glu(node: Any, gradient: Tensor) -> Tensor:
    """Of halves a·sigmoid(b), a alone is weighed."""
    gate = node._saved_self.chunk(2, node._saved_dim)[1].sigmoid()
    return torch.cat([gradient * gate, torch.zeros_like(gate)], node._saved_dim)


def _layer_norm(node: Any, gradient: Tensor) -> Tensor:
    """(x − mean) / deviation with a deviation that is constant."""
    over = tuple(range(-len(node._saved_normalized_shape), 0))
    weight: Tensor | None = node._saved_weight
    deviation: Tensor = node._saved_result2  # its inverse
    gradient = gradient if weight is None else gradient * weight
    return (gradient - gradient.mean(over, keepdim=True)) * deviation


def _group_norm(node: Any, gradient: Tensor) -> Tensor:
    """The same over the positions and channels of each group."""
    weighed = _by_channel(gradient, node._saved_weight)
    grouped = weighed.reshape(len(gradient), node._saved_group, -1)
    deviation: Tensor = node._saved_result2.reshape(len(gradient), -1, 1)
    return ((grouped - grouped.mean(2, keepdim=True)) * deviation).reshape(gradient.shape)


def _instance_norm(node: Any, gradient: Tensor) -> Tensor:
    """The same over all that is of a channel."""
    weighed = _by_channel(gradient, node._saved_weight)
    over = (0, *range(2, gradient.dim()))
    return _by_channel(weighed - weighed.mean(over, keepdim=True), node._saved_result2)


def _by_channel(tensor: Tensor, factors: Tensor | None) -> Tensor:
    return tensor if factors is None else tensor * factors.view(-1, *(1 for _ in tensor.shape[2:]))


_IN_PLACE_OF: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "Gelu": _gelu, "Glu": _glu, "NativeLayerNorm": _layer_norm, "NativeGroupNorm": _group_norm,
}  # fmt: skip


def _degree(node: Any) -> Any:
    """P of a power x^p, and n of a product of n values of x; None where it is none of that, or is a weight."""
    stem = _stem(node)
    if stem == "Sqrt":
        return 0.5
    if stem == "Prod":
        shape = node._saved_self.shape
        return shape[node._saved_dim] if hasattr(node, "_saved_dim") and shape else shape.numel()
    if stem != "Pow" or _is_power_of_constant(node):
        return None
    exponent = torch.as_tensor(node._saved_exponent)
    return None if bool((exponent <= 0).any()) else node._saved_exponent


def _is_power_of_constant(node: Any) -> bool:
    """Whether the exponent depends on the input."""
    parents = [parent for parent, _ in node.next_functions]
    return isinstance(node._saved_exponent, Tensor) and (len(parents) == 1 or parents[1] is not None)


def _divided(degree: Any) -> Hook:
    def hook(results: Gradients, _: Gradients) -> Gradients:
        return tuple(result if result is None else (result / degree).to(result.dtype) for result in results)

    return hook


def _pair(node: Node) -> tuple[int, int] | None:
    """The sides of a product or quotient, if both depend on the input."""
    first = _PRODUCTS.get(_stem(node))
    if first is None or any(parent is None for parent, _ in node.next_functions[first : first + 2]):
        return None
    return (first, first + 1) if len(node.next_functions) > first + 1 else None


def _weight(node: Node) -> int | None:
    """Which side of a product is a weight or divisor; None where it is none, or both sides are alike."""
    pair = _pair(node)
    if pair is None or _stem(node) in _QUOTIENTS:
        return pair and pair[1]
    first, second = (_weighs(node.next_functions[side][0]) for side in pair)
    return None if first == second else pair[second > first]


def _product(node: Node) -> Hook:
    """The side that is weighed passes the gradient on; where neither is the weight, each passes half."""
    pair, weight = _pair(node) or (), _weight(node)
    factors = dict.fromkeys(pair, 0.5) if weight is None else {weight: 0.0}

    def hook(results: Gradients, _: Gradients) -> Gradients:
        changed = list(results)
        for side, factor in factors.items():
            result = changed[side]
            changed[side] = result if result is None else result * factor if factor else torch.zeros_like(result)
        return tuple(changed)

    return hook


def _is_bent(node: Any) -> bool:
    """Whether a node's result is in no proportion to its input, and cannot be balanced."""
    stem = _stem(node)
    if stem in _QUOTIENTS:
        return _is_inverse(node)
    return stem in _BENT or (stem == "Pow" and _degree(node) is None)


def _is_inverse(node: Node) -> bool:
    """Whether a quotient is of a constant."""
    first = _PRODUCTS[_stem(node)]
    numerator, divisor = (parent for parent, _ in node.next_functions[first : first + 2])
    return numerator is None and divisor is not None


def _weighs(node: Any, through: int = _THROUGH) -> int:
    """How clearly a side of a product is a weight: 2 if it is made of one, 1 if it is held between bounds, else 0.

    Of one: by operations that take nothing else that depends on the input, or that divide it.
    """
    clamped = _is_clamped(node)
    for _ in range(through):
        if node is None or clamped:
            return int(clamped)
        stem, parents = _stem(node), [parent for parent, _ in node.next_functions if parent is not None]
        if stem in _WEIGHTS or (stem in ("Div", "Pow") and _is_bent(node)):
            return 2
        if stem == "Mul" and len(parents) == 2:
            return min(_weighs(parent, through // 2) for parent in parents)
        node = parents[0] if len(parents) == 1 or (stem == "Div" and parents) else None
    return 0


def _is_clamped(node: Any) -> bool:
    """Whether a side of a product is held between bounds, and scaled at most."""
    while node is not None and _stem(node) in ("Mul", "Div") and _pair(node) is None:
        node = node.next_functions[0][0]
    if node is None or _stem(node) not in ("Hardtanh", "Clamp"):
        return False
    low, high = bounds(node)
    return low is not None and high is not None
