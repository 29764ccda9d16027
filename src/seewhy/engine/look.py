"""Looking at layers without any score: one forward, and nothing is asked of what the model returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LayerError
from ..given import Given
from ..layers import Layer, tensors
from ..outputs import KINDS, Outputs, read_outputs, sums_to_one
from ..scoring import Scoring
from .capture import Captured
from .inputs import ModelInputs
from .passes import Request, measure, run
from .record import Needs

_READERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_Called: TypeAlias = tuple[nn.Module, Tensor, Tensor]


def look(
    model: nn.Module, batch: Tensor, layers: Sequence[Layer], layout: Given, inputs: ModelInputs
) -> tuple[dict[str, Captured], Any]:
    """What each layer of a borrowed `model` returns for `batch`, by its label, and what the model returns itself.

    Raises:
        LayerError: a layer did not run, ran several times, or returns nothing for each image.
    """
    request = Request((Needs(activation=True),), tuple(layers), layout=layout, inputs=inputs)
    measured = measure(model, batch, request, Scoring(()))
    for layer in measured.layers:
        layer.check_batch(len(batch))
    return {layer.label: layer for layer in measured.layers}, measured.raw


class Features:
    """What the last linear layer of a borrowed `model` reads: the features that its scores are made of.

    It is the last `nn.Linear` or convolution whose output, averaged over its positions, is the scores, or becomes them
    by a softmax, sigmoid or temperature, or by the mean of several heads that read the same; of dense scores the
    convolution that gives them, before any resizing; of a model that ends with its features, these. Worked out for a
    first `batch` of which one image will do.

    Args:
        model: borrowed.
        batch: the model's input ``(n, C, *sides)``.
        inputs: what else the model is called with.
        pick: as ``Explainer(output=...)``.
        classes: how many class names are known; None if none.

    Attributes:
        label: what the features are called.
        scored: whether class scores are made of them; else they are themselves what the model gives.
        assumed: what had to be assumed, in a sentence; empty where nothing had.

    Raises:
        LayerError: they cannot be told.
    """

    def __init__(self, model: nn.Module, batch: Tensor, inputs: ModelInputs, pick: Any, classes: int | None) -> None:
        self._model, self._inputs, self._pick, self._classes = model, inputs, pick, classes
        names = {module: name for name, module in model.named_modules()}
        raw, calls = self._run(batch[:1], [module for module in names if isinstance(module, _READERS)])
        outputs = read_outputs(raw, 1, pick, classes)
        head = _head(calls, outputs)
        self._reader = None if head is None else calls[head][0]
        self._calls = [i for i, (module, *_) in enumerate(calls) if module is self._reader]
        self._call = 0 if head is None else self._calls.index(head)
        if self._reader is None and not self._ends_with_features(calls, outputs):
            raise LayerError(
                f"The model gives {KINDS[outputs.kind]}, and no linear layer or convolution was found to make these of "
                "the features of an image: name a layer with layer=; explainer.layers() lists them."
            )
        self.label = f"input of {names[self._reader] or 'the model'}" if self._reader else "output"
        self.scored = self._reader is not None
        self.assumed = self._assumed(None if head is None else calls[head], outputs)

    def __call__(self, batch: Tensor) -> tuple[Tensor, Any]:
        """The features ``(n, D)`` of a batch, the mean over positions where they have any, and the model's output."""
        raw, calls = self._run(batch, [] if self._reader is None else [self._reader])
        if self._reader is not None:
            if len(calls) != len(self._calls) or len(calls[self._call][1]) != len(batch):
                raise LayerError(f"The {self.label} is not the same thing for each batch: name a layer with layer=.")
            return _averaged(self._reader, calls[self._call][1]), raw
        found = read_outputs(raw, len(batch), self._pick, self._classes).embedding
        if found is None:
            raise LayerError("The model gives no features for these images, as it did for the first one.")
        return found, raw

    def _ends_with_features(self, calls: Sequence[_Called], outputs: Outputs) -> bool:
        """Whether what the model gives may be features: nothing says that it is class scores."""
        if outputs.embedding is None:
            return False
        if outputs.embedding is not outputs.scores:  # the model itself calls it an embedding
            return True
        made = any(isinstance(module, nn.Linear) and _may_make(out, outputs.scores) for module, _, out in calls)
        hidden = any(isinstance(module, torch.jit.ScriptModule) for module in self._model.modules())
        return not (made or hidden or sums_to_one(outputs.scores) or outputs.scores.shape[1] in (1, self._classes))

    def _assumed(self, head: _Called | None, outputs: Outputs) -> str:
        """What cannot be told from a tensor of shape (n, K): whether it holds class scores or features."""
        scores = outputs.scores
        if scores is None or outputs.embedding is not scores or scores.shape[1] == self._classes:
            return ""
        if head is None:
            return (
                "What the model returns is taken for features, as no layer is seen to make class scores of it. If it "
                "is class scores, name a layer with layer=, and the classes with Explainer(..., class_names=...)."
            )
        module, _, output = head
        if isinstance(module, nn.Linear) or _equals(_averaged(module, output), scores):
            return ""
        return (
            f"What the model returns is taken for class scores, made of the {self.label}. If it is features, take the "
            "last layer with layer=; Explainer(..., class_names=...) says that it is scores."
        )

    def _run(self, batch: Tensor, watched: Sequence[nn.Module]) -> tuple[Any, list[_Called]]:
        """What the model returns, and each call of the watched modules: the module, what it read, its output."""
        calls: list[_Called] = []

        def called(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            read = next(tensors([args, kwargs]), None)
            if read is not None and isinstance(output, Tensor):
                calls.append((module, read.clone(), output.clone()))

        plain = [module for module in watched if not isinstance(module, torch.jit.ScriptModule)]
        handles = [module.register_forward_hook(called, with_kwargs=True) for module in plain]
        try:
            with torch.no_grad():
                return run(self._model, batch.clone(), self._inputs), calls
        finally:
            for handle in handles:
                handle.remove()


def _head(calls: Sequence[_Called], outputs: Outputs) -> int | None:
    """The number of the last call whose output is the scores, or becomes them; None where there is none."""
    if outputs.scores is None:
        dense = outputs.dense
        return None if dense is None else _last(calls, lambda _, out: _resized(out, dense))
    scores = outputs.scores
    exact = _last(calls, lambda module, out: _makes(module, out, scores))
    if exact is None and _averages(calls, scores):
        return _last(calls, lambda module, out: isinstance(module, nn.Linear) and out.shape == scores.shape)
    return exact if exact is not None else _last(calls, lambda module, out: _orders(module, out, scores))


def _last(calls: Sequence[_Called], fits: Callable[[nn.Module, Tensor], bool]) -> int | None:
    return next((i for i, (module, _, out) in reversed([*enumerate(calls)]) if fits(module, out)), None)


def _makes(module: nn.Module, output: Tensor, scores: Tensor) -> bool:
    """Whether an output, averaged over positions as it is or after a ReLU, is the scores."""
    return any(_equals(_averaged(module, given), scores) for given in (output, output.relu()))


def _equals(mean: Tensor, scores: Tensor) -> bool:
    return mean.shape == scores.shape and torch.allclose(mean, scores, 1e-4, 1e-5, equal_nan=True)


def _averages(calls: Sequence[_Called], scores: Tensor) -> bool:
    """Whether the scores are the mean of several linear layers that read the same."""
    heads = [(read, out) for module, read, out in calls if isinstance(module, nn.Linear) and out.shape == scores.shape]
    if len(heads) < 2 or not all(torch.equal(read, heads[0][0]) for read, _ in heads):
        return False
    return torch.allclose(torch.stack([out for _, out in heads]).mean(0), scores, 1e-4, 1e-5)


def _orders(module: nn.Module, output: Tensor, scores: Tensor) -> bool:
    """Whether a linear layer puts the classes in the order of the scores, as before a softmax or a temperature."""
    if not isinstance(module, nn.Linear) or output.shape != scores.shape:
        return False
    in_order = scores.gather(1, output.argsort(1))
    return bool((in_order.diff() >= 0).all())


def _may_make(output: Tensor, scores: Tensor) -> bool:
    """Whether scores may come of what a linear layer gives: a value for each class, or they themselves somewhere."""
    if output.shape[-1] != scores.shape[1]:
        return False
    return output.dim() < 3 or bool(torch.isclose(output.flatten(0, -2), scores, 1e-4, 1e-5).all(1).any())


def _resized(output: Tensor, dense: Tensor) -> bool:
    """Whether an output, as it is or interpolated, is the dense scores."""
    if output.dim() != dense.dim() or output.shape[1] != dense.shape[1]:
        return False
    mode = {4: "bilinear", 5: "trilinear"}[dense.dim()]
    sizes = [output] if output.shape == dense.shape else []
    sizes += [F.interpolate(output, dense.shape[2:], mode=mode, align_corners=corners) for corners in (False, True)]
    return any(torch.allclose(size, dense, 1e-3, 1e-4, equal_nan=True) for size in sizes)


def _averaged(module: nn.Module, tensor: Tensor) -> Tensor:
    """The mean over positions of what a module reads or returns; a linear layer has its channels last."""
    if tensor.dim() < 3:
        return tensor
    return tensor.flatten(1, -2).mean(1) if isinstance(module, nn.Linear) else tensor.flatten(2).mean(2)
