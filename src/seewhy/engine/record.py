"""What a method declares that it needs of the passes, and the record of them that it gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import MethodError
from .rules import PLAIN, BackwardRule
from .speed import Speed

if TYPE_CHECKING:
    from .evaluations import Evaluations

Objective: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
Rule: TypeAlias = "str | BackwardRule"


@dataclass(frozen=True)
class Way:
    """What a backward pass differentiates (None: the target's score), and under which rule."""

    rule: BackwardRule = PLAIN
    objective: Objective | None = None


@dataclass(frozen=True)
class Needs:
    """What a method needs of the passes. The engine unites the needs of all methods asked and runs the fewest passes.

    Args:
        activation: the output of the layer.
        gradient: the gradient of the target's score at the output of the layer; True, or under a backward rule.
        input_gradient: the gradient at the model's input, under a backward rule: ``"plain"``, ``"guided"``,
            ``"deconvnet"``, ``"libra"`` or a `BackwardRule`.
        head: the pooled activation and the linear layer after it (for CAM); the layer is then found, not chosen.
        evaluations: the model itself, to be asked again about changed images or activations; True, or a `Speed`.
        objective: what is differentiated in the place of the target's score: a function of the class scores ``(n, K)``
            and the targets' classes ``(n,)`` that gives ``(n,)``. Equal ones (of a frozen dataclass) share a pass.
        curvature: the Hessian at the layer times the layer's output.
        biases: the gradients at all layers that add a bias; True, or under a backward rule.
        attention: the attention of transformers: ``"weights"``; ``"gradients"``, with those at them; or
            ``"formation"``, with the gradients of each block's own score.
    """

    activation: bool = False
    gradient: bool | Rule = False
    input_gradient: Rule | None = None
    head: bool = False
    evaluations: bool | Speed = False
    objective: Objective | None = None
    curvature: bool = False
    biases: bool | Rule = False
    attention: Literal["weights", "gradients", "formation"] | None = None

    @property
    def layer(self) -> bool:
        """Whether something is needed at a layer that the user may name."""
        return self.activation or bool(self.gradient) or self.curvature

    @property
    def score(self) -> bool:
        """Whether the target's score is needed at all."""
        return bool(self.head or self.evaluations or self.ways)

    @property
    def at_layer(self) -> Way | None:
        """The backward pass that gives the gradient at the layer; None where none is needed."""
        return self._way(self.gradient)

    @property
    def at_input(self) -> Way | None:
        """The backward pass that gives the gradient at the input."""
        return self._way(self.input_gradient)

    @property
    def at_biases(self) -> Way | None:
        """The backward pass that gives the gradients at biases."""
        return self._way(self.biases)

    @property
    def at_attention(self) -> Way | None:
        """The backward pass that gives the gradients at attention."""
        return self._way(bool(self.attention))

    @property
    def curved(self) -> Way | None:
        """The backward pass that is differentiated again for the curvature."""
        return self._way(self.curvature)

    @property
    def plain_attention(self) -> bool:
        """Whether the graph must show attention as plain mathematics, or be differentiated twice."""
        return bool(self.attention or self.curvature) or any(way.rule.plain_attention for way in self.ways)

    @property
    def ways(self) -> list[Way]:
        """All backward passes that are needed."""
        ways = [self.at_layer, self.at_input, self.at_biases, self.at_attention, self.curved]
        return [way for way in ways if way]

    def _way(self, given: bool | Rule | None) -> Way | None:
        if given is None or given is False:
            return None
        return Way(BackwardRule(given) if isinstance(given, str) else PLAIN if given is True else given, self.objective)


@dataclass(frozen=True)
class Head:
    """A linear layer that reads the mean of an activation over its positions: where CAM is defined.

    Attributes:
        layer: the name of the last module before the pooling; with ``+relu`` where a functional ReLU follows it.
        activation: what is pooled, ``(n, C, h, w)``.
        weight: ``(K, C)``, `bias`: ``(K,)``, of the linear layer.
    """

    layer: str
    activation: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Bias:
    """What a layer adds, and the gradient there.

    Attributes:
        layer: its name; with ``#n`` where it runs several times.
        gradient: of the score at the layer's output, ``(n, C, h, w)`` where that has positions, else ``(n, C)``.
        bias: ``(C,)``; of a batch norm what it adds in all, beta − gamma · mean / deviation.
        share: of the bias in the score, ``(n,)`` float64: bias times gradient, summed over all that the layer gives.
    """

    layer: str
    gradient: Tensor
    bias: Tensor
    share: Tensor


@dataclass(frozen=True)
class Attention:
    """The attention between the tokens of images, block by block in the order in which they ran.

    Attributes:
        weights: of each block ``(n, heads, q, k)``, what each of q tokens takes from each of k; rows add up to 1.
        gradients: at the weights, of the same shapes; empty unless declared.
        grid: the positions of the images' tokens.
        prefix: how many tokens come before them (class, distillation, registers).
        readout: ``(n, q)``, which tokens of the last block the score reads: 1 at the class token if it reads that, else
            the share of each.
        others: how many attentions there are besides, between other tokens, as within windows.
        parallel: how many of the blocks do not depend on the one before, but run beside it.
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    grid: tuple[int, ...]
    prefix: int
    readout: Tensor
    others: int = 0
    parallel: int = 0

    def on_grid(self, tokens: Tensor) -> Tensor:
        """A number for each token ``(n, ..., k)``, at the positions of the grid ``(n, ..., *grid)``."""
        return torch.unflatten(tokens[..., self.prefix : self.prefix + math.prod(self.grid)], -1, self.grid)


class Record:
    """What the passes over a chunk of n images gave, as far as the method declared it in its `needs`.

    Attributes:
        input: the model's input, ``(n, C, H, W)``.
        outputs: the scores of all K classes, ``(n, K)``; only where the target is computed from these.
        scores: the target's score S, ``(n,)``.
        input_gradient: dS/d input under the declared rule, ``(n, C, H, W)``.
        biases: `Bias` of all layers that add one.
        attention: `Attention`.
        head: where CAM is defined, a `Head`.
        output_gradient: dS/d outputs, ``(n, K)``; with `head`.
        evaluations: `Evaluations`, to ask the model again.
        to_input: a function of pictures in 0..1 and the model's input in whose place they come, both ``(n, C, H, W)``:
            what the model would get for them, by the colours that its transform gives.
        measures: numbers ``(n,)`` that the method wants to be found in the explanation's ``measures``, by name.
        warnings: what the method wants its users to be told.

    Tensors are shared by all methods: read them, never change them in place.
    """

    input: Tensor
    outputs: Tensor
    scores: Tensor
    input_gradient: Tensor
    biases: list[Bias]
    attention: Attention
    head: Head
    output_gradient: Tensor
    evaluations: Evaluations
    to_input: Callable[[Tensor, Tensor], Tensor]
    measures: dict[str, Tensor]
    warnings: list[str]

    def __init__(self, **measured: Any) -> None:
        self.__dict__.update(measures={}, warnings=[])
        self.__dict__.update({name: value for name, value in measured.items() if value is not None})

    def __getattr__(self, name: str) -> Any:
        declared = ", ".join(sorted(self.__dict__.keys() - {"measures", "warnings", "to_input"}))
        if name == "outputs" and "scores" in self.__dict__:
            raise MethodError("The record has no 'outputs': the target is not computed from scores of classes (N, K).")
        raise MethodError(f"The record has no {name!r}: declare it in the method's needs. It has: {declared}.")

    def versions(self) -> dict[str, int]:
        """How often each tensor was changed in place, to notice a method that does so."""
        return {name: value._version for name, value in self.__dict__.items() if isinstance(value, Tensor)}


class LayerRecord(Record):
    """A `Record` with what was measured at one layer.

    Attributes:
        layer: the layer's name.
        activation: the layer's output A, ``(n, C, h, w)`` whatever the model's own layout; ``(n, C)`` where the layer
            has no positions.
        gradient: dS/dA under the declared rule, of the same shape.
        curvature: the Hessian of S at A, times A, of the same shape.
        sides: the input's sides with the padding that the model adds: what the layer's grid covers.
    """

    layer: str
    sides: tuple[int, ...]
    activation: Tensor
    gradient: Tensor
    curvature: Tensor
