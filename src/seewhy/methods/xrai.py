"""XRAI: the regions of the image in the order in which they add most to integrated gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.record import Needs, Record
from ..errors import InputError, InputTypeError
from .base import stretched
from .baselines import Baseline, check_baseline
from .path import IntegratedGradients
from .registry import register
from .repeating import Repeating
from .superpixels import library

Regions: TypeAlias = "Tensor | NDArray[Any] | None"
_SIDE = 224  # pixels of a side of the images that the sizes below are for
_SMOOTH = 0.8  # pixels, of the Gaussian before the image is cut up
_SMALLEST = 150  # pixels of a segment
_WIDER = 5  # pixels by which segments are widened
_LEAST = 50  # pixels that a region must add


@register("xrai")
@dataclass(frozen=True)
class XRAI(Repeating):
    """XRAI: the regions of the image in the order in which they add most to integrated gradients.

    Kapishnikov et al. 2019, "XRAI: Better Attributions Through Regions", arXiv 1906.02825, algorithm 1: Felzenszwalb's
    segmentation cuts the image at several scales; again and again the segment is taken whose pixels not taken yet have
    the greatest mean attribution, A, until all are; A are integrated gradients from black and from white, added up over
    the colours. `.values` are ``(N, H, W)``, signed: at each pixel the mean of A over what was new in the segment that
    brought it; of a sliver that may be large. `.maps` say how such means follow upon one another: 0 to 1, at each pixel
    the share of the image with a lesser one, so that where they are over .9 is the most salient tenth. It costs what
    integrated gradients do, once for each baseline. In images of 224 x 224 segments have at least 150 pixels, are
    widened by 5, and must add 50; in others in proportion. What is left when none adds so much is the last region.

    Args:
        steps: of integrated gradients.
        baselines: where integrated gradients begin, over which A is the mean; each as for `IntegratedGradients`.
        scales: of the segmentation; larger ones give larger segments.
        seed: of a baseline of noise.
        regions: in place of the segmentation, whole numbers ``(H, W)`` that say of each pixel of the model's input
            which segment it is in, or several such ``(cuts, H, W)``; taken as they are, without being widened.

    Raises:
        InputError: an option is no number that fits, the arrays are of another shape, or the model takes volumes.
        InputTypeError: a baseline is neither a name nor floats, or the arrays are not of whole numbers.
        MissingDependencyError: scikit-image is not installed.
    """

    steps: int = 50
    baselines: Sequence[Baseline] = ("black", "white")
    scales: Sequence[float] = (50, 100, 150, 250, 500, 1200)
    seed: int = 0
    regions: Regions = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.steps, "steps")
        if isinstance(self.baselines, str) or not len(self.baselines):
            raise InputError(f"baselines are several, as ('black', 'white'), not {self.baselines!r}.")
        for baseline in self.baselines:
            check_baseline(baseline, self.seed)
        if not (isinstance(self.scales, list | tuple) and self.scales and all(map(_scale, self.scales))):
            raise InputError(f"scales are one number above 0 or several, as (50, 250), not {self.scales!r}.")
        if self.regions is not None and np.asarray(self.regions).dtype.kind not in "iub":
            raise InputTypeError(f"regions are {np.asarray(self.regions).dtype}; expected whole numbers (H, W) or "
                                 "(cuts, H, W), the segment of each pixel.")  # fmt: skip

    @property
    def needs(self) -> Needs:
        """To ask the model again."""
        return Needs(evaluations=self.speed)

    def compute(self, record: Record) -> Tensor:
        """Algorithm 1 over the mean of the integrated gradients."""
        attribution = self._attribution(record).flatten(1).double().cpu().numpy()
        values, masks = [], np.zeros((0, 0), dtype=bool)
        for row, image in enumerate(record.input):
            if not row or not torch.equal(image, record.input[row - 1]):  # as where it has several targets
                masks = self._masks(image)
            values.append(ranked(masks, attribution[row], self._least(image)))
        return torch.from_numpy(np.stack(values)).to(record.input.device).view(len(values), *image.shape[1:]).float()

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        """The share of the image where the mean is less."""
        flat = values.flatten(1)
        below = torch.searchsorted(flat.sort(1).values, flat)
        return super().to_maps((below / flat.shape[1]).view_as(values), size)

    def _attribution(self, record: Record) -> Tensor:
        """The mean of the integrated gradients ``(n, *sides)``, added up over the colours."""
        total, errors = torch.zeros_like(record.input[:, 0], dtype=torch.float32), []
        for baseline in self.baselines:
            method = IntegratedGradients(self.steps, baseline, self.seed, accelerate=self.accelerate, dtype=self.dtype)
            total = total + method.compute(record).sum(1) / len(self.baselines)
            errors.append(record.measures["completeness_error"])
        record.measures["completeness_error"] = torch.stack(errors).amax(0)
        return total

    def _masks(self, image: Tensor) -> NDArray[np.bool_]:
        """Which pixels are in each segment, ``(H * W, segments)``."""
        size = tuple(image.shape[1:])
        if self.regions is None:
            cuts = _felzenszwalb(image, self.scales)
        else:
            given = np.asarray(self.regions.cpu() if isinstance(self.regions, Tensor) else self.regions)
            cuts = list(given if given.ndim > len(size) else given[None])
            if given.shape[-len(size) :] != size or given.ndim > len(size) + 1:
                raise InputError(f"regions are of shape {given.shape}; expected {size}, a whole number for each pixel "
                                 f"of the model's input, or several such, (cuts, {str(size)[1:]}.")  # fmt: skip
        masks = [cut.reshape(-1, 1) == np.unique(cut) for cut in cuts]
        found: NDArray[np.bool_] = np.concatenate(masks, 1)
        return found if self.regions is not None else _widened(found, size)

    def _least(self, image: Tensor) -> int:
        """How many pixels a region must add."""
        return 1 if self.regions is not None else max(round(_LEAST * _share(image.shape[1:])), 1)


def ranked(masks: NDArray[np.bool_], attribution: NDArray[np.float64], least: int) -> NDArray[np.float64]:
    """Algorithm 1: for each pixel the mean attribution of what was new in the segment that brought it.

    Args:
        masks: ``(pixels, segments)``.
        attribution: ``(pixels,)``.
        least: how many pixels a segment must add.
    """
    values, open_ = np.zeros(len(masks)), np.ones(len(masks), dtype=bool)
    sizes, sums = masks.sum(0), attribution @ masks
    while (fit := sizes >= least).any():
        means = np.divide(sums, sizes, out=np.full(len(sizes), -np.inf), where=fit)
        best = int(means.argmax())
        new = masks[:, best] & open_
        values[new] = attribution[new].mean()
        open_ &= ~new
        sizes, sums = sizes - masks[new].sum(0), sums - attribution[new] @ masks[new]
    if open_.any():
        values[open_] = attribution[open_].mean()
    return values


def _felzenszwalb(image: Tensor, scales: Sequence[float]) -> list[NDArray[Any]]:
    """The segments of an image ``(C, *sides)`` at each scale."""
    if image.dim() > 3:
        raise InputError("XRAI cuts images and signals into segments, and this input has "
                         f"{image.dim() - 1} sides: pass regions=, which segment each pixel is in.")  # fmt: skip
    cut_up = library("skimage.segmentation", "scikit-image").felzenszwalb
    pixels = (2 * stretched(image[None].double())[0] - 1).movedim(0, -1).cpu().numpy()
    pixels = pixels[None] if pixels.ndim == 2 else pixels  # a signal is an image of one row
    smallest = max(round(_SMALLEST * _share(image.shape[1:])), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that there are more than three colours
        return [cut_up(pixels, scale, _SMOOTH, smallest, channel_axis=-1).reshape(image.shape[1:]) for scale in scales]


def _widened(masks: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Each segment with what is around it."""
    import cv2

    reach = round(_WIDER * math.sqrt(_share(size)))
    shape = size if len(size) == 2 else (1, *size)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = [cv2.dilate(mask.reshape(shape).astype(np.uint8), disc).ravel() for mask in masks.T]
    return np.stack(wide, 1).astype(bool)


def _share(size: Sequence[int]) -> float:
    """What the image has of the pixels of those that sizes are given for."""
    return math.prod(size) / _SIDE**2


def _scale(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and 0 < float(number) < float("inf")
