"""The original photo is accepted where the model saw all of it, and refused where it saw a part or something else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from seewhy.errors import InputError
from seewhy.render.photo import require_whole


def _photo(height: int, width: int, smooth: float = 6, seed: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), smooth)
    return np.asarray(np.clip(128 + 40 * blurred / blurred.std(), 0, 255), dtype=np.uint8)


def _resize(photo: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).resize((size[1], size[0]), how))


@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (64, 95), (260, 330)])
def test_resized_and_squashed_photos_are_whole(size: tuple[int, int], how: Image.Resampling) -> None:
    photo = _photo(200, 300)
    require_whole(photo, _resize(photo, size, how))


@pytest.mark.parametrize("smooth", [3, 10, 30])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.875, 0.966])
@pytest.mark.parametrize("shape", [(256, 256), (200, 300)])
def test_the_centre_is_refused_also_of_a_square_photo(shape: tuple[int, int], share: float, smooth: float) -> None:
    photo = _photo(*shape, smooth)
    side = round(min(shape) * share)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    seen = _resize(photo[top : top + side, left : left + side], (64, 64), Image.Resampling.BICUBIC)
    with pytest.raises(InputError, match="crops"):
        require_whole(photo, seen)


def test_another_photo_and_a_mirrored_one_are_refused() -> None:
    photo = _photo(120, 180)
    seen = _resize(photo, (64, 96), Image.Resampling.BICUBIC)
    for other in (photo[:, ::-1], photo[::-1], _photo(120, 180, seed=4)):
        with pytest.raises(InputError, match="another photo"):
            require_whole(other, seen)


def test_faint_photos_are_told_apart_and_one_without_detail_is_refused() -> None:
    faint = (_photo(120, 180) // 20 + 100).astype(np.uint8)
    with pytest.raises(InputError, match="another photo"):
        require_whole(faint, _resize(faint[:, ::-1], (64, 96), Image.Resampling.BICUBIC))
    with pytest.raises(InputError, match="part of it matches"):
        require_whole(np.full((40, 40, 3), 90, np.uint8), np.full((20, 20, 3), 90, np.uint8))
