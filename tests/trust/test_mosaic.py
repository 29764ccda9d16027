"""Mosaics: where each image is, and a map that is right."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from seewhy import Explainer, Method, Needs, SeewhyWarning, trust
from seewhy.errors import InputError
from seewhy.testing import small_cnn, unchanged
from seewhy.trust.mosaic import _cell, _laid, _mosaics


class Colours(nn.Module):
    """The score of class k is how much there is of colour k, squared: its gradient is where that colour is."""

    def forward(self, images):
        return (images**2).sum((2, 3)) / 2


@dataclass(frozen=True)
class Flat(Method):
    """The same everywhere."""

    needs = Needs(input_gradient="plain")

    def compute(self, record):
        return torch.ones_like(record.input[:, 0])


def coloured(classes, side=8):
    images = torch.zeros(len(classes), 4, side, side + 2)
    for i, cls in enumerate(classes):
        images[i, cls] = 1
    return images


@pytest.mark.parametrize("shrink", [False, True])
def test_a_right_map_is_in_its_cell(shrink):
    classes = [0, 1, 2, 3, 0]
    explainer = Explainer(Colours())
    with pytest.warns(SeewhyWarning, match="mean is shown"):
        found = explainer.explain(coloured(classes), "input_x_gradient", target=classes)
    score = trust.grid_pointing(explainer, found, shrink=shrink)
    np.testing.assert_allclose(score.values, 1, atol=0.05 if shrink else 1e-6)
    assert score.numbers["peak"].tolist() == [1] * 5
    assert len(set(score.numbers["cell"].tolist())) > 1
    constant = trust.grid_pointing(explainer, np.ones((5, 8, 10)), images=coloured(classes), target=classes,
                                   method=Flat())  # fmt: skip
    np.testing.assert_allclose(constant.values, 0.25)


def test_mosaics_hold_each_image_once_among_other_classes():
    classes = np.array([3, 3, 5, 7, 8, 9, 9])
    members, where = _mosaics(classes, np.arange(len(classes)), 4, 0)
    for row in range(len(classes)):
        assert members[row, where[row]] == row
        assert len({classes[i] for i in members[row]}) == 4
    assert set(where) <= set(range(4))
    again, _ = _mosaics(classes, np.arange(len(classes)), 4, 0)
    other, _ = _mosaics(classes, np.arange(len(classes)), 4, 1)
    assert (members == again).all()
    assert (members != other).any()


def test_images_are_laid_row_by_row_where_the_cells_are():
    images = [torch.full((1, 3, 5), float(i)) for i in range(4)]
    whole = _laid(images, 2)[0]
    for cell in range(4):
        assert (whole[_cell(whole.shape, 2, cell)] == cell).all()
    assert sum(_cell((7, 9), 3, cell).int() for cell in range(9)).unique().tolist() == [1]


def test_too_few_classes_are_refused():
    explainer, images = Explainer(small_cnn()), torch.rand(4, 3, 16, 16)
    found = explainer.explain(images, "saliency", target=[0, 1, 2, 2])
    with pytest.raises(InputError, match="4 classes, and these are of 3"):
        trust.grid_pointing(explainer, found)
    with pytest.raises(InputError, match="at least 2"):
        trust.grid_pointing(explainer, found, grid=1)
    found = explainer.explain(images, "saliency", target=lambda scores: scores[:, 1])
    with pytest.raises(InputError, match="these targets are none"):
        trust.grid_pointing(explainer, found)


def test_any_chunk_the_same_and_the_network_as_it_was():
    model, images = small_cnn(), torch.rand(4, 3, 16, 16)
    explainer = Explainer(model)
    found = explainer.explain(images, "saliency", target=[0, 1, 2, 3])
    with unchanged(model):
        one, other = (trust.grid_pointing(explainer, found, batch_size=size).values for size in (1, None))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_an_image_with_several_targets_is_not_its_own_rival():
    classes, images = np.array([0, 1, 1, 2, 2, 3, 3, 4]), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    for seed in range(5):
        members, where = _mosaics(classes, images, 4, seed)
        for row in range(8):
            rivals = np.delete(members[row], where[row])
            assert images[row] not in images[rivals]
    with pytest.raises(InputError, match="other images of 3 classes beside image 0"):
        _mosaics(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]), 4, 0)


def test_a_model_of_one_size_is_told_of_shrinking():
    torch.manual_seed(0)
    explainer = Explainer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)))
    found = explainer.explain(torch.rand(4, 3, 8, 8), "saliency", target=[0, 1, 2, 3])
    with pytest.raises(InputError, match="shrink=True"):
        trust.grid_pointing(explainer, found)
    assert trust.grid_pointing(explainer, found, shrink=True).undefined == 0
