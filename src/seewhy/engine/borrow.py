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

from .refuse import refuse_unready
from .switches import eager

_borrowers: dict[nn.Module, int] = {}  # which thread has a module now; models may share modules
_returned = threading.Condition()


@contextmanager
def borrowed(*models: nn.Module) -> Iterator[None]:
    """Evaluate `models` without leaving a trace; several are waited for together, so that nobody waits in a circle.

    Inside: every module is in eval mode, no parameter requires grad, gradients are enabled even under the user's
    ``no_grad`` or ``inference_mode``, and no other thread explains these models. Afterwards, whatever was raised: each
    module's training flag, each parameter's ``requires_grad``, buffers and random states are as before.
    """
    with ExitStack() as stack:
        modules = list(dict.fromkeys(module for model in models for module in model.modules()))
        stack.enter_context(_alone(modules))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        refuse_unready(modules)
        stack.enter_context(_uncompiled())
        stack.enter_context(_random_states(modules))
        stack.enter_context(_buffers(modules))
        stack.enter_context(_training_flags(modules))
        stack.enter_context(_frozen(modules))
        yield


@contextmanager
def undisturbed(*models: nn.Module) -> Iterator[None]:
    """Give random states back at the end, though a data loader draws from them while `models` are borrowed in turns."""
    with _random_states([module for model in models for module in model.modules()]):
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
def _uncompiled() -> Iterator[None]:
    """Run compiled functions as they were written."""
    if "torch._dynamo" not in sys.modules:  # nothing can be compiled yet, and importing the compiler takes seconds
        yield
        return
    with eager():
        yield


@contextmanager
def _random_states(modules: Sequence[nn.Module]) -> Iterator[None]:
    parameters = (p for module in modules for p in module._parameters.values() if p is not None)
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
def _frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    # By name too: some hooks put other tensors in the parameters' places while a module runs (offloaded weights).
    trained = [
        (module, name, parameter)
        for module in modules
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad
    ]
    try:
        for _, _, parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, name, parameter in trained:
            parameter.requires_grad_(True)
            if (now := dict(module._parameters.items()).get(name)) is not None:  # scripted modules have no real dict
                now.requires_grad_(True)
