"""Backward rules: what a ReLU does to the gradient, set where ReLU happens, in the autograd graph.

A module hook sees `nn.ReLU` modules only; the graph shows every ReLU, however it is spelled: functional, in place,
shared, clamped, checkpointed. The rule is a hook on those nodes of one graph, so nothing is left on the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from ..errors import InputError, ModelError, close_matches

Gradients: TypeAlias = tuple[Tensor | None, ...]
Hook: TypeAlias = Callable[[Any, Any], Any]  # from the gradients that a node gives and those that came to it
_RELUS = {"ReluBackward", "ThresholdBackward", "HardtanhBackward", "ClampBackward", "ClampMinBackward"}
_OTHERS = {
    "LeakyRelu": "LeakyReLU", "PreluKernel": "PReLU", "RreluWithNoise": "RReLU", "Elu": "ELU", "Celu": "CELU",
    "Silu": "SiLU", "Gelu": "GELU", "Mish": "Mish", "Hardswish": "Hardswish", "Softplus": "Softplus",
    "Hardtanh": "Hardtanh", "LogSigmoid": "LogSigmoid", "Hardshrink": "Hardshrink", "Softshrink": "Softshrink",
}  # fmt: skip
_RULES = ("plain", "guided", "deconvnet", "libra")
_GATES = {"Sigmoid": "Sigmoid", "Hardsigmoid": "Hardsigmoid", "Tanh": "Tanh"}
_UNSURE = {
    "Where": "torch.where", "Maximum": "torch.maximum", "MaskedFill": "masked_fill",
    "IndexPut": "an assignment by mask", "Fmax": "torch.fmax",
}  # fmt: skip
_HARMLESS = {"BackwardHookFunctionBackward"}  # what a user's full backward hook puts around a module: the identity


@dataclass(frozen=True)
class BackwardRule:
    """How the gradient passes certain operations.

    ``"guided"`` clamps the result of each ReLU's backward at 0 (Springenberg 2014), ``"deconvnet"`` replaces it by the
    incoming gradient clamped at 0 (Zeiler 2013); `also` names further activations to treat, e.g. ``("LeakyReLU",)``.
    ``"libra"`` takes the weights of attention, the gates of activations and the deviations of layer norms for constants
    (Mehri 2024), see `seewhy.engine.libra`. ``"plain"`` changes nothing.
    """

    name: str
    also: tuple[str, ...] = ()

    @property
    def plain_attention(self) -> bool:
        """Whether the graph must show attention as plain mathematics."""
        return self.name == "libra"

    def __post_init__(self) -> None:
        if self.name not in _RULES:
            raise InputError(f"There is no backward rule {self.name!r}.{close_matches(self.name, _RULES)} "
                             f"Known: {', '.join(_RULES)}.")  # fmt: skip
        for name in self.also:
            if name not in _OTHERS.values():
                known = sorted(set(_OTHERS.values()))
                raise InputError(f"also={name!r} is not an activation that can be treated.{close_matches(name, known)} "
                                 f"Known: {', '.join(known)}.")  # fmt: skip

    def hook(self, results: tuple[Tensor | None, ...], incoming: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Replace the gradient that a ReLU's node gives to its input, and only that."""
        if results[0] is None:
            return results
        gradient = results[0] if self.name == "guided" else incoming[0]
        return (gradient.clamp(min=0), *results[1:])


PLAIN = BackwardRule("plain")


@dataclass
class Activations:
    """The activation nodes of a graph: those a rule acts on, and what else was seen."""

    treated: list[Node] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    gates: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)

    def add(self, node: Node, also: tuple[str, ...]) -> None:
        """Sort `node` in, if it is an activation or may hide one."""
        kind = kind_of(node)
        stem = kind.removesuffix("Backward")
        if (kind in _RELUS and _is_relu(node)) or _OTHERS.get(stem) in also:
            self.treated.append(node)
        elif stem in _OTHERS:
            self.others[_OTHERS[stem]] += 1
        elif stem in _GATES:
            self.gates[_GATES[stem]] += 1
        elif stem in _UNSURE or (stem == "Clamp" and _equals(bounds(node)[0], 0)):
            self.unsure[_UNSURE.get(stem, "clamp")] += 1
        elif name := _hides(node, kind):
            self.hidden[name] += 1


def _is_relu(node: Any) -> bool:
    """Whether the node is max(x, 0) or min(max(x, 0), 6)."""
    low, high = bounds(node)
    return _equals(low, 0) and (high is None or _equals(high, 6))


def bounds(node: Any) -> tuple[Any, Any]:
    """The least and the greatest result of a ReLU-like node, as it saved them; None where there is none."""
    low, high = 0.0, None
    for bound in ("_saved_threshold", "_saved_min_val", "_saved_min"):
        low = getattr(node, bound, low)
    for bound in ("_saved_max_val", "_saved_max"):
        high = getattr(node, bound, high)
    return low, high


def _equals(bound: float | Tensor | None, value: float) -> bool:
    return bound is not None and bool(torch.all(torch.as_tensor(bound) == value))


def _hides(node: Node, kind: str) -> str | None:
    """The name of what may hide a ReLU from the walk, or None."""
    if kind == "CopySlices":
        return "an in-place operation on a view (CopySlices)"
    if kind.startswith("DifferentiableGraph"):
        return "a scripted graph (torch.jit)"
    if isinstance(node, torch.autograd.function.BackwardCFunction) and type(node).__name__ not in _HARMLESS:
        name = type(node).__name__.removesuffix("Backward")
        return "a reentrant checkpoint" if name == "CheckpointFunction" else f"the autograd.Function {name!r}"
    return None


def find_activations(nodes: Iterable[Node], rule: BackwardRule) -> Activations:
    """Sort the activations among the `nodes` of a graph by what `rule` does with them."""
    found = Activations()
    for node in nodes:
        found.add(node, rule.also)
    return found


def ruled(rule: BackwardRule, nodes: list[Node]) -> tuple[list[tuple[Node, Hook]], str | None]:
    """The hooks that carry out `rule` on a graph, and the warning that it needs.

    Raises:
        ModelError: the rule would be silently wrong on it.
    """
    if rule == PLAIN:
        return [], None
    found = find_activations(nodes, rule)
    if rule.name == "libra":
        from .libra import balanced  # which knows the kinds of nodes from here

        refuse_hidden(found, rule)
        return balanced(nodes)
    return [(node, rule.hook) for node in found.treated], check(found, rule)


def relu_after(edge: GradientEdge, outputs: Iterable[Tensor]) -> GradientEdge | None:
    """The result of the ReLU that `edge` goes straight into, in the graph of `outputs`; None where there is none."""
    for node in graph(outputs):
        if kind_of(node) in _RELUS and node.next_functions[0] == (edge.node, edge.output_nr) and _is_relu(node):
            return GradientEdge(node, 0)
    return None


def graph(outputs: Iterable[Tensor]) -> Iterator[Node]:
    """The nodes of the autograd graph of `outputs`, each once."""
    stack = [output.grad_fn for output in outputs]
    seen = set(stack)  # keeps the nodes' Python objects alive
    while stack:
        if (node := stack.pop()) is None:
            continue
        yield node
        fresh = {following for following, _ in node.next_functions} - seen
        seen |= fresh
        stack.extend(fresh)


def kind_of(node: Node) -> str:
    """What a node is of: ``"ReluBackward"``."""
    return node.name().rsplit("::", 1)[-1].rstrip("0123456789")


def refuse_hidden(found: Activations, rule: BackwardRule) -> None:
    """Refuse a graph in which something may hide operations that `rule` acts on."""
    if found.hidden:
        raise ModelError(f"The rule {rule.name!r} cannot see all of this model's operations: it runs through "
                         f"{_list(found.hidden)}. Write that part without it, or use 'saliency'.")  # fmt: skip


def check(found: Activations, rule: BackwardRule) -> str | None:
    """Refuse a graph on which `rule` would be silently wrong; return the warning that it needs, or None.

    Raises:
        ModelError: something may hide a ReLU, or there is none to treat.
    """
    refuse_hidden(found, rule)
    if not found.treated:
        seen = found.others + found.gates
        raise ModelError(
            f"The rule {rule.name!r} is defined for ReLU, and this model has none. "
            f"Its activations: {_list(seen) if seen else 'none'}. Use 'saliency' or 'grad_cam'"
            + (f", or treat others on purpose: also={tuple(found.others)!r}." if found.others else ".")
        )
    if found.others or found.unsure:
        return (f"The rule {rule.name!r} acts on {len(found.treated)} ReLU, and passes the plain gradient through "
                f"{_list(found.others + found.unsure)}.")  # fmt: skip
    return None


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


@contextmanager
def applied(hooks: Iterable[tuple[Node, Hook]]) -> Iterator[None]:
    """Let `hooks` act on their nodes in the backward passes inside the ``with`` block."""
    handles = [node.register_hook(hook) for node, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
