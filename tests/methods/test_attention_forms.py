"""Attention in all the forms in which networks write it: the same maps, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy import Explainer
from seewhy.errors import ModelError

NAMES = ["raw_attention", "attention_rollout", "grad_attention_rollout", "attention_cam", "legrad"]
CLASSES, WIDTH, HEADS = 5, 16, 2
IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:.*0 everywhere:seewhy.SeewhyWarning")  # of random networks it may be


def usual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """From ``(n, T, heads, d)`` to the same, by torch's own attention."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def rows_of_heads(order: str) -> Attend:
    """By products of three dimensions, whose first one is heads and images in an order."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, count, heads, _ = q.shape
        rows = torch.arange(n * heads).view(n, heads)
        rows = {"images": rows, "heads": rows.view(heads, n).T, "neither": rows.roll(1, 0).flip(1)}[order]
        which = rows.flatten().argsort()
        q, k, v = (t.transpose(1, 2).flatten(0, 1)[which] for t in (q, k, v))
        found = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v)[rows.flatten()]
        return found.view(n, heads, count, -1).transpose(1, 2)

    return attend


def heads_then_images(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By products of four dimensions, ``(heads, n, T, T)``."""
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).permute(1, 2, 0, 3)


class SelfAttention(nn.Module):
    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend, self.qkv, self.out = attend, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(*self.qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2)).flatten(2))


class Block(nn.Module):
    def __init__(self, attend: Attend, keyword: bool) -> None:
        super().__init__()
        self.first, self.attention, self.second = nn.LayerNorm(WIDTH), SelfAttention(attend), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.keyword = keyword

    def forward(self, x: Tensor) -> Tensor:
        normed = self.first(x)
        x = x + (self.attention(x=normed) if self.keyword else self.attention(normed))
        return x + self.mlp(self.second(x))


class Transformer(nn.Module):
    """A class token before or after the patches, and so many blocks."""

    def __init__(self, attend: Attend = usual, depth: int = 3, keyword: str = "", suffix: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token = nn.Conv2d(3, WIDTH, 8, 8), nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block(attend, "attention" in keyword) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        self.keyword, self.suffix = "block" in keyword, suffix
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        token, patches = self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT
        x = torch.cat([patches, token] if self.suffix else [token, patches], 1)
        for block in self.blocks:
            x = block(x=x) if self.keyword else block(x)
        return self.head(self.norm(x)[:, -1 if self.suffix else 0])


def values(model: nn.Module, name: str, x: Tensor = IMAGES, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(Explainer(model).explain(x, name, **{"target": 1, **options}).values)


@pytest.mark.parametrize("keyword", ["attention", "block", "attention, block"])
def test_legrad_of_modules_that_are_called_by_keyword(keyword: str) -> None:
    expected, model = values(Transformer(), "legrad"), Transformer(keyword=keyword)
    for _ in range(2):
        np.testing.assert_allclose(values(model, "legrad"), expected, atol=1e-6)
        for _ in range(2000):  # autograd's count of operations goes on between calls
            torch.ones(1, requires_grad=True) * 2


@pytest.mark.parametrize("order", ["images", "heads"])
def test_heads_and_images_in_one_dimension(order: str) -> None:
    found = Explainer(Transformer(rows_of_heads(order))).explain(IMAGES, NAMES, target=[[1, 3], [4, 0]])
    expected = Explainer(Transformer()).explain(IMAGES, NAMES, target=[[1, 3], [4, 0]])
    for name in NAMES:
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_whose_attention_it_is_must_be_told() -> None:
    model = Transformer(rows_of_heads("neither"))
    with pytest.raises(ModelError, match=r"shape \(4, 13, 13\) for 2 images.*batch_size=1"):
        values(model, "raw_attention")
    np.testing.assert_allclose(values(model, "legrad", batch_size=1), values(Transformer(), "legrad"), atol=1e-6)
    model = Transformer(rows_of_heads("images"))
    with torch.no_grad():
        model.head.weight.zero_()  # no score depends on any
    with pytest.raises(ModelError, match="batch_size=1"):
        values(model, "attention_rollout")
    assert values(model, "attention_rollout", batch_size=1).shape == (2, 3, 4)


@pytest.mark.parametrize("count", [1, HEADS, 3])
def test_heads_before_images_are_refused(count: int) -> None:
    for name in NAMES:
        with pytest.raises(ModelError, match="heads before the images"):
            values(Transformer(heads_then_images), name, IMAGES[[0, 1, 0][:count]])


def test_whose_attention_it_is_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    model, x = Transformer(rows_of_heads("heads")), IMAGES[[0, 1, 0, 1]]
    model.norm.register_full_backward_hook(lambda *_: asked.append(1))
    expected = values(model, "grad_attention_rollout", x, batch_size=1)
    assert len(asked) == 4
    np.testing.assert_allclose(values(model, "grad_attention_rollout", x, batch_size=2), expected, rtol=1e-4, atol=1e-6)
    assert len(asked) == 4 + 2 + 1
    usually = Transformer()  # whose shape tells
    usually.norm.register_full_backward_hook(lambda *_: asked.append(1))
    values(usually, "grad_attention_rollout", x)
    assert len(asked) == 4 + 2 + 1 + 1
