"""The automatic layer: the same values as when it is named, wherever the graph started."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy import Explainer
from seewhy.testing import small_cnn, unchanged


def images(count=2):
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(3)).double()


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.d, self.e = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1, 2)
        self.act, self.head = nn.Tanh(), nn.Linear(6, 4)
        self._run, self.runs = forward, 0
        self.double()

    def forward(self, x):
        self.runs += 1
        return self._run(self, x)


def residual(net, x):
    x = torch.tanh(net.b(net.act(net.a(x))))
    return net.head(torch.tanh(net.c(x) + net.e(x)).mean((2, 3)))


def down_up_and_down(net, x):
    fine = net.act(net.a(x))
    coarse = torch.tanh(net.b(fine))
    fine = fine + F.interpolate(coarse, fine.shape[2:])
    return net.head(net.d(torch.tanh(coarse + net.e(fine))).mean((2, 3)))


def up_at_the_end(net, x):
    fine = net.act(net.a(x))
    return net.head(net.d(fine + F.interpolate(torch.tanh(net.b(fine)), fine.shape[2:])).mean((2, 3)))


def unused_branch(net, x):
    fine = net.d(net.act(net.a(x)))
    net.c(net.b(fine))
    return net.head(torch.tanh(fine).mean((2, 3)))


def unused_in_part(net, x):
    coarse = net.b(net.act(net.a(x)))
    late = net.c(coarse)
    return net.head(torch.tanh(coarse).mean((2, 3)) + 0 * late.detach().mean((2, 3)))


@pytest.mark.parametrize(
    ("forward", "layer", "runs"),
    [(residual, "e", 1), (down_up_and_down, "d", 1), (up_at_the_end, "d", 1), (unused_branch, "d", 2),
     (unused_in_part, "b", 2)],
)  # fmt: skip
def test_the_chosen_layer_gives_what_it_gives_when_it_is_named(forward, layer, runs):
    net = Net(forward).eval()
    with torch.no_grad():
        target = 1 + net(images())[:, 1:].argmax(1)
    net.runs = 0
    found = Explainer(net).explain(images(), ["grad_cam"], target=target)
    assert net.runs == runs
    assert list(found) == [("grad_cam", layer)]
    named = Explainer(net).explain(images(), ["grad_cam", "saliency"], target=target, layer=layer)
    assert named["grad_cam"].values.any()
    np.testing.assert_allclose(found["grad_cam"].values, named["grad_cam"].values, rtol=1e-6)
    both = Explainer(net).explain(images(), ["grad_cam", "saliency"], target=target)
    np.testing.assert_allclose(both["grad_cam"].values, named["grad_cam"].values, rtol=1e-6)
    np.testing.assert_allclose(both["saliency"].values, named["saliency"].values, rtol=1e-6)


def test_a_second_call_runs_once_and_a_layer_without_gradient_is_chosen_again():
    net = Net(unused_branch).eval()
    explainer = Explainer(net)
    first = explainer.explain(images(), target=1)
    net.runs = 0
    with unchanged(net.head):
        second = explainer.explain(images(), target=1)
    assert net.runs == 1
    np.testing.assert_array_equal(first.values, second.values)


def test_an_explained_layer_of_a_checkpoint_is_the_same_where_the_graph_starts_inside():
    from torch.utils.checkpoint import checkpoint

    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_cnn()

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=False)

    x = images().float()
    found = Explainer(Checked()).explain(x, "grad_cam", target=4)
    expected = Explainer(small_cnn()).explain(x, "grad_cam", target=4)
    assert found.layer == f"net.{expected.layer}"
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


class Features(nn.Module):
    """Returns two features, of which the first was read for the second, and is made by a module or a function."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.act, self.function = nn.Tanh(), function

    def forward(self, x):
        fine = torch.tanh(self.a(x)) if self.function else self.act(self.a(x))
        return {"fine": fine, "coarse": self.b(fine)}


class Pyramid(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.runs = Features(function), nn.Linear(12, 4), 0
        self.double()

    def forward(self, x):
        self.runs += 1
        return self.tail(self.body(x))

    def tail(self, found):
        fine, coarse = found["fine"].mean((2, 3)), torch.tanh(found["coarse"]).pow(2).mean((2, 3))
        return self.head(torch.cat([fine, coarse], 1))


@pytest.mark.parametrize("function", [True, False])
@pytest.mark.parametrize("methods", [["grad_cam"], ["grad_cam", "saliency"]])
@pytest.mark.parametrize("layer", ["body", None])
def test_what_was_made_of_a_tensor_before_its_module_returned_it_counts(function, methods, layer):
    net, x = Pyramid(function).eval(), images()
    fine = torch.tanh(net.body.a(x)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.tail({"fine": fine, "coarse": net.body.b(fine)})[:, 2].sum(), fine)
    expected = torch.einsum("nk,nkhw->nhw", gradient.mean((2, 3)), fine).relu().detach()
    explainer = Explainer(net)
    found = explainer.explain(x, methods, target=2, layer=layer)
    if layer or function:
        assert expected.any()
        np.testing.assert_allclose(found["grad_cam", "body"].values, expected, rtol=1e-5, atol=1e-9)
    else:  # the last module that makes something of its own
        assert ("grad_cam", "body.b") in found
    net.runs = 0
    explainer.explain(x, methods, target=2, layer=layer)
    assert net.runs == 1  # what was found out is remembered


class Turning(nn.Module):
    """What its layer returns has its positions elsewhere once it is told so; the input has the same shape."""

    def __init__(self):
        super().__init__()
        self.turned, self.conv, self.norm, self.head = False, nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 4)
        self.show = nn.Identity()
        self.show.forward = lambda x: x * 1

    def forward(self, x):
        y = self.norm(self.conv(x).movedim(1, -1))
        shown = self.show(y if self.turned else y.movedim(-1, 1))
        return self.head(shown.mean((1, 2) if self.turned else (2, 3)))


def test_a_layout_that_does_not_fit_any_more_is_worked_out_again():
    torch.manual_seed(0)
    model, x = Turning().eval(), torch.rand(1, 3, 16, 24)
    explainer = Explainer(model)
    first = explainer.explain(x, "activations", layer="show").values
    assert first.shape == (1, 6, 4, 6)
    model.turned = True
    for _ in range(2):
        np.testing.assert_allclose(explainer.explain(x, "activations", layer="show").values, first, rtol=1e-5)


class Tied(nn.Module):
    """One ReLU three times; where it is the first time, nothing tells channels first from channels last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.Conv2d(8, 12, 3, 2, 1),
        )
        self.act, self.head = nn.ReLU(), nn.Linear(12, 5)

    def forward(self, x):
        x = self.act(self.first(x))
        return self.head(self.act(self.last(x + self.act(self.middle(x)))).mean((2, 3)))


def test_the_layout_of_other_calls_of_a_layer_than_the_one_asked_for_is_not_needed():
    x, explainer = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0)), Explainer(Tied().eval())
    asked = [("hires_cam", {}), ("smooth_grad_cam_pp", {"samples": 2}), ("hires_cam", {"layer": "act#3"})]
    for method, options in asked * 2:  # the second time it is known where the positions are
        found = explainer.explain(x, method, target=1, **options)
        assert found.layer == "act#3"
        alone = Explainer(Tied().eval()).explain(x, method, target=1, **options)
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-5, atol=1e-7)


def test_where_the_layouts_are_known_the_layer_alone_is_watched(monkeypatch):
    model, watched = small_cnn(), []
    explainer, x = Explainer(model), torch.rand(1, 3, 16, 24)
    register = nn.Module.register_forward_hook
    monkeypatch.setattr(
        nn.Module, "register_forward_hook", lambda m, hook, **k: watched.append(m) or register(m, hook, **k)
    )
    counts = []
    for _ in range(2):
        explainer.explain(x, target=1, layer="body")
        counts.append(len(watched))
        watched.clear()
    assert counts[0] > counts[1] == 1
