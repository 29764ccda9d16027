"""The grid of an activation's channels."""

import numpy as np
import pytest

from seewhy.errors import InputError
from seewhy.render import channel_grid, standardized


def test_each_channel_has_mean_128_and_a_deviation_of_64_whatever_its_scale():
    rng = np.random.default_rng(0)
    for scale, shift in ((1, 0), (1e-9, 3e-9), (1e6, -5e6)):
        grey = standardized(rng.uniform(-1, 1, (3, 40, 50)) * scale + shift).astype(float)
        assert grey.mean((1, 2)) == pytest.approx(128, abs=0.1)
        assert grey.std((1, 2)) == pytest.approx(64, abs=0.3)


def test_a_dead_channel_is_blank_and_a_constant_one_grey():
    grey = standardized(np.stack([np.zeros((3, 4)), np.full((3, 4), 0.1), np.full((3, 4), -7.0), np.eye(3, 4)]))
    assert (grey[0] == 255).all()
    assert (grey[1:3] == 128).all()
    assert np.unique(grey[3]).size == 2


def test_what_is_not_finite_is_grey_and_counts_in_no_mean():
    values = np.array([[[0.0, 2.0, np.nan, np.inf]]])
    assert standardized(values).tolist() == [[[64, 192, 128, 128]]]
    assert (standardized(np.full((1, 2, 2), np.nan)) == 128).all()


def test_values_far_out_are_clipped():
    values = np.zeros((1, 10, 10))
    values[0, 0, 0] = 1
    assert standardized(values)[0, 0, 0] == 255


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (16, 1, 16), (17, 2, 16), (40, 3, 16)])
def test_sixteen_a_row(count, rows, columns):
    height, width = channel_grid(np.ones((count, 30, 40))).shape[:2]
    assert (height, width) == (rows * 31 - 1, columns * 41 - 1)


def test_tiles_are_in_order_and_enlarged_without_smoothing():
    values = np.arange(2 * 2 * 2, dtype=float).reshape(2, 2, 2) % 4
    grid = channel_grid(values)
    assert grid.shape == (28, 57, 3)
    assert np.unique(grid[:, :28]).size == 4
    assert (grid[:, :28] == grid[:, 29:]).all()


@pytest.mark.parametrize("shape", [(3, 4), (0, 2, 2), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="is \\(C, h, w\\)"):
        standardized(np.ones(shape))
