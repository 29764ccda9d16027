"""Targets that are somewhere in the image: a class over a region of dense scores, and one detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputTypeError, TargetError
from .outputs import Detections, probabilities
from .targets import About, Builtin, Target, column

_LEAST_OVERLAP = 0.5  # intersection over union
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Region(Builtin):
    """The mean score of a class over a region, for networks with dense scores ``(N, K, H, W)``: segmentation.

    Args:
        cls: the class, by index or name. None: the one predicted at most positions (of the mask or box).
        mask: boolean ``(H, W)``, of the size of the scores or of the model's input; where the sizes differ, a position
            counts by the share of it that the mask covers.
        box: ``(x0, y0, x1, y1)`` in pixels of the model's input; positions count by the share that it covers.

    With neither mask nor box it is the region where the class is predicted, in each image.

    Close to the scores Grad-CAM hardly follows the region: its weights are means over all positions of the layer, so
    the map tells what argues for the class anywhere. Gradients of the input follow it, and Grad-CAM at earlier layers.

    Raises:
        TargetError: the mask does not fit, the region is empty, or the class is predicted nowhere.

    >>> dense = torch.tensor([[[[1.0, 5.0]], [[4.0, 3.0]]]])  # two classes at 1 x 2 positions
    >>> Region(0).score(dense), Region(0, box=(0, 0, 2, 1)).score(dense)
    (tensor([5.]), tensor([3.]))
    """

    cls: int | str | None = None
    mask: Any = None
    box: Sequence[float] | None = None
    reads: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        if self.mask is not None and self.box is not None:
            raise TargetError("Region takes a mask or a box, not both.")
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask))

    def score(self, outputs: Tensor) -> Tensor:
        """The mean over the region of the class's scores."""
        return self._mean(outputs, *self._where(outputs))

    def classes(self, outputs: Tensor) -> Tensor:
        """The class, for each image."""
        return self._where(outputs)[0]

    def held(self, outputs: Tensor) -> Target:
        """That class over that region, whatever is predicted."""
        classes, weights = self._where(outputs)
        return self._with(cls=int(classes[0]), mask=weights[0], box=None)

    def _mean(self, outputs: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        weights = weights.flatten(1)
        return (column(outputs, classes).flatten(1) * weights).sum(1) / weights.sum(1)

    def _where(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """For each image its class, ``(n,)``, and the weights of the positions, ``(n, H, W)``."""
        cls, given = self._in_range(self.cls, outputs.shape[1]), self._given(outputs)
        if given is None:
            predicted = _predicted(outputs, self._about.activation)
            classes = self._most(predicted, cls, needed=True)
            return classes, column(predicted, classes).to(outputs.dtype)
        weights = given.expand(len(outputs), *given.shape)
        if cls is not None:
            return torch.full((len(outputs),), cls), weights
        predicted = _predicted(outputs, self._about.activation)
        return self._most(predicted * given, None, needed=outputs.shape[1] > 1), weights

    def _most(self, predicted: Tensor, cls: int | None, *, needed: bool) -> Tensor:
        """The class predicted at most positions of each image, or `cls`; `needed`: it must be predicted at all."""
        votes = predicted.flatten(2).sum(2)
        classes = votes.argmax(1).cpu() if cls is None else torch.full((len(votes),), cls)
        missing = [i for i, vote in enumerate(column(votes, classes).tolist()) if needed and not vote]
        if not missing:
            return classes
        image, best = self._about.first + missing[0], int(votes[missing[0]].argmax())
        what = "no class" if cls is None else f"{self._about.name(cls)!r} nowhere"
        instead = f" (most of it is {self._about.name(best)!r})" if votes[missing[0]].any() else ""
        raise TargetError(f"The model predicts {what} in image {image}{instead}: say what and where, as in "
                          "Region(cls, box=(x0, y0, x1, y1)) or Region(cls, mask=...).")  # fmt: skip

    def _given(self, outputs: Tensor) -> Tensor | None:
        """The weights of the positions, 0..1, by the mask or box; None where there is neither."""
        positions = tuple(outputs.shape[2:])
        if self.box is not None:
            weights = _covered(self.box, positions, self._about.size or positions)
        elif self.mask is not None:
            weights = _resized(self.mask, positions, self._about.size or positions)
        else:
            return None
        if not weights.any():
            raise TargetError(f"The box {self.box} lies outside of the model's input, of (H, W) = {self._about.size}.")
        return weights.to(outputs.device, outputs.dtype)

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        del outputs
        where = "where predicted" if self.mask is None else "in the mask"
        where = where if self.box is None else f"in {_in_pixels(self.box)}"
        return [f"{about.short(index)} {where}" for index in classes.tolist()]

    def _chances(self, outputs: Any, classes: Tensor, about: About) -> Tensor:
        chances = probabilities(outputs, about.activation)
        return self._mean(chances, classes, self._where(outputs)[1].float()).cpu()


def _predicted(outputs: Tensor, activation: str | None) -> Tensor:
    """Where each class is predicted, ``(n, K, H, W)`` of 0 and 1: the best, or each that is more likely than not."""
    outputs = outputs.detach()
    if outputs.shape[1] == 1 or activation == "sigmoid":
        return (probabilities(outputs, activation) > 0.5).float()
    return F.one_hot(outputs.argmax(1), outputs.shape[1]).movedim(-1, 1).float()


def _checked_box(box: Any) -> Box:
    """The box as four numbers."""
    try:
        x0, y0, x1, y1 = (float(number) for number in box)
    except (TypeError, ValueError):
        raise InputTypeError(f"box is (x0, y0, x1, y1) in pixels of the model's input, not {box!r}.") from None
    if not (x0 < x1 and y0 < y1):
        raise TargetError(f"The box {box!r} is empty: (x0, y0, x1, y1) has x0 < x1 and y0 < y1.")
    return x0, y0, x1, y1


def _checked_mask(mask: Any) -> Tensor:
    mask = torch.from_numpy(np.ascontiguousarray(mask)) if isinstance(mask, np.ndarray) else mask
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = f"of {mask.dtype}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise InputTypeError(f"mask is a boolean array or tensor (H, W), not {given}. Compare to make one: mask > 0.")
    if not mask.any():
        raise TargetError("The mask is empty: it is False everywhere.")
    return mask


def _covered(box: Sequence[float], positions: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The share of each position that the box covers, ``(H, W)``; the same for every frame of a video."""
    if len(positions) < 2 or len(size) < 2:
        raise TargetError(f"A box needs height and width; the scores have positions {positions}. Give a mask.")
    rows = _overlap(box[1], box[3], positions[-2], size[-2])
    columns = _overlap(box[0], box[2], positions[-1], size[-1])
    return (rows[:, None] * columns).expand(positions)


def _overlap(low: float, high: float, count: int, length: int) -> Tensor:
    """The share that `low` to `high` covers of each of `count` equal parts of `length`."""
    edges = torch.linspace(0, length, count + 1, dtype=torch.float64)
    return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count / length


def _resized(mask: Tensor, positions: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The share of each position that the mask covers."""
    if mask.shape == positions:
        return mask
    if mask.shape != tuple(size):
        several = " For several images give a list of targets." if mask.dim() > len(size) else ""
        raise TargetError(f"The mask has shape {tuple(mask.shape)}; expected that of the model's input, "
                          f"{tuple(size)}, or of its scores, {positions}.{several}")  # fmt: skip
    return F.interpolate(mask[None, None].double(), positions, mode="area")[0, 0]


def _in_pixels(box: Sequence[float]) -> str:
    return f"({', '.join(f'{number:.0f}' for number in box)})"


@dataclass(frozen=True)
class Detection(Builtin):
    """The score of one detection, for networks that return boxes, scores and labels for each image.

    Args:
        box: ``(x0, y0, x1, y1)`` in pixels of the model's input: the detection with the largest intersection over union
            is meant, which must be at least 0.5. None: the detection with the greatest score.
        cls: only detections of this class, by index or name, count. None: all.

    Raises:
        TargetError: there is no such detection; the message tells those that there are.

    >>> found = {"boxes": torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12]]), "scores": torch.tensor([0.9, 0.4]),
    ...     "labels": torch.tensor([1, 2])}
    >>> Detection(box=(8, 9, 12, 12)).score([found])
    tensor([0.4000])
    """

    box: Sequence[float] | None = None
    cls: int | str | None = None
    reads: ClassVar[str] = "detections"

    def __post_init__(self) -> None:
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))

    def score(self, outputs: Detections) -> Tensor:
        """The detection's own score, as the model gives it."""
        return torch.stack([one["scores"][i] for one, i in zip(outputs, self._find(outputs), strict=True)])

    def classes(self, outputs: Detections) -> Tensor:
        """The label of the detection."""
        return torch.tensor([int(one["labels"][i]) for one, i in zip(outputs, self._find(outputs), strict=True)])

    def held(self, outputs: Detections) -> Target:
        """What is detected there as that class, whatever else is."""
        found = outputs[0], self._find(outputs)[0]
        box, label = (found[0][key].detach()[found[1]] for key in ("boxes", "labels"))
        return HeldDetection(tuple(box.tolist()), int(label))

    def _find(self, outputs: Detections) -> list[int]:
        """Which of the detections of each image is meant."""
        return [self._find_one(one, image) for image, one in enumerate(outputs, self._about.first)]

    def _find_one(self, detections: Mapping[str, Tensor], image: int) -> int:
        scores, labels = detections["scores"].detach(), detections["labels"]
        if not len(scores):
            raise TargetError(f"The model detects nothing in image {image}, so there is no detection to explain. "
                              "A lower score threshold of the model may show some.")  # fmt: skip
        cls = self._about.index(self.cls)
        fits = torch.ones_like(labels, dtype=torch.bool) if cls is None else labels == cls
        if not fits.any():
            raise TargetError(f"The model detects no {self._about.name(cls or 0)!r} in image {image}: "
                              f"it detects {self._listed(detections)}.")  # fmt: skip
        if self.box is None:
            return int(scores.masked_fill(~fits, -torch.inf).argmax())
        return self._nearest(self.box, detections, fits, image)

    def _nearest(self, box: Sequence[float], detections: Mapping[str, Tensor], fits: Tensor, image: int) -> int:
        """The detection that overlaps most with the box."""
        from torchvision.ops import box_iou

        boxes = detections["boxes"].detach().float()
        overlaps = box_iou(boxes.new_tensor([box]), boxes)[0].masked_fill(~fits, -1)
        best = int(overlaps.argmax())
        if overlaps[best] < _LEAST_OVERLAP:
            raise TargetError(f"No detection in image {image} fits the box {_in_pixels(box)}: the nearest is "
                              f"{self._said(detections, best)}, with an overlap (intersection over union) of "
                              f"{overlaps[best]:.2f}, and 0.5 is needed.")  # fmt: skip
        return best

    def _said(self, detections: Mapping[str, Tensor], index: int) -> str:
        name, box = self._about.short(int(detections["labels"][index])), detections["boxes"][index].tolist()
        return f"{name} at {_in_pixels(box)}"

    def _listed(self, detections: Mapping[str, Tensor]) -> str:
        order = detections["scores"].argsort(descending=True).tolist()
        more = ", …" if len(order) > 5 else ""
        return ", ".join(f"{self._said(detections, i)} ({detections['scores'][i]:.2f})" for i in order[:5]) + more

    def _names(self, outputs: Any, classes: Tensor, about: About) -> list[str]:
        del classes, about
        return [self._said(one, i) for one, i in zip(outputs, self._find(outputs), strict=True)]

    def _chances(self, outputs: Any, classes: Tensor, about: About) -> Tensor:
        del classes, about
        return self.score(outputs).detach().float().cpu()


@dataclass(frozen=True)
class HeldDetection(Target):
    """The best score with which a class is detected at a place; 0 where it is not detected there any more."""

    box: Sequence[float]
    label: int
    reads: ClassVar[str] = "detections"

    def score(self, outputs: Detections) -> Tensor:
        """The greatest score among the detections with an intersection over union of at least 0.5."""
        return torch.stack([self._best(one) for one in outputs])

    def _best(self, detections: Mapping[str, Tensor]) -> Tensor:
        from torchvision.ops import box_iou

        scores, boxes = detections["scores"], detections["boxes"].detach().float()
        there = box_iou(boxes.new_tensor([self.box]), boxes)[0] >= _LEAST_OVERLAP
        fits = scores[there & (detections["labels"] == self.label)]
        return fits.amax() if len(fits) else scores.new_zeros(())
