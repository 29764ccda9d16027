"""What a method declares that it needs of the passes, and the record of them that it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import MethodError
from .rules import BackwardRule
from .speed import Speed

if TYPE_CHECKING:
    from .evaluations import Evaluations


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
    """

    activation: bool = False
    gradient: bool | str | BackwardRule = False
    input_gradient: str | BackwardRule | None = None
    head: bool = False
    evaluations: bool | Speed = False

    @property
    def layer(self) -> bool:
        """Whether something is needed at a layer that the user may name."""
        return self.activation or self.gradient

    @property
    def rule(self) -> BackwardRule | None:
        """The backward rule of the input gradient; None where no input gradient is needed."""
        if isinstance(self.input_gradient, str):
            return BackwardRule(self.input_gradient)
        return self.input_gradient

    @property
    def score(self) -> bool:
        """Whether the target's score is needed at all."""
        return self.gradient or self.head or bool(self.evaluations) or self.input_gradient is not None


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


class Record:
    """What the passes over a chunk of n images gave, as far as the method declared it in its `needs`.

    Attributes:
        input: the model's input, ``(n, C, H, W)``.
        outputs: the scores of all K classes, ``(n, K)``; only where the target is computed from these.
        scores: the target's score S, ``(n,)``.
        input_gradient: dS/d input under the declared rule, ``(n, C, H, W)``.
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
        gradient: dS/dA, of the same shape.
        sides: the input's sides with the padding that the model adds: what the layer's grid covers.
    """

    layer: str
    sides: tuple[int, ...]
    activation: Tensor
    gradient: Tensor
