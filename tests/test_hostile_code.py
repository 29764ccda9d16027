"""Models whose own code does odd things in `forward`: right, or refused with a reason."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hostile import Net, close, conv, explain, head, images, net, plain, plain_twin, saliency_and_grad_cam, stem
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.errors import LayerError, ModelError
from seewhy.testing import unchanged

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")  # a random net may argue for nothing


class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = stem()

    def forward(self, *, images: Tensor, gain: float = 1) -> Tensor:
        return self.conv(images) * gain


class ViewOfInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:]


class CallsItself(nn.Conv2d):
    """What a layer does after its hooks have run is the model's, not the layer's."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).mul_(2)


class Subclassed(Tensor):
    pass


class ReturnsSubclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = stem()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).as_subclass(Subclassed)  # type: ignore[no-any-return]


class Weights(nn.Module):
    """A layer whose weight is a buffer, and that is shared as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.randn(8, 3, 3, 3) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, stride=2, padding=1)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 3 * ctx.saved_tensors[0] ** 2


def _state(model: Any, x: Tensor) -> Tensor:
    model.__dict__["last"], model.__dict__["count"] = model.a(x), model.__dict__.get("count", 0) + 1
    return head(model, model.last.relu())


def _grows(model: Any, x: Tensor) -> Tensor:
    model.grown.append(nn.Identity())
    return plain(model, x)


def _replaces_parameter(model: Any, x: Tensor) -> Tensor:
    model.fc.weight = nn.Parameter(model.fc.weight.detach().clone())
    return plain(model, x)


def _fourier(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    spectrum = torch.fft.rfft2(y) * (1 + 0.5j)
    return head(model, torch.fft.irfft2(spectrum, s=y.shape[-2:]).relu() + torch.view_as_real(y + 0j)[..., 0])


def _function_gradient(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    return head(model, (y + torch.func.grad(lambda t: (t.tanh() ** 2).sum())(y)).relu())


def _gradient_inside(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    with torch.enable_grad():
        z = y if y.requires_grad else y.detach().requires_grad_()
        (slope,) = torch.autograd.grad((z.tanh() ** 2).sum(), z, create_graph=True)
    return head(model, (y + slope).relu())


def _backward_inside(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        model.b(z).sum().backward()
    return head(model, (y * z.grad).relu())


def _in_threads(model: Any, x: Tensor) -> Tensor:
    y, out = model.a(x), {}
    threads = [threading.Thread(target=lambda s=s: out.update({s: (y * s).relu()})) for s in (1, -1)]
    for thread in threads:
        thread.start()
        thread.join()
    return head(model, out[1] + 2 * out[-1])


def _tensor_hook(model: Any, x: Tensor) -> Tensor:
    y = model.a(x) * 1
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * 2)
    return head(model, y.relu())


def _sets_flags(model: Any, x: Tensor) -> Tensor:
    model.eval()
    torch.set_grad_enabled(True)
    return plain(model, x)


def _packed(model: Any, x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return plain(model, x)


def _einsum(model: Any, x: Tensor) -> Tensor:
    y = model.a(x).relu()
    return torch.einsum("nchw,kc->nk", y, model.fc.weight) / y[0, 0].numel() + model.fc.bias


def _each_image(model: Any, x: Tensor) -> Tensor:
    return head(model, torch.cat([model.b(y[None]) for y in model.a(x)]).relu())


def _identity_then_in_place(model: Any, x: Tensor) -> Tensor:
    y = model.b(model.a(x))
    z = nn.Identity()(y)
    kept = z * 1
    y.mul_(2)
    return head(model, (y + kept).relu())


def _in_place(model: Any, x: Tensor) -> Tensor:
    y = model.a(x)
    y.add_(1)
    y[:, :4].mul_(2).sub_(0.1)
    return head(model, y.relu_())


def _by_value(model: Any, x: Tensor) -> Tensor:
    return plain(model, x) if float(x.mean()) > 0.9 else head(model, model.b(model.a(x)).tanh())


def _always(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


def _with_hooks() -> nn.Module:
    model = net(lambda m, x: head(m, m.b(m.a(images=x)).relu()), a=KeywordOnly())
    model.a.register_forward_pre_hook(lambda m, args, kwargs: (args, {**kwargs, "gain": 3}), with_kwargs=True)
    model.a.register_forward_hook(_always, always_call=True)
    model.b.register_full_backward_pre_hook(lambda m, out: tuple(g * 1.5 for g in out))
    model.b.register_full_backward_hook(lambda m, into, out: tuple(g * 3 for g in into))
    return model


def _functional_call() -> nn.Module:
    inner = net(plain)

    def run(model: Any, x: Tensor) -> Tensor:
        doubled = {name: 2 * parameter for name, parameter in model.inner.named_parameters()}
        return torch.func.functional_call(model.inner, doubled, (x,))

    return Net(run, inner=inner)


def _unregistered() -> nn.Module:
    model = net(lambda m, x: head(m, m.hidden[0](m.a(x)).relu()))
    model.hidden = [conv().double()]  # type: ignore[assignment]
    return model


def _absent_parts() -> nn.Module:
    model = net(plain)
    model.register_module("nothing", None)
    model.register_buffer("no_buffer", None)
    model.register_parameter("no_parameter", None)
    return model


def _learnt_buffer() -> nn.Module:
    model = net(plain, a=Weights())
    model.a.w.requires_grad_()
    return model


CODE: dict[str, Callable[[], nn.Module]] = {
    "keyword-only": lambda: net(lambda m, x: head(m, m.a(images=x, gain=2).relu()), a=KeywordOnly()),
    "view of its input": lambda: net(lambda m, x: head(m, m.b(m.c(m.a(x))).relu()), a=ViewOfInput(), c=stem()),
    "keeps state": lambda: net(_state),
    "grows": lambda: net(_grows, grown=nn.ModuleList()),
    "replaces a parameter": lambda: net(_replaces_parameter),
    "complex numbers": lambda: net(_fourier),
    "vmap after the layer": lambda: net(lambda m, x: torch.func.vmap(lambda y: m.fc(y.mean((1, 2))))(m.a(x).relu())),
    "torch.func.grad": lambda: net(_function_gradient),
    "gradient inside": lambda: net(_gradient_inside),
    "backward inside": lambda: net(_backward_inside),
    "custom autograd function": lambda: net(lambda m, x: head(m, Cube.apply(m.a(x) + 1))),
    "threads": lambda: net(_in_threads),
    "tensor hook": lambda: net(_tensor_hook),
    "hooks of every kind": _with_hooks,
    "sets flags": lambda: net(_sets_flags),
    "saved tensors elsewhere": lambda: net(_packed),
    "einsum over positions": lambda: net(_einsum),
    "each image by itself": lambda: net(_each_image),
    "identity, then in place": lambda: net(_identity_then_in_place),
    "in place, on views": lambda: net(_in_place),
    "control flow on values": lambda: net(_by_value),
    "__call__ overridden": lambda: net(plain, a=CallsItself(3, 8, 3, 2, 1)),
    "tensor subclass": lambda: net(plain, a=ReturnsSubclass()),
    "functional_call": _functional_call,
    "unregistered layers": _unregistered,
    "absent parts": _absent_parts,
    "weights in buffers": lambda: net(plain, a=Weights()),
    "a buffer that is learnt": _learnt_buffer,
}
CHANGES_ITSELF = {"keeps state", "grows", "replaces a parameter"}  # with each run, whoever runs it


@pytest.mark.parametrize("name", CODE)
def test_odd_code_is_explained_as_autograd_does_by_hand(name: str):
    model, x = CODE[name]().train(), images().double()
    layer = "inner.a" if "inner" in model._modules else "a"
    saliency, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), layer, x)
    for method, expected in (("saliency", saliency), ("grad_cam", grad_cam)):
        tried = copy.deepcopy(model)
        if name in CHANGES_ITSELF:
            found = explain(tried, method, layer=layer)
        else:
            with unchanged(tried):
                found = explain(tried, method, layer=layer)
        close(found.values, expected)
        tried(x).sum().backward()  # training goes on
        assert any(parameter.grad is not None for parameter in tried.parameters())


def test_an_activation_is_what_the_layer_gave_though_the_next_line_changes_it():
    model, x = net(_in_place), images().double()
    with unchanged(model):
        close(explain(model, "activations", x, layer="a").values, model.a(x).detach().float().numpy())


def test_a_layer_that_keeps_what_it_returns_gets_the_gradient_of_both_uses():
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.kept = stem(), None

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.conv(x)
            return self.kept

    model = net(lambda m, x: head(m, (m.a(x) * m.a.kept).relu()), a=Keeps())
    x = images().double()
    value = model.a.conv(x).detach().requires_grad_()
    gradient = torch.autograd.grad(head(model, (value * value).relu())[:, 1].sum(), value)[0]
    expected = (gradient.mean((2, 3), keepdim=True) * value).sum(1).relu()
    close(explain(model, layer="a", x=x).values, expected.detach().float().numpy())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("method", ["grad_cam", "activations"])
def test_a_layer_inside_vmap_is_refused_and_saliency_is_right(method: str, count: int):
    model, x = net(lambda m, x: head(m, torch.func.vmap(lambda y: m.a(y[None])[0].relu())(x))), images(count).double()
    with unchanged(model), pytest.raises(LayerError, match=r"torch\.func"):
        explain(model, method, x, layer="a")
    close(explain(model, "saliency", x).values, saliency_and_grad_cam(plain_twin(model), "a", x)[0])


def test_a_layer_in_another_thread_is_refused_and_saliency_is_right():
    def run(model: Any, x: Tensor) -> Tensor:
        out: list[Tensor] = []
        thread = threading.Thread(target=lambda: out.append(model.a(x)))
        thread.start()
        thread.join()
        return head(model, out[0].relu())

    model, x = net(run), images().double()
    with unchanged(model), pytest.raises(LayerError, match="another thread"):
        explain(model, layer="a")
    close(explain(model, "saliency", x).values, saliency_and_grad_cam(plain_twin(model), "a", x)[0])


def test_what_a_model_keeps_of_earlier_runs_has_no_part_in_the_gradient():
    """A running mean that is not detached: the graph of the first call is gone, and this call's is all that counts."""

    def run(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        model.__dict__["mean"] = 0.9 * model.__dict__.get("mean", 0) + 0.1 * y.mean()
        return head(model, y.relu()) * model.mean

    model, x = net(run), images(1).double()
    explain(model, "saliency", x)
    kept = model.mean.item()
    twin = net(lambda m, x: head(m, m.a(x).relu()) * (0.9 * kept + 0.1 * m.a(x).mean()))
    twin.load_state_dict(model.state_dict())
    close(explain(model, "saliency", x).values, explain(twin, "saliency", x).values)


@pytest.mark.parametrize("kept", ["attribute", "buffer"])
def test_a_table_made_on_first_use_can_be_trained_with_afterwards(kept: str):
    def run(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        if not hasattr(model, "table"):
            table = torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)
            model.register_buffer("table", table) if kept == "buffer" else setattr(model, "table", table)
        return head(model, (y * model.table).relu())

    for method in ("saliency", "grad_cam", "activations"):
        model = net(run)
        with torch.inference_mode():
            explain(model, method)
        assert not model.table.is_inference()
        model(images().double()).sum().backward()
        assert model.a.weight.grad.any()


def test_layers_made_on_first_use_are_the_models_own():
    def run(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        if "late" not in model._modules:
            model.late = nn.Conv2d(y.shape[1], 8, 1).double()
        return head(model, model.late(y).relu())

    model, x = net(run), images().double()
    first = explain(model, "saliency", x)
    assert all(parameter.requires_grad for parameter in model.parameters())
    saliency, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), "late", x)
    close(first.values, saliency)
    close(explain(model, layer="late", x=x).values, grad_cam)


def test_lazy_layers_are_refused_until_the_model_has_run():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(ModelError, match="run it once"):
        explain(model, "saliency")
    model(images())
    assert explain(model, "saliency").values.any()
