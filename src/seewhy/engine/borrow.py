"""Borrowing a model: evaluated, frozen and alone for the length of a ``with`` block, then given back as it was."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ModelError
from ..layers import is_compiled

_borrowers: dict[nn.Module, int] = {}  # which thread has a module now; models may share modules
_returned = threading.Condition()


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Evaluate `model` without leaving a trace.

    Inside: every module is in eval mode, no parameter requires grad, gradients are enabled even under the user's
    ``no_grad`` or ``inference_mode``, and no other thread explains this model. Afterwards, whatever was raised: each
    module's training flag, each parameter's ``requires_grad``, buffers and random states are as before.
    """
    with ExitStack() as stack:
        modules = list(model.modules())
        stack.enter_context(_alone(modules))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        parameters = list(dict.fromkeys(p for m in modules for p in m._parameters.values() if p is not None))
        _refuse(parameters, modules)
        if "torch._dynamo" in sys.modules and any(m._compiled_call_impl or is_compiled(m) for m in modules):
            # compiled code shows autograd no activations
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_random_states(parameters))
        stack.enter_context(_buffers(modules))
        stack.enter_context(_training_flags(modules))
        stack.enter_context(_frozen(parameters))
        yield


@contextmanager
def _alone(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Wait until no other thread has any of `modules`, and keep them for this one; it may borrow them again inside."""
    me = threading.get_ident()
    with _returned:
        _returned.wait_for(lambda: all(_borrowers.get(module, me) == me for module in modules))
        taken = [module for module in modules if module not in _borrowers]
        _borrowers.update(dict.fromkeys(taken, me))
    try:
        yield
    finally:
        with _returned:
            for module in taken:
                del _borrowers[module]
            _returned.notify_all()


@contextmanager
def _random_states(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    devices = {p.device for p in parameters if p.is_cuda}
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([d.index for d in devices], device_type="cuda"):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    with torch.no_grad():
        before = [
            (module, name, buffer, buffer.clone())
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, copy in before:
                _restore(buffer, copy)
                module._buffers[name] = buffer


def _restore(buffer: Tensor, copy: Tensor) -> None:
    if buffer.shape != copy.shape:
        buffer.data = copy
    elif buffer.layout != torch.strided or buffer.is_meta or not torch.equal(buffer, copy):
        buffer.copy_(copy)


@contextmanager
def _training_flags(modules: Sequence[nn.Module]) -> Iterator[None]:
    # Not model.eval(): a model may override train() with work of its own, or freeze some of its modules.
    flags = [getattr(module, "training", False) for module in modules]
    try:
        for module, training in zip(modules, flags, strict=True):
            if training:
                _set_training(module, False)
        yield
    finally:
        for module, training in zip(modules, flags, strict=True):
            if getattr(module, "training", False) is not training:
                _set_training(module, training)


def _set_training(module: nn.Module, training: bool) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        module.training = training
    else:
        object.__setattr__(module, "training", training)  # a model may override __setattr__


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    trained = [p for p in parameters if p.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _refuse(parameters: Sequence[nn.Parameter], modules: Sequence[nn.Module]) -> None:
    if any(is_lazy(parameter) for parameter in parameters):
        raise ModelError(
            "The model has lazy layers whose weights are made at its first run, and it has not run yet: "
            "run it once on an input, then explain it."
        )
    buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
    if any(tensor.is_inference() for tensor in (*parameters, *buffers)):
        raise ModelError(
            "The model was built or loaded under torch.inference_mode, so autograd cannot pass through its parameters. "
            "Build it outside of inference_mode (torch.no_grad is fine), or explain copy.deepcopy(model)."
        )
