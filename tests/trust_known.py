"""Networks and maps of which every metric must say what is known beforehand."""

from contextlib import nullcontext

import torch
from torch import nn

from seewhy import Method, Needs

SIDE = 24
REGION = torch.zeros(SIDE, SIDE, dtype=torch.bool)
REGION[4:10, 12:18] = True


class OneRegion(nn.Module):
    """Reads one region only: the score of class 1 is its mean brightness, scaled; that of class 0 is 1.

    For a black image the scores are 1 and 0, which could be probabilities: none of the others may be read so.
    """

    def __init__(self, scale=6.0):
        super().__init__()
        self.weight = nn.Parameter(REGION.float() / REGION.sum() * scale)

    def forward(self, images):
        score = (images.mean(1) * self.weight).sum((1, 2))
        return torch.stack([torch.full_like(score, 1.0), score], 1)


class Constant(nn.Module):
    """Answers the same to everything, but has a weight and a graph."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.9]))

    def forward(self, images):
        return self.weight.expand(len(images), 2) + 0 * images.sum((1, 2, 3))[:, None]


class Linear(nn.Module):
    """Scores (N, 3), linear in the pixels."""

    def __init__(self, shape=(3, 8, 10)):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, *shape, generator=torch.Generator().manual_seed(5)))

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", images, self.weight)


def bright(count=2, sides=(SIDE, SIDE)):
    """Images in 0.1..1, nothing of which is black, the region brighter than the rest."""
    noise = torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(2))
    return 0.1 + noise / 10 + 0.8 * (REGION if sides == REGION.shape else noise)


ORACLE = REGION.float() + torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) / 10
MASKS = REGION[None].numpy()


class Blank(Method):
    """Says nothing."""

    needs = Needs(input_gradient="plain")

    def compute(self, record):
        return torch.zeros_like(record.input[:, 0])


class Maps:
    """Given maps, in the clothes of one of TorchCAM's methods."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *_args, **_kwargs):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()
