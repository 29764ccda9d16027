"""The backward passes over the graph of one forward: one for each backward rule and each of an image's targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import GradientError, LayerError
from ..scoring import CONSTANT_TARGET, Selected
from .capture import Captured
from .diagnose import refuse_unsound, where_gradient_ends
from .rules import BackwardRule, applied, check, find_activations, graph
from .straighten import straighten

if TYPE_CHECKING:
    from .passes import Measured

PLAIN = BackwardRule("plain")
_FIRST_LOOK = 4  # candidates whose gradient is asked for at first, then four times as many
NO_CANDIDATE = (
    "No layer of this model has positions that could be worked out, so none can be chosen. "
    "Name one with layer=; explainer.layers() lists what ran. (Scripted, traced and exported code shows none: "
    "explain the network as it was before, or use 'saliency'.)"
)
_NO_BACKWARD = {
    "use_reentrant": "The model runs through a reentrant checkpoint, which hides its graph: "
    "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False).",
    "modified by an inplace operation": "The model changes in place what its own backward needs, so it has no "
    "gradient and could not be trained: {}",
    "formula was registered": "The model runs an operation that has no backward: {}",
    "is not implemented": "The model runs an operation that has no backward: {}",
}


def no_gradient(where: str) -> str:
    """The beginning of a sentence that says where no gradient arrives: a layer, or ``""`` for the input."""
    return f"No gradient of the score arrives at {f'layer {where!r}' if where else 'the input'}"


def _in_rows(parts: Sequence[Tensor | None], layer: Captured | None) -> Tensor | None:
    """The gradients of each of the images' targets, put together image by image; None where any is."""
    found = [layer.oriented(part) if layer else part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return found[0] if len(found) == 1 else torch.stack(found, 1).flatten(0, 1)


class Backward:
    """The backward passes over the graph of one forward.

    Args:
        found: what the forward pass gave; gradients are added to it, and the layer that is chosen.
        selected: the targets' scores, in the graph.
    """

    def __init__(self, found: Measured, selected: Selected) -> None:
        self._model, self._request, self._found = found.model, found.request, found
        self._scores, self._source = selected.scores, selected.source

    def run(self) -> None:
        """Choose the layer if need be, then run each rule's backward; the last one frees the graph."""
        request, found = self._request, self._found
        if request.choose and not found.observer.candidates:
            raise LayerError(NO_CANDIDATE)
        self._nodes = list(graph([self._scores]))  # gone through once for all
        refuse_unsound(self._scores, self._nodes)
        straighten(self._nodes)
        if not self._scores.requires_grad and self._source.differentiable:
            raise GradientError(CONSTANT_TARGET)
        if not self._scores.requires_grad:
            raise GradientError(self._explain("The score does not depend on the input"))
        if request.choose:
            chosen = self._choose()
            if chosen is None:
                return
            found.layers = [chosen]
        others = [rule for rule in request.rules if rule != PLAIN]
        layers = found.layers if any(needs.gradient for needs in request.needs) else []
        self._plain(layers, wants_input=PLAIN in request.rules, retain=bool(others))
        for rule in others:
            self._under(rule, retain=rule != others[-1])

    def _plain(self, layers: list[Captured], *, wants_input: bool, retain: bool) -> None:
        missing = [layer for layer in layers if layer.label not in self._found.layer_gradients]
        reachable: list[Captured | None] = [layer for layer in missing if layer.edge]
        gradients = self._grad([*reachable, None] if wants_input else reachable, retain)
        if wants_input:
            self._found.input_gradients[PLAIN] = self._arrived(gradients[-1])
        for layer, gradient in zip(missing, gradients, strict=False):
            self._found.layer_gradients[layer.label] = self._arrived(gradient, layer)

    def _under(self, rule: BackwardRule, *, retain: bool) -> None:
        activations = find_activations(self._nodes, rule)
        if warning := check(activations, rule):
            self._found.warnings.append(warning)
        with applied(rule, activations.treated):
            (gradient,) = self._grad([None], retain)
        if gradient is None:
            raise GradientError(self._explain(no_gradient("")))
        self._found.input_gradients[rule] = gradient

    def _grad(self, layers: Sequence[Captured | None], retain: bool) -> list[Tensor | None]:
        """The gradients at layers (None: the input), by a backward pass for each of an image's targets; a row for each.

        They are ``(rows, C, *grid)``; None where nothing leads there.
        """
        if not layers:
            return []
        edges = [layer.edge if layer else self._found.input for layer in layers]
        each = self._found.scoring.each
        turns = [self._grad_of(turn, edges, retain or turn < each - 1) for turn in range(each)]
        return [_in_rows(parts, layer) for *parts, layer in zip(*turns, layers, strict=True)]

    def _grad_of(self, turn: int, inputs: list[Any], retain: bool) -> Sequence[Tensor | None]:
        which = torch.zeros_like(self._scores)
        which[turn :: self._found.scoring.each] = 1
        try:
            return torch.autograd.grad(self._scores, inputs, which, retain_graph=retain, allow_unused=True)
        except RuntimeError as error:
            known = next((why for part, why in _NO_BACKWARD.items() if part in str(error)), None)
            if known is None:
                raise
            raise GradientError(known.format(error)) from error

    def _arrived(self, gradient: Tensor | None, layer: Captured | None = None) -> Tensor:
        """The gradient at the layer, or at the input; where it is 0 for all images is noted."""
        where = layer.label if layer else ""
        if gradient is None:
            raise GradientError(self._explain(no_gradient(where), layer))
        if not gradient.any():
            self._found.dead.append(where)
        return gradient

    def _explain(self, what: str, layer: Captured | None = None) -> str:
        after = layer.label if layer else None
        return f"{what}: {where_gradient_ends(self._model, self._found.input, after, self._request.inputs)}"

    def _choose(self) -> Captured | None:
        """The last candidate in execution order with a gradient at its positions, asked from the deepest up.

        None where an earlier one is needed, and the graph does not reach back to these, which the observer then knows.
        """
        remaining, look = list(self._found.observer.candidates), _FIRST_LOOK
        second_best, why = None, self._found.why
        while remaining:
            group, remaining, look = remaining[-look:], remaining[:-look], 4 * look
            gradients = self._grad(group, retain=True)
            for layer, gradient in reversed(list(zip(group, gradients, strict=True))):
                why[layer.label] = "no gradient of the score at its positions"
                if gradient is not None and gradient.any():
                    self._found.layer_gradients[layer.label] = gradient
                    why[layer.label] = "the last that the score has a gradient at"
                    if self._is_before_the_answer(gradient):
                        return layer
                    why[layer.label] = "the answer itself"
                    second_best = second_best or layer
        if self._found.observer.restarted:
            self._found.observer.incomplete = True
            return None
        if second_best:
            return second_best
        raise GradientError(self._explain("No gradient of the score arrives at any layer with positions"))

    def _is_before_the_answer(self, gradient: Tensor) -> bool:
        """Whether a layer is not the answer itself: dense scores, or the place where a detection's score is read."""
        if self._source.dense is not None and self._source.kind == "dense":
            return gradient.shape[1] != self._source.dense.shape[1]
        return self._source.kind != "detections" or bool((gradient.any(1).flatten(1).sum(1) > 1).all())
