"""Models and users that make explaining go wrong: the map is right or refused, and nothing is left behind."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Net, chain, close, conv, explain, grad_cam_by_hand, images, plain_gradient, stem
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.checkpoint import checkpoint

from seewhy import Explainer, Method, Needs, SeewhyError
from seewhy.errors import GradientError, LayerError, LayerNotRunError, MethodError, ModelError
from seewhy.testing import check_method, small_cnn, unchanged

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")  # a random net may argue for nothing

METHODS = ["saliency", "guided_backprop", "deconvnet", "cam", "grad_cam", "guided_grad_cam", "activations"]
Pair = namedtuple("Pair", "features extra")


def _split_and_add(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    left, right = y[:, :4].relu(), net.b(y[:, 4:])
    right += left
    right[:, :2].mul_(2)
    return net.fc(torch.cat([left, right], 1).mean((2, 3)))


def _ignored_return(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    net.act(y)  # in place, what it returns is dropped
    return net.fc(y.mean((2, 3)))


def _changes_input(net: Any, x: Tensor) -> Tensor:
    return net.fc(net.a(x.sub_(0.5).div_(2)).relu_().mean((2, 3)))


HOSTILE: dict[str, Callable[[], nn.Module]] = {
    "views and in-place": lambda: Net(_split_and_add, a=stem(), b=nn.Conv2d(4, 4, 3, 1, 1), fc=nn.Linear(8, 5)),
    "in-place, return ignored": lambda: Net(_ignored_return, a=stem(), act=nn.ReLU(True), fc=nn.Linear(8, 5)),
    "changes its input": lambda: Net(_changes_input, a=stem(), fc=nn.Linear(8, 5)),
    "weight norm": lambda: chain(parametrizations.weight_norm(conv()), nn.ReLU()),
    "spectral norm": lambda: chain(parametrizations.spectral_norm(conv()), nn.ReLU()),
    "spectral norm, old": lambda: chain(spectral_norm(conv()), nn.ReLU()),
    "group norm": lambda: chain(nn.GroupNorm(2, 8)),
    "instance norm with statistics": lambda: chain(nn.InstanceNorm2d(8, track_running_stats=True)),
    "layer norm": lambda: chain(nn.LayerNorm([8, 8, 12])),
    "transposed convolution": lambda: chain(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU()),
    "dilated": lambda: chain(nn.Conv2d(8, 8, 3, padding=4, dilation=4), nn.ReLU()),
    "dropout and stochastic": lambda: chain(nn.Dropout2d(0.5), nn.RReLU()),
    "traced by fx": lambda: torch.fx.symbolic_trace(chain(conv(), nn.ReLU())),
    "attention": lambda: Attention(),
}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
        self.patches, self.encoder = nn.Conv2d(3, 8, 4, 4), nn.TransformerEncoder(layer, 2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("method", ["saliency", "grad_cam", "activations"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models_are_explained_alike_alone_and_in_a_batch_and_come_back(name: str, method: str):
    """In train mode too: buffers, weights, flags and hooks are as before; saliency is the gradient of the eval mode."""
    model, x = HOSTILE[name]().train(), images()
    with unchanged(model):
        batch = explain(model, method)
    singles = np.concatenate([explain(model, method, x[i : i + 1]).values for i in range(len(x))])
    assert np.abs(batch.values - singles).max() <= 1e-4 * np.abs(singles).max()
    if method == "saliency":
        close(batch.values, plain_gradient(model.eval(), x))


@pytest.mark.parametrize("layer", ["b", "b.0", "b.2", "b.3"])
def test_a_layer_inside_a_checkpoint_is_as_without_it(layer: str):
    body, fc = nn.Sequential(stem(), nn.ReLU(), conv(), nn.ReLU()), nn.Linear(8, 5)
    plain = Net(lambda net, x: net.fc(net.b(x).mean((2, 3))), b=body, fc=fc)
    kept = Net(lambda net, x: net.fc(checkpoint(net.b, x, use_reentrant=False).mean((2, 3))), b=body, fc=fc)
    close(explain(kept, layer=layer).values, explain(plain, layer=layer).values)


CONTAINERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "namedtuple": (lambda y: Pair(y, None), lambda r: r.features),
    "None first": (lambda y: (None, y), lambda r: r[1]),
    "nested": (lambda y: {"a": [{"b": (y,)}]}, lambda r: r["a"][0]["b"][0]),
    "ordered, keys are numbers": (lambda y: OrderedDict({0: y}), lambda r: r[0]),
    "defaultdict": (lambda y: defaultdict(list, {"f": y}), lambda r: r["f"]),
    "list": (lambda y: [y, 3], lambda r: r[0]),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_modules_return_may_be_packed(name: str):
    pack, unpack = CONTAINERS[name]
    inner = Net(lambda net, x: pack(net.c(x).relu()), c=stem())
    model = Net(lambda net, x: net.fc(unpack(net.inner(x)).mean((2, 3))), inner=inner, fc=nn.Linear(8, 5))
    expected = grad_cam_by_hand(lambda a: model.fc(a.mean((2, 3))), inner.c(images()).relu())
    close(explain(model, layer="inner").values, expected)


def test_a_users_hooks_are_part_of_the_model():
    """A hook that changes what a layer returns, one before it, and one with keywords: all count, and all stay."""
    model = chain(conv(), nn.ReLU())
    model[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model[2].register_forward_hook(lambda module, args, output: output * 2)
    model[2].register_forward_hook(lambda module, args, kwargs, output: output + 1, with_kwargs=True)
    expected = grad_cam_by_hand(model[3:], model[:3](images()))
    with unchanged(model):
        close(explain(model, layer="2").values, expected)
        close(explain(model, "saliency").values, plain_gradient(model, images()))


def test_a_container_and_its_last_child_agree_and_a_shared_module_has_numbered_calls():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Sequential(stem(), relu), conv(), relu, *chain()[2:])
    both = explain(model, ["grad_cam"], layer=["0", "0.1#1", model[1], "2#2"])
    assert set(both) == {("grad_cam", name) for name in ("0", "0.1#1", "1", "2#2")}
    close(both["grad_cam", "0"].values, both["grad_cam", "0.1#1"].values)
    with pytest.raises(LayerError, match=r"'2#1', '2#2'"):
        explain(model, layer="2")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_frozen_backbone_under_no_grad_can_be_looked_at_and_saliency_names_it(mode: Any):
    def run(net: Any, x: Tensor) -> Tensor:
        with mode():
            y = net.a(x)
        return net.fc(net.b(y).relu().mean((2, 3)))

    model = Net(run, a=stem(), b=conv(), fc=nn.Linear(8, 5))
    expected = grad_cam_by_hand(lambda a: model.fc(model.b(a).relu().mean((2, 3))), model.a(images()))
    with unchanged(model):
        close(explain(model, layer="a").values, expected)
        with pytest.raises(GradientError, match="'a' \\(Conv2d\\)"):
            explain(model, "saliency")


def test_a_layer_whose_module_is_never_called_is_said():
    model = Net(lambda net, x: net.fc(net.a.forward(x).relu().mean((2, 3))), a=stem(), fc=nn.Linear(8, 5))
    close(explain(model, "saliency").values, plain_gradient(model, images()))
    with pytest.raises(LayerNotRunError, match="'a'"):
        explain(model, layer="a")


class CustomReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0] > 0)


def _relu_on_view(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :4].relu_()
    return x


def _reentrant(x: Tensor) -> Tensor:
    return checkpoint(F.relu, x, use_reentrant=True)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("act", [CustomReLU.apply, _relu_on_view, _reentrant])
def test_what_may_hide_a_relu_is_refused(act: Callable[[Tensor], Tensor], method: str):
    model = Net(lambda net, x: net.fc(act(net.b(net.a(x).relu())).mean((2, 3))), a=stem(), b=conv(), fc=nn.Linear(8, 5))
    with unchanged(model), pytest.raises(ModelError, match="cannot see all of this model's operations"):
        explain(model, method)


HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "sum": lambda net, y: net.fc(y.sum((2, 3))),
    "scaled": lambda net, y: net.fc(2 * y.mean((2, 3))),
    "mean and max": lambda net, y: net.fc(y.mean((2, 3)) + y.amax((2, 3))),
    "max": lambda net, y: net.fc(y.amax((2, 3))),
    "two linear layers": lambda net, y: net.fc(net.hidden(y.mean((2, 3)))),
    "temperature": lambda net, y: net.fc(y.mean((2, 3))) / 0.5,
    "attention pooling": lambda net, y: net.fc((y * y.flatten(2).softmax(2).view_as(y)).sum((2, 3))),
    "cosine": lambda net, y: F.normalize(net.fc(y.mean((2, 3)))),
    "softmax": lambda net, y: net.fc(y.mean((2, 3))).softmax(1),
    "two heads": lambda net, y: net.fc(y.mean((2, 3))) + net.hidden(y.mean((2, 3)))[:, :5],
    "functional dropout": lambda net, y: net.fc(F.dropout(y.mean((2, 3)), 0.5)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_nearly_fit_cam_are_refused(name: str):
    model = Net(lambda net, x: HEADS[name](net, net.a(x)), a=stem(), hidden=nn.Linear(8, 8), fc=nn.Linear(8, 5)).eval()
    with unchanged(model), pytest.raises(ModelError, match="grad_cam"):
        explain(model, "cam")


@pytest.mark.parametrize("change", [lambda y: y, torch.relu, Tensor.relu_, Tensor.tanh_, lambda y: y.flip(3)])
@pytest.mark.parametrize("bias", [True, False])
def test_cam_is_exact_where_it_is_given(change: Callable[[Tensor], Tensor], bias: bool):
    """The mean of the map + bias = the score, whatever was done functionally between the layer and the pooling."""
    model = Net(lambda net, x: net.fc(change(net.a(x)).mean((2, 3))), a=stem(), fc=nn.Linear(8, 5, bias=bias)).eval()
    found = explain(model, "cam")
    offset = model.fc.bias[1].item() if bias else 0.0
    np.testing.assert_allclose(found.values.mean((1, 2)) + offset, found.scores, atol=1e-5)


def _boom(*_: Any) -> Any:
    raise ZeroDivisionError("mine")


def _interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS[:-1])
@pytest.mark.parametrize(("error", "raiser"), [(ZeroDivisionError, _boom), (KeyboardInterrupt, _interrupt)])
def test_the_users_own_exceptions_pass_and_the_model_comes_back(method: str, error: type, raiser: Callable[..., Any]):
    model = small_cnn().train()
    for explainer, target in ((Explainer(model), raiser), (Explainer(model, output=raiser), 1)):
        with unchanged(model), pytest.raises(error):
            explainer.explain(images(), method, target=target)


def _method(**functions: Any) -> Method:
    needs = Needs(activation=True, gradient=True, input_gradient="guided")
    made: Method = type(
        "Made", (Method,), {"needs": needs, "compute": lambda _, r: r.activation.mean(1), **functions}
    )()
    return made


@pytest.mark.parametrize("function", ["compute", "to_maps"])
@pytest.mark.parametrize(("error", "raiser"), [(ZeroDivisionError, _boom), (KeyboardInterrupt, _interrupt)])
def test_exceptions_of_a_method_pass(function: str, error: type, raiser: Callable[..., Any]):
    model = small_cnn().train()
    with unchanged(model), pytest.raises(error):
        explain(model, _method(**{function: raiser}))


@pytest.mark.parametrize(
    "compute",
    [
        lambda _, r: r.activation.relu_().mean(1),
        lambda _, r: r.activation.mean(1).numpy(),
        lambda _, r: r.activation[:1].mean(1),
        lambda _, r: r.head,
    ],
)
def test_a_method_that_breaks_its_contract_is_told(compute: Callable[..., Any]):
    with pytest.raises(MethodError):
        explain(small_cnn(), _method(compute=compute))


@pytest.mark.parametrize(
    "compute",
    [
        lambda _, r: r.activation.abs().mean(1) / r.activation.abs().max(),
        lambda _, r: r.activation[:1].mean(1).expand(len(r.input), -1, -1),
        lambda _, r: torch.rand(len(r.input), 4, 4),
        lambda _, r: r.activation.mean(1) * 0,
        lambda _, r: r.activation.mean(1) * float("nan"),
    ],
)
def test_check_method_finds_methods_that_cheat(compute: Callable[..., Any]):
    """One that mixes the images of a batch, takes the first one's, is random, is empty, is NaN."""
    with pytest.raises((AssertionError, SeewhyError)):
        check_method(_method(needs=Needs(activation=True), compute=compute))


def test_explainers_and_explanations_can_be_pickled_and_copied():
    explainer = Explainer(small_cnn(), class_names=["É 日本", "b", "c", "d", "e"])
    found = explainer.explain(images(), ["saliency", "grad_cam"], target="é 日本")
    for again in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer)):
        close(again.explain(images(), "saliency", target=0).values, found["saliency"].values)
    read = pickle.loads(pickle.dumps(found))
    assert list(read) == list(found)
    assert read["saliency"].target_names == ("É 日本",) * 3


@pytest.mark.parametrize("method", METHODS)
def test_deep_networks_and_odd_memory(method: str):
    layers = [layer for _ in range(300) for layer in (nn.Conv2d(3, 3, 1), nn.ReLU())]
    for layer in layers[::2]:
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    expected = explain(model, method).values
    for x in (images().to(memory_format=torch.channels_last), images().mT.contiguous().mT, images().requires_grad_()):
        np.testing.assert_allclose(explain(model, method, x).values, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "outputs",
    [
        lambda o: o.sum(),
        lambda o: o.argmax(1),
        lambda o: o.to(torch.complex64),
        lambda o: o.T,
        lambda o: o[:2],
        lambda o: None,
    ],
)
def test_outputs_that_are_no_scores_are_refused(outputs: Callable[[Tensor], Any]):
    model = Net(lambda net, x: outputs(net.m(x)), m=small_cnn())
    for method in METHODS[:-1]:
        with unchanged(model), pytest.raises(ModelError, match="output="):
            explain(model, method)


def test_a_model_built_in_inference_mode_is_refused_and_its_deepcopy_works():
    with torch.inference_mode():
        model = chain()
    with pytest.raises(ModelError, match="deepcopy"):
        explain(model, "saliency")
    assert explain(copy.deepcopy(model), "saliency").values.any()
