"""CAM finds what is pooled, whatever pools it, and refuses where it is not defined."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer, SeewhyError
from seewhy.testing import unchanged

IMAGES = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
POOLINGS = {
    "module": lambda net, y: net.pool(y).flatten(1),
    "functional": lambda net, y: F.adaptive_avg_pool2d(y, 1).flatten(1),
    "mean": lambda net, y: y.mean((2, 3)),
    "mean of tokens": lambda net, y: y.flatten(2).mean(2),
    "fixed window": lambda net, y: F.avg_pool2d(y, (12, 16))[:, :, 0, 0],
}


class Net(nn.Module):
    def __init__(self, pooling=POOLINGS["mean"], relu=None, head=None):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.pool = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh()), nn.AdaptiveAvgPool2d(1)
        self.drop, self.head = nn.Dropout(), head or nn.Linear(6, 4)
        self.pooling, self.relu = pooling, relu
        self.eval()

    def forward(self, x):
        y = self.body(x)
        return self.head(self.drop(self.pooling(self, self.relu(y) if self.relu else y)))


def check(net, activation, weight, bias, layer):
    found = Explainer(net).explain(IMAGES, "cam", target=[1, 2])
    expected = torch.einsum("nc,nchw->nhw", weight[[1, 2]], activation)
    np.testing.assert_allclose(found.values, expected.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found.values.mean((1, 2)) + bias[[1, 2]].detach().numpy(), found.scores, rtol=1e-4, atol=1e-6
    )
    assert found.layer == layer
    grad_cam = Explainer(net).explain(IMAGES, "grad_cam", target=[1, 2], layer="body")
    if layer == "body":
        np.testing.assert_allclose(grad_cam.values, np.maximum(found.values, 0) / (12 * 16), rtol=1e-4, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
@pytest.mark.parametrize("pooling", POOLINGS.values(), ids=POOLINGS)
@pytest.mark.parametrize(
    ("relu", "suffix"),
    [(None, ""), (F.relu, "+relu"), (F.relu_, "+relu"), (lambda y: F.relu6(y * 1), "+relu")],
    ids=["none", "relu", "in place", "relu6"],
)
def test_any_pooling_with_and_without_a_functional_relu(pooling, relu, suffix):
    net = Net(pooling, relu)
    activation = net.body(IMAGES)
    check(net, activation.relu() if relu else activation, net.head.weight, net.head.bias, "body" + suffix)


@pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
@pytest.mark.parametrize("relu", [F.relu, F.relu_, F.relu6, lambda y: y.clamp(min=0), lambda y: y.clamp(0, 6)])
def test_where_cam_is_defined_can_be_named_for_other_methods(relu):
    net = Net(relu=relu)
    net.body[0].weight.data *= 10
    net.body[1] = nn.Identity()
    cam = Explainer(net).explain(IMAGES, "cam", target=[1, 2])
    found = Explainer(net).explain(IMAGES, ["grad_cam", "activations", "cam"], target=[1, 2], layer=cam.layer)
    np.testing.assert_allclose(found["grad_cam"].values, np.maximum(cam.values, 0) / (12 * 16), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found["activations"].values, relu(net.body(IMAGES)).detach(), rtol=1e-6)
    assert found["grad_cam"].layer == "body+relu"
    np.testing.assert_array_equal(
        Explainer(net).explain(IMAGES, "activations", layer="body+relu").values, found["activations"].values
    )


def test_a_relu_that_is_not_there_is_refused():
    with pytest.raises(SeewhyError, match="No functional ReLU follows straight after 'body'"):
        Explainer(Net(relu=F.silu)).explain(IMAGES, "grad_cam", target=1, layer="body+relu")


def test_a_relu6_that_cuts():
    net = Net(relu=F.relu6)
    net.body[0].weight.data *= 100
    net.body[1] = nn.Identity()
    check(net, net.body(IMAGES).clamp(0, 6), net.head.weight, net.head.bias, "body+relu")


def test_a_head_without_bias():
    net = Net(head=nn.Linear(6, 4, bias=False))
    check(net, net.body(IMAGES), net.head.weight, torch.zeros(4), "body")


class Convolutional(nn.Module):
    """A 1x1 convolution to the classes; before the pooling, or after it."""

    def __init__(self, after, relu=False):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.act = nn.ReLU() if relu else nn.Identity()
        self.after = after
        self.eval()

    def forward(self, x):
        y = self.body(x)
        if self.after:
            return self.conv(y.mean((2, 3), keepdim=True)).flatten(1)
        return (self.act(self.conv(y)) if isinstance(self.act, nn.ReLU) else self.conv(y)).mean((2, 3))


@pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
@pytest.mark.parametrize("after", [True, False])
def test_a_pointwise_convolution_as_the_head(after):
    net = Convolutional(after)
    check(net, net.body(IMAGES), net.conv.weight.flatten(1), net.conv.bias, "body")


def test_a_relu_after_the_convolution_keeps_the_identity_at_the_relu():
    net = Convolutional(False, relu=True)
    check(net, net.conv(net.body(IMAGES)).relu(), torch.eye(4), torch.zeros(4), "act")


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4)),
        nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)),
    ],
)
@pytest.mark.filterwarnings("ignore:The model's scores already sum to 1")
def test_other_heads_are_refused_and_grad_cam_is_suggested(head):
    net = Net(head=head)
    with unchanged(net), pytest.raises(SeewhyError, match="grad_cam"):
        Explainer(net).explain(IMAGES, "cam", target=1)


def test_max_pooling_is_refused():
    with pytest.raises(SeewhyError, match="grad_cam"):
        Explainer(Net(lambda net, y: y.amax((2, 3)))).explain(IMAGES, "cam", target=1)


def test_targets_that_are_linear_in_the_scores_are_right_and_others_refused():
    net = Net()
    one, other = (Explainer(net).explain(IMAGES, "cam", target=index).values for index in (1, 2))
    contrast = Explainer(net).explain(IMAGES, "cam", target=lambda scores: scores[:, 1] - scores[:, 2]).values
    np.testing.assert_allclose(contrast, one - other, rtol=1e-4, atol=1e-6)
    with pytest.raises(SeewhyError, match="linear in the model's scores"):
        Explainer(net).explain(IMAGES, "cam", target=lambda scores: scores.softmax(1)[:, 1])


def test_another_layer_is_refused_and_its_own_is_fine():
    net = Net()
    with unchanged(net), pytest.raises(SeewhyError, match=r"'body'.*not at 'body.0'"):
        Explainer(net).explain(IMAGES, "cam", target=1, layer="body.0")
    assert Explainer(net).explain(IMAGES, "cam", target=1, layer="body").layer == "body"


def test_a_linear_layer_that_is_not_linear_with_its_weights_is_refused():
    class Normalised(nn.Linear):
        def forward(self, x):
            return F.linear(x, F.normalize(self.weight), self.bias)

    net = Net(head=Normalised(6, 4))
    nn.init.constant_(net.head.bias, 300)
    with pytest.raises(SeewhyError, match="grad_cam"):
        Explainer(net).explain(IMAGES, "cam", target=1)


def test_a_functional_relu_before_a_pointwise_convolution():
    class Late(Convolutional):
        def forward(self, x):
            return self.conv(self.body(x).relu()).mean((2, 3))

    net = Late(False)
    check(net, net.body(IMAGES).relu(), net.conv.weight.flatten(1), net.conv.bias, "body+relu")


def test_half_precision_with_scores_in_float():
    class Floating(Net):
        def forward(self, x):
            return super().forward(x).float()

    exact = Explainer(Net()).explain(IMAGES, "cam", target=1).values
    found = Explainer(Floating().bfloat16()).explain(IMAGES, "cam", target=1).values
    np.testing.assert_allclose(found, exact, atol=0.05 * np.abs(exact).max())


def test_a_method_cannot_change_the_heads_weights():
    import seewhy

    class Spoiling(seewhy.Method):
        """Writes over what it was given."""

        needs = seewhy.Needs(head=True)

        def compute(self, record):
            record.head.weight.zero_()
            return record.head.activation.sum(1)

    net = Net()
    with unchanged(net):
        Explainer(net).explain(IMAGES, Spoiling(name="spoiling"), target=1)


def test_a_module_that_runs_several_times_is_named_with_its_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.one, self.two, self.relu = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.ReLU()
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.relu(self.two(self.relu(self.one(x)))).mean((2, 3)))

    net = Twice().eval()
    cam = Explainer(net).explain(IMAGES, "cam", target=[1, 2])
    assert cam.layer == "relu#2"
    grad_cam = Explainer(net).explain(IMAGES, "grad_cam", target=[1, 2], layer=cam.layer)
    np.testing.assert_allclose(grad_cam.values, np.maximum(cam.values, 0) / (8 * 12), rtol=1e-4, atol=1e-8)


def test_weak_features_beside_a_large_bias():
    """The scores are nearly all bias; what is left after taking it off is rounding, and no reason to refuse."""
    net = Net()
    net.head.weight.data *= 1e-6
    check(net, net.body(IMAGES), net.head.weight, net.head.bias, "body")
