"""Localisation without masks: mosaics of several images, in which it is known where each class is."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..errors import InputError, SeewhyError
from ..methods.baselines import check_seed
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer


def grid_pointing(
    explainer: Explainer,
    explanation: Any,
    *,
    grid: int = 2,
    shrink: bool = False,
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Grid pointing game (Böhle 2021, section 4): the share of the map's positive part in the cell of its class.

    For each image a mosaic is made of it and of others of other classes, drawn at random, and the image's class is
    explained in it by the same method. A share of 1 / cells is chance; a higher value is better.

    Args:
        explainer: of the network.
        explanation: an `Explanation` of images of at least as many classes as there are cells; or maps ``(N, H, W)``
            with ``images=``, ``target=`` and ``method=``.
        grid: cells along each side.
        shrink: bring the mosaic to the size of one image, for models that take no other; else it is `grid` times as
            high and wide.
        seed: of the mosaics.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where nothing of the map is above 0. ``numbers["peak"]`` is 1 where the greatest value is
        in the right cell, ``numbers["cell"]`` which cell that is, row by row.

    Raises:
        InputError: nothing says how the maps were made, targets are no classes, or there are too few of them.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(4, 3, 16, 16), "saliency", target=[0, 1, 2, 3])
    >>> grid_pointing(explainer, found).numbers["cell"].shape
    (4,)
    """
    check_seed(seed)
    side = whole(grid, "grid")
    if side < 2:
        raise InputError("A mosaic has at least 2 cells along each side.")
    subject = Subject(explainer, explanation, **common)
    _ = subject.method  # refused before anything is computed
    if subject.maps.ndim != 3:
        raise InputError("Mosaics are made of images.")
    classes = subject.each(lambda chunk: {"classes": chunk.classes})["classes"].astype(int)
    members, cells = _mosaics(classes, subject.image_index, side**2, seed)

    def compute(chunk: Chunk) -> Found:
        rows = range(chunk.start, chunk.start + len(chunk.maps))
        mosaics = torch.stack([_laid([subject.image(i) for i in members[row]], side) for row in rows])
        if shrink:
            mosaics = F.interpolate(mosaics, chunk.maps.shape[1:], mode="bilinear", antialias=True)
        try:
            maps = torch.from_numpy(subject.again(chunk, mosaics.to(chunk.record.input)).maps.copy())
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, SeewhyError) or shrink:
                raise
            raise InputError(f"The model does not take mosaics of {tuple(mosaics.shape[2:])} ({error}). shrink=True "
                             "brings them to the size of one image.") from error  # fmt: skip
        inside = torch.stack([_cell(maps.shape[1:], side, int(cells[row])) for row in rows])
        positive = maps.relu().double()
        total = positive.sum((1, 2))
        share = (positive * inside).sum((1, 2)) / torch.where(total > 0, total, torch.nan)
        peak = maps.flatten(1).argmax(1, keepdim=True)
        return {"values": share, "peak": inside.flatten(1).gather(1, peak)[:, 0]}

    found = subject.each(compute)
    return Score(
        name="grid_pointing", values=found["values"], higher_is_better=True, provenance=subject.provenance,
        numbers={"peak": found["peak"], "cell": cells},
    )  # fmt: skip


def _mosaics(classes: np.ndarray, images: np.ndarray, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each map those of its mosaic ``(N, cells)``, and the cell that it is in ``(N,)``; `images` are their numbers.

    Raises:
        InputError: targets are no classes, or there are too few of them.
    """
    if (classes < 0).any():
        raise InputError("A mosaic tells classes apart, and these targets are none.")
    if len(kinds := np.unique(classes)) < cells:
        raise InputError(f"A mosaic of {cells} cells needs images of {cells} classes, and these are of {len(kinds)}: "
                         "explain more images, each for the class that it shows.")  # fmt: skip
    members, where = np.zeros((len(classes), cells), int), np.zeros(len(classes), int)
    for row, own in enumerate(classes):
        draw = np.random.default_rng([operator.index(seed) % 2**63, row])
        apart = (classes != own) & (images != images[row])  # an image with several targets is not its own rival
        others = draw.permutation(np.unique(classes[apart]))[: cells - 1]
        if len(others) < cells - 1:
            raise InputError(f"A mosaic of {cells} cells needs other images of {cells - 1} classes beside image "
                             f"{images[row]}, and there are {len(others)}: explain more images.")  # fmt: skip
        chosen = [int(draw.choice(np.flatnonzero(apart & (classes == kind)))) for kind in others]
        where[row] = draw.integers(cells)
        members[row] = np.insert(chosen, where[row], row)
    return members, where


def _laid(images: list[Tensor], side: int) -> Tensor:
    """Images ``(C, H, W)`` as one of so many cells a side."""
    return torch.cat([torch.cat(images[row * side : (row + 1) * side], 2) for row in range(side)], 1)


def _cell(sides: Any, side: int, cell: int) -> Tensor:
    """True within a cell of a map."""
    found = torch.zeros(tuple(sides), dtype=torch.bool)
    down, right = divmod(cell, side)
    rows, columns = (slice(at * length // side, (at + 1) * length // side)
                     for at, length in ((down, sides[0]), (right, sides[1])))  # fmt: skip
    found[rows, columns] = True
    return found
