"""The receptive field: the pixels of the input that a position of a layer depends on, measured on noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.ascent import Ascent
from ..engine.inputs import ModelInputs
from ..errors import warn
from ..given import Given
from ..layers import Layer

SHARE = 0.9  # of the |gradient| that the effective receptive field holds
SIGNS = 64  # of every position, how many gradients are looked at: channels x noise inputs
SLACK = 1e-3  # pixels, of rounding


@dataclass(frozen=True)
class Side:
    """Along one side of the input: position `p` sees from ``start + stride * p`` on, `size` pixels."""

    start: float
    stride: float
    size: float

    def ends(self, position: int) -> tuple[int, int]:
        """The first pixel of a position's field, and the one after its last; they may lie beyond the input."""
        first = self.start + self.stride * position
        return math.floor(first + SLACK), math.ceil(first + self.size - SLACK)


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels the positions of a layer see.

    Attributes:
        rows: along the height.
        columns: along the width.
        effective: whether it is the effective receptive field.
    """

    rows: Side
    columns: Side
    effective: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the input."""
        (top, bottom), (left, right) = self.rows.ends(0), self.columns.ends(0)
        return bottom - top, right - left

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """What a position sees, ``(x0, y0, x1, y1)``, not clipped to the input."""
        (top, bottom), (left, right) = self.rows.ends(row), self.columns.ends(column)
        return left, top, right, bottom


def whole(size: tuple[int, int]) -> ReceptiveField:
    """The whole input of ``(height, width)``, for every position."""
    return ReceptiveField(Side(0, 0, size[0]), Side(0, 0, size[1]), effective=False)


def receptive_field(
    model: nn.Module, layer: Layer, batch: Tensor, layout: Given, inputs: ModelInputs
) -> ReceptiveField:
    """The receptive field of the positions of a layer of a borrowed `model`, for inputs of the size of `batch`.

    The gradients of a few positions say which pixels these depend on: a gradient that is exactly zero for random
    combinations of all channels on several noise inputs comes from no pixel that counts. An affine map from position to
    box is fitted to what is not cut off at the input's edges, exact to the pixel (a pixel more where a layer on the
    way repeats or rearranges positions, as upsampling does). Where there is none that is exact to the pixel, or where
    the field is more than half as high or wide as the input (attention, squeeze-and-excitation, deep networks), it is
    the effective receptive field (Luo 2016): the smallest square about the position that holds 90 % of the |gradient|,
    the mean over the noise inputs.

    Args:
        model: borrowed.
        layer: with positions on a grid ``(h, w)``.
        batch: some of the model's inputs ``(n, C, H, W)``: the noise has the mean and deviation of each channel.
        layout: what the user says of layouts.
        inputs: what else the model is called with.
    """
    height, width = size = int(batch.shape[2]), int(batch.shape[3])
    measured = _measure(Ascent(model, [layer], layout, inputs, output=False), layer.label, batch)
    if measured is None:
        return whole(size)
    (h, w), positions, gradients = measured
    seen = gradients != 0
    rows = _fit([row for row, _ in positions], seen.any(2), h)
    columns = _fit([column for _, column in positions], seen.any(1), w)
    if rows and columns and rows.size <= height / 2 and columns.size <= width / 2:
        return ReceptiveField(rows, columns, effective=False)
    return _effective(gradients[0], positions[0], (h, w))


def _knots(count: int) -> list[int]:
    """The positions along a side whose gradients are taken, a middle one first."""
    middle = count // 2
    return list(
        dict.fromkeys(p for p in (middle, middle + 1, middle - 1, 0, 1, count - 2, count - 1) if 0 <= p < count)
    )


def _measure(
    ascent: Ascent, label: str, batch: Tensor
) -> tuple[tuple[int, int], list[tuple[int, int]], NDArray[np.float64]] | None:
    """The grid, some positions, and the |gradient| of each summed over colours and noise, ``(positions, H, W)``."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        channels, *grid = (int(n) for n in ascent(batch[:1])[0][label].shape[1:])
    h, w = grid
    count = max(len(_knots(h)), len(_knots(w)))
    positions = [
        (int(row), int(column)) for row, column in zip(*(np.resize(_knots(n), count) for n in grid), strict=True)
    ]
    total = np.zeros((count, *batch.shape[2:]))
    for _ in range(min(max(2, math.ceil(SIGNS / channels)), 16)):
        found = _gradient(ascent, label, _noise(batch, count, generator), positions, generator)
        if found is None:
            return None
        total += found
    return (h, w), positions, total


def _noise(batch: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Inputs of normal noise with the mean and deviation of each channel of the batch."""
    values = batch.detach().movedim(1, 0).flatten(1).float()
    mean, deviation = values.mean(1), values.std(1)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    noise = torch.randn(count, *batch.shape[1:], generator=generator).to(mean.device)
    return (mean[:, None, None] + deviation[:, None, None] * noise).to(batch.dtype)


def _gradient(
    ascent: Ascent, label: str, noise: Tensor, positions: Sequence[tuple[int, int]], generator: torch.Generator
) -> NDArray[np.float64] | None:
    """The |gradient| of a random combination of channels, at a position of its own in each input; ``(n, H, W)``."""
    noise.requires_grad_()
    # Some CUDA convolutions smear rounding errors over pixels that do not count.
    with torch.backends.cudnn.flags(enabled=False):
        value = ascent(noise)[0][label]
        here = torch.stack([value[i, :, row, column] for i, (row, column) in enumerate(positions)])
        weights = torch.randn(here.shape[1], generator=generator).to(here)
        try:
            (found,) = torch.autograd.grad((here * weights).sum(), noise)
        except RuntimeError as error:
            said = str(error).partition("\n")[0]
            warn(f"No gradient of {label!r} arrives at the input ({said}), so its receptive field cannot be measured: "
                 "the crops are whole images.")  # fmt: skip
            return None
    summed: NDArray[np.float64] = found.double().abs().sum(1).cpu().numpy()
    return summed


def _fit(positions: Sequence[int], seen: NDArray[np.bool_], count: int) -> Side | None:
    """The affine map from `positions` to the pixels that each of them has `seen`, exact to one; None if there is none.

    It is that of the middle positions: others may be cut off at the edges of the input, or before these by the padding
    of a layer on the way. They must lie within it; what sees one edge and the other has a padding that goes round.
    """
    length = seen.shape[1]
    spans = [(p, int(row.argmax()), length - int(row[::-1].argmax())) for p, row in zip(positions, seen, strict=True)
             if row.any()]  # fmt: skip
    found = _fitted([span for span in spans if abs(span[0] - count // 2) <= 1], length, count)
    others = [span for span in spans if span[1:] != (0, length)]
    return found if found and all(_holds(found, span) for span in others) else None


def _holds(side: Side, span: tuple[int, int, int]) -> bool:
    position, first, last = span
    start, stop = side.ends(position)
    return start <= first and last <= stop


def _fitted(spans: Sequence[tuple[int, int, int]], length: int, count: int) -> Side | None:
    """The map from positions to spans ``(position, first pixel, one after the last)``; None if there is none."""
    starts = np.array([(p, first) for p, first, _ in spans if first > 0]).reshape(-1, 2)
    stops = np.array([(p, last) for p, _, last in spans if last < length]).reshape(-1, 2)
    if not (len(starts) and len(stops)):
        return None
    stride = _stride(starts, stops, length / count)
    first, last = starts[:, 1] - stride * starts[:, 0], stops[:, 1] - stride * stops[:, 0]
    if max(np.ptp(first), np.ptp(last)) > 1 + SLACK:
        return None
    return Side(float(first.min()), stride, float(last.max() - first.min()))


def _stride(starts: NDArray[np.int64], stops: NDArray[np.int64], usual: float) -> float:
    """The common slope of both ends by least squares; where they leave it open, the `usual` one."""
    equations = [(1, p, 0, first) for p, first in starts] + [(1, p, 1, last) for p, last in stops]
    weak = 1e-4
    system = np.array([*equations, (0, weak, 0, weak * usual)], np.float64)
    return float(np.linalg.lstsq(system[:, :3], system[:, 3], rcond=None)[0][1])


def _effective(gradient: NDArray[np.float64], position: tuple[int, int], grid: tuple[int, int]) -> ReceptiveField:
    """The smallest square about a position that holds 90 % of its |gradient|, as the field of all positions."""
    sides = gradient.shape
    strides = [side / count for side, count in zip(sides, grid, strict=True)]
    centre = [(p + 0.5) * stride for p, stride in zip(position, strides, strict=True)]
    down, across = (np.abs(np.arange(side) + 0.5 - at) for side, at in zip(sides, centre, strict=True))
    distance = np.maximum(down[:, None], across[None]).ravel()
    order = np.argsort(distance)
    held = np.cumsum(np.nan_to_num(gradient.ravel()[order]))
    if not held[-1] > 0:
        return whole((sides[0], sides[1]))
    reach = 2 * distance[order][np.searchsorted(held, SHARE * held[-1])] + 1
    sizes = [min(float(reach), side) for side in sides]
    rows, columns = (Side((stride - size) / 2, stride, size) for stride, size in zip(strides, sizes, strict=True))
    return ReceptiveField(rows, columns, effective=True)
