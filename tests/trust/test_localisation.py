"""Where the map is, on hand-made maps and masks."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn

EXPLAINER = Explainer(small_cnn())
METRICS = ("pointing_game", "energy_in_mask", "mass_accuracy", "rank_accuracy")
MASK = np.zeros((1, 40, 60), bool)
MASK[0, 10:20, 30:45] = True


def at(*places):
    found = np.zeros((1, 40, 60))
    for value, place in enumerate(places, 1):
        found[0][place] = value
    return found


@pytest.mark.parametrize(("place", "hit"), [((15, 40), 1), ((34, 40), 1), ((35, 40), 0), ((15, 59), 1), ((32, 57), 0)])
def test_a_hit_is_within_15_pixels_of_the_mask(place, hit):
    """(34, 40) is 15 below the mask's last row, (32, 57) 13 below and 13 to the right: 18.4 away."""
    assert trust.pointing_game(EXPLAINER, at(place), masks=MASK).values[0] == hit


def test_without_tolerance_only_the_mask_counts():
    for place, hit in (((19, 44), 1), ((20, 44), 0)):
        assert trust.pointing_game(EXPLAINER, at(place), masks=MASK, tolerance=0).mean == hit


def test_several_peaks_count_in_part():
    maps = at((15, 40)) + at((0, 0))
    assert trust.pointing_game(EXPLAINER, maps, masks=MASK).values[0] == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_an_empty_mask_is_neither_hit_nor_miss(name):
    """Quantus counts it as a hit."""
    masks = np.concatenate([MASK, np.zeros_like(MASK)])
    score = getattr(trust, name)(EXPLAINER, MASK.repeat(2, 0), masks=masks)
    assert np.isnan(score.values).tolist() == [False, True]
    assert score.undefined == 1
    assert score.mean == 1
    assert "undefined for 1" in repr(score)


@pytest.mark.parametrize("name", METRICS)
def test_a_full_mask_holds_everything(name):
    maps = np.random.default_rng(0).random((2, 40, 60))
    assert getattr(trust, name)(EXPLAINER, maps, masks=np.ones((2, 40, 60), bool)).values.tolist() == [1, 1]


@pytest.mark.parametrize("name", METRICS)
def test_a_mask_of_one_pixel(name):
    mask = np.zeros((1, 40, 60), bool)
    mask[0, 5, 7] = True
    assert getattr(trust, name)(EXPLAINER, at((5, 7)), masks=mask).mean == 1
    assert getattr(trust, name)(EXPLAINER, at((39, 59)), masks=mask).mean == 0


def test_a_constant_map_is_chance():
    maps, chance = np.full((1, 40, 60), 3.0), MASK.mean()
    assert trust.mass_accuracy(EXPLAINER, maps, masks=MASK).mean == pytest.approx(chance)
    assert trust.rank_accuracy(EXPLAINER, maps, masks=MASK).mean == pytest.approx(chance)
    assert trust.pointing_game(EXPLAINER, maps, masks=MASK, tolerance=0).mean == pytest.approx(chance)
    assert trust.energy_in_mask(EXPLAINER, maps, masks=MASK).undefined == 1
    assert trust.mass_accuracy(EXPLAINER, -maps, masks=MASK).undefined == 1


def test_shares_by_hand():
    maps = at((15, 40), (0, 0), (16, 41))  # 1 and 3 inside, 2 outside
    assert trust.mass_accuracy(EXPLAINER, maps, masks=MASK).mean == pytest.approx(4 / 6)
    assert trust.mass_accuracy(EXPLAINER, maps - 1, masks=MASK).mean == pytest.approx(2 / 3)  # 0, 1 and 2 are left
    assert trust.energy_in_mask(EXPLAINER, maps - 1, masks=MASK).mean == pytest.approx(4 / 6)
    two = np.zeros((1, 40, 60), bool)
    two[0, 15, 40] = two[0, 16, 41] = True
    assert trust.rank_accuracy(EXPLAINER, maps, masks=two).mean == 0.5  # the greatest two are 3 and 2


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    "masks", [MASK[:, :, :50], MASK[0, :20], MASK.repeat(2, 0), 255 * MASK, MASK * 0.5, [[1, 2], [3]]]
)
def test_masks_that_do_not_fit_are_refused(name, masks):
    with pytest.raises((InputError, TypeError), match="masks"):
        getattr(trust, name)(EXPLAINER, at((0, 0)), masks=masks)


def test_masks_may_be_numbers_or_tensors_and_without_an_axis_for_one():
    for masks in (MASK.astype(np.uint8), torch.from_numpy(MASK), MASK[0], MASK.astype(float)):
        assert trust.mass_accuracy(EXPLAINER, at((15, 40)), masks=masks).mean == 1


def test_volumes_have_a_distance_too():
    explainer = Explainer(nn.Sequential(nn.Conv3d(1, 2, 1)))
    masks, maps = np.zeros((1, 3, 30, 4), bool), np.zeros((1, 3, 30, 4))
    masks[0, 0, 0, 0] = maps[0, 0, 15, 0] = True
    assert trust.pointing_game(explainer, maps, masks=masks).mean == 1
    assert trust.pointing_game(explainer, maps, masks=masks, tolerance=14.9).mean == 0
