"""Gradients at the input: saliency, and two changed backward passes through ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..engine.record import Needs, Record
from ..engine.rules import BackwardRule
from .base import Method, as_tuple
from .registry import register


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method that uses gradients of the score.

    Args:
        libra: balance the gradient's flow through attention, layer norms and gates (LibraGrad), for transformers.
    """

    libra: bool = field(default=False, kw_only=True)

    @property
    def rule(self) -> str:
        """The backward rule that its gradients are taken under."""
        return "libra" if self.libra else "plain"


@register("saliency")
@dataclass(frozen=True)
class Saliency(GradientMethod):
    """Saliency: the gradient of the score at the input.

    Simonyan, Vedaldi, Zisserman 2013, "Deep Inside Convolutional Networks", arXiv 1312.6034, section 3.
    `.values` are dS/dx, signed, ``(N, C, H, W)``; `.maps` the largest magnitude over the colours.

    >>> import seewhy, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> explanation = seewhy.Explainer(model).explain(torch.rand(1, 3, 2, 2), "saliency", target=1)
    >>> bool((explanation.values.ravel() == model[1].weight[1].detach().numpy()).all())
    True
    """

    @property
    def needs(self) -> Needs:
        """The input's gradient."""
        return Needs(input_gradient=self.rule)

    def compute(self, record: Record) -> Tensor:
        """dS/dx."""
        return record.input_gradient


@register("input_x_gradient")
@dataclass(frozen=True)
class InputXGradient(GradientMethod):
    """Input times gradient: what each value of the input brings to the score, to first order.

    Shrikumar et al. 2016, "Not Just a Black Box", arXiv 1605.01713, section 2: x · dS/dx. `.values` are
    ``(N, C, H, W)``, signed; in a ReLU network without biases they add up to the score. `.maps` are their sums over the
    colours. It costs a forward and a backward pass. What is 0 as the model takes it gets nothing, whatever it does.

    >>> import seewhy, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    >>> found = seewhy.Explainer(model).explain(torch.rand(1, 3, 2, 2), "input_x_gradient", target=1)
    >>> abs(float(found.values.sum() - found.scores[0])) < 1e-6
    True
    """

    signed = True

    @property
    def needs(self) -> Needs:
        """The input's gradient."""
        return Needs(input_gradient=self.rule)

    def compute(self, record: Record) -> Tensor:
        """The product."""
        return record.input.float() * record.input_gradient.float()

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The sum over the colours, which adds up as the values do."""
        return super().to_maps(values.sum(1), size)


@dataclass(frozen=True)
class _RuledGradient(Method):
    """The gradient at the input under a rule at each ReLU; `also` treats further activations, e.g. ("LeakyReLU",)."""

    also: str | Sequence[str] = ()

    def compute(self, record: Record) -> Tensor:
        """dS/dx under the rule."""
        return record.input_gradient


@register("guided_backprop")
@dataclass(frozen=True)
class GuidedBackprop(_RuledGradient):
    """Guided backpropagation: the gradient at the input, clamped at 0 behind each ReLU.

    Springenberg et al. 2014, "Striving for Simplicity", arXiv 1412.6806, section 3.4. Each ReLU (and ReLU6), however
    it is spelled, passes on its gradient only where that is positive. Sharp, but it hardly depends on the trained
    weights: it fails model-randomisation checks (Adebayo et al. 2018, arXiv 1810.03292), so read it as a picture of
    edges and not as evidence for the class.

    Args:
        also: further activations to treat as if they were ReLU: ``("LeakyReLU",)``, ``("SiLU", "GELU")``, …

    Raises:
        ModelError: the model has no ReLU, or may hide one from the graph.
    """

    @property
    def needs(self) -> Needs:
        """The input's gradient under the guided rule."""
        return Needs(input_gradient=BackwardRule("guided", as_tuple(self.also)))


@register("deconvnet")
@dataclass(frozen=True)
class DeconvNet(_RuledGradient):
    """DeconvNet: the gradient at the input, each ReLU's backward replaced by the clamped incoming gradient.

    Zeiler, Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901, section 2.1. Like
    guided backpropagation it hardly depends on the trained weights (Adebayo et al. 2018).

    Args:
        also: further activations to treat as if they were ReLU.

    Raises:
        ModelError: the model has no ReLU, or may hide one from the graph.
    """

    @property
    def needs(self) -> Needs:
        """The input's gradient under the deconvnet rule."""
        return Needs(input_gradient=BackwardRule("deconvnet", as_tuple(self.also)))
