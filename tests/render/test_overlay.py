"""Facts of an overlay: hot is hotter, an empty map changes nothing, dtypes agree, sizes may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError
from seewhy.render import overlay

ALPHAS = [None, 0.0, 0.4, 1.0]


def _photo(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("size", [(6, 9), (2, 3), (13, 5)])
def test_an_empty_map_changes_nothing(alpha: float | None, size: tuple[int, int]) -> None:
    assert (overlay(_photo(), np.zeros(size), alpha=alpha) == _photo()).all()
    assert (overlay(_photo(), np.zeros(size, np.uint8), alpha=alpha) == _photo()).all()


def test_a_dark_photo_is_not_brightened_where_the_map_is_zero() -> None:
    heat = np.zeros((6, 9))
    heat[2, 3] = 1
    shown = overlay(np.full((6, 9, 3), 51, np.uint8), heat)
    assert (np.delete(shown.reshape(-1, 3), 2 * 9 + 3, axis=0) == 51).all()
    assert shown[2, 3].sum() > 3 * 51


@pytest.mark.parametrize("grey", [0, 51, 128, 200])
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_hot_is_hotter(grey: int, alpha: float | None) -> None:
    heat = np.tile(np.linspace(0, 4, 9), (6, 1))
    shown = overlay(np.full((6, 9, 3), grey, np.uint8), heat, alpha=alpha)[0].astype(int)
    assert shown[:, 0].argmax() == 8
    assert shown[:, :2].sum(1).argmax() == 8
    if grey == 0:
        assert (np.diff(shown[:, 0]) >= 0).all()


def test_the_photo_fades_as_the_map_grows() -> None:
    heat = np.tile(np.linspace(0, 4, 9), (6, 1))
    white, black = (overlay(np.full((6, 9, 3), level, np.uint8), heat)[0, :, 0].astype(int) for level in (255, 0))
    assert (np.diff(white - black) < 0).all()
    assert (white - black)[[0, -1]].tolist() == [255, 38]


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_uint8_and_float_agree(alpha: float | None) -> None:
    mask = np.arange(54, dtype=np.uint8).reshape(6, 9) * 4
    one = overlay(_photo(), mask, alpha=alpha).astype(int)
    other = overlay(_photo() / 255, mask / 255, alpha=alpha).astype(int)
    assert abs(one - other).max() <= 1


@pytest.mark.parametrize("value", [1.0, -1.0, 1e-20, np.nan])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_constant_map_stays_finite(value: float, alpha: float | None) -> None:
    with np.errstate(all="raise"):
        shown = overlay(_photo(), np.full((3, 5), value), alpha=alpha)
    assert len(shown) == 6
    assert (shown == _photo()).all() == (np.isnan(value) or alpha == 0)


def test_nan_leaves_its_pixel_alone() -> None:
    heat = np.ones((6, 9))
    heat[1, 2] = np.nan
    for alpha in (None, 0.5):
        shown = overlay(_photo(), heat, alpha=alpha)
        assert (shown[1, 2] == _photo()[1, 2]).all()
        assert (shown[4] != _photo()[4]).any()


def test_both_signs_show_and_zero_between_them_does_not() -> None:
    photo = np.full((1, 3, 3), 100, np.uint8)
    low, zero, high = overlay(photo, np.array([[-1.0, 0.0, 1.0]]))[0].astype(int)
    assert zero.tolist() == [100, 100, 100]
    assert low[2] > low[0]
    assert high[0] > high[2]


def test_a_small_map_lies_where_it_belongs() -> None:
    heat = np.zeros((2, 4))
    heat[0, 3] = 1
    changed = (overlay(np.zeros((20, 60, 3), np.uint8), heat).sum(2)) > 100
    rows, columns = np.nonzero(changed)
    assert rows.max() < 12
    assert columns.min() > 35


def test_grey_photos_become_rgb() -> None:
    grey = _photo()[..., 0]
    for photo in (grey, grey[..., None], grey / 255):
        assert (overlay(photo, np.zeros((6, 9))) == np.repeat(grey[..., None], 3, 2)).all()


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        (np.zeros((3, 6, 9)), "photo"),
        (np.full((6, 9, 3), 255.0), "255"),
        (np.full((6, 9, 3), np.nan), "0..1"),
        (np.zeros((6, 9, 3), np.int64), "int64"),
    ],
)
def test_what_is_no_photo_is_refused(photo: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=says):
        overlay(photo, np.ones((6, 9)))


@pytest.mark.parametrize("alpha", [-0.1, 1.5, 80, float("nan")])
def test_alpha_is_an_opacity(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        overlay(_photo(), np.ones((6, 9)), alpha=alpha)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.5, 1.0), (-2.0, -1.0), (-1.0, 3.0)])
def test_values_beyond_the_limits_look_as_the_ends_do(limits: tuple[float, float]) -> None:
    heat = np.array([[limits[0] - 5, limits[0], limits[1], limits[1] + 5]])
    pixels = overlay(np.full((1, 4), 128, np.uint8), heat, limits=limits)
    assert (pixels[0, 0] == pixels[0, 1]).all()
    assert (pixels[0, 2] == pixels[0, 3]).all()


@pytest.mark.parametrize("alpha", ["x", -0.1, 1.1, np.nan, [0.5]])
def test_other_opacities_are_refused(alpha: Any) -> None:
    with pytest.raises(InputError, match="alpha is an opacity"):
        overlay(np.zeros((2, 2), np.uint8), np.ones((2, 2)), alpha=alpha)


def test_a_map_of_zeros_changes_nothing_where_0_is_beyond_the_limits() -> None:
    photo = np.full((2, 2, 3), 51, np.uint8)
    assert (overlay(photo, np.zeros((2, 2)), limits=(0.5, 1.0)) == photo).all()
