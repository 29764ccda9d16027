"""Every method equals its reference, on torchvision's networks, whatever way their ReLUs are spelled."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import references
import torch
from networks import CASES, RELU6S, RELUS, SIZE, TARGETS, DenseNetWithModule, TinyNet, build, images
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

import seewhy
from seewhy import Explainer, Explanation, Explanations, samples

NETWORKS = list(CASES)
LARGE = {"vgg11_bn", "densenet121", "efficientnet_b0"}  # what they show, a smaller one or a spelling shows, too
WITH_RELU = [name for name in NETWORKS if name != "efficientnet_b0"]
RELU_MODULES = [name for name in WITH_RELU if name not in ("densenet121", "googlenet")]  # Captum sees these only
RULED = ["guided_backprop", "deconvnet", "guided_grad_cam"]
METHODS = ["saliency", "grad_cam", "activations"]
CAM_HEADS = {  # where CAM is defined: the layer, the linear layer, what explanations call the layer
    "resnet18": ("layer4", "fc", "layer4"),
    "densenet121": ("features", "classifier", "features+relu"),
    "googlenet": ("inception5b", "fc", "inception5b"),
    "efficientnet_b0": ("features", "classifier.1", "features"),
    "regnet_y_400mf": ("trunk_output", "fc", "trunk_output"),
}


def explainer_of(net: nn.Module) -> Explainer:
    return Explainer(net, transform=ImageClassification(crop_size=96))


def methods_of(name: str) -> list[str]:
    return METHODS + (RULED if name in WITH_RELU else [])


@functools.cache
def explained(name: str) -> Explanations:
    """All methods that the network allows at once, for two images with a target each."""
    with warnings.catch_warnings():
        if name == "mobilenet_v3_small":  # that it warns, and of what, has a test of its own
            warnings.simplefilter("ignore", seewhy.SeewhyWarning)
        return explainer_of(build(name)).explain(
            images(), methods_of(name), target=list(TARGETS), layer=CASES[name].layer
        )


@functools.cache
def reference(name: str, method: str) -> Tensor:
    net, layer = build(name), CASES[name].layer
    known: dict[str, Callable[[], Tensor]] = {
        "saliency": lambda: references.saliency(net, images(), TARGETS),
        "guided_backprop": lambda: references.guided_backprop(net, images(), TARGETS),
        "deconvnet": lambda: references.deconvnet(net, images(), TARGETS),
        "grad_cam": lambda: references.grad_cam(net, images(), TARGETS, layer),
        "guided_grad_cam": lambda: references.guided_grad_cam(net, images(), TARGETS, layer),
        "activations": lambda: references.activations(net, images(), layer),
    }
    return known[method]()


@functools.cache
def captum(name: str, method: str) -> Tensor:
    net = build(name)
    if method == "grad_cam":
        return references.captum_grad_cam(net, images(), TARGETS, CASES[name].layer)
    known = {
        "saliency": references.captum_saliency,
        "guided_backprop": references.captum_guided_backprop,
        "deconvnet": references.captum_deconvnet,
    }
    return known[method](net, images(), TARGETS)


def assert_equal(ours: np.ndarray | Tensor, right: np.ndarray | Tensor, tolerance: float = 1e-4) -> None:
    """Equal, for each image, to `tolerance` of the image's largest absolute value; and not for being zero."""
    ours, right = np.asarray(ours), np.asarray(right)
    assert ours.shape == right.shape
    for one, other in zip(ours, right, strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        assert np.abs(one - other).max() <= tolerance * scale


def swept(name: str, *rest: str) -> Any:
    """A case that only the sweep runs where its network is one of the larger."""
    return pytest.param(name, *rest, marks=pytest.mark.sweep if name in LARGE else ())


CAPTUM = [swept(name, method) for name in NETWORKS for method in ("saliency", "grad_cam")]
CAPTUM += [swept(name, method) for name in RELU_MODULES for method in ("guided_backprop", "deconvnet")]


@pytest.mark.parametrize(("name", "method"), CAPTUM)
def test_captum_confirms_the_references(name: str, method: str) -> None:
    assert_equal(reference(name, method), captum(name, method), 1e-9)


@pytest.mark.parametrize(("name", "method"), CAPTUM)
def test_values_equal_captums_where_it_is_right(name: str, method: str) -> None:
    assert_equal(explained(name)[method].values, captum(name, method))


@pytest.mark.parametrize(("name", "method"), [swept(n, m) for n in NETWORKS for m in methods_of(n)])
def test_values_equal_the_reference(name: str, method: str) -> None:
    assert_equal(explained(name)[method].values, reference(name, method))


@pytest.mark.parametrize(("name", "method"), [swept(n, m) for n in NETWORKS for m in methods_of(n)])
def test_maps_are_made_of_the_values_as_the_design_says(name: str, method: str) -> None:
    values = reference(name, method)
    if method == "activations":
        right = references.layer_map(values.mean(1), SIZE)
    elif method == "grad_cam":
        right = references.layer_map(values, SIZE)
    else:
        right = references.input_map(values)
    assert_equal(explained(name)[method].maps, right)


@pytest.mark.parametrize("name", map(swept, NETWORKS))
def test_result_says_what_it_explains(name: str) -> None:
    with torch.no_grad():
        logits = build(name)(images())
    both = explained(name)
    for explanation in both.values():
        asks = explanation.method != "activations"
        at_layer = explanation.method in ("grad_cam", "guided_grad_cam", "activations")
        assert explanation.layer == (CASES[name].layer if at_layer else None)
        assert explanation.values.dtype == explanation.maps.dtype == np.float32
        if asks:
            assert explanation.targets.tolist() == list(TARGETS)
            np.testing.assert_allclose(explanation.scores, logits[[0, 1], list(TARGETS)], rtol=1e-5)
            chances = logits.softmax(1)[[0, 1], list(TARGETS)]
            np.testing.assert_allclose(explanation.probabilities, chances, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "googlenet", "regnet_y_400mf"])
def test_a_batch_is_its_images_one_by_one(name: str) -> None:
    explainer, x = explainer_of(build(name)), images()
    for i, target in enumerate(TARGETS):
        alone = explainer.explain(x[i : i + 1], methods_of(name), target=target, layer=CASES[name].layer)
        for method in methods_of(name):
            assert_equal(alone[method].values, explained(name)[method].values[i : i + 1], 1e-6)


def test_one_image_for_several_targets() -> None:
    """The same picture twice with two targets gives two maps: targets go by image, not by picture."""
    x = images()[:1].repeat(2, 1, 1, 1)
    explanation = explainer_of(build("resnet18")).explain(x, "grad_cam", target=[9, 4], layer="layer4")
    assert_equal(explanation.values, references.grad_cam(build("resnet18"), x, [9, 4], "layer4"))
    assert np.abs(explanation.values[0] - explanation.values[1]).max() > 0.1 * explanation.values.max()


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_float32_network(name: str) -> None:
    net, x = build(name, torch.float32), images(dtype=torch.float32)
    both = explainer_of(net).explain(x[:1], ["saliency", "grad_cam"], target=9, layer=CASES[name].layer)
    assert_equal(both["saliency"].values, references.saliency(net, x[:1], [9]))
    assert_equal(both["grad_cam"].values, references.grad_cam(net, x[:1], [9], CASES[name].layer))


# --- networks that are not all ReLU


@pytest.mark.parametrize("method", RULED)
def test_network_without_relu_is_refused(method: str) -> None:
    with pytest.raises(seewhy.SeewhyError, match="SiLU"):
        explainer_of(build("efficientnet_b0")).explain(images(), method, target=list(TARGETS), layer="features")


@pytest.mark.parametrize("method", RULED)
def test_mixed_network_is_warned_of_with_counts(method: str) -> None:
    net = build("mobilenet_v3_small")
    relus = sum(isinstance(m, nn.ReLU) for m in net.modules())
    hardswishes = sum(isinstance(m, nn.Hardswish) for m in net.modules())
    with pytest.warns(seewhy.SeewhyWarning, match=rf"\b{relus}\b.*ReLU.*\b{hardswishes}\b.*Hardswish"):
        explanation = explainer_of(net).explain(images(), method, target=list(TARGETS), layer="features")
    assert_equal(explanation.values, reference("mobilenet_v3_small", method))


@pytest.mark.parametrize("name", ["vgg11_bn", "mobilenet_v3_small", "alexnet"])
def test_network_without_a_cam_head_is_refused(name: str) -> None:
    with pytest.raises(seewhy.SeewhyError, match=re.compile("grad.?cam", re.IGNORECASE)):
        explainer_of(build(name)).explain(images(), "cam", target=list(TARGETS))


# --- CAM and Grad-CAM are one where both are defined


@functools.cache
def cam_of(name: str) -> Explanation:
    return explainer_of(build(name)).explain(images(), "cam", target=list(TARGETS))


@functools.cache
def reference_cam(name: str) -> Tensor:
    layer, linear, label = CAM_HEADS[name]
    return references.cam(build(name), images(), TARGETS, layer, linear, label.endswith("+relu"))


@pytest.mark.parametrize("name", map(swept, CAM_HEADS))
def test_cam_equals_the_reference_and_says_its_layer(name: str) -> None:
    assert_equal(cam_of(name).values, reference_cam(name))
    assert_equal(cam_of(name).maps, references.layer_map(reference_cam(name), SIZE))
    assert cam_of(name).layer == CAM_HEADS[name][2]


@pytest.mark.parametrize("name", map(swept, CAM_HEADS))
def test_mean_of_cam_and_bias_is_the_logit(name: str) -> None:
    net = build(name)
    bias = net.get_submodule(CAM_HEADS[name][1]).get_parameter("bias").detach()[list(TARGETS)]
    with torch.no_grad():
        logits = net(images())[[0, 1], list(TARGETS)]
    np.testing.assert_allclose(cam_of(name).values.mean((1, 2)) + bias.numpy(), logits, rtol=1e-4)


@pytest.mark.parametrize("name", [swept(name) for name, head in CAM_HEADS.items() if head[0] == head[2]])
def test_grad_cam_is_the_positive_part_of_cam(name: str) -> None:
    cam = cam_of(name).values
    assert_equal(explained(name)["grad_cam"].values, np.maximum(cam, 0) / cam[0].size)


def test_grad_cam_is_the_positive_part_of_cam_on_densenet() -> None:
    """What is pooled there is no module's output; the same network with a module for it has a layer to ask."""
    net = DenseNetWithModule(build("densenet121")).eval()
    both = explainer_of(net).explain(images(), ["cam", "grad_cam"], target=list(TARGETS), layer="last_relu")
    cam = cam_of("densenet121").values
    assert both["cam"].layer == "last_relu"
    assert_equal(both["cam"].values, cam, 1e-6)
    assert_equal(both["grad_cam"].values, np.maximum(cam, 0) / cam[0].size)


def test_cam_where_pooling_is_last() -> None:
    """SqueezeNet pools the ReLU of a map for each class: the score is linear in the mean of these maps only."""
    net = build("squeezenet1_1")
    cam = explainer_of(net).explain(images(), "cam", target=list(TARGETS))
    pooled = references.activations(net, images(), "classifier.2")
    assert cam.layer == "classifier.2"
    assert_equal(cam.values, torch.stack([pooled[0, TARGETS[0]], pooled[1, TARGETS[1]]]))


def test_cam_where_a_1x1_convolution_is_pooled() -> None:
    """Without a ReLU after it the convolution is the linear layer, and what it reads is the activation."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    cam = explainer_of(net.eval()).explain(images(dtype=torch.float32), "cam", target=[2, 4])
    maps = references.activations(net, images(dtype=torch.float32), "2")
    bias = net.get_submodule("2").get_parameter("bias").detach()
    assert cam.layer == "1"
    assert_equal(cam.values, torch.stack([maps[0, 2] - bias[2], maps[1, 4] - bias[4]]))


def test_cam_and_grad_cam_of_the_trained_network() -> None:
    """The identities hold on real weights, for photographs and any class, at a size that is not square."""
    net = samples.network()
    seen = [samples.transform()(samples.photo(name)) for name in ("cat", "coffee")]
    x, targets = torch.stack(seen)[:, :, 32:, :], [282, 967]  # tiger cat, espresso
    explainer = samples.explainer()
    cam = explainer.explain(x, "cam", target=targets)
    grad_cam = explainer.explain(x, "grad_cam", target=targets, layer=cam.layer)
    assert cam.values.shape == (2, 6, 7)
    assert cam.layer is not None
    linear = next(n for n, m in net.named_modules() if isinstance(m, nn.Linear))
    assert_equal(cam.values, references.cam(net, x, targets, cam.layer, linear))
    assert_equal(grad_cam.values, np.maximum(cam.values, 0) / cam.values[0].size)
    with torch.no_grad():
        logits = net(x)[[0, 1], targets]
    bias = net.get_submodule(linear).get_parameter("bias").detach()[targets]
    np.testing.assert_allclose(cam.values.mean((1, 2)) + bias.numpy(), logits, rtol=1e-4)


# --- the spelling of ReLU changes nothing

SPELLED = ["saliency", "guided_backprop", "deconvnet", "grad_cam", "guided_grad_cam", "activations"]


@functools.cache
def spelled(spelling: str) -> Explanations:
    x = images(size=(24, 32), dtype=torch.float32)
    return explainer_of(TinyNet(spelling)).explain(x, SPELLED, target=[2, 5], layer="body")


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
@pytest.mark.parametrize("method", SPELLED)
def test_spelling_changes_no_map(spelling: str, method: str) -> None:
    plain = spelled("module" if spelling in RELUS else "relu6 module")
    assert_equal(spelled(spelling)[method].values, plain[method].values, 1e-6)
    assert_equal(spelled(spelling)[method].maps, plain[method].maps, 1e-6)


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
def test_spelling_changes_no_cam(spelling: str) -> None:
    net, x = TinyNet(spelling), images(size=(24, 32), dtype=torch.float32)
    found = explainer_of(net).explain(x, "cam", target=[2, 5])
    pooled = references.activations(net, x, "body").clamp(0, 6 if spelling in RELU6S else None)
    assert_equal(found.values, torch.einsum("nk,nkhw->nhw", net.fc.weight.detach()[[2, 5]], pooled))
    if not isinstance(net.act, nn.Module):
        assert found.layer == "body+relu"
    elif "shared" not in spelling:
        assert found.layer == "act"


@pytest.mark.parametrize("spelling", ["module", "functional in place", "shared", "relu6 module", "relu6 in place"])
def test_skips_and_branches_equal_the_reference(spelling: str) -> None:
    """Per ReLU, not per module: its input feeds a skip as well, and branches run beside each other."""
    net, x = TinyNet(spelling), images(size=(24, 32), dtype=torch.float32)
    found = spelled(spelling)
    assert_equal(found["saliency"].values, references.saliency(net, x, [2, 5]))
    assert_equal(found["guided_backprop"].values, references.guided_backprop(net, x, [2, 5]))
    assert_equal(found["deconvnet"].values, references.deconvnet(net, x, [2, 5]))
    assert_equal(found["grad_cam"].values, references.grad_cam(net, x, [2, 5], "body"))


@pytest.mark.parametrize("spelling", [s for s in (*RELUS, *RELU6S) if s != "checkpoint"])
def test_references_know_every_spelling(spelling: str) -> None:
    """But for a checkpoint, which computes again in the backward, where the reference's ReLU is switched off."""
    net, x = TinyNet(spelling), images(size=(24, 32), dtype=torch.float32)
    plain = TinyNet("module" if spelling in RELUS else "relu6 module")
    for method in (references.saliency, references.guided_backprop, references.deconvnet):
        assert_equal(method(net, x, [2, 5]), method(plain, x, [2, 5]), 1e-6)


def test_rules_differ_from_the_plain_gradient() -> None:
    """Else all the equalities above would hold for rules that do nothing."""
    for spelling in ("module", "relu6 module"):
        found = {method: spelled(spelling)[method].values for method in ("saliency", "guided_backprop", "deconvnet")}
        for one, other in (
            ("saliency", "guided_backprop"),
            ("saliency", "deconvnet"),
            ("guided_backprop", "deconvnet"),
        ):
            assert np.abs(found[one] - found[other]).max() > 0.05 * np.abs(found[one]).max()


# --- what a layer gave, though the next line changes it in place

IN_PLACE = [
    ("vgg11_bn", "features.1"),  # BatchNorm before an in-place ReLU
    ("vgg11_bn", "features.0"),
    ("alexnet", "features.0"),  # convolution before an in-place ReLU
    ("squeezenet1_1", "features.0"),
    ("resnet18", "layer4.0.bn2"),  # before out += identity
    ("resnet18", "layer2.1.bn1"),
    ("densenet121", "features"),  # before F.relu(..., inplace=True)
    ("mobilenet_v3_small", "features.0.1"),  # before an in-place Hardswish
    ("regnet_y_400mf", "stem.1"),
]


@pytest.mark.parametrize(("name", "layer"), [swept(*case) for case in IN_PLACE])
def test_captured_means_untouched(name: str, layer: str) -> None:
    net, x = build(name), images()
    explainer = explainer_of(net)
    both = explainer.explain(x, ["activations", "grad_cam"], target=list(TARGETS), layer=layer)
    assert_equal(both["activations"].values, references.activations(net, x, layer), 1e-6)
    assert_equal(both["grad_cam"].values, references.grad_cam(net, x, TARGETS, layer))
    alone = explainer.explain(x, "activations", layer=layer)
    assert_equal(alone.values, references.activations(net, x, layer), 1e-6)


def test_many_layers_at_once() -> None:
    net, x = build("resnet18"), images()
    layers = ["conv1", "layer1", "layer2.0.bn1", "layer3", "layer4.0.bn2", "layer4"]
    both = explainer_of(net).explain(x, ["grad_cam", "activations", "saliency"], target=list(TARGETS), layer=layers)
    for layer in layers:
        assert_equal(both["grad_cam", layer].values, references.grad_cam(net, x, TARGETS, layer))
        assert_equal(both["activations", layer].values, references.activations(net, x, layer), 1e-6)
    assert_equal(both["saliency"].values, reference("resnet18", "saliency"))
