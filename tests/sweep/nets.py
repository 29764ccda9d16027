"""One network of the sweep: how it is built, with random weights through which signals survive."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Net:
    """One network: where it is from, how it is built, and the sides and channels of its input.

    Attributes:
        off_centre: it halves its grid by leaving out every other position, so that the rest lie up to a cell off.
    """

    source: str
    name: str
    build: Callable[[], nn.Module]
    sides: tuple[int, ...] = (128, 160)
    channels: int = 3
    off_centre: bool = False

    def model(self) -> nn.Module:
        """The network in float64 and eval mode, with seeded weights."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self.build().eval()
        return enlivened(model.double(), self.images(4))

    def images(self, count: int = 2) -> Tensor:
        """Normally distributed images ``(N, C, *sides)``, coarse structure and fine."""
        generator = torch.Generator().manual_seed(7)
        coarse = torch.randn(count, self.channels, *(max(side // 8, 1) for side in self.sides), generator=generator)
        fine = torch.randn(count, self.channels, *self.sides, generator=generator)
        return (F.interpolate(coarse, self.sides) + 0.5 * fine).double()


def enlivened(model: nn.Module, images: Tensor) -> nn.Module:
    """Random values where weights start at constants or next to 0, and batch norms that fit: no signal dies."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _fill(name, weight, generator)
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
    return model


def _fill(name: str, weight: Tensor, generator: torch.Generator) -> None:
    one_per_channel = weight.numel() == max(weight.shape, default=1)
    spread = weight.std() if weight.numel() > 1 else weight.new_zeros(())
    if one_per_channel and (spread == 0 or weight.abs().max() < 1e-3):
        _fill_channels(name, weight, generator)
    elif not one_per_channel:
        wanted = weight[0].numel() ** -0.5
        if spread == 0:
            weight.normal_(0, wanted, generator=generator)
        elif spread < wanted / 2:
            weight.mul_(wanted / spread)
        _stay_in_place(weight)


def _stay_in_place(weight: Tensor) -> None:
    """Give the centre of a convolution kernel as much weight as all around it, or depth would blur every place."""
    kernel = weight.shape[2:]
    if len(kernel) < 2 or min(kernel) < 3 or any(side % 2 == 0 for side in kernel):
        return
    centre = (..., *(side // 2 for side in kernel))
    kept, energy = weight[centre].clone(), weight.square().mean()
    weight.div_(math.sqrt(math.prod(kernel) - 1))
    weight[centre] = kept
    weight.mul_((energy / weight.square().mean()).sqrt())


def _fill_channels(name: str, weight: Tensor, generator: torch.Generator) -> None:
    if name.endswith("bias"):
        weight.normal_(0, 0.1, generator=generator)
    elif weight.abs().max() < 0.5:  # what scales a block beside its skip
        weight.uniform_(0.1, 0.3, generator=generator)
    else:
        weight.uniform_(0.5, 1.5, generator=generator)
