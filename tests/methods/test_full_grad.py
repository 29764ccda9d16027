"""FullGrad: its parts add up to the score, and are put together as the paper says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from networks import images
from three import SIZE, explainer_of, network
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy import Explainer, SeewhyWarning
from seewhy.errors import InputError, ModelError
from seewhy.methods import FullGrad
from seewhy.testing import check_method, small_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Pictures are shown stretched:seewhy.SeewhyWarning")


def scaled(parts: Tensor) -> Tensor:
    parts = parts.abs()
    return (parts - parts.min()) / (parts.max() - parts.min())


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


def test_equal_to_the_equation() -> None:
    """By the gradients at what convolutions give, kept by hand."""
    model, x = Plain().double(), images(size=(17, 23))
    found = Explainer(model).explain(x, "full_grad", target=[1, 2])
    for i, target in enumerate((1, 2)):
        image = x[i : i + 1].clone().requires_grad_()
        a = model.one(image)
        b = model.two(a.relu())
        score = model.head(b.relu().mean((2, 3)))[0, target]
        own, at_a, at_b = torch.autograd.grad(score, [image, a, b])
        total = scaled(own * image).sum(1)
        for gradient, layer in ((at_a, model.one), (at_b, model.two)):
            heat = scaled(gradient * layer.bias.view(-1, 1, 1)).sum(1, keepdim=True)
            total = total + F.interpolate(heat, (17, 23), mode="bilinear")[:, 0]
        torch.testing.assert_close(torch.tensor(found.values[i]), total[0].float(), rtol=1e-4, atol=1e-5)
        parts = (own * image).sum() + (at_a * model.one.bias.view(-1, 1, 1)).sum()
        parts = parts + (at_b * model.two.bias.view(-1, 1, 1)).sum() + model.head.bias[target]
        torch.testing.assert_close(parts, score)
    assert (found.measures["completeness_error"] < 1e-6).all()
    np.testing.assert_array_equal(found.maps, found.values)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "squeezenet1_0", "densenet121", "mobilenet_v2"])
@pytest.mark.sweep
def test_it_is_complete_on_networks_of_relu(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=7).double().eval()
    found = Explainer(model).explain(images(size=(64, 96)), "full_grad", target=[1, 2])
    assert (found.measures["completeness_error"] < 1e-5).all()


def test_what_does_not_add_up_is_told_and_libra_helps() -> None:
    torch.manual_seed(0)
    model = torchvision.models.convnext_tiny(num_classes=5, layer_scale=0.5).eval()
    x = images(1, (64, 64)).float()
    with pytest.warns(SeewhyWarning, match="completeness_error"):
        plain = Explainer(model).explain(x, "full_grad", target=1)
    balanced = Explainer(model).explain(x, "full_grad", target=1, libra=True)
    assert balanced.measures["completeness_error"][0] < 1e-3 < 0.05 < plain.measures["completeness_error"][0]


def test_it_keeps_what_is_promised_of_every_method() -> None:
    check_method("full_grad")
    assert small_cnn().training is False


@pytest.mark.parametrize("normalised", [False, True])
def test_equal_to_pytorch_grad_cam_channel_by_channel(normalised: bool) -> None:
    """Which sees convolutions and batch norms; the last linear layer's bias has no positions in either."""
    theirs = pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    norms = (nn.BatchNorm2d(4), nn.BatchNorm2d(5)) if normalised else (nn.Identity(), nn.Identity())
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), norms[0], nn.ReLU(), nn.Conv2d(4, 5, 3), norms[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    for norm in norms:
        if normalised:
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.bias)
    model[-1].weight.data *= 1e4  # for it adds 1e-7 to what it divides by
    x = images(1, (17, 23)).float()
    found = Explainer(model).explain(x, "full_grad", target=1, per="channel")
    with theirs.FullGrad(model, []) as cam:
        own = x.clone().requires_grad_()
        cam.activations_and_grads(own)[0, 1].backward()
        expected = cam.compute_cam_per_layer(own, None, False).sum(1)
    np.testing.assert_allclose(found.values, expected, atol=1e-4 * expected.max())
    assert (found.measures["completeness_error"] < 1e-4).all()


def test_each_layer_counts_as_much_and_each_channel_only_if_asked() -> None:
    """A channel that hardly counts is as loud as any if it is scaled by itself."""
    model, x = Plain(), images(1, (17, 23)).float()
    with torch.no_grad():
        model.one.bias.copy_(torch.tensor([1.0, 1e-6, 1e-6, 1e-6]))
    layer, channel = (
        Explainer(model).explain(x, "full_grad", target=1, per=per).values for per in ("layer", "channel")
    )
    assert layer.min() >= 0
    assert channel.max() > layer.max()


def test_targets_of_an_image_and_chunks() -> None:
    model, x = small_cnn(), images(2, (16, 24)).float()
    explainer = Explainer(model)
    found = explainer.explain(x, "full_grad", target=[[1, 3], [0, 2]], batch_size=1)
    for row, (image, target) in enumerate([(0, 1), (0, 3), (1, 0), (1, 2)]):
        alone = explainer.explain(x[image], "full_grad", target=target)
        np.testing.assert_allclose(found.values[row], alone.values[0], atol=1e-5 * alone.values.max())
        np.testing.assert_allclose(found.measures["completeness_error"][row], 0, atol=1e-5)


def test_tokens_are_put_in_their_places() -> None:
    """The maps of a transformer are finite, of the input's size, and other for another class."""
    x, explainer = images(1, SIZE), explainer_of(network("vit"))
    with pytest.warns(SeewhyWarning, match="completeness_error"):
        one, other = (explainer.explain(x, "full_grad", target=k).values for k in (9, 4))
    assert one.shape == (1, *SIZE)
    assert one.min() >= 0
    assert np.abs(one - other).max() > 1e-2 * one.max()


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv3d])
def test_signals_and_volumes(convolution: Any) -> None:
    torch.manual_seed(4)
    net = nn.Sequential(convolution(2, 5, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    x = torch.rand(2, 2, *(12,) if convolution is nn.Conv1d else (4, 6, 8))
    net(x)
    found = Explainer(net).explain(x, "full_grad", target=[1, 2])
    assert found.maps.shape == (2, *x.shape[2:])
    assert (found.measures["completeness_error"] < 1e-5).all()


def test_biases_within_windows_are_refused() -> None:
    """Until what each image gets of them is known: the first side is no longer that of the images."""
    with pytest.raises(ModelError, match="windows of them"):
        explainer_of(network("swin")).explain(images(1, SIZE), "full_grad", target=9)


def test_a_network_without_biases_is_refused() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.raises(ModelError, match="no layer with positions adds one"):
        Explainer(model).explain(images(1, (16, 24)).float(), "full_grad", target=1)


def test_what_psi_scales_is_a_layer_or_a_channel() -> None:
    with pytest.raises(InputError, match=r"'layer' or 'channel', not 'chanel'. Did you mean 'channel'"):
        FullGrad(per="chanel")
