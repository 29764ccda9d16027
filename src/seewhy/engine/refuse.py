"""Refusing models that cannot be explained as they are, before anything is run or changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError

_TRAINABLE = ("dropout", "dropout_", "feature_dropout", "batch_norm")


def refuse_unready(modules: Sequence[nn.Module]) -> None:
    """Refuse a model, all of whose `modules` are given, that cannot run, be differentiated or be put in eval mode.

    Raises:
        ModelError: it has lazy weights, weights without values or made under inference_mode, or was traced or exported
            in train mode.
    """
    tensors = (tensor for module in modules for tensor in _tensors(module))
    kept = [tensor for tensor in tensors if is_lazy(tensor) or tensor.is_meta or tensor.is_inference()]
    if any(is_lazy(tensor) for tensor in kept):
        raise ModelError(
            "The model has lazy layers whose weights are made at its first run, and it has not run yet: "
            "run it once on an input, then explain it."
        )
    if any(not is_lazy(tensor) and tensor.is_inference() for tensor in kept):
        raise ModelError(
            "The model was built or loaded under torch.inference_mode, so autograd cannot pass through its parameters. "
            "Build it outside of inference_mode (torch.no_grad is fine), or explain copy.deepcopy(model)."
        )
    if any(tensor.is_meta for tensor in kept) and not any("_hf_hook" in vars(module) for module in modules):
        raise ModelError(
            "Weights of the model are on the 'meta' device, which holds no values: load them first, "
            "as by load_state_dict(..., assign=True)."
        )
    if trained := next((name for module in modules for name in _always_training(module)), None):
        raise ModelError(
            f"The model was traced or exported in train mode, and keeps that whatever mode it is put in: {trained!r} "
            "runs as in training. Trace or export it after model.eval()."
        )


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for kept in (module._parameters, module._buffers):
        yield from (tensor for tensor in kept.values() if tensor is not None)


def _always_training(module: nn.Module) -> Iterator[str]:
    """The operations of a graph that was recorded in train mode; layers that are still modules have a mode to set."""
    if isinstance(module, torch.jit.ScriptModule):
        graph: Any = getattr(module, "inlined_graph", None)  # its nodes live only as long as it does
        for kind in _TRAINABLE if graph else ():
            yield from (kind for node in graph.findAllNodes(f"aten::{kind}") if _trains(_constants(node)))
    elif isinstance(recorded := _recorded(module), torch.fx.Graph):  # a GraphModule, or a part of one
        for node in recorded.nodes:
            name = getattr(node.target, "__name__", "")
            if node.op == "call_function" and ("dropout" in name or "batch_norm" in name or "attention" in name):
                found = node.normalized_arguments(module, normalize_to_only_use_kwargs=True)
                if found and _trains(found.kwargs):
                    yield node.name


def _recorded(module: nn.Module) -> Any:
    """A module's `graph`, without asking the many that have none, which is slow."""
    return getattr(module, "graph", None) if "graph" in vars(module) or hasattr(type(module), "graph") else None


def _trains(arguments: dict[str, Any]) -> bool:
    """Whether a dropout drops, or a batch norm that has statistics takes the batch's."""
    if arguments.get("training", arguments.get("train")) is True:
        return arguments.get("p") != 0 and arguments.get("running_mean", True) is not None
    return bool(arguments.get("dropout_p", 0))


def _constants(node: Any) -> dict[str, Any]:
    """The arguments of a node of a scripted graph that are constants, and those that are not as they are."""
    names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
    values = [value.toIValue() if value.node().kind() == "prim::Constant" else value for value in node.inputs()]
    return dict(zip(names, values, strict=True))
