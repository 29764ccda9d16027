"""LIME and KernelSHAP: the image with some of its superpixels hidden, and what each of them adds to the score."""

from __future__ import annotations

import importlib
import random
from dataclasses import dataclass
from math import comb, sqrt
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError, InputTypeError, MissingDependencyError
from .base import missed
from .baselines import Baseline, check_baseline, generator, make_baseline
from .registry import register
from .repeating import Perturbing

Segments: TypeAlias = "int | Tensor | NDArray[Any]"


@dataclass(frozen=True)
class Segmenting(Perturbing):
    """A method that asks for the scores of images of which some superpixels are hidden, and weighs each of these.

    Args:
        segments: about how many superpixels SLICO cuts each image into (Achanta 2012); or an array ``(H, W)`` of whole
            numbers that says of each pixel of the model's input which segment it is in.
        samples: forward passes at most.
        baseline: what hides: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour), ``"blur"``,
            ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of what is left visible, the same for images of as many segments, and of the noise.
    """

    segments: Segments = 50
    samples: int = 1000
    baseline: Baseline = "mean"
    seed: int = 0
    signed = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.samples, "samples")
        check_baseline(self.baseline, self.seed)
        if not isinstance(self.segments, Tensor | np.ndarray):
            whole(self.segments, "segments")
        elif np.asarray(self.segments).dtype.kind not in "iub":
            raise InputTypeError(f"segments are {self.segments.dtype}; expected whole numbers (H, W), the segment of "
                                 "each pixel, or about how many segments to make.")  # fmt: skip

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """The weight of the segment that each pixel is in."""
        x, hidden = record.input, make_baseline(self.baseline, record, self.seed)
        labels = self._labels(x)
        counts = [int(each.max()) + 1 for each in labels]
        draws = {count: self.draw(count) for count in sorted(set(counts))}
        kept = torch.zeros(len(draws), self.samples, max(counts), dtype=torch.bool)
        asked = torch.zeros(len(draws), self.samples, dtype=torch.bool)
        for which, (count, drawn) in enumerate(draws.items()):
            kept[which, : len(drawn), :count] = drawn
            asked[which, : len(drawn)] = True
        kinds = torch.tensor([list(draws).index(count) for count in counts])
        kept, kind_of = kept.to(x.device), kinds.to(x.device)

        def leave(rows: Tensor, numbers: Tensor) -> Tensor:
            visible = kept[kind_of[rows], numbers].gather(1, labels[rows].flatten(1)).view_as(labels[rows])
            return torch.where(visible[:, None], x[rows], hidden[rows])

        scores = record.evaluations.scores(leave, self.samples, asked[kinds])
        scores = torch.cat([record.scores.double()[:, None], scores], 1).cpu()
        values = torch.zeros(len(x), max(counts), dtype=torch.float64)
        for row, count in enumerate(counts):
            shown = torch.cat([torch.ones(1, count, dtype=torch.bool), draws[count]]).numpy()
            values[row, :count] = torch.from_numpy(self.weigh(shown, scores[row, : len(shown)].numpy()))
        self.measure(record, values, scores)
        return values.to(x.device).gather(1, labels.flatten(1)).view_as(labels).float()

    def draw(self, count: int) -> Tensor:
        """Which of `count` segments are left visible in each sample, bool ``(b, count)``, of at most `samples`."""
        raise NotImplementedError

    def weigh(self, shown: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weight of each segment from the scores of the image, which comes first, and of all samples."""
        raise NotImplementedError

    def measure(self, record: Record, values: Tensor, scores: Tensor) -> None:
        """Whatever is to be known of the segments' values ``(n, s)`` beside the scores of the image and all samples."""

    def _labels(self, x: Tensor) -> Tensor:
        """The segment of each pixel, from 0, int64 ``(n, *sides)``."""
        if not isinstance(self.segments, Tensor | np.ndarray):
            pixels = x.detach().movedim(1, -1).float().cpu().numpy()
            return torch.stack([_numbered(_slic(image, self.segments)) for image in pixels]).to(x.device)
        given = np.asarray(self.segments.cpu() if isinstance(self.segments, Tensor) else self.segments)
        if given.shape != tuple(x.shape[2:]):
            raise InputError(f"segments are of shape {given.shape}; expected {tuple(x.shape[2:])}, a whole number for "
                             "each pixel of the model's input.")  # fmt: skip
        return _numbered(given).to(x.device).expand(len(x), *given.shape)


@register("lime")
@dataclass(frozen=True)
class Lime(Segmenting):
    """LIME: the weights of a linear model of the score in which superpixels are visible.

    Ribeiro, Singh, Guestrin 2016, "Why Should I Trust You?", arXiv 1602.04938, eq. 1: weighted least squares over
    images of which each superpixel is left visible with a chance of one half, the weight of an image being
    exp(−D² / `width`²), D one minus the cosine between what is visible of it and of the whole image (section 3.3).
    As in the authors' code a ridge keeps the weights small, in place of the paper's choice of a few by the lasso. For S
    the paper has probabilities: ``target=seewhy.Probability()``. `.values` are ``(N, H, W)``, at each pixel the weight
    of its superpixel: positive where showing it raises the score. It costs a forward pass for each sample.

    Args:
        segments: about how many superpixels SLICO cuts each image into (Achanta 2012); or an array ``(H, W)`` of whole
            numbers, the segment of each pixel of the model's input.
        samples: how many images besides the whole one.
        baseline: what hides: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour), ``"blur"``,
            ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of what is left visible, and of the noise.
        width: of the kernel. The default weighs as the authors' code does, whose 0.25 is in exp(−D² / (2 · 0.25²)).
        ridge: how strongly large weights are held down.

    Raises:
        InputError: an option is no number that fits, or the array is of another shape.
        InputTypeError: the array has no whole numbers.
        MissingDependencyError: scikit-image or scikit-learn is not installed.
    """

    width: float = 0.25 * sqrt(2)
    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.width, "width")
        _positive(self.ridge, "ridge")

    def draw(self, count: int) -> Tensor:
        """Each with a chance of one half."""
        return torch.rand(self.samples, count, generator=generator(self.seed)) < 0.5

    def weigh(self, shown: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights of the linear model."""
        ridge = library("sklearn.linear_model", "scikit-learn").Ridge(alpha=self.ridge)
        distance = 1 - np.sqrt(shown.mean(1))  # the cosine between bits and as many ones
        ridge.fit(shown.astype(np.float64), scores, np.exp(-((distance / self.width) ** 2)))
        return np.asarray(ridge.coef_)


@register("kernel_shap")
@dataclass(frozen=True)
class KernelSHAP(Segmenting):
    """KernelSHAP: the Shapley values of superpixels, what each adds to the score on average over all orders.

    Lundberg, Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv 1705.07874, theorem 2: least
    squares over coalitions of visible superpixels, weighted by the Shapley kernel. `.values` are ``(N, H, W)``, at each
    pixel the value of its superpixel, signed; counted once for each superpixel they add up to S(image) − S(baseline),
    but for the rounding in ``measures["completeness_error"]``. Where `samples` allow for all coalitions, as they do up
    to 11 superpixels, the Shapley values are exact; else pairs of a coalition and its complement are drawn as often as
    the kernel has it. It costs a forward pass for each sample.

    Args:
        segments: about how many superpixels SLICO cuts each image into (Achanta 2012); or an array ``(H, W)`` of whole
            numbers, the segment of each pixel of the model's input.
        samples: coalitions at most.
        baseline: what hides: ``"black"``, ``"white"``, ``"mean"`` (the image's own mean colour), ``"blur"``,
            ``"noise"``, or a tensor ``(C, H, W)`` as the model takes it.
        seed: of what is left visible, and of the noise.

    Raises:
        InputError: an option is no number that fits, the array is of another shape, or there are too few samples for
            so many superpixels.
        InputTypeError: the array has no whole numbers.
        MissingDependencyError: scikit-image is not installed.
    """

    samples: int = 2048

    def draw(self, count: int) -> Tensor:
        """Nothing visible first, then all coalitions but the whole image, or as many as are allowed."""
        if self._all(count):
            numbers = torch.arange(2**count - 1)
            return (numbers[:, None] >> torch.arange(count)) % 2 == 1
        drawn = generator(self.seed)
        sizes = torch.arange(1, count, dtype=torch.float64)
        pairs = self.samples // 2
        size = 1 + torch.multinomial(1 / (sizes * (count - sizes)), max(pairs, 1), replacement=True, generator=drawn)
        places = torch.rand(len(size), count, generator=drawn).argsort(1).argsort(1)
        some = places < size[:, None]
        both = torch.stack([some, ~some], 1).flatten(0, 1)
        return torch.cat([torch.zeros(1, count, dtype=torch.bool), both])[: self.samples]

    def weigh(self, shown: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Theorem 2; the last value is what the others leave of the difference."""
        change, gains = scores[0] - scores[1], scores[2:] - scores[1]
        some, count = shown[2:].astype(np.float64), shown.shape[1]
        weights = np.sqrt(self._kernel(shown[2:].sum(1), count))
        others = weights[:, None] * (some[:, :-1] - some[:, -1:])
        values, _, rank, _ = np.linalg.lstsq(others, weights * (gains - some[:, -1] * change), rcond=None)
        if rank < count - 1:
            raise InputError(f"{self.samples} samples are too few for {count} superpixels: take at least samples="
                             f"{4 * count}, better several times as many, or fewer segments=.")  # fmt: skip
        return np.append(values, change - values.sum())

    def measure(self, record: Record, values: Tensor, scores: Tensor) -> None:
        """How far the superpixels' values, each counted once, are from adding up."""
        record.measures["completeness_error"] = missed(values, scores[:, 0] - scores[:, 1])

    def _kernel(self, sizes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """The Shapley kernel of coalitions of these sizes; 1 for those that were drawn by it."""
        if not self._all(count):
            return np.ones(len(sizes))
        return np.array([(count - 1) / (comb(count, k) * k * (count - k)) for k in sizes.tolist()])

    def _all(self, count: int) -> bool:
        """Whether the samples allow for all coalitions of so many superpixels."""
        return bool(2**count - 1 <= self.samples)


def _positive(number: Any, name: str) -> None:
    if not (isinstance(number, Real) and 0 < float(number) < float("inf")):
        raise InputError(f"{name} is a number above 0, not {number!r}.")


def _numbered(labels: NDArray[Any]) -> Tensor:
    """Labels of any numbers as those from 0 on."""
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64))


def _slic(pixels: NDArray[np.float32], count: int) -> NDArray[Any]:
    """The superpixels of ``(*sides, C)`` by SLICO, whose weight of colour follows the image, whatever its channels."""
    segmentation = library("skimage.segmentation", "scikit-image")
    image = pixels[None] if pixels.ndim == 2 else pixels  # a signal is an image of one row
    found: NDArray[Any] = segmentation.slic(image, int(count), slic_zero=True, start_label=0, channel_axis=-1)
    return found.reshape(pixels.shape[:-1])


def library(name: str, package: str) -> Any:
    """A module of an extra."""
    state = random.getstate()  # which importing scikit-learn moves
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f'Superpixels need {package}. Install it with: pip install "seewhy[segments]"'
        ) from error
    finally:
        random.setstate(state)
