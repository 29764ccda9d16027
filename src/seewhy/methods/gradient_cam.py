"""Class activation maps from the gradient at a layer: Grad-CAM and what came after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..engine.record import LayerRecord, Needs
from ..engine.rules import BackwardRule
from ..errors import InputError, TargetError
from .base import as_tuple, cut, upsample, weighted_sum
from .baselines import check_seed, numbered
from .fusing import Fusing
from .gradient import GradientMethod
from .registry import register

_NO_SUM = 1e-5  # of a channel's magnitudes, up to which its sum is rounding
_POLE = (
    "{} divides by 2 + gradient × sum of the channel, which is not above 0 somewhere: the paper takes channels that "
    "are at least 0, as after a ReLU. The map may be upside down: name such a layer with layer=, or use 'grad_cam'."
)


@dataclass(frozen=True)
class GradientCAM(Fusing, GradientMethod):
    """A map of a layer's grid from the layer's output and the gradient there."""

    @property
    def needs(self) -> Needs:
        """The activation and its gradient."""
        return Needs(activation=True, gradient=self.rule)


@register("grad_cam")
@dataclass(frozen=True)
class GradCAM(GradientCAM):
    """Grad-CAM: a layer's channels weighted by their mean gradient, where that argues for the target.

    Selvaraju et al. 2016, "Grad-CAM", arXiv 1610.02391, eq. 1-2: ReLU(sum over k of mean(dS/dA_k) A_k).
    `.values` are ``(N, h, w)``, at least 0, of the layer's grid; `.maps` bilinear at the input's size.
    """

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 2."""
        weights = record.gradient.flatten(2).mean(2)
        return torch.einsum("nc,nc...->n...", weights, record.activation).relu()


@register("guided_grad_cam")
@dataclass(frozen=True)
class GuidedGradCAM(GradientMethod):
    """Guided Grad-CAM: guided backpropagation times Grad-CAM at the input's size.

    Selvaraju et al. 2016, arXiv 1610.02391, section 3.2. `.values` are ``(N, C, H, W)``, signed; `.maps` the largest
    magnitude over the colours. Its detail comes from guided backpropagation, which fails model-randomisation checks
    (Adebayo et al. 2018); its place from Grad-CAM, which does not. `libra` is for the gradient of Grad-CAM alone.

    Args:
        also: further activations to treat as if they were ReLU.
    """

    also: str | Sequence[str] = ()

    @property
    def needs(self) -> Needs:
        """Those of Grad-CAM, and the input's gradient under the guided rule."""
        return Needs(activation=True, gradient=self.rule, input_gradient=BackwardRule("guided", as_tuple(self.also)))

    def compute(self, record: LayerRecord) -> Tensor:
        """The product, colour by colour."""
        heat = upsample(GradCAM().compute(record), record.sides)
        return record.input_gradient * cut(heat, record.input.shape[2:])[:, None]


def _product(record: LayerRecord) -> Tensor:
    """Gradient times activation, ``(n, C, *sides)`` float64."""
    return record.gradient.double() * record.activation.double()


@register("xgrad_cam")
@dataclass(frozen=True)
class XGradCAM(GradientCAM):
    """XGrad-CAM: Grad-CAM with the gradient averaged where the channel is active.

    Fu et al. 2020, "Axiom-based Grad-CAM", arXiv 2008.02312, section 3: ReLU(sum over k of w_k A_k), where w_k is the
    mean of dS/dA_k over the positions, each as important as A_k is there: sum of dS/dA_k A_k / sum of A_k. A channel
    that adds up to 0 has no such mean, and weighs nothing; so does one whose sum is up to 1e-5 of that of its
    magnitudes (in half precision, its precision), which is rounding: as all channels after an instance norm. `.values`
    are ``(N, h, w)``, at least 0, as in the authors' code; before the ReLU they add up to what gradient × activation
    does. It costs what Grad-CAM does.
    """

    def compute(self, record: LayerRecord) -> Tensor:
        """The weighted sum."""
        activation = record.activation.double().flatten(2)
        total, magnitude = activation.sum(2), activation.abs().sum(2)
        rounding = max(_NO_SUM, torch.finfo(record.activation.dtype).eps) * magnitude
        weights = _product(record).flatten(2).sum(2) / torch.where(total.abs() > rounding, total, torch.inf)
        return weighted_sum(weights, record.activation)


@register("hires_cam")
@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    """HiResCAM: gradient times activation, summed over the channels.

    Draelos, Carin 2020, "Use HiResCAM instead of Grad-CAM", arXiv 2011.08891: sum over k of dS/dA_k A_k, position
    by position. `.values` are ``(N, h, w)``, signed: where nothing but linear layers and means come after the layer,
    they add up to the score less its bias, so each says what its position brought. It costs what Grad-CAM does.

    >>> import seewhy, torch
    >>> model = seewhy.testing.small_cnn()
    >>> image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> found = seewhy.Explainer(model).explain(image, "hires_cam", target=1, layer="body+relu")
    >>> bool(abs(found.values.sum() + float(model.head.bias[1]) - found.scores[0]) < 1e-5)
    True
    """

    signed = True

    def compute(self, record: LayerRecord) -> Tensor:
        """The sum of the products."""
        return _product(record).sum(1)


@register("layer_cam")
@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    """LayerCAM: a layer's channels weighted by their gradient at each position, where that is above 0.

    Jiang et al. 2021, "LayerCAM", IEEE Transactions on Image Processing 30, eq. 6-8: ReLU(sum over k of
    ReLU(dS/dA_k) A_k). Fit for early layers too, whose finer maps the paper fuses with those of later ones:
    ``layer=["layer3", "layer4"], fuse="layercam"``. `.values` are ``(N, h, w)``, at least 0. It costs what Grad-CAM
    does.
    """

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 8."""
        return (record.gradient.double().relu() * record.activation.double()).sum(1).relu()


@register("element_wise_grad_cam")
@dataclass(frozen=True)
class ElementWiseGradCAM(GradientCAM):
    """Element-wise Grad-CAM: gradient times activation where that is above 0, summed over the channels.

    From pytorch-grad-cam, which has no paper for it: sum over k of ReLU(dS/dA_k A_k). After a ReLU it is LayerCAM; else
    a negative activation with a negative gradient counts too. `.values` are ``(N, h, w)``, at least 0. It costs what
    Grad-CAM does.
    """

    def compute(self, record: LayerRecord) -> Tensor:
        """The sum of the positive products."""
        return _product(record).relu().sum(1)


@register("grad_cam_pp")
@dataclass(frozen=True)
class GradCAMPlusPlus(GradientCAM):
    """Grad-CAM++: a layer's channels weighted by their positive gradients, those at fewer positions by more.

    Chattopadhay et al. 2018, "Grad-CAM++", arXiv 1710.11063, eq. 5 and 19: ReLU(sum over k of w_k A_k), with w_k the
    sum over positions of alpha ReLU(g), g = dS/dA_k, and alpha = g² / (2 g² + g³ sum of A_k); 0 where g is 0. The paper
    explains exp(S), which as a factor of all weights is left out here. The map depends on the logits' scale: the same
    network with a temperature has another one. Made for layers after a ReLU; where channels add up to so little that
    alpha is below 0, a warning says so. `.values` are ``(N, h, w)``, at least 0. It costs what Grad-CAM does.
    """

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 5."""
        g = record.gradient.double()
        weights, told = _plus_plus(g, g**2, g**3, record.activation)
        if told:
            record.warnings.append(_POLE.format("Grad-CAM++"))
        return weighted_sum(weights, record.activation)


def _plus_plus(g: Tensor, g2: Tensor, g3: Tensor, activation: Tensor) -> tuple[Tensor, bool]:
    """The weights of eq. 5 and 19 for a gradient and its powers, and whether some alpha that counts is below 0."""
    total = activation.double().flatten(2).sum(2).view(*g.shape[:2], *(1 for _ in g.shape[2:]))
    denominator = 2 * g2 + g3 * total
    alpha = g2 / torch.where(denominator != 0, denominator, torch.inf)
    return (alpha * g.relu()).flatten(2).sum(2), bool(((g > 0) & (g2 > 0) & (denominator <= 0)).any())


@register("smooth_grad_cam_pp")
@dataclass(frozen=True)
class SmoothGradCAMPlusPlus(GradientCAM):
    """Smooth Grad-CAM++: Grad-CAM++ with the gradient's powers averaged over copies of the image with noise.

    Omeiza et al. 2019, "Smooth Grad-CAM++", arXiv 1908.01224: the mean over `samples` of g, g² and g³ for
    x + N(0, s²), s being `noise` times the range of the image's values as the model takes it, in the place of those of
    the image; the activation is the image's own. The numerator of alpha is the mean of g², as in Grad-CAM++; the paper
    prints g there, which would not be Grad-CAM++ without noise. `.values` are ``(N, h, w)``, at least 0. It costs a
    forward and a backward pass for each sample, and a forward.

    Args:
        samples: how many copies.
        noise: the noise's standard deviation as a share of the image's range.
        seed: of the noise, which is the same for all images.

    Raises:
        InputError: `noise` is not above 0, or another option is no number that fits.
    """

    samples: int = 50
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.samples, "samples")
        check_seed(self.seed)
        if not (isinstance(self.noise, Real) and 0 < self.noise < float("inf")):
            raise InputError(f"noise is a share of the image's range, a number above 0, not {self.noise!r}.")

    @property
    def needs(self) -> Needs:
        """The activation, and to ask the model again."""
        return Needs(activation=True, evaluations=True)

    def compute(self, record: LayerRecord) -> Tensor:
        """Eq. 5 of Grad-CAM++, for the means."""
        x, a = record.input, record.activation
        spread = self.noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, *(1 for _ in x.shape[1:]))

        def with_noise(rows: Tensor, numbers: Tensor) -> Tensor:
            draws = torch.stack([self._draw(int(number), x) for number in numbers])
            return x[rows] + spread[rows] * draws.to(x)

        g, g2, g3 = powers = [torch.zeros_like(a, dtype=torch.float64) for _ in range(3)]
        for rows, _, passed in record.evaluations.records(with_noise, self.samples, Needs(gradient=self.rule)):
            for power, mean in enumerate(powers, 1):
                mean.index_add_(0, rows, passed.gradient.double() ** power / self.samples)
        weights, told = _plus_plus(g, g2, g3, a)
        if told:
            record.warnings.append(_POLE.format("Smooth Grad-CAM++"))
        return weighted_sum(weights, a)

    def _draw(self, number: int, x: Tensor) -> Tensor:
        """The noise of one sample, which depends on nothing but its number and the seed."""
        return torch.randn(x.shape[1:], generator=numbered(self.seed, number))


@dataclass(frozen=True)
class ReST:
    """The score and the logarithm of its probability, S_c + log softmax(S)_c: the utility of ShapleyCAM."""

    def __call__(self, scores: Tensor, classes: Tensor) -> Tensor:
        """``(n,)`` of scores ``(n, K)`` and classes ``(n,)``."""
        which = classes[:, None]
        return (scores.gather(1, which) + F.log_softmax(scores, 1).gather(1, which))[:, 0]


@register("shapley_cam")
@dataclass(frozen=True)
class ShapleyCAM(Fusing):
    """ShapleyCAM: Grad-CAM with the gradient between the layer and nothing, by its Hessian.

    Cai 2025, "CAMs as Shapley Value-based Explainers", arXiv 2501.06261: ReLU(sum over k of w_k A_k), with w_k the mean
    over positions of dU/dA_k - (H A)_k / 2, H being the Hessian of U at A: the Shapley values of a quadratic U, spread
    over a channel as Grad-CAM spreads its gradient. U is the paper's ReST, S_c + log softmax(S)_c. In a network with
    nothing but ReLU and linear layers after the layer, only that softmax bends. `.values` are ``(N, h, w)``, at least
    0. It costs what Grad-CAM does, and two backward passes more.

    Raises:
        TargetError: the target is not a class.
    """

    needs = Needs(activation=True, gradient=True, curvature=True, objective=ReST())

    def compute(self, record: LayerRecord) -> Tensor:
        """The weighted sum."""
        weights = (record.gradient.double() - record.curvature.double() / 2).flatten(2).mean(2)
        return weighted_sum(weights, record.activation)


@dataclass(frozen=True)
class Finer:
    """The score, less `weight` times the mean of the `classes` scores that are closest to it."""

    weight: float
    classes: int

    def __call__(self, scores: Tensor, classes: Tensor) -> Tensor:
        """``(n,)`` of scores ``(n, K)`` and classes ``(n,)``."""
        count, which = scores.shape[1] - 1, classes[:, None]
        if count < 1:
            raise TargetError(
                "Finer-CAM compares a class with similar ones, and the model has a single score. Use 'grad_cam'."
            )
        own = scores.gather(1, which)
        away = (scores - own).detach().abs().scatter(1, which, torch.inf)
        similar = away.topk(min(self.classes, count), dim=1, largest=False).indices
        return own[:, 0] - self.weight * scores.gather(1, similar).mean(1)


@register("finer_cam")
@dataclass(frozen=True)
class FinerCAM(GradientCAM):
    """Finer-CAM: Grad-CAM of what tells a class from those most like it.

    Zhang et al. 2025, "Finer-CAM", arXiv 2501.11309: Grad-CAM of S_c - `weight` × mean of S_d, over the `classes`
    classes d whose scores are closest to that of the class c. `.values` are ``(N, h, w)``, at least 0. It costs what
    Grad-CAM does, with a backward pass of its own.

    Args:
        weight: how much of the similar classes is taken off, at least 0; 0 is Grad-CAM.
        classes: how many similar ones; all others where there are not so many.

    Raises:
        InputError: `weight` is below 0 or no number, or `classes` is no whole number of at least 1.
        TargetError: the target is not a class, or there is no other.
    """

    weight: float = 0.6
    classes: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.classes, "classes")
        if isinstance(self.weight, bool) or not (isinstance(self.weight, Real) and 0 <= self.weight < float("inf")):
            raise InputError(
                f"weight is how much of similar classes is taken off, a number of at least 0, not {self.weight!r}."
            )

    @property
    def needs(self) -> Needs:
        """The activation, and the gradient of the difference."""
        return Needs(activation=True, gradient=self.rule, objective=Finer(self.weight, self.classes))

    def compute(self, record: LayerRecord) -> Tensor:
        """Grad-CAM."""
        return weighted_sum(record.gradient.flatten(2).mean(2), record.activation)
