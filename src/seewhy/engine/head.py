"""Finding where CAM is defined: the activation whose mean over positions a linear layer turns into the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..layers import tensors
from ..layouts import Layout
from .record import Head


@dataclass
class _Spatial:
    """The last output with positions, as ``(n, C, *grid)``, still the model's own memory."""

    call: Any
    module: nn.Module
    output: Tensor
    version: int | None

    @property
    def changed(self) -> bool:
        return self.version is not None and self.output._version != self.version


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_Found = tuple[Any, str, Tensor, Tensor, Tensor]  # the call, a suffix to its name, activation, weight, bias


class HeadFinder:
    """Watches modules finish, in order, and keeps what may be a head; `find` then checks it against the scores."""

    def __init__(self) -> None:
        self._last: _Spatial | None = None
        self._before_last: _Spatial | None = None
        self._linear: tuple[nn.Module, Tensor, Tensor, _Spatial, Tensor] | None = None

    def see(self, call: Any, module: nn.Module, args: object, output: Tensor, layout: Layout | None) -> None:
        """Take note of what `module` returned in this `call`."""
        if layout:
            if self._last and self._last.output.data_ptr() != output.data_ptr():
                self._before_last = self._last
            version = None if output.is_inference() else output._version
            self._last = _Spatial(call, module, layout.channels_first(output), version)
        elif self._last and _is_linear(module):
            pooled = next(tensors(args), None)
            if pooled is not None and pooled.flatten(1).shape == self._last.output.shape[:2]:
                # The activation is copied now: the model is free to change it afterwards.
                self._linear = (
                    module,
                    pooled.detach(),
                    output.detach(),
                    self._last,
                    self._last.output.detach().clone(),
                )

    def find(self, outputs: Tensor, label: Callable[[Any], str]) -> Head:
        """The head that gave `outputs` ``(n, K)``; `label` names a call.

        Raises:
            ModelError: the scores are not linear in the mean of an activation over its positions.
        """
        found = self._linear_head(outputs) or self._convolutional_head(outputs)
        if found is None:
            raise ModelError(
                "CAM is defined where one linear layer reads the mean of an activation over its positions, and this "
                "model has no such head. Use 'grad_cam', which equals CAM where CAM is defined."
            )
        call, suffix, activation, weight, bias = found
        return Head(label(call) + suffix, activation, weight, bias)

    def _linear_head(self, outputs: Tensor) -> _Found | None:
        if self._linear is None:
            return None
        module, pooled, scores, last, activation = self._linear
        if not _close(scores.flatten(1), outputs):
            return None
        weight, bias = _weights(module)
        if not _close(pooled.flatten(1).to(weight.dtype) @ weight.T, scores.flatten(1) - bias, scores):
            return None  # a layer of the model's own that is not linear with these weights
        for suffix, pooled_activation in _readings(last, activation):
            if _close(pooled_activation.flatten(2).mean(2), pooled.flatten(1), activation):
                return last.call, suffix, pooled_activation, weight, bias
        return None

    def _convolutional_head(self, outputs: Tensor) -> _Found | None:
        """A 1x1 convolution to the classes, then the pooling; or any activation with a channel for each class."""
        last = self._last
        if last is None or last.output.shape[:2] != outputs.shape:
            return None
        classes = outputs.shape[1]
        unit = torch.eye(classes, device=outputs.device, dtype=outputs.dtype)
        for suffix, activation in _readings(last, last.output.detach()):
            if _close(activation.flatten(2).mean(2), outputs, activation):
                before = None if suffix else self._before_convolution(last, outputs)
                return before or (last.call, suffix, activation, unit, unit.new_zeros(classes))
        return None

    def _before_convolution(self, last: _Spatial, outputs: Tensor) -> _Found | None:
        """What a 1x1 convolution reads, if the scores are linear in its mean."""
        before = self._before_last
        if before is None or not _is_pointwise(last.module):
            return None
        weight, bias = _weights(last.module)
        for suffix, activation in _readings(before, before.output.detach()):
            fits = activation.shape[1] == weight.shape[1]
            if fits and _close(activation.flatten(2).mean(2).to(weight.dtype) @ weight.T, outputs - bias, outputs):
                return before.call, suffix, activation.clone(), weight, bias
        return None


def _readings(last: _Spatial, activation: Tensor) -> list[tuple[str, Tensor]]:
    """What the pooling may have read: the module's output, or that after a functional ReLU (perhaps in place)."""
    if last.changed:
        return [("+relu" if bool((activation >= 0).all()) else "+in-place", activation)]
    return [("", activation), ("+relu", activation.relu()), ("+relu", activation.clamp(0, 6))]


def _is_linear(module: nn.Module) -> bool:
    return (isinstance(module, nn.Linear) and not module.weight.is_meta) or _is_pointwise(module)  # meta: offloaded


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS) and set(module.kernel_size) == {1} and module.groups == 1


def _weights(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Copies, so that no method can change the model's own."""
    weight = module.weight.detach().flatten(1).clone()  # type: ignore[operator]
    bias = module.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()  # type: ignore[operator]


def _close(a: Tensor, b: Tensor, of: Tensor | None = None) -> bool:
    """Equal but for rounding, of the largest value or of the largest number `of` those that cancelled."""
    if a.shape != b.shape:
        return False
    rounding = 8 * max(torch.finfo(a.dtype).eps, torch.finfo(b.dtype).eps)
    a, b = a.detach().double(), b.detach().double()
    allowed = max(1e-4, rounding) * b.abs().max() + (0 if of is None else rounding * of.detach().abs().max())
    return bool((a - b).abs().max() <= allowed)
