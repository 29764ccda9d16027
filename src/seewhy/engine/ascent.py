"""Running a model again and again up to some layers, in the graph, so that its input can climb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from ..errors import LayerError
from ..given import Given
from ..layers import Layer, tensors
from ..layouts import Layout
from .inputs import ModelInputs
from .look import look
from .passes import run


class _EnoughError(BaseException):
    """Every wanted layer has run: the rest of the model need not."""


class Ascent:
    """Calling it runs a borrowed `model` and gives what `layers` return, in the graph of the input.

    Args:
        model: borrowed.
        layers: whose outputs are wanted.
        layout: what the user says of layouts.
        inputs: what else the model is called with.
        output: whether what the model returns is wanted too; else a run ends with the last wanted layer.

    Raises:
        LayerError: a layer is one with the functional ReLU after it.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], layout: Given, inputs: ModelInputs, *, output: bool
    ) -> None:
        self._model, self._layers, self._given, self._inputs = model, tuple(layers), layout, inputs
        if functional := next((layer.label for layer in self._layers if layer.relu), None):
            raise LayerError(
                f"{functional!r} is for explanations. To climb, give the name of a module without '+relu'."
            )
        self._output = output
        self._layouts: dict[tuple[int, ...], dict[str, Layout | None]] = {}  # by the shape of the input

    def __call__(self, batch: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Each layer's output by its label, ``(n, C, *grid)`` or ``(n, C)``, and the model's, None unless wanted.

        Raises:
            LayerError: a layer did not run, ran several times, or returns nothing for each image.
        """
        layouts = self._layouts_of(batch)
        found, raw = self._run(batch)
        oriented = {}
        for label, output in found.items():
            layout = layouts[label]
            oriented[label] = layout.channels_first(output) if layout else output.flatten(1)
        return oriented, raw if self._output else None

    def _layouts_of(self, batch: Tensor) -> dict[str, Layout | None]:
        """Where the positions are, worked out in one run for each shape of the input."""
        shape = tuple(batch.shape)
        if shape not in self._layouts:
            captured, _ = look(self._model, batch.detach(), self._layers, self._given, self._inputs)
            self._layouts[shape] = {label: layer.layout for label, layer in captured.items()}
        return self._layouts[shape]

    def _run(self, batch: Tensor) -> tuple[dict[str, Tensor], Any]:
        found: dict[str, Tensor] = {}
        calls: Counter[nn.Module] = Counter()
        raw = None

        def finished(module: nn.Module, _: Any, output: Any) -> None:
            calls[module] += 1
            for layer in self._layers:
                if layer.module is module and layer.call in (None, calls[module]):
                    found[layer.label] = next(tensors(output)).clone()  # the model may change its own in place
            if not self._output and len(found) == len(self._layers):
                raise _EnoughError

        modules = dict.fromkeys(layer.module for layer in self._layers)
        handles = [module.register_forward_hook(finished) for module in modules]
        try:
            with suppress(_EnoughError):
                raw = run(self._model, batch.clone(), self._inputs)  # which the model may change in place
        finally:
            for handle in handles:
                handle.remove()
        return found, raw
