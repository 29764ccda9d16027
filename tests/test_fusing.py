"""One map of several layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy import Explainer, datasets
from seewhy.errors import InputError, InputTypeError
from seewhy.methods import GradCAM
from seewhy.methods.fusing import fuse_maps
from seewhy.testing import small_cnn, unchanged

LAYERS = ["stem", "left", "body"]


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(1))


pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")  # a random network may have a map that is 0


def scaled(maps: np.ndarray) -> np.ndarray:
    largest = np.abs(maps).max((1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


@pytest.mark.parametrize("how", ["mean", "max", "layercam"])
def test_it_is_made_of_the_maps_of_each_layer(how: str) -> None:
    model, x = small_cnn(), images()
    each = Explainer(model).explain(x, "grad_cam", target=[1, 2, 3], layer=LAYERS)
    with unchanged(model):
        found = Explainer(model).explain(x, "grad_cam", target=[1, 2, 3], layer=LAYERS, fuse=how)
    assert list(found) == [("grad_cam", "stem+left+body")]
    parts = np.stack([scaled(one.maps) for one in each.values()])
    expected = {"mean": parts.mean(0), "max": parts.max(0), "layercam": np.tanh(2 * parts).max(0)}[how]
    one = found["grad_cam"]
    np.testing.assert_allclose(one.maps, expected, atol=1e-6)
    np.testing.assert_array_equal(one.values, one.maps)
    assert one.layer == "stem+left+body"
    assert expected.any()


def test_of_signed_maps_the_largest_in_magnitude_counts() -> None:
    maps = torch.tensor([[[1.0, -2.0, 0.0]], [[-0.5, 0.25, 0.0]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(fuse_maps(maps, "max"), torch.tensor([[-1.0, -1.0, 0.0]]))
    torch.testing.assert_close(fuse_maps(maps, "mean"), torch.tensor([[-0.5 / 3, -0.5 / 3, 0.0]]))
    torch.testing.assert_close(fuse_maps(maps, "layercam"), -torch.tensor([[2.0, 2.0, 0.0]]).tanh())


def test_beside_others_and_in_chunks() -> None:
    explainer, x = Explainer(small_cnn()), images()
    methods = ["saliency", GradCAM(fuse="max", name="fused"), "grad_cam"]
    found = explainer.explain(x, methods, target=1, layer=["left", "body"])
    assert list(found) == ["saliency", ("fused", "left+body"), ("grad_cam", "left"), ("grad_cam", "body")]
    small = explainer.explain(x, methods, target=1, layer=["left", "body"], batch_size=1)
    np.testing.assert_allclose(small["fused"].maps, found["fused"].maps, atol=1e-6)


def test_one_layer_is_nothing_to_fuse() -> None:
    for layer in (None, "body", ["body"]):
        with pytest.raises(InputError, match=r"several layers.*explainer\.layers"):
            Explainer(small_cnn()).explain(images(), "grad_cam", target=1, layer=layer, fuse="mean")


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="Did you mean 'max'"):
        GradCAM(fuse="maxx")
    with pytest.raises(InputTypeError, match="fuse"):
        Explainer(small_cnn()).explain(images(), "saliency", target=1, fuse="mean")


def test_they_are_kept_in_stores(tmp_path: object) -> None:
    explainer = Explainer(small_cnn())
    store = explainer.run(images(), GradCAM(fuse="mean"), ["left", "body"], to=f"{tmp_path}/maps.zarr", target=1)
    again = datasets.open(store.path)[1]["grad_cam"]
    expected = explainer.explain(images()[1], GradCAM(fuse="mean"), target=1, layer=["left", "body"])["grad_cam"]
    np.testing.assert_allclose(again.map, expected.map, atol=1e-5)
    assert again.layer == "left+body"
