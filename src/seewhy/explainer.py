"""The one door: resolves inputs, targets, layers and methods, and hands the work to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import chunks, device_of, named_classes, parsed_device, whole
from .collect import Collector, class_name
from .engine.borrow import borrowed
from .engine.diagnose import zero_weights
from .engine.passes import Measured, Request, measure, run
from .engine.record import Needs
from .errors import (
    GradientError,
    InputError,
    InputTypeError,
    LayerError,
    ModelError,
    TargetError,
    TargetIndexError,
    warn,
)
from .explanation import Explanation
from .explanations import Explanations
from .images import Images, gather, resolve_preprocessing
from .layers import Layer, LayerTable, find_layers, unwrap
from .layouts import Given, check_given
from .methods import Method
from .methods.make import make_methods
from .targets import ClassTarget, Scoring, check_finite, find_targets, probabilities, read_outputs, sums_to_one

_ACTIVATIONS = ("softmax", "sigmoid", "none", None)


@dataclass(frozen=True)
class Prediction:
    """One class that the model predicts: its `index`, `name` and `probability` in 0..1."""

    index: int
    name: str
    probability: float

    def __repr__(self) -> str:
        return f"Prediction(index={self.index}, name={self.name!r}, probability={self.probability:.4g})"


class Explainer:
    """Explains any PyTorch vision model; the model comes back as it was after every call.

    Args:
        model: any `nn.Module` that turns images ``(N, C, H, W)`` into scores ``(N, K)``. DataParallel,
            DistributedDataParallel and torch.compile wrappers are looked through.
        transform: from an RGB PIL image to the model's input ``(C, H, W)``. None: the network's own where it is known
            (timm), else ImageNet's usual, said once by a `SeewhyWarning`.
        class_names: a sequence, or ``{index: name}``. Any comma-separated part of a name matches as ``target=``.
        device: where inputs go. None: where the model is.
        output: picks the scores ``(N, K)`` out of what the model returns. None: worked out.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"none"``, from scores to probabilities. None: softmax; sigmoid for
            one class; scores that already sum to 1 are taken as they are.
        layout: where the positions are in what layers return, where that is not worked out (rightly). ``"NCHW"``,
            ``"NHWC"`` (channels last) or ``"tokens"`` ``(N, prefix + h*w, C)`` settles what is not certain. A function
            from a layer's output to ``(N, C, h, w)``, or to None where it is to be worked out, goes before everything;
            it only picks and reorders elements.

    Raises:
        InputTypeError: `model` is no module.
        InputError: `device` is not where the model is, or `activation` or `layout` is unknown.

    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> explanation = Explainer(model).explain(torch.rand(1, 3, 8, 10), target=1)
    >>> explanation.method, explanation.layer, explanation.map.shape
    ('grad_cam', '1', (8, 10))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        transform: Callable[..., Any] | None = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        device: str | torch.device | None = None,
        output: Callable[[Any], Tensor] | None = None,
        activation: Literal["softmax", "sigmoid", "none"] | None = None,
        layout: Given = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            hint = " It is a class: make an instance of it." if isinstance(model, type) else ""
            raise InputTypeError(f"model must be a torch.nn.Module, not {type(model).__name__}.{hint}")
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation is one of {_ACTIVATIONS}, not {activation!r}.")
        if output is not None and not callable(output):
            raise InputTypeError(f"output must be callable, from what the model returns to scores; {output!r} is not.")
        check_given(layout)
        self.model = model
        self._inner = unwrap(model)
        self._preprocessing = resolve_preprocessing(model, transform)
        self._names = named_classes(class_names)
        self._classes = None if isinstance(class_names, Mapping) else len(self._names) or None
        self._device = parsed_device(device)
        device_of(self._inner, self._device)
        self._output, self._activation, self._layout = output, activation, layout
        self._chosen: dict[Any, str] = {}
        self._said: set[str] = set()

    def __repr__(self) -> str:
        names = f"{len(self._names)} class names" if self._names else "no class names"
        device = device_of(self._inner, self._device) or "cpu"
        return f"Explainer({type(self._inner).__name__}, {names}, {device}, {self._preprocessing.description})"

    def __call__(self, inputs: Any) -> Explanation:
        """Grad-CAM of the predicted class: `explain` with its defaults."""
        return self.explain(inputs)

    @overload
    def explain(
        self, inputs: Any, method: str | Method | type[Method] = "grad_cam", *, target: Any = None,
        layer: str | nn.Module | None = None, truth: Any = None, batch_size: int | None = None, **options: Any,
    ) -> Explanation: ...  # fmt: skip

    @overload
    def explain(
        self, inputs: Any, method: Sequence[str | Method | type[Method]], *, target: Any = None, layer: Any = None,
        truth: Any = None, batch_size: int | None = None, **options: Any,
    ) -> Explanations: ...  # fmt: skip

    @overload
    def explain(
        self, inputs: Any, method: Any = "grad_cam", *, target: Any = None, layer: Sequence[Any], truth: Any = None,
        batch_size: int | None = None, **options: Any,
    ) -> Explanations: ...  # fmt: skip

    def explain(
        self,
        inputs: Any,
        method: Any = "grad_cam",
        *,
        target: Any = None,
        layer: Any = None,
        truth: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Explanation | Explanations:
        """Explain the target's score for each image, by one or many methods in one shared pass.

        Args:
            inputs: a path, PIL image, NumPy ``(H, W[, 3 or 4])`` or ``(N, H, W, 3)`` (uint8, or float in 0..1), uint8
                tensor ``(C, H, W)`` or ``(N, C, H, W)``: pictures, which the transform takes; or a float tensor
                ``(C, H, W)`` or ``(N, C, H, W)``: already transformed; or a list of these.
            method: a name, `Method` class or instance, or a list of these. `seewhy.list_methods()` lists the names.
            target: None (each image's predicted class), a class index, a class name, a `Target`, a callable from scores
                ``(N, K)`` to ``(N,)``, or a list with one of these for each image.
            layer: None (chosen), a dotted name, a module, ``"name#2"`` for the second call of a module used several
                times, or a list of these. Methods that look at no layer pass it by.
            truth: the true class of each image, index or name, for marking right and wrong in pictures.
            batch_size: images per pass; 16 unless given. It changes no result.
            options: of the methods; each goes to the methods that declare it.

        Returns:
            An `Explanation` for one method and at most one layer, `Explanations` where either is a list.

        Raises:
            SeewhyError: in one of its kinds, when something cannot be used or explained; the model is left as it was.

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> explainer = Explainer(model)
        >>> both = explainer.explain(torch.rand(2, 3, 8, 8), ["saliency", "grad_cam"], target=[0, 1], layer=["0", "1"])
        >>> list(both)
        ['saliency', ('grad_cam', '0'), ('grad_cam', '1')]
        """
        methods = make_methods(method, options)
        layers = None if layer is None else tuple(dict.fromkeys(find_layers(self._inner, layer)))
        if layers == ():
            raise InputError("The list of layers is empty: name at least one, or leave layer out.")
        images = gather(inputs)
        targets = find_targets(target, len(images), self._names)
        truths = self._true_classes(truth, len(images))
        found = Collector(methods, self._names, self._activation)
        with borrowed(self._inner):
            for start, stop in chunks(len(images), batch_size):
                batch, pictures = self._load(images, start, stop)
                scoring = Scoring(targets[start:stop], self._output, self._classes)
                measured = self._measure(methods, layers, batch, scoring)
                if measured.selected:
                    _check_truth(truths, measured.selected.outputs.shape[1])
                found.add(measured, pictures)
                if measured.layers and layers is None:  # chosen once for the call
                    layers = tuple(find_layers(self._inner, measured.layers[0].label))
        provenance = {"model": type(self._inner).__name__}
        try:
            explanations = found.explanations(self._class_labels(truths), images.sources, provenance)
        except GradientError as error:
            raise GradientError(f"{error}{zero_weights(self._inner)}") from None
        for message in found.warnings:
            warn(message)
        if isinstance(method, list | tuple) or isinstance(layer, list | tuple):
            return Explanations(explanations)
        return explanations[0]

    def predict(self, inputs: Any, top: int = 5, *, batch_size: int | None = None) -> list[list[Prediction]]:
        """The `top` most probable classes of each image, the most probable first.

        Args:
            inputs: as for `explain`.
            top: how many classes; fewer where the model has fewer.
            batch_size: images per pass; 16 unless given.

        Returns:
            For each image a list of `Prediction`.
        """
        top = whole(top, "top")
        images = gather(inputs)
        predictions: list[list[Prediction]] = []
        with borrowed(self._inner), torch.no_grad():
            for start, stop in chunks(len(images), batch_size):
                batch, _ = self._load(images, start, stop)
                outputs = read_outputs(run(self._inner, batch), stop - start, self._output, self._classes)
                check_finite(outputs)
                self._check_outputs(outputs)
                predictions += self._predictions(probabilities(outputs, self._activation).cpu(), top)
        return predictions

    def _predictions(self, chances: Tensor, top: int) -> list[list[Prediction]]:
        best = chances.topk(min(top, chances.shape[1]), dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [
            [Prediction(index, class_name(self._names, index), p) for index, p in zip(*row, strict=True)]
            for row in rows
        ]

    def layers(self, inputs: Any = None) -> LayerTable:
        """The layers that run, in the order in which they finish, and which ``layer=None`` would choose.

        Args:
            inputs: as for `explain`; random noise of the usual size where None.

        Returns:
            A list of `LayerInfo` that shows as a table.
        """
        images = gather(self._noise() if inputs is None else inputs)
        needs = Needs(activation=True, gradient=True)
        with borrowed(self._inner):
            batch, _ = self._load(images, 0, 1)
            scoring = Scoring(find_targets(None, 1, self._names), self._output, self._classes)
            try:
                measured = self._passes(batch, Request((needs,), choose=True), scoring)
            except (GradientError, ModelError, LayerError):  # no score to choose by; the layers are there all the same
                measured = self._passes(batch, Request((), everything=True), scoring)
        chosen = measured.layers[0].label if measured.layers else None
        return LayerTable(replace(layer, chosen=layer.name == chosen) for layer in measured.observer.seen)

    def _noise(self) -> np.ndarray | Tensor:
        """A picture of noise for the transform; where none is known, a tensor as the first convolution takes it."""
        generator = np.random.default_rng(0)
        if not self._preprocessing.assumed:
            return generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        first = next((module for module in self._inner.modules() if isinstance(module, nn.Conv2d)), None)
        return torch.from_numpy(generator.random((1, first.in_channels if first else 3, 224, 224), np.float32))

    def _load(self, images: Images, start: int, stop: int) -> tuple[Tensor, np.ndarray]:
        """The chunk's batch where the model is and in its precision, and the pictures of it."""
        batch, pictures = images.load(start, stop, self._preprocessing)
        dtype = next((p.dtype for p in self._inner.parameters() if p.is_floating_point()), batch.dtype)
        return batch.to(device_of(self._inner, self._device) or batch.device, dtype), pictures

    def _measure(
        self, methods: Sequence[Method], layers: tuple[Layer, ...] | None, batch: Tensor, scoring: Scoring
    ) -> Measured:
        """The passes for one chunk, at the layers asked for or the one remembered or chosen."""
        needs = tuple(method.needs for method in methods)
        if not any(n.layer for n in needs):
            measured = self._passes(batch, Request(needs), scoring)
            _check_cam_layer(layers, measured)
        elif layers is not None:
            measured = self._passes(batch, Request(needs, layers), scoring)
        else:
            measured = self._measure_chosen(needs, batch, scoring)
        if measured.selected:
            self._check_outputs(measured.selected.outputs)
        return measured

    def _passes(self, batch: Tensor, request: Request, scoring: Scoring) -> Measured:
        return measure(self._inner, batch, replace(request, layout=self._layout), scoring)

    def _measure_chosen(self, needs: tuple[Needs, ...], batch: Tensor, scoring: Scoring) -> Measured:
        kind = (tuple(batch.shape[1:]), any(n.gradient for n in needs), scoring.kind)
        before: Measured | None = None
        if kind in self._chosen:
            remembered = tuple(find_layers(self._inner, self._chosen[kind]))
            with suppress(GradientError, LayerError):  # it did not run, or nothing leads there this time
                before = self._passes(batch, Request(needs, remembered), scoring)
        if before and self._chosen[kind] not in before.dead:
            return before
        try:
            measured = self._passes(batch, Request(needs, choose=True), scoring)
        except GradientError:
            if before is None:
                raise
            return before  # these images have no gradient at any layer
        self._chosen[kind] = measured.layers[0].label
        return measured

    def _check_outputs(self, outputs: Tensor) -> None:
        count = outputs.shape[1]
        if self._classes not in (None, count) and "names" not in self._said:
            self._said.add("names")
            warn(f"{self._classes} class names were given, and the model has {count} scores: names may be wrong.")
        if self._activation is None and sums_to_one(outputs) and "logits" not in self._said:
            self._said.add("logits")
            warn(
                "The model's scores already sum to 1, so they are taken as probabilities. The gradient of a "
                "probability depends on the other classes too: explain the logits if you can (output=)."
            )

    def _true_classes(self, truth: Any, count: int) -> list[int] | None:
        if truth is None:
            return None
        targets = find_targets(truth, count, self._names)
        indices = [target.index for target in targets if isinstance(target, ClassTarget) and target.index is not None]
        if len(indices) < count:
            raise TargetError("truth is a class, by index or name, for each image.")
        return indices

    def _class_labels(self, indices: list[int] | None) -> tuple[str, ...] | None:
        return None if indices is None else tuple(class_name(self._names, index) for index in indices)


def _check_truth(indices: list[int] | None, count: int) -> None:
    if indices and max(indices) >= count:
        raise TargetIndexError(
            f"truth {max(indices)} is out of range: the model has {count} classes, 0 to {count - 1}."
        )


def _check_cam_layer(layers: tuple[Layer, ...] | None, measured: Measured) -> None:
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
