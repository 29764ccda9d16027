"""Localisation: is the map where a mask says that the thing is?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import real
from ..errors import InputError, InputTypeError
from .score import Score
from .subject import Common, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

Mask = NDArray[np.bool_]
_TOLERANCE = 15  # pixels (Zhang 2018, section 4.1)


def pointing_game(
    explainer: Explainer, explanation: Any, *, masks: Any, tolerance: float = _TOLERANCE, **common: Unpack[Common]
) -> Score:
    """Pointing game (Zhang 2018, section 4.1): 1 where the map's greatest value is in the mask, or near it, else 0.

    Where several positions share the greatest value, it is the share of them that hit. A higher mean is better.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)``.
        masks: bool ``(N, H, W)`` at the size of the model's input, or ``(H, W)`` for one map: where the thing is.
        tolerance: the distance in pixels from the mask that is still a hit.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where the mask is empty, which is neither a hit nor a miss.

    Raises:
        InputError: masks and maps differ in shape, or a mask holds more than true and false.

    >>> import seewhy
    >>> explainer, mask = seewhy.Explainer(seewhy.testing.small_cnn()), np.zeros((40, 40), bool)
    >>> mask[:10, :10] = True
    >>> pointing_game(explainer, np.eye(40)[::-1] * np.arange(40), masks=mask).mean  # the peak: top right
    0.0
    """
    tolerance = real(tolerance, "tolerance", "a distance in pixels of at least 0", lambda number: number >= 0)

    def hits(one: NDArray[np.float64], mask: Mask) -> float:
        return float(_near(mask, tolerance)[one == one.max()].mean())

    return _in_masks("pointing_game", explainer, explanation, masks, hits, common)


def energy_in_mask(explainer: Explainer, explanation: Any, *, masks: Any, **common: Unpack[Common]) -> Score:
    """Energy-based pointing game (Wang 2020, section 4.3): the share of the map, stretched to 0..1, in the mask.

    The map's least value counts nothing. Arguments are those of `pointing_game`; a higher value is better. It is
    undefined where the mask is empty, or the map the same everywhere.

    >>> import seewhy
    >>> explainer, mask = seewhy.Explainer(seewhy.testing.small_cnn()), np.eye(4, dtype=bool)
    >>> energy_in_mask(explainer, 2.0 + mask, masks=mask).mean
    1.0
    """
    return _in_masks(
        "energy_in_mask", explainer, explanation, masks, lambda one, mask: _share(one - one.min(), mask), common
    )


def mass_accuracy(explainer: Explainer, explanation: Any, *, masks: Any, **common: Unpack[Common]) -> Score:
    """Relevance mass accuracy (Arras 2022, eq. 1): the share of the map's positive part that is in the mask.

    Arguments are those of `pointing_game`; a higher value is better, and the mask's own share of the image is chance.
    It is undefined where the mask is empty, or nothing of the map is above 0.

    >>> import seewhy
    >>> explainer, mask = seewhy.Explainer(seewhy.testing.small_cnn()), np.eye(4, dtype=bool)
    >>> mass_accuracy(explainer, np.ones((4, 4)), masks=mask).mean
    0.25
    """
    return _in_masks(
        "mass_accuracy", explainer, explanation, masks, lambda one, mask: _share(np.maximum(one, 0), mask), common
    )


def rank_accuracy(explainer: Explainer, explanation: Any, *, masks: Any, **common: Unpack[Common]) -> Score:
    """Relevance rank accuracy (Arras 2022, eq. 2): of the K greatest values the share in the mask, which has K pixels.

    Where values at the border of the K are equal, each counts in part. Arguments are those of `pointing_game`; a higher
    value is better. It is undefined where the mask is empty.

    >>> import seewhy
    >>> explainer, mask = seewhy.Explainer(seewhy.testing.small_cnn()), np.eye(4, dtype=bool)
    >>> rank_accuracy(explainer, np.eye(4), masks=mask).mean
    1.0
    """

    def among_first(one: NDArray[np.float64], mask: Mask) -> float:
        count = int(mask.sum())
        least = np.partition(one.ravel(), -count)[-count]
        above, level = one > least, one == least
        share = (count - above.sum()) / level.sum()
        return float(((mask & above).sum() + share * (mask & level).sum()) / count)

    return _in_masks("rank_accuracy", explainer, explanation, masks, among_first, common)


def check_masks(masks: Any, shape: tuple[int, ...]) -> Mask:
    """Masks as bool, one for each map of this `shape` ``(N, *sides)``.

    Raises:
        InputTypeError: they are no array.
        InputError: they have another shape, or hold more than true and false.
    """
    try:
        found = np.asarray(masks.detach().cpu() if isinstance(masks, Tensor) else masks)
    except ValueError as error:
        raise InputTypeError("masks is one array (N, H, W) of true and false.") from error
    if found.dtype.kind in "USO":
        raise InputTypeError("masks is one array (N, H, W) of true and false, and no path.")
    if found.dtype != bool and not (found.dtype.kind in "iuf" and np.isin(found, (0, 1)).all()):
        raise InputError(f"masks hold true and false, or 0 and 1; these are {found.dtype} with other values: compare "
                         "first, as in masks > 127.")  # fmt: skip
    found = found[None] if found.ndim == len(shape) - 1 and shape[0] == 1 else found
    if found.shape != shape:
        some = found.shape[1:] == shape[1:]
        raise InputError(
            f"There are {len(found)} masks and {shape[0]} maps: give one for each." if some else
            f"masks are at the size of the maps, {shape}: resize and crop them as the images were; got {found.shape}."
        )  # fmt: skip
    return found.astype(bool)


def _in_masks(
    name: str,
    explainer: Explainer,
    explanation: Any,
    masks: Any,
    judge: Callable[[NDArray[np.float64], Mask], float],
    common: Common,
) -> Score:
    subject = Subject(explainer, explanation, blind=True, **common)
    pairs = zip(subject.maps.astype(np.float64), check_masks(masks, subject.maps.shape), strict=True)
    values = [judge(one, mask) if mask.any() else np.nan for one, mask in pairs]
    return Score(name=name, values=np.array(values), higher_is_better=True, provenance=subject.provenance)


def _share(one: NDArray[np.float64], mask: Mask) -> float:
    total = one.sum()
    return float(one[mask].sum() / total) if total > 0 else np.nan


def _near(mask: Mask, tolerance: float) -> Mask:
    """The positions within a distance of the mask."""
    if mask.ndim != 2:
        return _near_anywhere(mask, tolerance)
    import cv2

    apart = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(apart <= tolerance)


def _near_anywhere(mask: Mask, tolerance: float) -> Mask:
    """The same of signals, videos and volumes, slowly."""
    places = torch.from_numpy(np.argwhere(np.ones_like(mask))).double()
    inside = torch.from_numpy(np.argwhere(mask)).double()
    near = torch.cat([torch.cdist(part, inside).amin(1) <= tolerance for part in torch.split(places, 4096)])
    return near.view(mask.shape).numpy()
