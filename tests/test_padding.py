"""Detectors resize and pad their images: a layer's grid covers the padding too, and the map does not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from seewhy import Explainer


class Resized(GeneralizedRCNNTransform):
    """A detector's own, under its own name."""


class Corner(nn.Module):
    """Scores what is in the last patch of the image that is image, and not padding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.transform = Resized(64, 96, [0.0] * 3, [1.0] * 3, size_divisible=32)
        self.conv, self.relu = nn.Conv2d(3, 4, 8, 8), nn.ReLU()
        nn.init.constant_(self.conv.weight, 0.002)
        nn.init.zeros_(self.conv.bias)

    def forward(self, pictures):
        images, _ = self.transform(list(pictures))
        features = self.relu(self.conv(images.tensors))
        height, width = images.image_sizes[0]
        scores = (features[:, :, height // 8 - 1, width // 8 - 1] ** 3).sum(1).sigmoid()
        box, label = torch.tensor([[1.0, 1.0, 5.0, 5.0]]), torch.tensor([1])
        return [{"boxes": box, "scores": score[None], "labels": label} for score in scores]


def lit(size):
    images = torch.zeros(2, 3, *size)
    images[:, :, -8:, -8:] = 1
    return images


@pytest.mark.parametrize("size", [(64, 72), (72, 64), (64, 96), (64, 64)])
@pytest.mark.parametrize("method", ["grad_cam", "activations", "saliency"])
def test_the_map_is_where_the_evidence_is(method, size):
    layer = None if method == "saliency" else "relu"
    maps = Explainer(Corner()).explain(lit(size), method, layer=layer).maps
    assert maps.shape == (2, *size)
    for picture in maps:
        inside = picture[-12:, -12:].sum() / picture.sum()
        assert inside > 0.9
        peak = np.unravel_index(picture.argmax(), size)
        assert all(place >= side - 8 for place, side in zip(peak, size, strict=True))


def test_the_map_is_the_grid_without_its_padding():
    found = Explainer(Corner()).explain(lit((64, 72)), "grad_cam", layer="relu")
    assert found.values.shape == (2, 8, 12)
    whole = F.interpolate(torch.from_numpy(found.values)[:, None], (64, 96), mode="bilinear")[:, 0]
    np.testing.assert_allclose(found.maps, whole[:, :, :72], rtol=1e-5, atol=1e-9)


def test_a_store_has_the_same_maps(tmp_path):
    padded, methods = Explainer(Corner()), ["grad_cam", "activations", "saliency"]
    store = padded.run(lit((64, 72)), methods, "relu", to=tmp_path / "maps.zarr")
    for key, one in padded.explain(lit((64, 72)), methods, layer=["relu"]).items():
        assert np.array_equal(store[:][key].maps, one.maps)
