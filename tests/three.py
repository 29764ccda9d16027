"""One small network for each layout in which layers hold positions: channels first, tokens, channels last."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import references
import timm
import torch
from references import Form
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from seewhy import Explainer
from seewhy.testing import SmallCNN

SIZE = (32, 48)
CLASSES = 12
TARGETS = (9, 4)


class Kind(NamedTuple):
    """A network, the layer where CAMs look, and how that holds its positions."""

    build: Callable[[], nn.Module]
    layer: str
    form: Form


KINDS = {
    "cnn": Kind(lambda: SmallCNN(CLASSES, 16), "left", references.CHANNELS_FIRST),
    "vit": Kind(
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=SIZE, patch_size=8, depth=3, embed_dim=24, num_heads=2, num_classes=CLASSES
        ),
        "blocks.1",
        references.tokens((4, 6), 1),
    ),
    "swin": Kind(
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=SIZE, window_size=4, depths=(2, 2), num_heads=(2, 4), embed_dim=16,
            num_classes=CLASSES,
        ),
        "layers.1",
        references.CHANNELS_LAST,
    ),
}  # fmt: skip


@functools.cache
def _built(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = KINDS[name].build()
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, 0, 0.1)
    return net.eval().double()


def network(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """With random weights, in eval mode; the caller's own."""
    return copy.deepcopy(_built(name)).to(dtype)


def explainer_of(net: nn.Module) -> Explainer:
    """With a transform of torchvision's, so that nothing is assumed."""
    return Explainer(net, transform=ImageClassification(crop_size=96))


def assert_equal(found: np.ndarray, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal, for each image, to `tolerance` of its largest absolute value; and not for being 0."""
    ours = torch.tensor(found).double()
    assert ours.shape == expected.shape
    for one, other in zip(ours, expected.detach().double(), strict=True):
        scale = other.abs().max()
        assert scale > 0
        error = (one - other).abs().max() / scale
        assert error <= tolerance, f"{error:.2g} of the largest value"


def named_baseline(name: str, x: Tensor) -> Tensor:
    """What a baseline of that name is for an image ``(1, 3, *SIZE)`` normalised as ImageNet's; noise by the seed 5."""
    mean, std = (torch.tensor(n).view(3, 1, 1) for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    kernel = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.6**2))  # 32 / 20 pixels, 3 of these
    kernel = kernel / kernel.sum()
    padded = nn.functional.pad(x, (5, 5, 5, 5), mode="replicate")
    blurred = nn.functional.conv2d(padded, (kernel[:, None] * kernel).expand(3, 1, 11, 11), groups=3)
    draw = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(5))
    named = {"black": (0 - mean) / std, "white": (1 - mean) / std, "mean": x.mean((2, 3), keepdim=True)[0],
             "blur": blurred[0], "noise": (draw - mean) / std}  # fmt: skip
    return named[name].double()
