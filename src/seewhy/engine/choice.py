"""The layer that is chosen where none is named, remembered from call to call."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import GradientError, LayerError
from ..layers import Layer, find_layers
from ..layouts import Layout
from ..scoring import Scoring
from .passes import Measured, Request, measure


class Choice:
    """Runs the passes over `model`, and remembers which layer was chosen for which input and kind of target."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._chosen: dict[Any, str] = {}
        self._whole: set[tuple[str, ...]] = set()  # layers for which a shorter graph was found incomplete
        self._layouts: dict[tuple[int, ...], dict[str, Layout | None]] = {}  # of layers, by the shape of the input

    def measure(self, request: Request, batch: Tensor, scoring: Scoring) -> Measured:
        """The passes for one chunk, at the layers asked for or the one remembered or chosen."""
        if not any(needs.layer for needs in request.needs):
            measured = measure(self._model, batch, replace(request, layers=()), scoring)
            _check_cam_layer(request.layers, measured)
            return measured
        if request.layers:
            return self._measure_at(request, batch, scoring)
        return self._measure_chosen(request, batch, scoring)

    def _measure_at(self, request: Request, batch: Tensor, scoring: Scoring) -> Measured:
        labels = tuple(layer.label for layer in request.layers)
        known = self._layouts.setdefault(tuple(batch.shape), {})
        measured = measure(self._model, batch, replace(request, whole=labels in self._whole, known=known), scoring)
        self._remember(measured)
        known |= {layer.label: layer.layout for layer in measured.layers}
        return measured

    def _remember(self, measured: Measured) -> None:
        if measured.request.whole:
            self._whole.add(tuple(layer.label for layer in measured.layers))

    def _measure_chosen(self, request: Request, batch: Tensor, scoring: Scoring) -> Measured:
        scored = any(needs.layer and needs.score for needs in request.needs)
        kind = (tuple(batch.shape[1:]), scored, scoring.kind, request.changed)
        before: Measured | None = None
        if kind in self._chosen:
            remembered = tuple(find_layers(self._model, self._chosen[kind]))
            with suppress(GradientError, LayerError):  # it did not run, or nothing leads there this time
                before = self._measure_at(replace(request, layers=remembered), batch, scoring)
        if before and self._chosen[kind] not in before.dead:
            return before
        try:
            measured = measure(self._model, batch, replace(request, choose=True), scoring)
        except GradientError:
            if before is None:
                raise
            return before  # these images have no gradient at any layer
        self._chosen[kind] = measured.layers[0].label
        self._remember(measured)
        return measured


def _check_cam_layer(layers: tuple[Layer, ...], measured: Measured) -> None:
    """CAM has one layer, which is found; asking for another is a mistake to be told."""
    if (
        measured.head
        and layers
        and not any(measured.head.layer in (layer.label, f"{layer.label}+relu") for layer in layers)
    ):
        asked = ", ".join(repr(layer.label) for layer in layers)
        raise LayerError(
            f"CAM is defined at {measured.head.layer!r} of this model only, not at {asked}. "
            "Leave layer out, or use 'grad_cam'."
        )
