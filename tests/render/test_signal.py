"""Signals: the curve is where the signal is, the colour where the map is, at any length and number of channels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError
from seewhy.render import overlay
from seewhy.render.signal import LANES, channel_ticks, lanes, rows, strip, time_ticks, tint


def _signal(length: int, channels: int = 1) -> np.ndarray:
    phase = np.linspace(0, 6, length) + np.arange(channels)[:, None]
    return (127.5 + 127.5 * np.sin(phase)).astype(np.uint8)


def _dark(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=-1) < 60


@pytest.mark.parametrize("length", [1, 2, 30, 333, 999, 1000, 1001, 160_000])
def test_any_length_is_of_a_readable_width_and_the_curve_goes_from_side_to_side(length: int) -> None:
    pixels = lanes(_signal(length))
    assert pixels.dtype == np.uint8
    assert 500 < pixels.shape[1] <= 1000
    assert _dark(pixels).any(axis=0).all()


@pytest.mark.parametrize("length", [20, 500, 5_000])
def test_the_curve_is_at_the_height_of_its_level(length: int) -> None:
    levels = np.full((1, length), 255, np.uint8)
    levels[0, length // 2 :] = 0
    dark = _dark(lanes(levels))
    middle = dark.shape[0] // 2
    width = dark.shape[1]
    assert dark[:middle, : width // 3].any(axis=0).all()
    assert not dark[middle:, : width // 3].any()
    assert dark[middle:, -width // 3 :].any(axis=0).all()
    assert not dark[:middle, -width // 3 :].any()


def test_a_peak_of_one_sample_among_many_is_drawn_in_the_curve_and_in_the_map() -> None:
    levels, heat = np.zeros((1, 160_000), np.uint8), np.zeros(160_000)
    levels[0, 80_040], heat[80_040] = 255, -1.0
    pixels = lanes(levels, heat)
    above = pixels[: len(pixels) // 2]
    assert set(np.flatnonzero(_dark(above).any(axis=0))) in ({500}, {499, 500}, {500, 501}, {499, 500, 501})
    blue = np.flatnonzero(above[0, :, 2].astype(int) - above[0, :, 0] > 50)
    assert blue.tolist() == [500]
    band = strip(heat)
    assert np.flatnonzero((band[0] != band[0, 0]).any(axis=-1)).tolist() == [500]


@pytest.mark.parametrize("length", [7, 30, 640])
def test_each_sample_has_its_colour_over_its_own_width(length: int) -> None:
    heat = np.zeros(length)
    heat[length // 2] = 1
    for pixels in (lanes(np.zeros((1, length), np.uint8), heat), strip(heat)):
        times = pixels.shape[1] // length
        hot = np.flatnonzero((pixels[0] != pixels[0, 0]).any(axis=-1))
        assert hot.tolist() == list(range(length // 2 * times, (length // 2 + 1) * times))


def test_red_argues_for_and_blue_against_and_an_empty_map_leaves_the_page_white() -> None:
    colours = lanes(np.zeros((1, 3), np.uint8), np.array([-1.0, 0.0, 1.0]))[0, [100, 500, 900]].astype(int)
    assert colours[0, 2] - colours[0, 0] > 80
    assert colours[1].min() > 240
    assert colours[2, 0] - colours[2, 2] > 80
    assert (lanes(_signal(50), np.zeros(50)) == lanes(_signal(50))).all()
    assert (lanes(_signal(50))[0] == 255).all()


def test_more_evidence_is_never_paler_and_black_stays_readable_on_it() -> None:
    ramp = tint(np.linspace(0, 1, 256)[None], limits=(0.0, 1.0))[0] / 255
    luminance = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) <= 2e-3).all()  # rounding to levels
    assert (luminance.min() + 0.05) / (0.007 + 0.05) > 3  # against the curve's colour


def test_values_beyond_the_limits_have_the_colours_of_their_ends() -> None:
    beyond, ends = (tint(np.array([v]), limits=(-1.0, 1.0)) for v in ([-9.0, 0.0, 9.0], [-1.0, 0.0, 1.0]))
    assert (beyond == ends).all()


def test_channels_have_lanes_of_one_height_with_a_line_between() -> None:
    levels = np.zeros((3, 40), np.uint8)
    levels[1] = 255
    pixels = lanes(levels)
    (lines,) = np.nonzero((pixels == 205).all(axis=(1, 2)))
    assert lines.tolist() == [160, 321]
    lows = [np.flatnonzero(_dark(part)[:, 500]).mean() for part in np.split(pixels, lines)]
    assert lows[1] < 40 < 120 < min(lows[0], lows[2])


def test_more_channels_than_lanes_are_rows_with_the_map_over_them_as_over_a_photo() -> None:
    levels, heat = _signal(50, LANES + 1), np.linspace(0, 1, 50)
    picture = rows(levels)
    height, width = len(picture) // (LANES + 1), picture.shape[1] // 50
    assert (picture[height * 5, ::width, 0] == levels[5]).all()
    expected = overlay(picture, np.broadcast_to(heat.repeat(width), picture.shape[:2]), limits=(0.0, 1.0))
    assert (lanes(levels, heat, limits=(0.0, 1.0)) == expected).all()
    assert (lanes(levels) == picture).all()


def test_rows_of_long_signals_are_means() -> None:
    levels = np.tile(np.array([0, 100], np.uint8), (40, 3000))
    picture = rows(levels)
    assert picture.shape == (480, 1000, 3)
    assert (picture == 50).all()


@pytest.mark.parametrize(("length", "channels"), list(itertools.product([1, 7, 1000, 160_000], [1, 2, 12, 32, 80])))
def test_numbers_stand_where_their_samples_and_channels_are(length: int, channels: int) -> None:
    height, width = lanes(np.zeros((channels, length), np.uint8)).shape[:2]
    across, down = time_ticks(length), channel_ticks(channels)
    assert across[0][1] == "sample 0"
    assert len(across) <= 6
    assert len(down) <= 12
    for at, text in across:
        number = int(text.removeprefix("sample "))
        assert abs((at + 0.5) / width * length - (number + 0.5)) < 1e-6
    for at, text in down:
        number = int(text.removeprefix("channel "))
        assert abs((at + 0.5) / height - (number + 0.5) / channels) < 0.01
    assert bool(down) is (channels > 1)


@pytest.mark.parametrize(
    ("signal", "heat"),
    [
        (np.zeros((2, 5)), None),
        (np.zeros(5, np.uint8), None),
        (np.zeros((0, 5), np.uint8), None),
        (np.zeros((2, 5), np.uint8), np.zeros(4)),
        (np.zeros((2, 5), np.uint8), np.zeros((2, 5))),
    ],
)
def test_other_shapes_are_refused(signal: Any, heat: Any) -> None:
    with pytest.raises(InputError, match="signal"):
        lanes(signal, heat)
