"""Whether what the model saw is the whole of a photo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

ALIKE = 12.0  # grey levels by which two ways of resizing one photo may differ on average
CROPS = np.linspace(0.4, 0.98, 30)  # shares of the photo that a centre crop might keep


def require_whole(photo: NDArray[np.uint8], seen: NDArray[np.uint8]) -> None:
    """Raise an InputError unless `seen` (h, w, 3) shows all of `photo` (H, W, 3), resized or squashed but not cropped.

    Told from the pictures alone: the photo resized to (h, w) must be within 12 grey levels of what was seen on average
    (less for a faint picture), and nearer to it than any centre crop of the photo.

    >>> seen = np.arange(0, 192, dtype=np.uint8).reshape(8, 8, 3)
    >>> require_whole(np.kron(seen, np.ones((4, 4, 1), np.uint8)), seen)
    """
    grey, shown = _grey(photo), _grey(seen)
    error = _difference(grey, shown)
    crops = [_difference(crop, shown) for share in (1.0, *CROPS) if (crop := _centre(grey, shown, share)) is not None]
    if error > min(ALIKE, float(shown.std()) / 2):
        reason = f"resized to {seen.shape[:2]} it differs by {error:.0f} grey levels on average"
    elif error >= min(crops, default=np.inf):
        reason = "a part of it matches at least as well"
    else:
        return
    raise InputError(
        f"the photo given as on= (size {photo.shape[:2]}) is not what the model saw, whole: {reason}. The transform "
        "crops, or this is another photo. Draw without on=, or explain with a transform that only resizes."
    )


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _difference(photo: NDArray[np.float32], seen: NDArray[np.float32]) -> float:
    import cv2

    height, width = seen.shape
    shrinks = photo.shape[0] >= height and photo.shape[1] >= width
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return float(np.abs(small - seen).mean())


def _centre(photo: NDArray[np.float32], seen: NDArray[np.float32], share: float) -> NDArray[np.float32] | None:
    """The middle of the photo in the proportions of `seen`; None where that is the photo itself."""
    scale = share * min(photo.shape[0] / seen.shape[0], photo.shape[1] / seen.shape[1])
    height, width = (max(1, round(side * scale)) for side in seen.shape)
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    if max(photo.shape[0] - height, photo.shape[1] - width) <= 1:
        return None
    return photo[top : top + height, left : left + width]
