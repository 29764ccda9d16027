"""What is captured is what the layer returned, and its gradient is that of exactly this."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy import Explainer, SeewhyError
from seewhy.testing import unchanged

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing there argues:seewhy.SeewhyWarning")
IMAGES = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Convolution `a`, then whatever `step` does with it, then a linear head on the mean."""

    def __init__(self, step):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.same = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Identity()
        self.head, self.step = nn.Linear(6, 3), step

    def forward(self, x):
        return self.head(self.step(self, self.a(x)).mean((2, 3)))


def after_relu_in_place(net, y):
    y.relu_()
    return net.b(y)


def add_in_place(net, y):
    y += y.mean((2, 3), keepdim=True)
    return y.relu()


def through_a_view(net, y):
    y[:, :3] *= 2
    return net.b(y)


def identity_then_change(net, y):
    z = net.same(y)
    y += 1
    return net.b(y) + z


@pytest.mark.parametrize("step", [after_relu_in_place, add_in_place, through_a_view, identity_then_change])
@pytest.mark.parametrize("method", ["activations", "grad_cam"])
def test_a_layers_output_is_untouched_by_what_follows(step, method):
    model = Net(step).eval()
    expected = model.a(IMAGES).detach().numpy()
    found = Explainer(model).explain(IMAGES, list({"activations", method}), target=1, layer="a")
    np.testing.assert_allclose(found["activations"].values, expected, rtol=1e-6)


def test_identity_gets_the_gradient_of_its_own_branch_only():
    """y = b(x) + same(x): the gradient at `same` is that of its use, not of x."""
    model = Net(lambda net, y: 3 * net.b(y) + net.same(y)).double().eval()

    @seewhy.register("test_raw_gradient")
    class RawGradient(seewhy.Method):
        """dS/dA."""

        needs = seewhy.Needs(gradient=True)

        def compute(self, record):
            return record.gradient

        def to_maps(self, values, size):
            return values.sum(1)

    found = Explainer(model).explain(IMAGES, "test_raw_gradient", target=1, layer="same")
    expected = (model.head.weight[1] / (12 * 16))[None, :, None, None].expand(2, 6, 12, 16)
    np.testing.assert_allclose(found.values, expected.detach().numpy(), rtol=1e-5)


def test_grad_cam_of_parallel_branches_captured_together_equals_each_alone():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head((self.one(x).relu() * self.two(x).relu()).mean((2, 3)))

    model = Parallel().eval()
    together = Explainer(model).explain(IMAGES, "grad_cam", target=1, layer=["one", "two"])
    for name in ("one", "two"):
        alone = Explainer(model).explain(IMAGES, "grad_cam", target=1, layer=name)
        np.testing.assert_allclose(together["grad_cam", name].values, alone.values, rtol=1e-5, atol=1e-8)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.unused, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.a(self.a(x))).mean((2, 3)))


def test_a_module_used_twice_is_refused_with_its_choices_and_taken_by_number():
    model = Twice().eval()
    with unchanged(model), pytest.raises(SeewhyError, match=r"2 times.*'a#1', 'a#2'"):
        Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="a")
    first = model.a(IMAGES)
    found = Explainer(model).explain(IMAGES, "activations", layer=["a#1", "a#2"])
    np.testing.assert_allclose(found["activations", "a#1"].values, first.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["activations", "a#2"].values, model.a(first).detach().numpy(), rtol=1e-5)
    with pytest.raises(SeewhyError, match="no 'a#3'"):
        Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="a#3")
    with pytest.raises(SeewhyError, match="number of the call"):
        Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="a#0")


def test_the_automatic_layer_of_a_module_used_twice_is_its_last_call():
    assert Explainer(Twice().eval()).explain(IMAGES, "activations").layer == "a#2"


def test_the_automatic_layer_is_none_that_hands_its_input_through():
    """Its output is its input, so it has no gradient of its own to be found by."""
    model = Net(lambda net, y: net.same(y) * net.b(y).sigmoid() + y).eval()
    found = Explainer(model).explain(IMAGES, "grad_cam", target=1)
    assert found.layer == "b"
    model = Net(lambda net, y: net.same(y.tanh()) + y).eval()
    assert Explainer(model).explain(IMAGES, "grad_cam", target=1).layer == "a"


def test_a_layer_that_did_not_run_is_named():
    with pytest.raises(SeewhyError, match="did not run layer 'unused'"):
        Explainer(Twice().eval()).explain(IMAGES, "grad_cam", target=1, layer="unused")


def test_a_frozen_backbone_under_no_grad_is_explained_at_its_output():
    class Frozen(nn.Module):
        def __init__(self, mode):
            super().__init__()
            torch.manual_seed(1)
            self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
            self.mode, self.head = mode, nn.Linear(6, 3)

        def forward(self, x):
            with self.mode():
                x = self.backbone(x)
            return self.head(x.mean((2, 3)))

    expected = Explainer(Frozen(torch.enable_grad).eval()).explain(IMAGES, "grad_cam", target=2)
    for mode in (torch.no_grad, torch.inference_mode):
        model = Frozen(mode).eval()
        found = Explainer(model).explain(IMAGES, "grad_cam", target=2)
        assert found.layer == "backbone" == expected.layer
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-6)
        with pytest.raises(SeewhyError, match="cut"):
            Explainer(model).explain(IMAGES, "saliency", target=2)


def test_a_checkpointed_block_gives_what_the_plain_block_gives():
    class Block(nn.Module):
        def __init__(self, checkpointed):
            super().__init__()
            torch.manual_seed(1)
            self.body = nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
            )
            self.head, self.checkpointed = nn.Linear(6, 3), checkpointed

        def forward(self, x):
            y = checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)
            return self.head(y.mean((2, 3)))

    for layer in ("body", "body.0", "body.2", None):
        plain, other = (
            Explainer(Block(checkpointed).eval()).explain(IMAGES, "grad_cam", target=1, layer=layer)
            for checkpointed in (False, True)
        )
        assert plain.layer == other.layer == (layer or "body")
        np.testing.assert_allclose(other.values, plain.values, rtol=1e-5, atol=1e-8)
    for layer in ("body", "body.0", "body.2"):
        methods = ["saliency", "guided_backprop", "grad_cam", "guided_grad_cam", "activations"]
        plain, other = (
            Explainer(Block(checkpointed).eval()).explain(IMAGES, methods, target=1, layer=[layer])
            for checkpointed in (False, True)
        )
        for key in plain:
            np.testing.assert_allclose(other[key].values, plain[key].values, rtol=1e-5, atol=1e-8)


def test_layers_that_return_tuples_and_dicts():
    class Returning(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.a, self.wrap = nn.Conv2d(3, 6, 3, padding=1), wrap

        def forward(self, x):
            return self.wrap(self.a(x))

    class Outer(nn.Module):
        def __init__(self, wrap, take):
            super().__init__()
            torch.manual_seed(1)
            self.inner, self.take, self.head = Returning(wrap), take, nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.take(self.inner(x)).relu().mean((2, 3)))

    plain = Explainer(Outer(lambda y: y, lambda y: y).eval()).explain(IMAGES, "grad_cam", target=1, layer="inner")
    for wrap, take in (
        (lambda y: (None, y, 3), lambda out: out[1]),
        (lambda y: {"features": y, "n": 1}, lambda out: out["features"]),
        (lambda y: [[y]], lambda out: out[0][0]),
    ):
        found = Explainer(Outer(wrap, take).eval()).explain(IMAGES, "grad_cam", target=1, layer="inner")
        np.testing.assert_allclose(found.values, plain.values, rtol=1e-6)


def test_a_large_candidate_that_is_changed_in_place_is_measured_again():
    """Its value was not copied, so the pass is run once more for it, and the map is right."""

    class Wide(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            torch.manual_seed(1)
            self.first, self.a = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.head, self.in_place = nn.Linear(16, 3), in_place

        def forward(self, x):
            y = self.a(self.first(x))
            return self.head((y.relu_() if self.in_place else y.relu()).mean((2, 3)))

    one, other = (Explainer(Wide(in_place).eval()).explain(IMAGES, "grad_cam", target=1) for in_place in (False, True))
    assert one.layer == other.layer == "a"
    assert one.maps.any()
    np.testing.assert_allclose(one.values, other.values, rtol=1e-6)


def test_very_deep_networks():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 3, 1) for _ in range(1000)]
    for layer in layers:
        nn.init.eye_(layer.weight.data[:, :, 0, 0])
    model = nn.Sequential(
        nn.Sequential(*layers), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    ).eval()
    found = Explainer(model).explain(
        IMAGES[:1], ["saliency", "guided_backprop", "activations"], target=1, layer="0.999"
    )
    assert np.isfinite(found["saliency"].values).all()


def test_a_model_that_changes_its_input():
    class Normalising(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.head, self.in_place = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3), in_place

        def forward(self, x):
            if self.in_place:
                x -= 0.5
                x.relu_()
            else:
                x = (x - 0.5).relu()
            return self.head(self.a(x).tanh().mean((2, 3)))

    @seewhy.register("test_input")
    class Input(seewhy.Method):
        """The input times its gradient, as the record has it."""

        needs = seewhy.Needs(input_gradient="plain")

        def compute(self, record):
            return record.input * record.input_gradient

    images = IMAGES.clone()
    for method in ("saliency", "test_input", "grad_cam", "activations"):
        one, other = (Explainer(Normalising(i).eval()).explain(images, method, target=1).values for i in (False, True))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)
    assert torch.equal(images, IMAGES)


class Mixed(nn.Module):
    """Uses one output twice: as the module returned it, and by `other`, another way to the same tensor."""

    def __init__(self, inner, first, other):
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.head, self.first, self.other = inner, nn.Linear(6, 3), first, other

    def forward(self, x):
        out = self.inner(x)
        y, z = self.first(self, out), self.other(self, out)
        return self.head((y.tanh() + 3 * z.sigmoid()).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.kept = nn.Conv2d(3, 6, 3, padding=1), None

    def forward(self, x):
        y = self.a(x)
        self.kept = [y]
        return y, y


@pytest.mark.parametrize(
    "other", [lambda net, out: out[1], lambda net, out: net.inner.kept[0]], ids=["second", "kept by the module"]
)
@pytest.mark.parametrize("layer", ["inner", "inner.a"])
def test_no_use_of_a_captured_output_is_missed(other, layer):
    def reference(model):
        """Without any capture: the two uses of one tensor, by hand."""
        y = model.inner.a(IMAGES).detach().requires_grad_()
        score = model.head((y.tanh() + 3 * y.sigmoid()).mean((2, 3)))[:, 1].sum()
        (gradient,) = torch.autograd.grad(score, y)
        return (gradient.mean((2, 3), keepdim=True) * y).sum(1).relu().detach().numpy()

    torch.manual_seed(0)
    model = Mixed(Pair(), lambda net, out: out[0], other).eval()
    found = Explainer(model).explain(IMAGES, "grad_cam", target=1, layer=layer)
    np.testing.assert_allclose(found.values, reference(model), rtol=1e-5, atol=1e-8)


def test_a_hook_of_the_users_that_stashes_an_output():
    torch.manual_seed(0)
    model, stash = Net(lambda net, y: net.b(y).tanh() + stash[-1]).eval(), []
    model.a.register_forward_hook(lambda module, args, output: stash.append(output))
    found = Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="a")
    plain = Explainer(Net(lambda net, y: net.b(y).tanh() + y).eval()).explain(IMAGES, "grad_cam", target=1, layer="a")
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-5, atol=1e-8)


def test_an_in_place_module_whose_result_is_dropped():
    class Dropped(nn.Module):
        def __init__(self, dropped):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.act, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Linear(6, 3)
            self.dropped = dropped

        def forward(self, x):
            y = self.a(x)
            z = self.act(y)
            return self.head((y if self.dropped else z).mean((2, 3)))

    one, other = (
        Explainer(Dropped(dropped).eval()).explain(IMAGES, ["saliency", "grad_cam"], target=1, layer="act")
        for dropped in (False, True)
    )
    for key in one:
        np.testing.assert_allclose(one[key].values, other[key].values, rtol=1e-6)


def test_a_parameter_that_a_module_returns_is_not_changed():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.rand(2, 6, 12, 16))

        def forward(self, x):
            return self.table

    model = Net(lambda net, y: net.same(y) * net.extra(y)).eval()
    model.extra = Table()
    with unchanged(model):
        Explainer(model).explain(IMAGES, "grad_cam", target=1, layer="extra")
    assert not model.extra.table.requires_grad


def test_the_automatic_layer_of_a_backbone_that_returns_its_features_is_the_deepest():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)

        def forward(self, x):
            y = self.one(x)
            return [y, self.two(y)]

    torch.manual_seed(0)
    model = Mixed(Backbone(), lambda net, out: out[-1], lambda net, out: out[-1]).eval()
    for method in ("grad_cam", "activations"):
        assert Explainer(model).explain(IMAGES, method, target=1).layer == "inner.two"


def test_results_come_in_the_order_asked():
    model = Twice().eval()
    assert list(Explainer(model).explain(IMAGES, "activations", layer=["a#2", "head", "a#1"])) == [
        ("activations", "a#2"),
        ("activations", "head"),
        ("activations", "a#1"),
    ]
