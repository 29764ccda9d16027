"""Where a gradient ends is named, innermost first."""

import pytest
import torch
from torch import nn

from seewhy import Explainer, SeewhyError
from seewhy.engine.borrow import borrowed
from seewhy.engine.diagnose import where_gradient_ends

IMAGES = torch.rand(1, 3, 6, 8)


class Cut(nn.Module):
    def forward(self, x):
        return x.detach()


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.conv(x).detach().mean((2, 3))


def test_the_innermost_module_is_named():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sequential(nn.ReLU(), Cut()), nn.Flatten())
    with borrowed(model):
        assert "'1.1' (Cut)" in where_gradient_ends(model, IMAGES)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_cut_in_the_models_own_forward():
    model = Root()
    with borrowed(model):
        assert "the model's own forward" in where_gradient_ends(model, IMAGES)


def test_only_cuts_after_the_layer_count():
    model = nn.Sequential(Cut(), nn.Conv2d(3, 2, 3), Cut(), nn.Flatten())
    with borrowed(model):
        assert "'0'" in where_gradient_ends(model, IMAGES)
        assert "'2'" in where_gradient_ends(model, IMAGES, after="1")


def test_no_cut():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with borrowed(model):
        assert "by exactly 0" in where_gradient_ends(model, IMAGES)


def test_a_head_of_zeros_is_named():
    """As torchvision's ViT has it before training."""
    from torchvision.models import vit_b_32

    model = vit_b_32(weights=None, image_size=64, num_classes=3).eval()
    for method in ("saliency", "grad_cam"):
        with pytest.raises(SeewhyError, match=r"All weights of 'heads.head' are 0: is the model trained"):
            Explainer(model).explain(torch.rand(1, 3, 64, 64), method, target=1)
