"""Signals and volumes: inputs with one side or three, through every method."""

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer, SeewhyError
from seewhy.testing import unchanged

METHODS = ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations"]
SIZES = {1: (60,), 3: (6, 20, 28)}
MODES = {1: "linear", 3: "trilinear"}


def net(sides, seed=0):
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if sides == 1 else (nn.Conv3d, nn.BatchNorm3d)
    torch.manual_seed(seed)
    layers = [conv(3, 6, 3, 2, 1), norm(6), nn.ReLU(inplace=True), conv(6, 8, 3, 1, 1), nn.ReLU()]
    pool = nn.AdaptiveAvgPool1d(1) if sides == 1 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(8, 3)).eval()


def inputs(sides, count=3):
    return torch.rand(count, 3, *SIZES[sides], generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
@pytest.mark.parametrize("sides", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_them_and_a_batch_is_its_singles(method, sides):
    model, x = net(sides), inputs(sides)
    with unchanged(model):
        found = Explainer(model).explain(x, method, target=[0, 1, 2], batch_size=2)
    assert found.maps.shape == (3, *SIZES[sides])
    assert found.images.shape == ((3, 3, 60, 3) if sides == 1 else (3, 6, 20, 28, 3))
    for index in range(3):
        alone = Explainer(model).explain(x[index], method, target=index)
        np.testing.assert_allclose(found.maps[index], alone.map, atol=1e-5)
        np.testing.assert_allclose(found.values[index], alone.values[0], atol=1e-5)


@pytest.mark.parametrize("sides", [1, 3])
def test_maps_are_linear_in_the_values_and_the_values_by_hand(sides):
    model, x = net(sides).double(), inputs(sides).double()
    found = Explainer(model).explain(x, ["grad_cam", "cam", "saliency"], target=1, layer="4")
    activation = model[:5](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[5:](activation)[:, 1].sum(), activation)
    weights = gradient.flatten(2).mean(2)
    expected = torch.einsum("nk,nk...->n...", weights, activation).relu().detach()
    assert expected.any()
    np.testing.assert_allclose(found["grad_cam"].values, expected, rtol=1e-5, atol=1e-7)
    upsampled = F.interpolate(expected[:, None], SIZES[sides], mode=MODES[sides])[:, 0]
    np.testing.assert_allclose(found["grad_cam"].maps, upsampled, rtol=1e-4, atol=1e-6)
    score = found["cam"].values.reshape(3, -1).mean(1) + model[-1].bias[1].item()
    np.testing.assert_allclose(score, found["cam"].scores, rtol=1e-4)
    x.requires_grad_()
    (at_input,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    np.testing.assert_allclose(found["saliency"].values, at_input, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found["saliency"].maps, at_input.abs().amax(1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sides", [1, 3])
def test_arrays_lists_and_single_ones(sides):
    model, x = net(sides), inputs(sides)
    expected = Explainer(model).explain(x, "saliency", target=1)
    for given in (x.numpy(), list(x), [x[:2], x[2].numpy()]):
        found = Explainer(model).explain(given, "saliency", target=1)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.images, expected.images)
    assert len(Explainer(model).predict(x[0])) == 1


def test_what_the_model_saw():
    x = inputs(1, 1)
    shown = Explainer(net(1)).explain(x, "saliency", target=1).images[0, :, :, 0] / 255
    low, high = x[0].amin(1, keepdim=True), x[0].amax(1, keepdim=True)
    np.testing.assert_allclose(shown, (x[0] - low) / (high - low), atol=0.003)
    x = inputs(3, 1)
    shown = Explainer(net(3)).explain(x, "saliency", target=1).images[0] / 255
    np.testing.assert_allclose(shown, x[0].movedim(0, -1), atol=0.003)


@pytest.mark.parametrize(
    ("sides", "shape", "message"),
    [
        (1, (3, 60, 2, 2, 2), r"float \(C, L\) or \(N, C, L\)"),
        (1, (60,), r"takes signals.*Add the channels"),
        (3, (60, 60), r"\(C, T, H, W\) or \(N, C, T, H, W\)"),
        (3, (1, 3, 20, 28), r"have 1 channels.*convolution takes 3"),
        (2, (1, 3, 6, 20, 28), r"expected \(C, H, W\) or \(N, C, H, W\)"),
    ],
)
def test_other_shapes_are_refused(sides, shape, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()) if sides == 2 else net(sides)
    with pytest.raises(SeewhyError, match=message):
        Explainer(model).explain(torch.rand(shape), "saliency", target=1)


def test_a_photo_is_no_video():
    with pytest.raises(SeewhyError, match=r"a picture or a file; expected float \(C, T, H, W\)"):
        Explainer(net(3), transform=_not_called).explain(PIL.Image.new("RGB", (20, 28)), "saliency")


def _not_called(_):
    raise AssertionError


def test_a_bare_array_is_told_what_a_signal_is():
    with pytest.raises(SeewhyError, match=r"float \(C, L\) or \(N, C, L\).*Add the channels"):
        Explainer(net(1)).explain(np.zeros(60), "saliency", target=1)


def test_a_picture_for_a_model_of_volumes_is_refused():
    with pytest.raises(SeewhyError, match=r"first convolution is a Conv3d.*videos or volumes \(N, C, T, H, W\)"):
        Explainer(net(3), transform=lambda _: torch.rand(3, 20, 28)).explain(
            np.zeros((20, 28, 3), np.uint8), "saliency", target=1
        )


@pytest.mark.parametrize(("sides", "layout"), [(1, "NCL"), (3, "NCTHW")])
def test_the_list_of_layers_with_nothing_given(sides, layout):
    rows = Explainer(net(sides)).layers()
    assert [row.layout for row in rows][:5] == [layout] * 5
    assert [row.name for row in rows if row.chosen] == ["4"]
