"""Backward rules act on every ReLU of the graph, and refuse where one may hide."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer, SeewhyError, SeewhyWarning
from seewhy.engine.rules import BackwardRule, find_activations, graph
from seewhy.testing import unchanged

IMAGES = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """Linear, `activation`, linear, in double precision: the rules have a closed form."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(3)
        self.activation = activation
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Linear(6 * 6 * 8, 3)
        self.double().eval()

    def forward(self, x):
        return self.two(self.activation(self.one(x)).flatten(1))


def closed_form(net, rule):
    """Guided: the gradient where it and the ReLU's input are positive; deconvnet: where it is."""
    before = net.one(IMAGES).detach()
    gradient = net.two.weight[1].detach().reshape(6, 6, 8).expand_as(before)
    at_input = gradient.clamp(min=0) * ((before > 0) if rule == "guided_backprop" else 1)
    return F.conv_transpose2d(at_input, net.one.weight.detach()).numpy()


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    "relu",
    [
        F.relu, torch.relu, torch.relu_, nn.ReLU(), nn.ReLU(inplace=True), lambda x: x.clamp(min=0),
        lambda x: x.clamp_(0), lambda x: torch.clamp_min(x, 0),
        lambda x: F.threshold(x, 0, 0), lambda x: F.threshold_(x, 0, 0),
        lambda x: torch.clamp(x, min=torch.zeros((), dtype=x.dtype)), F.relu6, nn.ReLU6(inplace=True),
        nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6),
    ],
)  # fmt: skip
def test_closed_form_for_each_spelling(rule, relu):
    net = Net(relu)
    found = Explainer(net).explain(IMAGES, rule, target=1).values
    np.testing.assert_allclose(found, closed_form(net, rule), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.LeakyReLU(), "LeakyReLU"), (nn.PReLU().double(), "PReLU"), (nn.SiLU(), "SiLU"), (nn.GELU(), "GELU"),
        (nn.ELU(), "ELU"), (nn.SELU(), "ELU"), (nn.CELU(), "CELU"), (nn.Mish(), "Mish"), (nn.Hardswish(), "Hardswish"),
        (nn.Softplus(), "Softplus"), (nn.Hardtanh(), "Hardtanh"), (nn.Sigmoid(), "Sigmoid"), (nn.Tanh(), "Tanh"),
        (lambda x: x.clamp(-1, 1), "none"), (nn.Hardtanh(0, 1), "Hardtanh"), (nn.Identity(), "none"),
    ],
)  # fmt: skip
def test_a_network_without_relu_is_refused_with_what_it_has(activation, name):
    net = Net(activation)
    with unchanged(net), pytest.raises(SeewhyError, match=rf"has none.*{name}"):
        Explainer(net).explain(IMAGES, "guided_backprop", target=1)


def test_other_activations_are_treated_on_purpose():
    net = Net(nn.LeakyReLU())
    found = Explainer(net).explain(IMAGES, "guided_backprop", target=1, also=("LeakyReLU",)).values
    before = net.one(IMAGES).detach()
    gradient = net.two.weight[1].detach().reshape(6, 6, 8).expand_as(before).clamp(min=0)
    expected = F.conv_transpose2d(gradient * torch.where(before > 0, 1.0, 0.01), net.one.weight.detach())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_a_mix_is_warned_of_with_counts():
    net = Net(lambda x: F.silu(F.silu(F.relu(x))))
    with pytest.warns(SeewhyWarning, match=r"1 ReLU.*2 SiLU"):
        Explainer(net).explain(IMAGES, "guided_backprop", target=1)


@pytest.mark.parametrize(
    ("unsure", "name"),
    [
        (lambda x: torch.where(x > 0, x, 0.0), r"torch\.where"),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), r"torch\.maximum"),
        (lambda x: torch.fmax(x, torch.zeros_like(x)), r"torch\.fmax"),
        (lambda x: x.masked_fill(x < 0, 0), "masked_fill"),
        (lambda x: x.clamp(0, 1), "clamp"),
    ],
)
def test_what_may_be_a_relu_in_other_words_is_warned_of(unsure, name):
    net = Net(lambda x: F.relu(unsure(x)))
    with pytest.warns(SeewhyWarning, match=name):
        Explainer(net).explain(IMAGES, "guided_backprop", target=1)


def test_squeeze_and_excitation_gates_are_no_reason_to_warn():
    net = Net(lambda x: F.relu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))
    assert Explainer(net).explain(IMAGES, "guided_backprop", target=1).values.any()


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def in_place_on_a_view(x):
    x = x * 1
    x[:, :2].relu_()
    return x


@pytest.mark.parametrize(
    ("hiding", "name"), [(Custom.apply, "'Custom'"), (in_place_on_a_view, "in-place operation on a view")]
)
def test_what_may_hide_a_relu_is_refused_by_name(hiding, name):
    net = Net(lambda x: F.relu(hiding(x)))
    with unchanged(net), pytest.raises(SeewhyError, match=name):
        Explainer(net).explain(IMAGES, "guided_backprop", target=1)
    assert Explainer(net).explain(IMAGES, "saliency", target=1).values.any()


def test_the_rule_is_switched_between_backwards_of_one_graph():
    net = Net(F.relu)
    together = Explainer(net).explain(IMAGES, ["deconvnet", "guided_backprop", "saliency"], target=1)
    for name, explanation in together.items():
        np.testing.assert_array_equal(explanation.values, Explainer(net).explain(IMAGES, name, target=1).values)


def test_a_relu_whose_input_also_feeds_a_skip_is_treated_alone():
    """d(relu(x) + x): the rule clamps the ReLU's part, never the sum."""
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    score = ((F.relu(x) + x) * torch.tensor([1.0, -3.0])).sum()
    rule = BackwardRule("guided")
    from seewhy.engine.rules import applied

    with applied((node, rule.hook) for node in find_activations(graph([score]), rule).treated):
        (gradient,) = torch.autograd.grad(score, x, retain_graph=True)
    assert gradient.tolist() == [1.0, -3.0]
    assert torch.autograd.grad(score, x)[0].tolist() == [1.0, -6.0]  # the hooks are gone


def test_a_mistyped_rule_is_refused():
    with pytest.raises(SeewhyError, match="'guided'"):
        BackwardRule("guidde")
