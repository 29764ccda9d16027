"""Modules that are not what modules usually are, in models of any depth: right, or refused with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Net, close, conv, explain, head, images, net, plain, plain_twin, saliency_and_grad_cam, stem
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.checkpoint import checkpoint

from seewhy import Explainer
from seewhy.errors import GradientError, LayerNotRunError, ModelError
from seewhy.testing import small_cnn, unchanged

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")  # a random net may argue for nothing


class Slots(nn.Module):
    __slots__ = ("gain",)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc, self.gain = stem(), nn.Linear(8, 5), 2.0

    def forward(self, x: Tensor) -> Tensor:
        return plain(self, x) * self.gain


class NothingCanBeSet(Slots):
    def __setattr__(self, name: str, value: Any) -> None:
        if "fc" in self.__dict__.get("_modules", ()) and name != "gain":
            raise AttributeError(f"{name} is read-only")
        super().__setattr__(name, value)


class Delegates(Slots):
    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("fc"), name)


class OwnTraining(Slots):
    @property
    def training(self) -> bool:
        return True

    @training.setter
    def training(self, value: bool) -> None:
        pass


class TrainDoesMore(Slots):
    def train(self, mode: bool = True) -> Any:
        raise AssertionError("train() of this model has work of its own and is nobody else's to call")

    eval = train


@pytest.mark.parametrize("kind", [Slots, NothingCanBeSet, Delegates, OwnTraining, TrainDoesMore])
def test_modules_that_override_what_modules_are(kind: type[Slots]):
    model = kind()
    twin = Slots().eval()
    twin.load_state_dict(model.state_dict())
    saliency, grad_cam = saliency_and_grad_cam(twin, "a", images())
    with unchanged(model):
        close(explain(model, "saliency").values, saliency)
        np.testing.assert_allclose(explain(model, layer="a").values, grad_cam, atol=1e-5 * grad_cam.max(), rtol=1e-5)


@pytest.mark.parametrize("name", ["with space", "ü", "0", "forward_", "a+b", "weights[0]"])
def test_odd_names_in_a_module_dict(name: str):
    model = net(lambda m, x: head(m, m.d[name](x).relu()), d=nn.ModuleDict({name: stem()}))
    _, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), f"d.{name}", images().double())
    close(explain(model, layer=f"d.{name}", x=images().double()).values, grad_cam)


def test_a_layer_under_two_names_is_one_layer():
    shared = stem()
    model = net(plain, also=shared, a=shared)
    found = [explain(model, layer=layer) for layer in ("a", "also", shared)]
    close(found[0].values, found[1].values)
    close(found[0].values, found[2].values)


def test_shared_weights_and_a_model_without_any():
    model = net(lambda m, x: head(m, m.b(m.c(m.a(x))).relu()), c=conv())
    model.c.weight = model.b.weight
    saliency, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), "c", images().double())
    with unchanged(model):
        close(explain(model, "saliency", images().double()).values, saliency)
        close(explain(model, layer="c", x=images().double()).values, grad_cam)
    bare = Net(lambda m, x: m.act(x - 0.5).mean((2, 3)), act=nn.ReLU())
    expected = (images() > 0.5).float()
    expected[:, [0, 2]] = 0
    close(explain(bare, "saliency").values, expected.numpy() / (16 * 24))


def test_branches_not_taken_and_parallel_branches():
    def run(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        return model.never(y) if len(y) > 9 else head(model, (model.left(y) + model.right(y)).relu_())

    model = net(run, left=conv(), right=conv(), never=conv())
    x = images().double()
    both = explain(model, ["grad_cam"], x, layer=["left", "right", "a"])
    for layer in ("left", "right", "a"):
        close(both["grad_cam", layer].values, saliency_and_grad_cam(copy.deepcopy(model), layer, x)[1])
    with pytest.raises(LayerNotRunError, match="'never'"):
        explain(model, layer=["left", "never"])


def test_attention_that_returns_none_beside_its_tensor():
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.patches(x).flatten(2).mT
            return self.fc(self.attention(y, y, y, need_weights=False)[0].mean(1))

    model = Attends().double()
    x = images().double()
    close(explain(model, "saliency", x).values, saliency_and_grad_cam(copy.deepcopy(model), "patches", x)[0])
    tokens = model.patches(x).flatten(2).mT
    value = model.attention(tokens, tokens, tokens)[0].detach().requires_grad_()
    gradient = torch.autograd.grad(model.fc(value.mean(1))[:, 1].sum(), value)[0]
    expected = (gradient.mean(1, keepdim=True) * value).sum(2).relu().view(3, 4, 6)
    close(explain(model, layer="attention", x=x).values, expected.detach().float().numpy())


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, spectral_norm])
def test_spectral_norm_in_train_mode_takes_no_step(norm: Callable[[nn.Module], nn.Module]):
    """Its power iteration changes buffers in train mode; explaining is in eval mode and leaves them."""
    model = net(lambda m, x: head(m, m.b(m.a(x)).relu()), b=norm(conv())).train()
    saliency, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), "b", images().double())
    with unchanged(model):
        close(explain(model, "saliency", images().double()).values, saliency)
        close(explain(model, layer="b", x=images().double()).values, grad_cam)


@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
def test_a_reentrant_checkpoint_is_refused(method: str):
    model = net(lambda m, x: head(m, checkpoint(m.b, m.a(x), use_reentrant=True).relu()))
    with unchanged(model), pytest.raises(GradientError, match="use_reentrant=False"):
        explain(model, method, layer="a")


def test_batch_norm_with_the_batchs_statistics_is_refused_for_a_batch_only():
    """As a function, or by a model that puts its layers in train mode itself, where no module tells of it."""

    def trains(model: Any, x: Tensor) -> Tensor:
        return head(model, model.norm.train()(model.a(x)).relu())

    def functional(model: Any, x: Tensor) -> Tensor:
        return head(model, F.batch_norm(model.a(x), None, None, training=True).relu())

    for run in (trains, functional):
        model = net(run, norm=nn.BatchNorm2d(8))
        with unchanged(model), pytest.raises(ModelError, match="batch_size=1"):
            explain(model, "saliency")
        assert explain(model, "saliency", batch_size=1).values.any()
    model = net(lambda m, x: head(m, F.instance_norm(m.a(x)).relu()))
    assert explain(model, "saliency").values.any()


def test_batch_norm_over_the_windows_of_one_image_mixes_no_images():
    def run(model: Any, x: Tensor) -> Tensor:
        windows = model.a(x).unflatten(3, (2, 6)).movedim(3, 1).flatten(0, 1)
        return model.fc(F.batch_norm(windows, None, None, training=True).relu().mean((2, 3)).view(len(x), 2, 8).mean(1))

    model, x = net(run), images(1).double()
    close(explain(model, "saliency", x).values, saliency_and_grad_cam(copy.deepcopy(model), "a", x)[0])


def test_stochastic_layers_are_off_as_in_eval_mode():
    def drop_path(model: Any, x: Tensor) -> Tensor:
        y = model.a(x)
        kept = torch.rand(len(x), 1, 1, 1, dtype=x.dtype) > 0.5
        return head(model, (y + model.drop(model.b(y)) * (kept if model.training else 1)).relu())

    model = net(drop_path, drop=nn.Dropout(0.5)).train()
    saliency, grad_cam = saliency_and_grad_cam(copy.deepcopy(model), "b", images().double())
    with unchanged(model):
        close(explain(model, "saliency", images().double()).values, saliency)
        close(explain(model, layer="b", x=images().double()).values, grad_cam)


@torch.library.custom_op("seewhy_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


def incomplete_gamma(x: Tensor) -> Tensor:
    return torch.igamma(x.abs() + 1, torch.ones_like(x))


@pytest.mark.parametrize("operation", [twice, incomplete_gamma])
def test_an_operation_without_a_backward_is_told(operation: Callable[[Tensor], Tensor]):
    model = net(lambda m, x: head(m, operation(m.a(x)).relu()))
    for method in ("saliency", "grad_cam"):
        with unchanged(model), pytest.raises(GradientError, match="no backward"):
            explain(model, method)
    assert explain(model, "activations", layer="a").values.any()


def test_where_the_gradient_ends_is_found_in_models_with_further_inputs():
    class Further(Slots):
        def __init__(self) -> None:
            super().__init__()
            self.b = conv()

        def forward(self, x: Tensor, scale: Tensor, *, shift: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.a(x)
            return head(self, (self.b(y) * scale + shift).relu())

    model = Further()
    further = {"model_args": (torch.ones(3, 1, 1, 1),), "model_kwargs": {"shift": torch.ones(1)}}
    with unchanged(model), pytest.raises(GradientError, match=r"module 'a' \(Conv2d\)"):
        explain(model, "saliency", **further)


def test_a_model_that_could_not_be_trained_is_told():
    model = net(lambda m, x: head(m, m.a(x).relu_().add_(1)))
    with unchanged(model), pytest.raises(GradientError, match="in place what its own backward needs"):
        explain(model, "saliency")


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "grad_cam"])
def test_a_thousand_layers(method: str):
    """As deep as one likes: nothing here recurses."""
    layers = [layer for _ in range(500) for layer in (nn.Conv2d(3, 3, 1, groups=3), nn.ReLU())]
    for layer in layers[::2]:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    rest = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    short = nn.Sequential(*layers[:2], *rest)  # the layers after these two change nothing
    close(explain(nn.Sequential(*layers, *rest), method).values, explain(short, method).values)


@pytest.mark.parametrize("odd", [lambda o: o[:2], lambda o: o.repeat(2, 1), lambda o: o.mean(0, keepdim=True)])
def test_another_first_dimension_is_refused_by_predict_and_layers_are_listed_all_the_same(odd: Callable[..., Any]):
    model = Net(lambda m, x: odd(m.m(x)), m=small_cnn())
    with pytest.raises(ModelError, match="not the batch"):
        Explainer(model).predict(images())
    assert any(layer.name == "m.body" for layer in Explainer(model).layers(images()))


def test_an_output_that_ignores_part_of_the_batch_gives_empty_maps_there_only():
    model = net(lambda m, x: plain(m, x) * torch.tensor([1.0, 0, 1], dtype=x.dtype)[: len(x), None])
    found = explain(model, "saliency", images().double()).values
    close(found[[0, 2]], saliency_and_grad_cam(plain_twin(model), "a", images().double())[0][[0, 2]])
    assert not found[1].any()
