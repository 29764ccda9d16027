"""Saying where a gradient ends, by one more run when an explanation has failed; refusing gradients that are wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..errors import GradientError, ModelError
from ..layers import find_layers, tensors, with_first_tensor
from .inputs import ModelInputs
from .rules import kind_of

NO_CHANGE = "what the model computes from it there does not change the score, or changes it by exactly 0."


def refuse_unsound(scores: Tensor, nodes: Iterable[Node]) -> None:
    """Refuse `scores` ``(n,)`` whose graph of `nodes` would give a gradient that is not theirs, image by image.

    Raises:
        GradientError: an operation on the way has no backward, and autograd would leave its part out without a word.
        ModelError: a batch norm takes the statistics of the batch, though the model is in eval mode.
    """
    for node in nodes:
        kind = kind_of(node)
        if kind == "WarnNotImplemented":
            raise GradientError(
                "The model runs an operation that has no backward, and autograd would leave out what passes there: a "
                "quantised layer, or an operator of its own. Explain the model as it was before it was quantised."
            )
        if kind.endswith("BatchNormBackward") and _mixes(node, len(scores)):
            raise ModelError(
                "The model normalises by the mean and variance of the batch itself (a batch norm with training=True), "
                "so each image of a batch would change the others' scores: explain them with batch_size=1."
            )


def _mixes(node: Any, count: int) -> bool:
    # Instance norm is a batch norm over one "image" of n * C channels.
    return count > 1 and getattr(node, "_saved_training", False) and len(node._saved_input) > 1


def where_gradient_ends(
    model: nn.Module, batch: Tensor, after: str | None = None, inputs: ModelInputs | None = None
) -> str:
    """A sentence that names the module in which the gradient's path from the input to the output is cut.

    Args:
        model: borrowed, with gradients enabled.
        batch: ``(n, C, *sides)``.
        after: only cuts after this layer finished count.
        inputs: what the model is called with besides the batch.
    """
    names = {module: name for name, module in model.named_modules()}
    start = None if after is None else find_layers(model, after)[0].module
    cuts: list[str] = []

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if module is start:
            cuts.clear()
            first = next(tensors(output))
            return with_first_tensor(output, first if first.requires_grad else _leaf(first))
        if any(t.requires_grad for t in tensors([args, kwargs])) and not any(t.requires_grad for t in tensors(output)):
            cuts.append(names[module])
        return None

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    try:
        args, kwargs = (inputs or ModelInputs()).arguments(_leaf(batch).clone())
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if not cuts:
        return f"{NO_CHANGE}{zero_weights(model)}"
    name = cuts[0]
    where = f"module {name!r} ({type(model.get_submodule(name)).__name__})" if name else "the model's own forward"
    return f"the path is cut in {where}, by no_grad, detach, an integer or a non-differentiable operation."


def zero_weights(model: nn.Module) -> str:
    """A sentence on the layers whose weights are all 0, as some networks' heads are before they are trained."""
    weights = {name: getattr(module, "weight", None) for name, module in model.named_modules()}
    zero = [repr(name) for name, w in weights.items() if isinstance(w, Tensor) and w.dim() > 1 and not w.any()]
    return f" All weights of {', '.join(zero[:3])} are 0: is the model trained?" if zero else ""


def _leaf(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return tensor.detach().clone().requires_grad_()
