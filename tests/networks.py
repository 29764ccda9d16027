"""Networks for the tests: torchvision's with seeded random weights, and one small net in every spelling of ReLU."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CLASSES = 12
HIDDEN = 128


class Case(NamedTuple):
    """Where Grad-CAM looks in a network, and what the network is built with."""

    layer: str
    options: Mapping[str, bool] = MappingProxyType({})


CASES = {
    "resnet18": Case("layer4"),
    "vgg11_bn": Case("features"),
    "alexnet": Case("features"),
    "densenet121": Case("features"),
    "googlenet": Case("inception5b", {"aux_logits": False, "init_weights": False}),
    "squeezenet1_1": Case("features"),
    "mobilenet_v3_small": Case("features"),
    "efficientnet_b0": Case("features"),
    "regnet_y_400mf": Case("trunk_output"),
}
SIZE = (96, 128)
TARGETS = (9, 4)  # one for each image: classes that something argues for in every network, so that no Grad-CAM is 0


def images(number: int = 2, size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normally distributed images (N, 3, H, W), smooth enough that max pooling has something to choose from."""
    rng = torch.Generator().manual_seed(7)
    coarse = torch.randn(number, 3, size[0] // 4, size[1] // 4, generator=rng)
    fine = torch.randn(number, 3, *size, generator=rng)
    return (F.interpolate(coarse, size, mode="bilinear", align_corners=False) + 0.5 * fine).to(dtype)


@functools.cache
def _built(name: str) -> nn.Module:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet computes its widths with tensors
        net: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **CASES[name].options)
    _narrow(net)
    net = net.to_empty(device="cpu").double()
    _fill(net)
    _calibrate(net, images(4))
    return net.eval()


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A torchvision network in eval mode, the caller's own copy.

    In float64 no ReLU sits so near 0 that another order of summing flips it, so that maps can be compared closely.
    """
    return copy.deepcopy(_built(name)).to(dtype)


def _narrow(net: nn.Module) -> None:
    """Make the hidden linear layers of AlexNet and VGG narrow: a hundred million weights add nothing to a test."""
    head = net.get_submodule("classifier") if hasattr(net, "classifier") else net
    named = [(name, m) for name, m in head.named_children() if isinstance(m, nn.Linear)]
    if len(named) == 3:
        widths = [named[0][1].in_features, HIDDEN, HIDDEN, CLASSES]
        for (name, _), wide, out in zip(named, widths, widths[1:], strict=False):
            setattr(head, name, nn.Linear(wide, out, device="meta"))


def _fill(net: nn.Module) -> None:
    rng = torch.Generator().manual_seed(11)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=rng)
            nn.init.normal_(module.bias, 0, 0.3, generator=rng)
            module.reset_running_stats()
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1, generator=rng)


def _calibrate(net: nn.Module, x: Tensor) -> None:
    """Take BatchNorm's statistics from random images, so that neither activations nor gradients fade or explode."""
    norms = [m for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        net(x)
    for norm in norms:
        norm.momentum = 0.1


Activation = Callable[[Tensor], Tensor]


def _checkpointed(x: Tensor) -> Tensor:
    return checkpoint(F.relu, x, use_reentrant=False)


RELUS: dict[str, Callable[[], Activation]] = {
    "module": nn.ReLU,
    "functional": lambda: F.relu,
    "torch.relu": lambda: torch.relu,
    "module in place": lambda: nn.ReLU(inplace=True),
    "functional in place": lambda: functools.partial(F.relu, inplace=True),
    "method": lambda: Tensor.relu,
    "method in place": lambda: Tensor.relu_,
    "shared": nn.ReLU,
    "shared in place": lambda: nn.ReLU(inplace=True),
    "clamp": lambda: lambda x: x.clamp(min=0),
    "clamp in place": lambda: lambda x: x.clamp_(min=0),
    "clamp_min": lambda: lambda x: torch.clamp_min(x, 0),
    "threshold": lambda: lambda x: F.threshold(x, 0, 0),
    "checkpoint": lambda: _checkpointed,
}
RELU6S: dict[str, Callable[[], Activation]] = {
    "relu6 module": nn.ReLU6,
    "relu6 functional": lambda: F.relu6,
    "relu6 in place": lambda: nn.ReLU6(inplace=True),
    "relu6 shared": nn.ReLU6,
    "relu6 hardtanh": lambda: nn.Hardtanh(0, 6),
    "relu6 functional hardtanh": lambda: lambda x: F.hardtanh(x, 0, 6),
    "relu6 clamp": lambda: lambda x: x.clamp(0, 6),
}
SPELLINGS = RELUS | RELU6S


class Body(nn.Module):
    """Every place where a ReLU is easy to get wrong: a chain, a skip from its input, two branches beside each other."""

    def __init__(self, acts: list[Activation], in_place: bool) -> None:
        super().__init__()
        self.modules_of_acts = nn.ModuleList([a for a in acts if isinstance(a, nn.Module)])
        self.acts, self.in_place = acts, in_place
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, 1, 1)
        self.skipped = nn.Conv2d(8, 8, 3, 1, 1)
        self.left = nn.Conv2d(8, 6, 3, 2, 1)
        self.right = nn.Conv2d(8, 6, 1, 2)
        self.last = nn.Conv2d(12, 10, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.acts[0](self.norm(self.stem(x))))
        fork = x.clone() if self.in_place else x  # in place the skip would read what the ReLU has changed
        x = self.skipped(self.acts[1](fork)) + x
        x = torch.cat([self.acts[2](self.left(x)), self.acts[3](self.right(x))], 1)
        out: Tensor = self.last(x)
        return out


class TinyNet(nn.Module):
    """A small classifier, of the same weights and outputs for each spelling of ReLU (`RELUS`) or of ReLU6 (`RELU6S`).

    The first thing done to the output of `body` is the last activation, in place where that is the spelling.
    """

    def __init__(self, spelling: str = "module") -> None:
        super().__init__()
        make = SPELLINGS[spelling]
        acts = [make()] * 5 if "shared" in spelling else [make() for _ in range(5)]
        self.body = Body(acts[:4], "in place" in spelling)
        self.act = acts[4]
        self.fc = nn.Linear(10, CLASSES)
        _fill(self)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.body(3 * x))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class DenseNetWithModule(nn.Module):
    """A DenseNet whose last ReLU is a module, for methods that need a name for what is pooled."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.features = net.get_submodule("features")
        self.last_relu = nn.ReLU()
        self.classifier = net.get_submodule("classifier")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.last_relu(self.features(x)).mean((2, 3)))
        return out
