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


class Windows(nn.Module):
    """Attention in windows of 4 × 4, whose softmax has windows and heads in one dimension; then of a grid of that size.

    By torch's module, or by functions alone.
    """

    def __init__(self, heads: tuple[int, int], module: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.merge = nn.Conv2d(3, WIDTH, 4, 4), nn.Conv2d(WIDTH, WIDTH, 2, 2)
        self.head = nn.Linear(WIDTH, CLASSES)
        every = [nn.MultiheadAttention(WIDTH, count, batch_first=True) for count in heads]
        self.attentions, self.heads = nn.ModuleList(every if module else []), heads
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.attend(0, self.patch(x))
        return self.head(self.attend(1, self.merge(x)).mean((2, 3)))

    def attend(self, index: int, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).movedim(1, -1).flatten(0, 2)
        if self.attentions:
            windows = self.attentions[index](windows, windows, windows)[0]
        else:
            rows = windows.unflatten(-1, (self.heads[index], -1)).transpose(1, 2).flatten(0, 1)
            rows = (rows @ rows.mT).softmax(-1) @ rows
            windows = rows.view(len(windows), -1, *rows.shape[1:]).transpose(1, 2).flatten(2)
        return x + windows.view(n, h // 4, w // 4, 4, 4, WIDTH).transpose(2, 3).reshape(n, h, w, WIDTH).movedim(-1, 1)


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


class Beside(nn.Module):
    """Two attentions of the same tokens, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.both = nn.LayerNorm(WIDTH), nn.ModuleList(SelfAttention(usual) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.both[0](normed) + self.both[1](normed)


class Transformer(nn.Module):
    """A class token before or after the patches, and so many blocks; `pooled`: patches are read, and not that."""

    def __init__(
        self, attend: Attend = usual, depth: int = 3, keyword: str = "", suffix: bool = False, pooled: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.token = nn.Conv2d(3, WIDTH, 8, 8), nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block(attend, "attention" in keyword) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        self.keyword, self.suffix, self.pooled = "block" in keyword, suffix, pooled
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        token, patches = self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT
        x = torch.cat([patches, token] if self.suffix else [token, patches], 1)
        for block in self.blocks:
            x = block(x=x) if self.keyword else block(x)
        token, patches = (x[:, -1], x[:, :-1]) if self.suffix else (x[:, 0], x[:, 1:])
        return self.head(self.norm(patches).mean(1) if self.pooled else self.norm(token))


class Apart(nn.Module):
    """A block that returns first what is made without its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attended = x + usual(*self.qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2)).flatten(2)
        return 2 * x, attended


class OfTwo(Transformer):
    """Its score depends on the second of what that returns, or on both."""

    def __init__(self, both: bool) -> None:
        super().__init__(depth=0)
        self.apart, self.both = Apart().double(), both

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], 1)
        first, second = self.apart(tokens)
        return self.head(self.norm(first + second if self.both else second)[:, 0])


class SequenceFirst(nn.Module):
    """torch's encoder, with a norm at its end."""

    def __init__(self, batch_first: bool, norm_first: bool, depth: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.head, self.batch_first = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, CLASSES), batch_first
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0, batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).mT
        tokens = self.encoder(tokens) if self.batch_first else self.encoder(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(tokens.mean(1))


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


SQUARE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("heads", [(2, 2), (2, 8)])
def test_windows_are_not_heads(heads: tuple[int, int]) -> None:
    """Also where the windows and heads of one block are as many as the heads of another."""
    model = Windows(heads, module=True)
    for name in ("attention_rollout", "grad_attention_rollout"):
        with pytest.raises(ModelError, match="1 of 2 attentions are between other tokens"):
            values(model, name, SQUARE)
    np.testing.assert_allclose(values(model, "raw_attention", SQUARE).sum((1, 2)), 1, rtol=1e-5)
    assert values(model, "legrad", SQUARE).shape == (2, 4, 4)


def test_windows_that_may_be_heads_are_refused() -> None:
    for name in NAMES:
        with pytest.raises(ModelError, match=r"8, 2 rows.*or of windows"):
            values(Windows((2, 2), module=False), name, SQUARE)


def test_attentions_side_by_side() -> None:
    model = Transformer()
    model.blocks[1] = Beside().double()
    for name in ("attention_rollout", "grad_attention_rollout"):
        with pytest.raises(ModelError, match="1 of 4 attentions run beside"):
            values(model, name)
    with pytest.raises(ModelError, match="side by side"):
        values(model, "legrad")
    assert values(model, "raw_attention").shape == (2, 3, 4)


@pytest.mark.parametrize("both", [False, True])
def test_a_block_whose_tokens_do_not_depend_on_its_attention(both: bool) -> None:
    with pytest.raises(ModelError, match=r"no module holds the 1\. attention"):
        values(OfTwo(both), "legrad")


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("norm_first", [True, False])
def test_tokens_before_images(norm_first: bool, depth: int) -> None:
    x = IMAGES[[0, 1, 1]]
    expected, found = (
        Explainer(SequenceFirst(first, norm_first, depth)).explain(x, NAMES, target=[[1, 2], [3, 0], [2, 4]])
        for first in (True, False)
    )
    for name in NAMES:
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_legrad_of_one_block_ends_where_that_does() -> None:
    """And not after the norm of the encoder that holds it."""
    model = SequenceFirst(batch_first=True, norm_first=True, depth=1)
    weights: list[Tensor] = []

    def score(tokens: Tensor) -> Tensor:
        return model.head(model.encoder.norm(tokens).mean(1))[:, 1]

    def catching(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
        weights.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        return weights[-1] @ v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", catching)
        patch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
        tokens = model.encoder.layers[0](model.patch(IMAGES).flatten(2).mT)
    mean = tokens.mean(1, keepdim=True).expand_as(tokens)
    (gradient,) = torch.autograd.grad(score(mean).sum(), weights)
    expected = gradient.clamp(min=0).mean((1, 2))
    low, high = expected.amin(1, keepdim=True), expected.amax(1, keepdim=True)
    expected = ((expected - low) / (high - low)).view(2, 3, 4)
    np.testing.assert_allclose(values(model, "legrad"), expected.numpy(), atol=1e-6)


def patches(output: Tensor) -> Tensor | None:
    """The first twelve of thirteen tokens; nothing of the wider ones within a block."""
    return output[:, :12].mT.unflatten(2, (3, 4)) if tuple(output.shape[1:]) == (13, WIDTH) else None


@pytest.mark.parametrize("pooled", [False, True])
def test_a_class_token_after_the_patches(pooled: bool) -> None:
    """To which the same happens as to one before them."""
    model, before = Transformer(suffix=True, pooled=pooled), Explainer(Transformer(pooled=pooled))
    for name in NAMES:
        with pytest.raises(ModelError, match=r"13 tokens .* the last one alone, or all but that.*layout="):
            values(model, name)
    found, expected = (e.explain(IMAGES, NAMES, target=1) for e in (Explainer(model, layout=patches), before))
    for name in NAMES:
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_function_says_where_the_patches_are() -> None:
    """Also in tokens that come before images; what it puts in another order says nothing of attention."""
    expected = values(SequenceFirst(True, True, 2), "legrad", IMAGES)

    def grid(output: Tensor) -> Tensor | None:
        return output.permute(1, 2, 0).unflatten(2, (3, 4)) if tuple(output.shape[:2]) == (12, 2) else None

    explainer = Explainer(SequenceFirst(False, True, 2), layout=grid)
    np.testing.assert_allclose(explainer.explain(IMAGES, "legrad", target=1).values, expected, rtol=1e-4, atol=1e-6)
    model = Transformer(suffix=True)  # whose last sequence is one that the function says nothing of
    model.blocks.append(nn.Linear(WIDTH, 32))
    model.norm, model.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)
    model.double()
    turned = Explainer(model, layout=lambda t: None if patches(t) is None else patches(t).flip(2))
    with pytest.raises(ModelError, match="between 13 tokens, and which positions"):
        turned.explain(IMAGES, "raw_attention", target=1)
