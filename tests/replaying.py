"""What the tests of many evaluations share: changed activations by `Evaluations`, and by whole runs with a hook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.engine.borrow import borrowed
from seewhy.engine.capture import Captured
from seewhy.engine.choice import Choice
from seewhy.engine.inputs import ModelInputs
from seewhy.engine.passes import Request
from seewhy.engine.record import Needs
from seewhy.layers import find_layers
from seewhy.outputs import read_outputs
from seewhy.scoring import Scoring, find_targets
from seewhy.testing import unchanged

NEEDS = Needs(activation=True, evaluations=True)


def pixels(count: int = 1, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(5))


class Asked(NamedTuple):
    """The scores of changed activations by replay, those of whole runs, and whether only the rest was run."""

    found: Tensor
    expected: Tensor
    short: bool


def ask(
    model: nn.Module, layer: str, x: Tensor | None = None, inputs: ModelInputs | None = None, most: int | None = None
) -> Asked:
    """Three changes of the layer's activation for each image: its own, another, and a channel at 0."""
    x, inputs = pixels() if x is None else x, inputs or ModelInputs()
    model.eval()
    with unchanged(model), borrowed(model):
        choice = Choice(model)
        request = Request((NEEDS,), tuple(find_layers(model, layer)), inputs=inputs, most=most)
        scoring = Scoring(find_targets(1, len(x)))
        measured = choice.measure(request, x, scoring)
        again = measured.record(NEEDS, measured.layers[0]).evaluations
        value = measured.layers[0].value

        def change(rows: Tensor, numbers: Tensor) -> Tensor:
            own = value[rows]
            other = own.flip(1) * 0.7 + 0.1
            off = own.clone()
            off[:, 0] = 0
            which = numbers.view(-1, *(1 for _ in own.shape[1:]))
            return torch.where(which == 0, own, torch.where(which == 1, other, off))

        found = again.layer_scores(change, 3)
        expected = whole(model, layer, x, inputs, measured.layers[0], change)
        return Asked(found, expected, not again.warnings)


@contextmanager
def evaluations(model: nn.Module, layer: str, x: Tensor, scoring: Scoring | None = None, **asked: Any) -> Iterator[Any]:
    """The record that a method with `NEEDS` gets, with its `evaluations`, while the model is borrowed."""
    with unchanged(model.eval()), borrowed(model):
        request = Request((NEEDS,), tuple(find_layers(model, layer)), **asked)
        measured = Choice(model).measure(request, x, scoring or Scoring(find_targets(1, len(x))))
        yield measured.record(NEEDS, measured.layers[0])


def whole(model: nn.Module, layer: str, x: Tensor, inputs: ModelInputs, captured: Captured, change: Any) -> Tensor:
    """By a hook of its own on whole runs of single images."""
    name, _, call = layer.partition("#")
    module, scores = model.get_submodule(name), torch.zeros(len(x), 3, dtype=torch.float64)
    for image, number in itertools.product(range(len(x)), range(3)):
        new, calls = change(torch.tensor([image]), torch.tensor([number])), itertools.count(1)

        def exchange(_: Any, __: Any, output: Any, new: Tensor = new, calls: Any = calls) -> Any:
            if next(calls) != int(call or 1):
                return None
            first = output if isinstance(output, Tensor) else next(iter(dict(output).values())) if isinstance(
                output, dict) else output[0]  # fmt: skip
            layout = captured.layout
            shaped = new.view(first.shape) if layout is None else layout.filled(first.clone(), new)
            if isinstance(output, Tensor):
                return shaped.clone()
            if isinstance(output, dict):
                return type(output)({**output, next(iter(output)): shaped.clone()})
            if hasattr(output, "_fields"):
                return type(output)(shaped.clone(), *output[1:])
            parts = shaped.clone(), *output[1:]
            return tuple.__new__(type(output), parts) if isinstance(output, tuple) else [*parts]

        handle = module.register_forward_hook(exchange)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad():
                args, kwargs = inputs.part(image, image + 1, len(x)).arguments(x[image : image + 1].clone())
                raw = model(*args, **kwargs)
        finally:
            handle.remove()
            torch.backends.mha.set_fastpath_enabled(fast)
        found = read_outputs(raw, 1)
        scores[image, number] = found.scores[0, 1] if found.scores is not None else torch.nan
    return scores


def assert_right(asked: Asked, *, short: bool = True) -> None:
    scale = asked.expected.abs().max()
    assert (asked.found - asked.expected).abs().max() <= 1e-4 * scale
    assert asked.short == short


class Hostile(nn.Module):
    """A few layers; what happens between them is what a test says."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.c = (nn.Conv2d(i, 6, 3, padding=1) for i in (3, 6, 6))
        self.relu, self.head = nn.ReLU(), nn.Linear(6, 4)
        for name, module in more.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.run(self, x).mean((2, 3)))
        return out


def many_relus(m: Any, x: Tensor) -> Tensor:
    return m.relu(m.c(m.relu(m.b(m.relu(m.a(x))))))


class Convolutions(TorchFunctionMode):
    """Counts convolutions."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") == "conv2d"
        return func(*args, **(kwargs or {}))
