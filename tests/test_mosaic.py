"""Where the right answer is known: in a mosaic of photographs, each class is in its own quarter (Böhle 2021)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import Explainer, Explanation, samples

PHOTOS = {"cat": "tiger cat", "coffee": "espresso", "camera": "tripod", "motorcycle": "moped"}
SIDE = 224
ORDERS = [("cat", "coffee", "camera", "motorcycle"), ("motorcycle", "camera", "cat", "coffee")]


def mosaic(order: tuple[str, ...]) -> Tensor:
    """Four photographs, each as the network would see it alone, in reading order: (3, 448, 448)."""
    one, two, three, four = (samples.transform()(samples.photo(name)) for name in order)
    return torch.cat([torch.cat([one, two], 2), torch.cat([three, four], 2)], 1)


@functools.cache
def explained(order: tuple[str, ...]) -> Explanation:
    """Grad-CAM of each photo's own class on the mosaic of all."""
    batch = mosaic(order).expand(4, -1, -1, -1)
    return samples.explainer().explain(batch, "grad_cam", target=[PHOTOS[name] for name in order])


def quarter(array: np.ndarray, place: int) -> np.ndarray:
    down, right = divmod(place, 2)
    return array[SIDE * down : SIDE * (down + 1), SIDE * right : SIDE * (right + 1)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", PHOTOS)
def test_grad_cam_points_at_its_own_photo(order: tuple[str, ...], name: str) -> None:
    place = order.index(name)
    heat = explained(order).maps[place]
    right = quarter(heat, place)
    assert heat.shape == (2 * SIDE, 2 * SIDE)
    assert right.sum() > 0.6 * heat.sum()
    assert right.max() == heat.max()


def test_mosaic_shows_each_photo_where_it_is_put() -> None:
    """So that a transposed mosaic and a transposed map do not cancel."""
    picture = explained(ORDERS[0]).images[0]
    for place, name in enumerate(ORDERS[0]):
        alone = samples.explainer().explain(samples.photo(name), "activations", layer="_act1").images[0]
        seen = quarter(picture, place).astype(int)
        assert np.abs(seen - alone).max() <= 1


@pytest.mark.sweep
def test_shuffled_classifier_points_nowhere() -> None:
    """With the classes' weights permuted the map has no reason to be in the right quarter."""
    net = samples.network()
    linear = net.get_submodule("_fc")
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(parameter[order].clone())
    explainer = Explainer(net, transform=samples.transform(), class_names=samples.class_names())
    targets = [PHOTOS[name] for name in ORDERS[0]]
    found = explainer.explain(mosaic(ORDERS[0]).expand(4, -1, -1, -1), "grad_cam", target=targets)
    shares = [quarter(heat, i).sum() / heat.sum() for i, heat in enumerate(found.maps)]
    assert np.mean(shares) < 0.45
