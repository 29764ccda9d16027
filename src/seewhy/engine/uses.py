"""Which weights a score is computed from, and in which order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..scoring import Scoring
from .inputs import ModelInputs
from .passes import run
from .rules import PLAIN, find_activations, graph


def weights_behind(
    model: nn.Module, batch: Tensor, inputs: ModelInputs, scoring: Scoring
) -> tuple[dict[Tensor, int], bool]:
    """The parameters that the scores of a `batch` depend on, each with a number that grows with its last use.

    They are read off the autograd graph, which shows them in the order of use however they are used; modules are
    registered in any order, and some have no say in the score (auxiliary heads).

    Args:
        model: borrowed.
        batch: ``(n, C, *sides)``.
        inputs: what else the model gets.
        scoring: how the scores are read.

    Returns:
        The parameters, and whether these are all: the graph reaches the input, and hides nothing on the way.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    start = batch.detach().clone().requires_grad_()
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            scores = scoring.read(run(model, start.clone(), inputs), tuple(batch.shape[2:])).scores
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    nodes = list(graph([scores]))
    last: dict[Tensor, int] = {}
    for node in nodes:
        for following, _ in node.next_functions:
            if (used := getattr(following, "variable", None)) is not None:
                last[used] = max(last.get(used, 0), node._sequence_nr())
    hidden = find_activations(nodes, PLAIN).hidden
    return last, last.pop(start, None) is not None and not hidden
