"""Which weights a score is computed from, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..scoring import Scoring
from .inputs import ModelInputs
from .passes import run
from .rules import PLAIN, find_activations, graph


@dataclass(frozen=True)
class Uses:
    """What the score of one image is computed from.

    Attributes:
        depths: of each parameter in the score's graph, how far before the score it was last used.
        moving: those whose change moves the score.
        whole: whether these are all: the graph reaches the input, and hides nothing on the way.
    """

    depths: dict[Tensor, int] = field(default_factory=dict)
    moving: frozenset[Tensor] = frozenset()
    whole: bool = False


def uses_of(model: nn.Module, image: Tensor, inputs: ModelInputs, scoring: Scoring) -> Uses:
    """The parameters that the score of an `image` ``(1, C, *sides)`` depends on.

    They are read off the autograd graph, which shows them in the order of use however they are used; modules are
    registered in any order, and some have no say in the score (auxiliary heads). It costs a forward and a backward
    pass.

    Args:
        model: borrowed.
        image: what it gets.
        inputs: what else it gets.
        scoring: how the score is read.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    start = image.detach().clone().requires_grad_()
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            score = scoring.read(run(model, start.clone(), inputs), tuple(image.shape[2:])).scores.sum()
        nodes: list[Any] = list(graph([score]))
        last: dict[Tensor, int] = {}
        for node in nodes:
            for following, _ in node.next_functions:
                if (used := getattr(following, "variable", None)) is not None:
                    last[used] = max(last.get(used, 0), node._sequence_nr())
        whole = last.pop(start, None) is not None and not find_activations(nodes, PLAIN).hidden
        moving = _moving(score, list(last))
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    end = max((node._sequence_nr() for node in nodes), default=0)
    return Uses({parameter: end - time for parameter, time in last.items()}, moving, whole)


def _moving(score: Tensor, parameters: list[Tensor]) -> frozenset[Tensor]:
    """Those whose gradient is not 0; all of them where autograd cannot tell."""
    if not parameters:
        return frozenset()
    try:
        gradients = torch.autograd.grad(score, parameters, allow_unused=True)
    except RuntimeError:  # an operation without a backward
        return frozenset(parameters)
    pairs = zip(parameters, gradients, strict=True)
    return frozenset(parameter for parameter, gradient in pairs if gradient is not None and bool(gradient.any()))
