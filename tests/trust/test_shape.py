"""Sparseness and complexity in closed form."""

import numpy as np
import pytest

from seewhy import Explainer, trust
from seewhy.testing import small_cnn

EXPLAINER = Explainer(small_cnn())


def test_a_pixel_and_a_constant():
    maps = np.zeros((3, 5, 8))
    maps[0, 2, 3], maps[1] = -4, 2
    sparse, simple = trust.sparseness(EXPLAINER, maps), trust.complexity(EXPLAINER, maps)
    np.testing.assert_allclose(sparse.values, [1 - 1 / 40, 0, np.nan], atol=1e-6)
    np.testing.assert_allclose(simple.values, [0, np.log(40), np.nan], atol=1e-6)
    assert sparse.higher_is_better
    assert not simple.higher_is_better
    assert sparse.undefined == simple.undefined == 1


def test_the_gini_index_is_half_the_mean_difference():
    maps = np.random.default_rng(0).normal(size=(2, 6, 7))
    for value, one in zip(trust.sparseness(EXPLAINER, maps).values, abs(maps), strict=True):
        one = one.ravel()
        assert value == pytest.approx(abs(one[:, None] - one).mean() / (2 * one.mean()), rel=1e-5)


def test_entropy_by_hand_and_scales_do_not_matter():
    maps = np.random.default_rng(0).normal(size=(2, 6, 7))
    shares = abs(maps[0]) / abs(maps[0]).sum()
    assert trust.complexity(EXPLAINER, maps).values[0] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-5)
    for metric in (trust.complexity, trust.sparseness):
        np.testing.assert_allclose(metric(EXPLAINER, maps).values, metric(EXPLAINER, 1e4 * maps).values, rtol=1e-5)
