"""Which frames of a video are drawn, and where."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy.render.frames import MOST, chosen, columns, places, sheet


@pytest.mark.parametrize("count", [1, 2, 5, 15, 16, 17, 31, 32, 1000])
def test_frames_are_evenly_spaced_and_the_ends_are_there(count: int) -> None:
    numbers = chosen(count)
    assert len(numbers) == min(count, MOST)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    steps = np.diff(numbers)
    assert not len(steps) or (steps.min() >= 1 and np.ptp(steps) <= 1)


@pytest.mark.parametrize("shown", range(1, 17))
def test_each_frame_is_where_its_place_says(shown: int) -> None:
    frames = [np.full((6, 9, 3), i + 1, np.uint8) for i in range(shown)]
    whole = sheet(frames)
    corners = places(shown, 6, 9)
    assert len(corners) == shown
    for frame, (x, y) in zip(frames, corners, strict=True):
        assert (whole[y : y + 6, x : x + 9] == frame).all()
    assert columns(shown) <= 4
    assert -(-shown // columns(shown)) == -(-shown // 4)
