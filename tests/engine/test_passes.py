"""One pass for everything: counted, not timed."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

from seewhy import Explainer
from seewhy.engine.passes import Request
from seewhy.engine.record import Needs

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")


class Counts(TorchDispatchMode):
    """Counts convolutions run forward and backward, and backwards that computed a parameter's gradient."""

    def __enter__(self):
        self.forward = self.backward = self.weight_gradients = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "convolution":
            self.forward += 1
        if name == "convolution_backward":
            self.backward += 1
            self.weight_gradients += args[-1][1]
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return resnet18(weights=None).eval()


CONVOLUTIONS = 20
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_five_methods_at_five_layers_cost_one_forward_and_two_backwards(model):
    methods = ["saliency", "guided_backprop", "grad_cam", "guided_grad_cam", "activations"]
    layers = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    with Counts() as counts:
        found = Explainer(model).explain(IMAGES, methods, target=[1, 2], layer=layers)
    assert len(found) == 2 + 3 * 5
    assert (counts.forward, counts.backward, counts.weight_gradients) == (CONVOLUTIONS, 2 * CONVOLUTIONS, 0)


def test_grad_cam_at_the_last_layer_costs_a_forward_and_no_convolutions_backward(model):
    with Counts() as counts:
        Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="layer4")
    assert (counts.forward, counts.backward) == (CONVOLUTIONS, 0)


def test_an_automatic_layer_costs_no_second_forward_at_first_and_later(model):
    explainer = Explainer(model)
    for _ in range(2):
        with Counts() as counts:
            found = explainer.explain(IMAGES, "grad_cam", target=1)
        assert (counts.forward, counts.backward) == (CONVOLUTIONS, 0)
        assert found.layer == "layer4"


@pytest.mark.parametrize("method", ["activations", "cam"])
def test_methods_without_gradients_build_no_graph(model, method):
    with Counts() as counts:
        Explainer(model).explain(IMAGES, method, target=1)
    assert (counts.forward, counts.backward) == (CONVOLUTIONS, 0)


def test_three_rules_cost_three_backwards_of_one_graph(model):
    with Counts() as counts:
        Explainer(model).explain(IMAGES, ["deconvnet", "saliency", "guided_backprop"], target=1)
    assert (counts.forward, counts.backward, counts.weight_gradients) == (CONVOLUTIONS, 3 * CONVOLUTIONS, 0)


def test_chunks_cost_a_forward_each(model):
    with Counts() as counts:
        Explainer(model).explain(IMAGES, "grad_cam", target=1, batch_size=1)
    assert counts.forward == 2 * CONVOLUTIONS


def test_a_failed_explanation_may_look_again_but_a_right_one_never_does(model):
    calls = Counter()
    handle = model.register_forward_hook(lambda *_: calls.update(n=1))
    Explainer(model).explain(IMAGES, ["saliency", "guided_grad_cam", "cam"], target=1)
    handle.remove()
    assert calls["n"] == 1


def test_the_graph_starts_at_the_layer():
    """Live bytes of Grad-CAM at a given layer stay near those of inference."""
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1), nn.ReLU()) for i in range(12)])
    model = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    images = torch.rand(1, 3, 64, 96)

    def saved_bytes(**arguments):
        saved = Counter()

        def pack(tensor):
            saved["bytes"] += 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            Explainer(model).explain(images, target=1, **arguments)
        return saved["bytes"]

    one_activation = 8 * 64 * 96 * 4
    assert saved_bytes(method="grad_cam", layer="0") < one_activation / 10
    assert saved_bytes(method="saliency") > 10 * one_activation


def test_a_request_unites_the_rules():
    needs = [Needs(input_gradient=rule) for rule in ("guided", "plain", "guided", "deconvnet")]
    rules = [way.rule for way in Request((*needs, Needs(activation=True, gradient=True))).ways]
    assert [rule.name for rule in rules] == ["plain", "guided", "deconvnet"]
    assert not Request((Needs(activation=True), Needs(head=True))).gradients
