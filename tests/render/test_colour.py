"""Colours are honest: 0 is where it should be, and every map has a finite picture."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy.errors import InputError, UnknownNameError
from seewhy.render import colorize, in_colour, limits


def test_limits_start_at_zero_or_are_symmetric() -> None:
    assert limits(np.array([[1.0, 3.0]])) == (0.0, 3.0)
    assert limits(np.array([[-1.0, 3.0]])) == (-3.0, 3.0)
    assert limits(np.array([[1.0, 3.0]]), signed=True) == (-3.0, 3.0)
    assert limits(np.array([[-1.0, 3.0]]), signed=False) == (-1.0, 3.0)
    assert limits(np.array([[-2.0, -1.0]])) == (-2.0, 2.0)


def test_limits_ignore_what_is_not_finite() -> None:
    assert limits(np.array([[np.nan, np.inf, 2.0]])) == (0.0, 2.0)
    assert limits(np.full((2, 3), np.nan)) == (0.0, 0.0)


def test_a_percentile_leaves_out_the_few_largest_but_never_gives_an_empty_range() -> None:
    heat = np.append(np.linspace(0, 1, 999), 1000.0)
    assert 0.9 < limits(heat, percentile=99)[1] < 1.0
    assert limits(np.append(np.zeros(999), 5.0), percentile=99) == (0.0, 5.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30, 3e38, np.nan, np.inf])
def test_a_constant_map_has_one_colour(value: float) -> None:
    with np.errstate(all="raise"):
        colours = colorize(np.full((3, 5), value, np.float32))
    assert colours.shape == (3, 5, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1


def test_hotter_is_lighter() -> None:
    light = colorize(np.linspace(0, 7, 50)[None]).astype(float).sum(2)[0]
    assert (np.diff(light) >= 0).all()
    assert light[0] < 30


def test_in_a_signed_map_zero_is_neutral_and_the_signs_are_opposite() -> None:
    low, zero, high = colorize(np.array([[-2.0, 0.0, 1.0]]))[0].astype(int)
    assert zero.max() - zero.min() <= 3
    assert low[2] > low[0]
    assert high[0] > high[2]


def test_nan_is_grey() -> None:
    assert colorize(np.array([[np.nan, 1.0]]))[0, 0].tolist() == [128, 128, 128]


def test_a_uint8_mask_and_floats_agree() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert (colorize(mask) == colorize(mask / 255)).all()
    assert (colorize(mask, limits=(0.0, 0.5)) == colorize(mask / 255, limits=(0.0, 0.5))).all()


def test_values_beyond_the_limits_have_the_colours_of_the_ends() -> None:
    assert colorize(np.array([[-5.0, 0.0, 1.0, 9.0]]), "gray", (0.0, 1.0))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_an_unknown_colour_table_offers_a_close_one() -> None:
    with pytest.raises(UnknownNameError, match="'inferno'"):
        colorize(np.ones((2, 3)), "infernoo")


@pytest.mark.parametrize("heat", [np.ones(3), np.ones((1, 2, 3)), np.ones((0, 3)), np.array([["a"]])])
def test_what_is_no_map_is_refused(heat: np.ndarray) -> None:
    with pytest.raises(InputError, match="map"):
        colorize(heat)


def test_a_signed_attribution_in_colour_is_symmetric_about_grey() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 6))
    assert (in_colour(values) == in_colour(10 * values)).all()
    assert abs(in_colour(values).astype(int) + in_colour(-values) - 255).max() <= 1
    assert (in_colour(np.zeros((3, 5, 6))) == 128).all()
    values[0, 0, 0] = np.nan
    assert in_colour(values)[0, 0, 0] == 128
    with pytest.raises(InputError, match="three colours"):
        in_colour(np.ones((4, 5, 6)))


def test_white_is_at_0_also_where_the_limits_are_not_symmetric() -> None:
    heat = np.array([[-3.0, -1.0, 0.0, 1.0, 3.0]])
    wide, narrow = colorize(heat, limits=(-3.0, 3.0)), colorize(heat, limits=(-1.0, 3.0))
    assert np.ptp(narrow[0, 2].astype(int)) <= 3
    assert (narrow[0, 1:] == wide[0, 1:]).all()
    assert (narrow[0, 0] == wide[0, 1]).all()


def test_a_colour_table_is_a_name() -> None:
    import matplotlib as mpl

    with pytest.raises(UnknownNameError, match="no colour table"):
        colorize(np.ones((2, 2)), mpl.colormaps["jet"])  # type: ignore[arg-type]
