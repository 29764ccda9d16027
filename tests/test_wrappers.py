"""Models in wrappers, compiled, exported, traced, scripted, split over devices: as the plain model, or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Net, chain, close, explain, images
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from seewhy import Explainer
from seewhy.errors import InputError, LayerError, ModelError
from seewhy.testing import small_cnn, unchanged

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:.*deprecated.*:FutureWarning", "ignore::torch.jit.TracerWarning"
)

METHODS = ["saliency", "guided_backprop", "grad_cam", "activations", "cam"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here"))]


class Inner(nn.Module):
    """A network inside a module of the user's, as in training frameworks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Framework(Inner):
    """The traits of a Lightning module: properties that may raise, logging in forward, a step of its own."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def trainer(self) -> Any:
        raise RuntimeError("not attached to a trainer")

    def log(self, name: str, value: Tensor) -> None:
        self.__dict__.setdefault("logged", {})[name] = value.detach()

    def training_step(self, batch: Tensor) -> Tensor:
        raise AssertionError("nobody trains here")

    def forward(self, x: Tensor) -> Tensor:
        self.log("mean", x.mean())
        return self.model(x)


@pytest.fixture
def process_group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def as_plain(model: nn.Module, found: Callable[..., Any] = explain, methods: list[str] | None = None) -> None:
    """Each map of `model` is that of the plain network."""
    for method in methods or METHODS:
        close(found(model, method).values, explain(small_cnn(), method).values)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("wrap", [lambda m: m, Inner, nn.DataParallel, Framework])
def test_the_maps_of_a_wrapped_model_are_those_of_the_model(wrap: Callable[[nn.Module], nn.Module], device: str):
    model = wrap(small_cnn().to(device)).train()
    if isinstance(model, Framework):
        model.eval()(images(1))  # makes its log
        model.train()
    with unchanged(model):
        for method in METHODS:
            expected, found = explain(small_cnn(), method), explain(model, method)
            assert np.abs(found.values - expected.values).max() <= 1e-3 * np.abs(expected.values).max()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", [lambda m: m, Inner])
def test_a_distributed_model_is_explained_and_trains_on(wrap: Callable[[nn.Module], nn.Module]):
    model = wrap(nn.parallel.DistributedDataParallel(small_cnn())).eval()  # so that no statistics change
    for _ in range(2):
        model(images()).sum().backward()
        with unchanged(model):
            as_plain(model)


BACKENDS = ["eager", "aot_eager"]


def _forward_compiled(model: nn.Module, backend: str) -> nn.Module:
    model.forward = torch.compile(model.forward, backend=backend)  # type: ignore[method-assign]
    return model


def _module_compiled(model: nn.Module, backend: str) -> nn.Module:
    model.compile(backend=backend)
    return model


def _stem_compiled(model: nn.Module, backend: str) -> nn.Module:
    model.stem = torch.compile(model.stem, backend=backend)
    return model


def _stem_compiled_itself(model: nn.Module, backend: str) -> nn.Module:
    model.stem.compile(backend=backend)  # type: ignore[operator]
    return model


COMPILED: dict[str, Callable[[nn.Module, str], nn.Module]] = {
    "whole": lambda model, backend: torch.compile(model, backend=backend),
    "module.compile()": _module_compiled,
    "a submodule": _stem_compiled,
    "submodule.compile()": _stem_compiled_itself,
    "forward": _forward_compiled,
    "inside a module": lambda model, backend: Inner(torch.compile(model, backend=backend)),
}


@pytest.mark.sweep
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", COMPILED)
def test_a_compiled_model_is_explained_as_before_it_was_compiled(how: str, backend: str, ran: bool):
    torch.compiler.reset()
    model = COMPILED[how](small_cnn(), backend)
    if ran:
        with torch.no_grad():
            model(images())
    with unchanged(model):
        as_plain(model)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_function_in_the_model_hides_no_relu(backend: str):
    torch.compiler.reset()
    activate = torch.compile(F.relu, backend=backend)
    plain, compiled = (
        Net(lambda net, x, act=act: net.fc(act(net.a(x)).mean((2, 3))), a=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 5))
        for act in (F.relu, activate)
    )
    compiled.load_state_dict(plain.state_dict())
    compiled(images())
    for method in METHODS:
        close(explain(compiled, method).values, explain(plain, method).values)


def test_compiling_is_as_it_was_when_the_last_of_several_threads_is_done():
    """Whether functions run compiled is one setting of the process; threads that explain at once share it."""
    torch.compiler.reset()
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled.append(1)
        return graph.forward

    double = torch.compile(lambda x: x * 2, backend=backend)
    inside, left = threading.Event(), threading.Event()

    def first(net: Any, x: Tensor) -> Tensor:
        inside.set()
        assert left.wait(20)
        return net.m(double(x))

    slow = threading.Thread(target=lambda: explain(Net(first, m=small_cnn()), "saliency"))
    quick = threading.Thread(target=lambda: explain(small_cnn(), "saliency"))

    def second(net: Any, x: Tensor) -> Tensor:
        left.set()
        slow.join(20)
        return net.m(double(x))

    slow.start()
    assert inside.wait(20)
    explain(Net(second, m=small_cnn()), "saliency")
    quick.start()
    quick.join(20)
    assert not slow.is_alive()
    assert not compiled
    double(torch.ones(2))
    assert compiled


def _exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()


def _traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, images(), check_trace=False)


RECORDED: dict[str, tuple[Callable[[nn.Module], nn.Module], list[str]]] = {
    "exported": (_exported, ["saliency", "guided_backprop", "deconvnet"]),
    "traced": (_traced, ["saliency", "guided_backprop", "deconvnet"]),
    "scripted": (torch.jit.script, ["saliency"]),
    "frozen": (lambda model: torch.jit.freeze(_traced(model)), ["saliency"]),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_models_show_gradients_but_no_layers(name: str):
    record, methods = RECORDED[name]
    model = record(small_cnn())
    as_plain(model, methods=methods)
    for method in ("grad_cam", "activations", "guided_grad_cam"):
        with pytest.raises(LayerError, match="as it was before"):
            explain(model, method)
    with pytest.raises(ModelError, match="no such head"):
        explain(model, "cam")


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_scripted_code_is_right_or_refused_where_a_relu_may_hide(method: str):
    """The first runs are interpreted, and show each ReLU; what is optimised later shows none."""
    model, expected = torch.jit.script(small_cnn()), explain(small_cnn(), method).values
    refusals: list[str] = []
    for _ in range(6):
        try:
            close(explain(model, method).values, expected)
        except ModelError as error:
            refusals.append(str(error))
    assert refusals
    assert all("scripted graph" in refusal for refusal in refusals)


@pytest.mark.parametrize("record", [torch.jit.script, _traced])
def test_a_recorded_part_of_a_model_is_passed_through_and_its_layers_refused(record: Callable[[Any], Any]):
    part = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    plain, model = (
        Net(lambda net, x: net.rest(net.part(x)), part=p, rest=nn.Sequential(*chain()[1:]))
        for p in (part, record(part))
    )
    model.rest.load_state_dict(plain.rest.state_dict())
    with unchanged(model):
        for arguments in ({"method": "saliency"}, {"layer": "rest.0"}):
            close(explain(model, **arguments).values, explain(plain, **arguments).values)
        with pytest.raises(LayerError, match="scripted code"):
            explain(model, layer="part")


def test_a_graph_module_and_an_unflattened_export_have_their_layers():
    exported = torch.export.export(small_cnn(), (images(),))
    for model in (torch.fx.symbolic_trace(small_cnn()), torch.export.unflatten(exported)):
        for layer in ("stem.0", "left", "body"):
            close(explain(model, layer=layer).values, explain(small_cnn(), layer=layer).values)


class Dropping(nn.Module):
    """A network with a functional dropout, whose mode a trace writes down."""

    def __init__(self, drop: float = 0.5) -> None:
        super().__init__()
        self.conv, self.fc, self.drop = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), drop

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.conv(x).relu().mean((2, 3)), self.drop, self.training))


@pytest.mark.parametrize("record", [_exported, _traced, torch.fx.symbolic_trace])
@pytest.mark.parametrize("method", ["saliency", "activations"])
def test_what_was_recorded_in_train_mode_is_refused(record: Callable[[nn.Module], nn.Module], method: str):
    """Such a graph drops at random and normalises by the batch whatever mode it is put in."""
    close(explain(record(Dropping().eval()), "saliency").values, explain(Dropping_like(), "saliency").values)
    with pytest.raises(ModelError, match="traced or exported in train mode"):
        explain(record(Dropping().train()), method)


def Dropping_like() -> nn.Module:
    torch.manual_seed(0)
    return Dropping()


def test_batch_norm_recorded_in_train_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    for record in (_exported, _traced):
        with pytest.raises(ModelError, match="batch_norm"):
            explain(record(model), "saliency")


def test_batch_norm_without_statistics_is_the_same_in_both_modes_and_refused_for_a_batch_only():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    expected = explain(model, "saliency", batch_size=1).values
    for record in (_exported, _traced):
        close(explain(record(model.eval()), "saliency", batch_size=1).values, expected)
        with pytest.raises(ModelError, match="batch_size=1"):
            explain(record(model.eval()), "saliency")


def test_an_export_for_another_batch_is_told():
    model = torch.export.export(small_cnn(), (images(2),)).module()
    close(
        explain(model, "saliency", images(4), batch_size=2).values, explain(small_cnn(), "saliency", images(4)).values
    )
    with pytest.raises(ModelError, match=r"refuses \(3, 3, 16, 24\)"):
        explain(model, "saliency")


class Offloaded:
    """Hooks that hold a module's weights elsewhere and bring them while it runs, as `accelerate` does."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters(recurse=False)}
        self.away(module)
        module._hf_hook = self  # type: ignore[assignment]
        module.register_forward_pre_hook(self.bring)
        module.register_forward_hook(lambda module, args, output: self.away(module))

    def bring(self, module: nn.Module, args: Any) -> None:
        for name, weight in self.weights.items():
            trained = getattr(module, name).requires_grad
            module._parameters[name] = nn.Parameter(weight, requires_grad=trained)

    def away(self, module: nn.Module) -> None:
        for name in self.weights:
            kept = getattr(module, name)
            module._parameters[name] = nn.Parameter(kept.to("meta"), requires_grad=kept.requires_grad)


@pytest.mark.parametrize("names", [["stem.0"], ["body"], ["stem.0", "stem.1", "left", "right", "body", "head"]])
def test_offloaded_weights(names: list[str]):
    """Inputs go to the first tensor that has values; what was trained before is trained after."""
    model = small_cnn()
    model.body.weight.requires_grad_(False)
    for name in names:
        Offloaded(model.get_submodule(name))
    model.hf_device_map = dict.fromkeys(names, "cpu")  # type: ignore[assignment]
    as_plain(model, methods=METHODS[:-1])
    with pytest.raises(ModelError, match="no such head") if "head" in names else nullcontext():
        close(explain(model, "cam").values, explain(small_cnn(), "cam").values)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["body.weight"]


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_a_model_split_over_devices(device: str):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    model = small_cnn()
    model.head.to(device)
    if device == "meta":
        for method in ("saliency", "activations"):
            with pytest.raises(ModelError, match="'meta' device"):
                explain(model, method)
        return
    model.body.to(device)
    model.body.register_forward_pre_hook(lambda module, args: (args[0].to(device),))
    for method in METHODS:
        np.testing.assert_allclose(explain(model, method).values, explain(small_cnn(), method).values, atol=1e-3)


def test_a_device_where_the_model_is_not():
    with pytest.raises(InputError, match="is on 'cpu'"):
        Explainer(small_cnn(), device="meta")
