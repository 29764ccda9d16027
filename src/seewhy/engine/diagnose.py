"""Saying where a gradient ends: one more run, only when an explanation has failed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..layers import tensors


def where_gradient_ends(model: nn.Module, batch: Tensor, after: str | None = None) -> str:
    """A sentence that names the module in which the gradient's path from the input to the output is cut.

    Args:
        model: borrowed, with gradients enabled.
        batch: ``(n, C, H, W)``.
        after: only cuts after this layer finished count.
    """
    names = {module: name for name, module in model.named_modules()}
    cuts: list[str] = []
    finished: list[str] = []

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        finished.append(names[module])
        if any(t.requires_grad for t in tensors([args, kwargs])) and not any(t.requires_grad for t in tensors(output)):
            cuts.append(names[module])
        elif names[module] == (after or "").partition("#")[0]:
            cuts.clear()

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    try:
        model(batch.detach().clone().requires_grad_().clone())
    finally:
        for handle in handles:
            handle.remove()
    if not cuts:
        return "what the model computes from it there does not change the score, or changes it by exactly 0."
    name = cuts[0]
    where = f"module {name!r} ({type(model.get_submodule(name)).__name__})" if name else "the model's own forward"
    return f"the path is cut in {where}, by no_grad, detach, an integer or a non-differentiable operation."
