"""The methods that ask the model again equal their references, Captum and pytorch-grad-cam, on real architectures."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import references
import timm
import torch
import torchvision
from networks import CASES, TARGETS, build, images
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from seewhy import Explainer, SeewhyWarning
from seewhy.methods import AblationCAM, IntegratedGradients, Occlusion, ReciproCAM, ScoreCAM, SmoothGrad
from seewhy.testing import SmallCNN

LARGE = ["resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "efficientnet_b0"]
NETWORKS = ["small", *(pytest.param(name, marks=pytest.mark.sweep) for name in LARGE)]
ZERO = torch.zeros(3, 1, 1, dtype=torch.float64)
LAYER = "layer2"  # of a ResNet-18, for what costs a forward for each channel
SMALL = (32, 48)  # for what costs many forwards
pytestmark = [
    pytest.mark.filterwarnings("ignore:Integrated gradients miss:seewhy.SeewhyWarning"),
    pytest.mark.filterwarnings("ignore:.*is 0 everywhere for image:seewhy.SeewhyWarning"),
]


def explainer_of(net: nn.Module) -> Explainer:
    return Explainer(net, transform=ImageClassification(crop_size=96))


def network(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, str]:
    """The network, and the layer to look at."""
    if name != "small":
        return build(name, dtype), CASES[name].layer
    torch.manual_seed(0)
    net = SmallCNN(12, 16)
    return net.eval().to(dtype), "left"


def values(net: nn.Module, method: object, layer: str | None = None, x: Tensor | None = None) -> Tensor:
    targets = list(TARGETS[: len(x)]) if x is not None else list(TARGETS)
    found = explainer_of(net).explain(images() if x is None else x, method, target=targets, layer=layer)
    return torch.tensor(found.values)


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max() / expected.abs().max()
    assert expected.abs().max() > 0
    assert error <= tolerance, f"{error:.2g} of the largest value"


@pytest.mark.parametrize("name", NETWORKS)
def test_ablation_cam(name: str) -> None:
    net, layer = network(name, torch.float32)
    x = images(1, (64, 96), torch.float32)
    target = [int(net(x).argmax())]
    found = explainer_of(net).explain(x, "ablation_cam", target=target, layer=layer).values
    assert_equal(torch.tensor(found), references.ablation_cam(net, x, target, layer), 1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_recipro_cam(name: str) -> None:
    net, layer = network(name)
    for gaussian in (True, False):
        x = images(size=(12, 16)) if name == "small" else images()
        expected = references.recipro_cam(net, x, TARGETS, layer, gaussian)
        assert_equal(values(net, ReciproCAM(gaussian=gaussian), layer, x), expected)


@pytest.mark.parametrize("channels", [None, 5, 1])
@pytest.mark.parametrize("name", ["small", pytest.param("resnet18", marks=pytest.mark.sweep)])
def test_score_cam(name: str, channels: int | None) -> None:
    net, layer = network(name)
    layer, x = LAYER if name == "resnet18" else layer, images(size=SMALL)
    expected = references.score_cam(net, x, TARGETS, layer, channels)
    assert_equal(values(net, ScoreCAM(channels=channels), layer, x), expected)


@pytest.mark.parametrize(("window", "stride"), [(32, 16), (20, 20), (40, 30), (13, 11)])
def test_occlusion_equals_a_loop_and_captum(window: int, stride: int) -> None:
    net, x = network("small")[0], images()[:, :, :64]
    found = values(net, Occlusion(window, stride, ZERO), x=x)
    assert_equal(found, references.occlusion(net, x, TARGETS, ZERO, window, stride))
    theirs = captum.attr.Occlusion(net).attribute(
        x, (3, window, window), strides=(3, stride, stride), target=[*TARGETS]
    )
    assert_equal(found, theirs.mean(1).detach())


@pytest.mark.parametrize("name", ["small", *(pytest.param(name, marks=pytest.mark.sweep) for name in LARGE[2:])])
def test_integrated_gradients_equal_captums(name: str) -> None:
    net, x = network(name)[0], images()
    theirs = captum.attr.IntegratedGradients(net).attribute(x, 0, target=[*TARGETS], n_steps=20)
    assert_equal(values(net, IntegratedGradients(steps=20, baseline=ZERO)), theirs.detach())


def test_integrated_gradients_measure_captums_completeness() -> None:
    net, x = network("small")[0], images()
    theirs, delta = captum.attr.IntegratedGradients(net).attribute(
        x, 0, target=[*TARGETS], n_steps=20, return_convergence_delta=True
    )
    change = (net(x) - net(torch.zeros_like(x)))[[0, 1], [*TARGETS]]
    found = explainer_of(net).explain(x, IntegratedGradients(steps=20, baseline=ZERO), target=list(TARGETS))
    np.testing.assert_allclose(found.measures["completeness_error"], (delta / change).abs().detach(), rtol=1e-3)
    np.testing.assert_allclose(found.maps, theirs.sum(1).detach(), atol=1e-4 * found.maps.max())


def test_smooth_grad_is_the_mean_over_its_own_draws() -> None:
    net, x = network("small")[0], images()
    method = SmoothGrad(samples=4, noise=0.1, seed=3)
    draws = [method._draw(number, x)[None].double() for number in range(4)]
    assert_equal(values(net, method), references.smooth_grad(net, x, TARGETS, draws, 0.1))


@pytest.mark.sweep
def test_ablation_cam_equals_pytorch_grad_cams_where_scores_are_positive() -> None:
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason="comes with the test extra")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, x = build("resnet18", torch.float32), images(1, dtype=torch.float32)
    target = int(net(x).argmax())
    assert net(x)[0, target] > 0
    found = explainer_of(net).explain(x, AblationCAM(), target=target, layer="layer4").values[0]
    cam = pytorch_grad_cam.AblationCAM(model=net, target_layers=[net.layer4])
    theirs = cam(x, [ClassifierOutputTarget(target)])[0]
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(found)[None, None], x.shape[2:], mode="bilinear", align_corners=False
    )[0, 0]
    scaled = (resized - resized.min()) / (resized.max() - resized.min())
    assert np.corrcoef(theirs.ravel(), scaled.ravel())[0, 1] > 0.999


TRANSFORMERS = {
    "torchvision ViT": lambda: torchvision.models.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=12),
    "timm ViT": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, embed_dim=24, num_heads=2, num_classes=12
    ),
    "torchvision Swin": lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [2, 2], num_classes=12),
    "timm Swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(2, 2), num_heads=(2, 4), embed_dim=24,
        num_classes=12,
    ),
}  # fmt: skip


def native(net: nn.Module, x: Tensor, layer: str) -> Tensor:
    """What the layer returns, in its own layout."""
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2].detach().clone()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_channels_of_tokens_and_channels_last_are_ablated_in_place(name: str) -> None:
    """Of tokens only those of the grid change; the class token stays as it was."""
    torch.manual_seed(1)
    net, x = TRANSFORMERS[name]().eval().double(), images(1, (32, 32))
    if name == "torchvision ViT":
        nn.init.normal_(net.heads.head.weight)
    explainer = explainer_of(net)
    chosen = explainer.explain(x, target=3)
    layer, grid = chosen.layer or "", chosen.values.shape[1:]
    if layer == "permute":  # channels first again
        layer = "norm"
    before, score = native(net, x, layer), net(x)[0, 3].detach()
    total = torch.zeros(grid, dtype=x.dtype)
    prefix = before.shape[1] - grid[0] * grid[1] if before.dim() == 3 else 0
    for k in range(before.shape[-1]):
        without = before.clone()
        without[(slice(None), slice(prefix, None), k) if before.dim() == 3 else (..., k)] = 0
        weight = (score - references.whole_run(net, x, layer, without)[0, 3]) / score.abs()
        channel = before[0, prefix:, k].reshape(grid) if before.dim() == 3 else before[0, ..., k]
        total += weight * channel
    found = explainer.explain(x, "ablation_cam", target=3, layer=layer)
    assert found.layer == layer
    assert_equal(torch.tensor(found.values[0]), total.relu())


def test_where_the_score_is_zero_ablation_is_not_divided_and_told() -> None:
    net, x = network("small")[0], images(1, (64, 96))

    def shifted(scores: Tensor) -> Tensor:
        return scores[:, 4] - float(net(x).detach()[0, 4])

    with pytest.warns(SeewhyWarning, match="S is 0"):
        found = explainer_of(net).explain(x, "ablation_cam", target=shifted, layer="left").values
    whole = references.ablation_cam(net, x, [4], "left") * net(x)[0, 4].abs()
    assert_equal(torch.from_numpy(found), whole.detach())


def test_negative_scores_keep_the_sign_of_the_weights() -> None:
    net, x = network("small")[0], images(1, (64, 96))
    low = float(net(x).detach()[0, 4].abs()) + 1
    found = explainer_of(net).explain(x, "ablation_cam", target=lambda s: s[:, 4] - low, layer="left").values
    plain = explainer_of(net).explain(x, "ablation_cam", target=4, layer="left").values
    scale = plain.max() / found.max()
    np.testing.assert_allclose(found * scale, plain, atol=1e-6 * plain.max())


def test_axioms_on_a_linear_network() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 4)).double()
    x, start = torch.rand(2, 3, 6, 8).double(), torch.rand(3, 6, 8).double()
    weight = net[1].weight[2].detach().view(3, 6, 8)
    explainer = explainer_of(net)
    single = explainer.explain(x, "occlusion", target=2, window=1, stride=1, baseline=start)
    assert_equal(torch.from_numpy(single.values), (weight * (x - start)).sum(1))
    path = explainer.explain(x, "integrated_gradients", target=2, steps=1, baseline=start)
    assert_equal(torch.from_numpy(path.values), weight * (x - start))
    assert path.measures["completeness_error"].max() < 1e-6
    smooth = explainer.explain(x, "smooth_grad", target=2, samples=3)
    assert_equal(torch.from_numpy(smooth.values), weight.expand(2, 3, 6, 8))
