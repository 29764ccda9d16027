"""Folding batch norms into the convolutions before them, on a copy of a model that is nobody else's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..layers import tensors
from .inputs import ModelInputs
from .passes import run
from .rules import graph


def fold_batch_norms(model: nn.Module, batch: Tensor, inputs: ModelInputs) -> int:
    """Fold in place each `BatchNorm2d` of a frozen `model` in eval mode that alone reads a convolution; gives how many.

    What reads what is seen in the autograd graph of a run on `batch`. Modules that run more often than once, subclasses
    of `BatchNorm2d` and weights that are shared or parametrised stay as they are. Container modules stay too.
    """
    pairs = _pairs(model, batch, inputs)
    for convolution, norm in pairs:
        _fold(convolution, norm)
    folded = {norm for _, norm in pairs}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in folded:
                setattr(parent, name, nn.Identity())
    return len(pairs)


def _pairs(model: nn.Module, batch: Tensor, inputs: ModelInputs) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions, each with the batch norm that alone reads it."""
    made: dict[Node | None, nn.Conv2d] = {}
    read: dict[Node | None, nn.BatchNorm2d] = {}
    calls: Counter[nn.Module] = Counter()

    def finished(module: Any, _: Any, output: Any) -> None:
        calls[module] += 1
        made[output.grad_fn] = module

    def begins(module: Any, args: Any) -> None:
        calls[module] += 1
        read[args[0].grad_fn] = module

    handles = [m.register_forward_hook(finished) for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles += [m.register_forward_pre_hook(begins) for m in model.modules() if type(m) is nn.BatchNorm2d]
    try:
        with torch.enable_grad():
            raw = run(model, batch.clone().requires_grad_(), inputs)
    finally:
        for handle in handles:
            handle.remove()
    users = Counter(before for node in graph(tensors(raw)) for before, _ in node.next_functions)
    shared = _shared(model)
    pairs = ((made[node], norm) for node, norm in read.items() if node in made and node and users[node] == 1)
    return [(c, n) for c, n in pairs if calls[c] == calls[n] == 1 and _foldable(c, n) and c.weight not in shared]


def _shared(model: nn.Module) -> set[Tensor]:
    """Parameters that more than one module has."""
    counts = Counter(p for module in model.modules() for p in module._parameters.values() if p is not None)
    return {parameter for parameter, count in counts.items() if count > 1}


def _foldable(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    plain = "weight" in convolution._parameters and "bias" in convolution._parameters
    return plain and norm.running_mean is not None and convolution.out_channels == norm.num_features


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Scale the weights by gamma / sqrt(var + eps), and shift by beta - mean * that."""
    mean, variance = (t.double() for t in (norm.running_mean, norm.running_var) if t is not None)
    scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.double())
    bias = 0 if convolution.bias is None else convolution.bias.double()
    shift = (bias - mean) * scale + (0 if norm.bias is None else norm.bias.double())
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight), requires_grad=False)
