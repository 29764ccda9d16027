"""Looking at layers without any score: one forward, and nothing is asked of what the model returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import LayerError
from ..given import Given
from ..layers import Layer, tensors
from ..outputs import KINDS, Outputs, read_outputs
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

    It is the last `nn.Linear` or convolution whose output, averaged over its positions, is the scores; of a model that
    ends with its features, these. Worked out for a first `batch` of which one image will do.

    Args:
        model: borrowed.
        batch: the model's input ``(n, C, *sides)``.
        inputs: what else the model is called with.
        pick: as ``Explainer(output=...)``.
        classes: how many class names are known; None if none.

    Attributes:
        label: what the features are called.

    Raises:
        LayerError: they cannot be told.
    """

    def __init__(self, model: nn.Module, batch: Tensor, inputs: ModelInputs, pick: Any, classes: int | None) -> None:
        self._model, self._inputs, self._pick, self._classes = model, inputs, pick, classes
        names = {module: name for name, module in model.named_modules()}
        raw, calls = self._run(batch[:1], [module for module in names if isinstance(module, _READERS)])
        outputs = read_outputs(raw, 1, pick, classes)
        self._reader = _head(calls, outputs)
        if self._reader is None and outputs.embedding is None:
            raise LayerError(
                f"The model gives {KINDS[outputs.kind]}, which no layer makes of the features of an image: name a "
                "layer with layer=; explainer.layers() lists them."
            )
        self.label = f"input of {names[self._reader]}" if self._reader else "output"

    def __call__(self, batch: Tensor) -> tuple[Tensor, Any]:
        """The features ``(n, D)`` of a batch, the mean over positions where they have any, and the model's output."""
        raw, calls = self._run(batch, [] if self._reader is None else [self._reader])
        if self._reader is not None:
            return _averaged(self._reader, calls[-1][1]), raw
        found = read_outputs(raw, len(batch), self._pick, self._classes).embedding
        if found is None:
            raise LayerError("The model gives no features for these images, as it did for the first one.")
        return found, raw

    def _run(self, batch: Tensor, watched: Sequence[nn.Module]) -> tuple[Any, list[_Called]]:
        """What the model returns, and each call of the watched modules: the module, what it read, its output."""
        calls: list[_Called] = []

        def called(module: nn.Module, args: Any, output: Any) -> None:
            read = next(tensors(args), None)
            if read is not None and isinstance(output, Tensor):
                calls.append((module, read.clone(), output.clone()))

        handles = [m.register_forward_hook(called) for m in watched if not isinstance(m, torch.jit.ScriptModule)]
        try:
            with torch.no_grad():
                return run(self._model, batch.clone(), self._inputs), calls
        finally:
            for handle in handles:
                handle.remove()


def _head(calls: Sequence[_Called], outputs: Outputs) -> nn.Module | None:
    """The last module whose output is the scores, or may become them; None where there is none."""
    if outputs.scores is None:
        width = -1 if outputs.dense is None else outputs.dense.shape[1]
        return _last(m for m, _, out in calls if not isinstance(m, nn.Linear) and out.shape[1] == width)
    head = _last(m for m, _, out in calls if _makes(m, out, outputs.scores))
    if head is None:  # the scores may be probabilities, made of these
        head = _last(m for m, _, out in calls if isinstance(m, nn.Linear) and out.shape == outputs.scores.shape)
    return head


def _last(modules: Iterable[nn.Module]) -> nn.Module | None:
    return next(reversed(list(modules)), None)


def _makes(module: nn.Module, output: Tensor, scores: Tensor) -> bool:
    """Whether an output, averaged over positions as it is or after a ReLU, is the scores."""
    means = (_averaged(module, output), _averaged(module, output.relu()))
    return any(mean.shape == scores.shape and torch.allclose(mean, scores, 1e-4, 1e-5) for mean in means)


def _averaged(module: nn.Module, tensor: Tensor) -> Tensor:
    """The mean over positions of what a module reads or returns; a linear layer has its channels last."""
    if tensor.dim() < 3:
        return tensor
    return tensor.flatten(1, -2).mean(1) if isinstance(module, nn.Linear) else tensor.flatten(2).mean(2)
