"""What the tests of odd models share: a network from a function, and maps worked out by hand with autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy import Explainer


class Net(nn.Module):
    """A network that is one function of itself and the images, with the modules given."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def stem() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, 2, 1)


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, 1, 1)


def chain(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(stem(), nn.ReLU(), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(3))


def explain(model: nn.Module, method: Any = "grad_cam", x: Tensor | None = None, **arguments: Any) -> Any:
    arguments.setdefault("target", 1)
    return Explainer(model).explain(images() if x is None else x, method, **arguments)


def plain_gradient(model: nn.Module, x: Tensor) -> np.ndarray:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x * 1)[:, 1].sum(), x)[0].numpy()


def grad_cam_by_hand(tail: Callable[[Tensor], Tensor], activation: Tensor) -> np.ndarray:
    activation = activation.detach().requires_grad_()
    gradient = torch.autograd.grad(tail(activation * 1)[:, 1].sum(), activation)[0]
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).relu().detach().numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def saliency_and_grad_cam(model: nn.Module, layer: str, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both of class 1, with a hook that keeps the layer's output and its gradient; puts `model` in eval mode."""
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        kept["value"] = output.detach().clone()
        output.register_hook(lambda gradient: kept.update(gradient=gradient))

    x = x.clone().requires_grad_()
    handle = model.eval().get_submodule(layer).register_forward_hook(keep)
    gradient = torch.autograd.grad(model(x * 1)[:, 1].sum(), x)[0]
    handle.remove()
    weights = kept["gradient"].mean((2, 3), keepdim=True)
    return gradient.float().cpu().numpy(), (weights * kept["value"]).sum(1).relu().float().cpu().numpy()


def net(run: Callable[[Any, Tensor], Any], **modules: nn.Module) -> Net:
    """With layers `a` and `fc`; in float64, so that nothing but a mistake makes a difference."""
    return Net(run, **{"a": stem(), "b": conv(), "fc": nn.Linear(8, 5), **modules}).double()


def head(model: Any, y: Tensor) -> Tensor:
    return model.fc(y.mean((2, 3)))


def plain(model: Any, x: Tensor) -> Tensor:
    return head(model, model.a(x).relu())


def plain_twin(model: nn.Module) -> nn.Module:
    """A network that does what `plain` does, with the weights of `model`."""
    twin = net(plain)
    twin.load_state_dict(model.state_dict())
    return twin
