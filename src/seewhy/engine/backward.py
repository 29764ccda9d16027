"""The backward passes over the graph of one forward: one for each backward rule and each of an image's targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ..errors import GradientError, LayerError, TargetError
from ..scoring import CONSTANT_TARGET, Selected
from ..targets import Class
from .attention import Block, find_attention
from .capture import Captured
from .diagnose import refuse_unsound, where_gradient_ends
from .record import Objective, Way
from .rules import BackwardRule, applied, graph, ruled
from .straighten import straighten

if TYPE_CHECKING:
    from .passes import Measured

Place: TypeAlias = "Captured | Block | GradientEdge | None"  # where a gradient is wanted; None: at the input
INPUT, BIAS, ATTENTION = "", "bias ", "attention "  # what the gradients there are called, the latter two with a number
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


def _grad_of(
    scores: Tensor, inputs: list[Any], retain: bool, turn: int, each: int, *, again: bool = False
) -> Sequence[Tensor | None]:
    """The gradients of every `each`-th score from the `turn`-th; with a graph of their own to be taken `again`."""
    which = torch.zeros_like(scores)
    which[turn::each] = 1
    try:
        return torch.autograd.grad(scores, inputs, which, retain_graph=retain, allow_unused=True, create_graph=again)
    except RuntimeError as error:
        known = next((why for part, why in _NO_BACKWARD.items() if part in str(error)), None)
        if known is None:
            raise
        raise GradientError(known.format(error)) from error


def _in_rows(parts: Sequence[Tensor | None], place: Place) -> Tensor | None:
    """The gradients of each of the images' targets, put together image by image; None where any is."""
    known = place if isinstance(place, Captured | Block) else None
    found = [known.oriented(part) if known else part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return found[0] if len(found) == 1 else torch.stack(found, 1).flatten(0, 1)


def _as_returned(layer: Captured) -> Captured:
    """The layer with its gradient where what it returned is read."""
    return replace(layer, edge=layer.returned) if layer.returned else layer


class Backward:
    """The backward passes over the graph of one forward.

    Args:
        found: what the forward pass gave; gradients are added to it, and the layer that is chosen.
        selected: the targets' scores, in the graph.
    """

    def __init__(self, found: Measured, selected: Selected) -> None:
        self._model, self._request, self._found = found.model, found.request, found
        self._selected, self._scores, self._source = selected, selected.scores, selected.source

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
        ways = request.ways
        if any(needs.attention for needs in request.needs):
            self._look_at_attention()
        for way in ways:
            self._run(way, last=way == ways[-1])

    def _look_at_attention(self) -> None:
        found, each, memory = self._found, self._found.scoring.each, self._request.memory

        def pull(edge: GradientEdge, image: int) -> Tensor | None:
            return _grad_of(self._scores, [edge], True, image * each, len(self._scores))[0]

        found.attention = find_attention(self._nodes, found.observer, len(found.input), pull, memory)
        if any(needs.attention == "formation" for needs in self._request.needs):
            from .formation import formation  # which runs the rest of models, and so passes

            found.formed = formation(found, self._selected)

    def _run(self, way: Way, *, last: bool) -> None:
        """The backward pass of one way."""
        found, scores = self._found, self._of(way.objective)
        for layer in self._curved(way):
            found.curvatures[way, layer.label] = self._curvature(layer, scores)
        places = self._places(way)
        hooks, warning = ruled(way.rule, self._nodes)
        if warning:
            found.warnings.append(warning)
        with applied(hooks):
            gradients = self._grad([*places.values()], retain=not last, scores=scores)
        for (name, place), gradient in zip(places.items(), gradients, strict=True):
            found.gradients[way, name] = self._arrived(gradient, name, place, way.rule)

    def _places(self, way: Way) -> dict[str, Place]:
        """Where the gradients of a way are wanted, by name: at layers, the input, biases, attention."""
        found, needs = self._found, self._request.needs
        places: dict[str, Place] = {}
        if any(need.at_layer == way for need in needs):
            missing = [layer for layer in found.layers if (way, layer.label) not in found.gradients]
            places |= {layer.label: layer for layer in missing if layer.edge}
        if any(need.at_input == way for need in needs):
            places[INPUT] = None
        if any(need.at_biases == way for need in needs):
            places |= {f"{BIAS}{index}": adding.edge for index, adding in enumerate(found.observer.adding)}
        if found.attention and any(need.at_attention == way for need in needs):
            every = any(need.attention == "gradients" and need.at_attention == way for need in needs)
            blocks = dict(enumerate(found.attention.blocks))
            last = len(blocks) - 1
            places |= {f"{ATTENTION}{index}": blocks[index] for index in (blocks if every else [last])}
        return places

    def _curved(self, way: Way) -> list[Captured]:
        """The layers whose curvature is wanted of a way."""
        wanted = any(needs.curvature and needs.curved == way for needs in self._request.needs)
        return [layer for layer in self._found.layers if layer.edge] if wanted else []

    def _of(self, objective: Objective | None) -> Tensor:
        """What is differentiated: the targets' scores, or something else instead."""
        if objective is None:
            return self._scores
        if self._selected.outputs is None or any(type(target) is not Class for target in self._found.scoring.targets):
            raise TargetError("This method compares the scores of classes, so its target must be a class, of a model "
                              "that gives class scores (N, K). 'grad_cam' explains any target.")  # fmt: skip
        outputs = self._selected.outputs.repeat_interleave(self._found.scoring.each, 0)
        return objective(outputs, self._selected.classes)

    def _grad(self, places: Sequence[Place], retain: bool, scores: Tensor | None = None) -> list[Tensor | None]:
        """The gradients at places, by a backward pass for each of an image's targets; a row for each.

        They are ``(rows, C, *grid)`` at layers; None where nothing leads there.
        """
        if not places:
            return []
        edges = [self._edge(place) for place in places]
        each = self._found.scoring.each
        scores = self._scores if scores is None else scores
        turns = [_grad_of(scores, edges, retain or turn < each - 1, turn, each) for turn in range(each)]
        return [_in_rows(parts, place) for *parts, place in zip(*turns, places, strict=True)]

    def _edge(self, place: Place) -> Any:
        return self._found.input if place is None else place.edge if isinstance(place, Captured | Block) else place

    def _curvature(self, layer: Captured, scores: Tensor) -> Tensor:
        """The Hessian of the scores at a layer, times what the layer gave."""
        each = self._found.scoring.each
        parts: list[Tensor | None] = []
        for turn in range(each):
            edges: list[Any] = [layer.edge]
            (gradient,) = _grad_of(scores, edges, True, turn, each, again=True)
            curved: Tensor | None = None
            if gradient is not None and gradient.requires_grad:  # else the score is linear in what the layer gave
                (curved,) = torch.autograd.grad(gradient, edges, layer.raw, retain_graph=True, allow_unused=True)
            parts.append(torch.zeros_like(layer.raw) if curved is None else curved)
        found = _in_rows(parts, layer)
        assert found is not None
        return found

    def _arrived(self, gradient: Tensor | None, name: str, place: Place, rule: BackwardRule) -> Tensor:
        """The gradient at a place; where it is 0 for all images, at layers and the input, is noted."""
        if gradient is None and name.startswith(BIAS):  # of a part that the score does not read
            return torch.zeros(0)
        where = "the attention of a block" if name.startswith(ATTENTION) else name
        if gradient is None:
            raise GradientError(self._explain(no_gradient(where), place if isinstance(place, Captured) else None))
        clamped = rule.name in ("guided", "deconvnet")  # whose results may well be 0
        if not clamped and not name.startswith((BIAS, ATTENTION)) and not gradient.any():
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
            gradients = self._grad([_as_returned(layer) for layer in group], retain=True)
            for layer, gradient in reversed(list(zip(group, gradients, strict=True))):
                why[layer.label] = "no gradient of the score at its positions"
                if gradient is not None and gradient.any():
                    if layer.returned is None:
                        self._found.gradients[Way(), layer.label] = gradient
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
