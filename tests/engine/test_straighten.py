"""Batch norm's backward for a single image, which torch on the CPU gets wrong where tokens are seen as a grid."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seewhy import Explainer
from seewhy.engine.rules import graph
from seewhy.engine.straighten import straighten

MEAN, VAR, SCALE = torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6), torch.linspace(1, 3, 6)
NORMS = {
    "batch": lambda x: F.batch_norm(x, MEAN.to(x), VAR.to(x), SCALE.to(x)),
    "batch, by its own statistics": lambda x: F.batch_norm(x, None, None, SCALE.to(x), training=True),
    "instance": F.instance_norm,
}


def grid(order: str, sides: tuple[int, ...], count: int) -> Tensor:
    if order == "channels first":
        return torch.randn(count, 6, *sides)
    tokens = torch.randn(count, *sides, 6)
    if order == "channels last":
        return tokens.movedim(-1, 1)
    return tokens.flatten(1, -2).transpose(1, 2).unflatten(2, sides)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("sides", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kept", [True, False])
def test_gradients_are_right_in_every_order_of_memory(norm, sides, count, kept):
    for order in ("channels first", "channels last", "tokens"):
        for incoming in ("channels first", "channels last", "tokens"):
            x, gradient = grid(order, sides, count).requires_grad_(), grid(incoming, sides, count)
            y = NORMS[norm](x) if kept else checkpoint(NORMS[norm], x, use_reentrant=False)
            straighten(graph([y]))
            found = torch.autograd.grad(y, x, gradient)[0]
            exact = x.detach().double().contiguous().requires_grad_()
            expected = torch.autograd.grad(NORMS[norm](exact), exact, gradient.double().contiguous())[0]
            torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4, msg=f"{order}, {incoming}")


class Tokens(nn.Module):
    """As LeViT: a stem with batch norm, then tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head((x * torch.tanh(x.mean(1, keepdim=True))).mean(1))
        return out


def test_one_image_has_the_saliency_that_it_has_in_a_batch():
    explainer, images = Explainer(Tokens().eval()), torch.rand(2, 3, 16, 24)
    both, alone = (explainer.explain(some, "saliency", target=1) for some in (images, images[:1]))
    torch.testing.assert_close(torch.from_numpy(alone.values), torch.from_numpy(both.values[:1]))
