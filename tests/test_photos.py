"""Reading a photo: files, Pillow images and arrays, all as RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.errors import ImageFileError, ImageFolderError, ImageNotFoundError, InputError, InputTypeError
from seewhy.images import gather
from seewhy.photos import read
from seewhy.preprocessing import resolve_preprocessing


def _photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_read_takes_paths_pictures_and_arrays(tmp_path: Path) -> None:
    photo = _photo(12, 20)
    Image.fromarray(photo).save(tmp_path / "a.png")
    alpha = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(photo), photo, photo / 255, alpha):
        assert (read(given) == photo).all()


def test_what_is_transparent_is_white() -> None:
    clear = np.zeros((2, 3, 4), np.uint8)
    assert (read(clear) == 255).all()
    assert (read(Image.fromarray(clear)) == 255).all()


def test_read_turns_the_photo_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_photo(12, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").shape == (20, 12, 3)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match=r"no\.png"):
        read(tmp_path / "no.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match=r"bad\.png"):
        read(tmp_path / "bad.png")
    Image.fromarray(_photo(60, 60)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    with pytest.raises(ImageFileError, match=r"cut\.png"):
        read(tmp_path / "cut.png")


def test_sixteen_bit_grey_is_scaled_as_for_the_model(tmp_path: Path) -> None:
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("photo", "error", "message"),
    [
        (np.ones((2, 4, 6, 3)), InputError, "one photo is expected"),
        (np.ones((3, 4, 6)), InputError, "channels first"),
        (np.full((4, 6), 200.0), InputError, "Divide by 255"),
        (np.ones((4, 0)), InputError, "no pixels"),
        (np.full((4, 6), np.nan), InputError, "NaN"),
        (3, InputTypeError, "not int"),
        (".", ImageFolderError, "is a folder"),
    ],
)
def test_what_is_no_photo_is_refused(photo: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(photo)


def test_an_import_of_it_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, seewhy.photos; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_that_went_meanwhile_is_told(tmp_path: Path) -> None:
    Image.fromarray(_photo(8, 8)).save(tmp_path / "photo.png")
    images = gather([str(tmp_path / "photo.png")])
    (tmp_path / "photo.png").unlink()
    with pytest.raises(ImageNotFoundError, match="There is no file"):
        images.load(0, 1, resolve_preprocessing(torch.nn.Identity(), None), seen=False)
