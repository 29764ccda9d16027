"""Methods of attention: equal to the papers' equations, on attention written out in place of torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy import Explainer
from seewhy.errors import InputError, ModelError
from seewhy.testing import small_cnn, unchanged

NAMES = ["raw_attention", "attention_rollout", "grad_attention_rollout", "attention_cam", "legrad"]
CHEAP = ["raw_attention", "attention_rollout", "attention_cam"]
CLASSES = 5
pytestmark = pytest.mark.filterwarnings("ignore:.*0 everywhere:seewhy.SeewhyWarning")  # of random networks it may be


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with attention that is not uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(1)
    return model.double().eval()


def timms(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    small = {"img_size": (24, 32), "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 2, "num_classes": CLASSES}
    return lively(timm.create_model(name, **(small | options)))


def hugging(kind: str = "ViT", **options: Any) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(
        image_size=32, patch_size=8, num_hidden_layers=3, hidden_size=16, num_attention_heads=2, intermediate_size=32,
        num_labels=CLASSES, **options,
    )  # fmt: skip
    return lively(getattr(transformers, f"{kind}ForImageClassification")(config))


def torchvisions() -> nn.Module:
    return lively(torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=CLASSES))


class Encoder(nn.Module):
    """PyTorch's own encoder, which pools all tokens and would rather call its fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(x).flatten(2).mT).mean(1))


# How many tokens come before the grid, and whether the first of them is read.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], int, bool]] = {
    "torchvision": (torchvisions, (32, 32), 1, True),
    "timm": (timms, (24, 32), 1, True),
    "timm, pooled": (lambda: timms(class_token=False, global_pool="avg"), (24, 32), 0, False),
    "timm, pooled with a class token": (lambda: timms(global_pool="avg"), (24, 32), 1, False),
    "timm's DeiT, distilled": (lambda: timms("deit_tiny_distilled_patch16_224"), (24, 32), 2, True),
    "timm's DINOv2 with registers": (lambda: timms("vit_small_patch14_reg4_dinov2"), (24, 32), 5, True),
    "Hugging Face": (hugging, (32, 32), 1, True),
    "Hugging Face, eager": (lambda: hugging(attn_implementation="eager"), (32, 32), 1, True),
    "Hugging Face's DINOv2 with registers": (lambda: hugging("Dinov2WithRegisters"), (32, 32), 5, True),
    "torch's encoder": (lambda: lively(Encoder()), (24, 32), 0, False),
}


def pixels(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def caught(
    model: nn.Module, x: Tensor, target: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], list[Tensor]]:
    """The attention of each block and its gradient, by attention written out, in place of torch's."""
    kept: list[Tensor] = []
    softmax = F.softmax

    def keep(weights: Tensor) -> Tensor:
        if weights.dim() == 4:
            weights.retain_grad()
            kept.append(weights)
        return weights

    def written_out(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
        return keep(softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)) @ v

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", written_out)
        patch.setattr(F, "softmax", lambda *a, **k: keep(softmax(*a, **k)))
        patch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
        scores = model(x.clone().requires_grad_())
        scores = getattr(scores, "logits", scores)
        scores[:, target].sum().backward()
    model.zero_grad()
    return [weights.detach().double() for weights in kept], [weights.grad.double() for weights in kept]


def references(weights: list[Tensor], gradients: list[Tensor], prefix: int, first: bool) -> dict[str, Tensor]:
    """The papers' equations, in loops."""
    count, tokens = len(weights[0]), weights[0].shape[-1]
    eye = torch.eye(tokens, dtype=torch.float64)
    rollout, relevance = [eye.repeat(count, 1, 1) for _ in range(2)]
    for a, g in zip(weights, gradients, strict=True):
        rollout = torch.bmm(0.5 * a.mean(1) + 0.5 * eye, rollout)
        relevance = relevance + torch.bmm((g * a).clamp(min=0).mean(1), relevance)
    last, slope = weights[-1], gradients[-1]

    def read(rows: Tensor) -> Tensor:
        return (rows[..., 0, :] if first else rows[..., prefix:, :].mean(-2))[..., prefix:]

    per_head = read(slope).mean(-1, keepdim=True) * read(last)
    return {
        "raw_attention": read(last.mean(1)),
        "attention_rollout": read(rollout),
        "grad_attention_rollout": read(relevance - eye),
        "attention_cam": per_head.sum(1).clamp(min=0),
    }


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_papers_equations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, size, prefix, first = MODELS[name]
    model, x = build(), pixels(size)
    expected = references(*caught(model, x, 2, monkeypatch), prefix, first)
    with unchanged(model):
        found = Explainer(model).explain(x, NAMES, target=2)
    grid = (size[0] // 8, size[1] // 8)
    for method, wanted in expected.items():
        values = torch.tensor(found[method].values)
        assert values.shape == (2, *grid)
        torch.testing.assert_close(values, wanted.view(2, *grid).float(), rtol=1e-4, atol=1e-6)
        assert found[method].layer is None
    assert found["legrad"].values.shape == (2, *grid)


def formed(model: Any, x: Tensor, target: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """LeGrad of timm's transformers by autograd: the model's end on the mean of each block's tokens."""
    kept: list[Tensor] = []

    def written_out(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
        kept.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        return kept[-1] @ v

    blocks: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _, __, out: blocks.append(out)) for block in model.blocks]
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", written_out)
        model(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    total = torch.zeros(())
    for tokens, weights in zip(blocks, kept, strict=True):
        score = model.forward_head(model.norm(tokens.mean(1, keepdim=True).expand_as(tokens)))[:, target].sum()
        total = total + torch.autograd.grad(score, weights, retain_graph=True)[0].clamp(min=0).mean((1, 2))
    return total / len(blocks)


@pytest.mark.parametrize(("prefix", "options"), [(1, {}), (0, {"class_token": False, "global_pool": "avg"})])
def test_legrad_equals_autograd(prefix: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = timms(**options), pixels((24, 32))
    expected = formed(model, x, 3, monkeypatch)[:, prefix:]
    low, high = expected.amin(1, keepdim=True), expected.amax(1, keepdim=True)
    found = Explainer(model).explain(x, "legrad", target=3)
    wanted = ((expected - low) / (high - low)).view(2, 3, 4)
    torch.testing.assert_close(torch.tensor(found.values), wanted.float(), rtol=1e-4, atol=1e-6)
    pairs = Explainer(model).explain(x, "legrad", target=[[3, 1], [1, 3]])
    torch.testing.assert_close(torch.tensor(pairs.values[[0, 3]]), torch.tensor(found.values))


def test_legrad_equals_torchcams() -> None:
    from torchcam.methods import LeGrad

    model, x = torchvisions().float(), pixels((32, 32)).float()
    for last in (None, 2):
        with LeGrad(model, list(model.encoder.layers)[-(last or 3) :]) as theirs:
            (expected,) = theirs([1, 4], model(x))
        found = Explainer(model).explain(x, "legrad", target=[1, 4], blocks=last)
        torch.testing.assert_close(torch.tensor(found.values), expected, rtol=0, atol=1e-5)


@pytest.mark.sweep
def test_legrad_equals_torchcams_on_vit_b_16() -> None:
    from torchcam.methods import LeGrad

    torch.manual_seed(0)
    model, x = torchvision.models.vit_b_16().double(), torch.rand(1, 3, 224, 224).double()
    nn.init.normal_(model.heads.head.weight, std=0.02)
    model.eval()
    with LeGrad(model, list(model.encoder.layers)) as theirs:
        (expected,) = theirs(7, model(x))
    expected = (expected - expected.min()) / (expected.max() - expected.min())  # theirs adds an epsilon below
    found = Explainer(model).explain(x, "legrad", target=7)
    torch.testing.assert_close(torch.tensor(found.values), expected.float(), rtol=0, atol=1e-4)


def test_rows_add_up_to_1() -> None:
    model, x = timms(), pixels((24, 32))
    for name in ("raw_attention", "attention_rollout"):
        values = Explainer(model).explain(x, name, target=1).values
        assert (values >= 0).all()
        assert (values.sum((1, 2)) < 1).all()  # the class token takes the rest
    model = timms(class_token=False, global_pool="avg")
    for name in ("raw_attention", "attention_rollout"):
        for heads in ({}, {"heads": "max"}, {"heads": "min"}) if name == "attention_rollout" else ({},):
            values = Explainer(model).explain(x, name, target=1, **heads).values
            np.testing.assert_allclose(values.sum((1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["mean", "max", "min"])
def test_each_choice_of_heads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Abnar's product, head by head: of each row the mean, greatest or least, which then adds up to 1."""
    model, x = timms(), pixels((24, 32))
    weights, _ = caught(model, x, 1, monkeypatch)
    together = {"mean": lambda a: sum(a) / len(a), "max": np.maximum.reduce, "min": np.minimum.reduce}[name]
    for image in range(2):
        product = np.eye(13)
        for block in weights:
            rows = together([head.numpy() for head in block[image]])
            product = (rows / rows.sum(1, keepdims=True) + np.eye(13)) / 2 @ product
        found = Explainer(model).explain(x[image], "attention_rollout", target=1, heads=name)
        np.testing.assert_allclose(found.values[0], product[0, 1:].reshape(3, 4), rtol=1e-5)


class Itself(nn.Module):
    """Blocks whose tokens take from themselves alone: queries and keys are large, and one for each position."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, 13, 8, 8), nn.LayerNorm(13), nn.Linear(13, CLASSES)
        self.first = nn.Parameter(torch.zeros(1, 1, 13))
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.first.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], 1))
        for _ in range(3):
            own = 100 * torch.eye(13).expand(len(x), 1, 13, 13) + 0 * x[:, None]
            x = x + F.scaled_dot_product_attention(own, own, x[:, None])[:, 0]
        return self.head(x[:, 1:].mean(1) if self.pooled else x[:, 0])


@pytest.mark.parametrize("pooled", [False, True])
def test_rollout_of_identity_attention_is_the_identity(pooled: bool) -> None:
    torch.manual_seed(0)
    found = Explainer(Itself(pooled)).explain(pixels((24, 32)).float(), CHEAP[:2], target=1)
    for one in found.values():
        np.testing.assert_allclose(one.values, 1 / 12 if pooled else 0, atol=1e-7)


def test_a_transformer_that_reads_one_token() -> None:
    """Whose last attention is all on one position: all methods that read it point there."""

    class Pointing(Itself):
        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(torch.cat([self.first.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], 1))
            q, k = torch.zeros(2, len(x), 1, 13, 13)
            k[..., 1 + 7, :], q[:] = 100, 1
            x = x + F.scaled_dot_product_attention(q + 0 * x[:, None], k, x[:, None])[:, 0]
            return self.head(x[:, 0])

    torch.manual_seed(0)
    model = Pointing(False)
    with torch.no_grad():
        patches = model.patch(pixels((24, 32), 1).float()).flatten(2).mT
        model.head.weight[1] = model.norm(patches)[0, 7]
    found = Explainer(model).explain(pixels((24, 32), 1).float(), CHEAP, target=1)
    for one in found.values():
        assert one.values[0].argmax() == 7
        assert one.values[0, 1, 3] > 0.4 * one.values.sum()


@pytest.mark.parametrize("name", NAMES)
def test_networks_without_attention_are_refused(name: str) -> None:
    x = pixels((16, 24)).float()
    with unchanged(model := small_cnn()), pytest.raises(ModelError, match=r"no attention.*softmax.*'grad_cam'"):
        Explainer(model).explain(x, name, target=1)


def swin() -> nn.Module:
    return lively(torchvision.models.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [7, 7], num_classes=CLASSES)).float()


def test_windows() -> None:
    """At 56 pixels the last stage of this Swin is one window; at 112 there are four, and nothing is defined."""
    model, x = swin(), pixels((56, 56)).float()
    found = Explainer(model).explain(x, ["raw_attention", "attention_cam", "legrad"], target=1)
    for one in found.values():
        assert one.values.shape == (2, 7, 7)
    for name in ("attention_rollout", "grad_attention_rollout"):
        with pytest.raises(ModelError, match="1 of 3 attentions are between other tokens"):
            Explainer(model).explain(x, name, target=1)
    for name in NAMES:
        with pytest.raises(ModelError, match="within windows"):
            Explainer(model).explain(pixels((112, 112)).float(), name, target=1)


def test_attention_that_pools_and_class_attention() -> None:
    """The query that pools reads all; rollouts do not go through what takes from more tokens than it gives."""
    model = timms("vit_base_patch16_siglip_224")
    x = pixels((24, 32))
    found = Explainer(model).explain(x, CHEAP[:1] + CHEAP[2:], target=1)
    np.testing.assert_allclose(found["raw_attention"].values.sum((1, 2)), 1, rtol=1e-5)
    with pytest.raises(ModelError, match="more tokens than it gives"):
        Explainer(model).explain(x, "attention_rollout", target=1)
    with pytest.raises(ModelError, match="blocks of this model"):
        Explainer(model).explain(x, "legrad", target=1)
    cait = timms("cait_xxs24_224", depth_token_only=2)
    assert Explainer(cait).explain(x, "raw_attention", target=1).values.shape == (2, 3, 4)
    with pytest.raises(ModelError, match="between other tokens"):
        Explainer(cait).explain(x, "attention_rollout", target=1)


def test_checkpoints_half_precision_and_smoothing() -> None:
    model, x = timms(), pixels((24, 32))
    plain = Explainer(model).explain(x, NAMES, target=1)
    model.set_grad_checkpointing(True)
    again = Explainer(model).explain(x, NAMES, target=1)
    half = Explainer(timms().bfloat16()).explain(x, NAMES, target=1)
    for name in NAMES:
        np.testing.assert_allclose(again[name].values, plain[name].values, rtol=1e-4, atol=1e-6)
        assert np.isfinite(half[name].maps).all()
    model.set_grad_checkpointing(False)
    smooth = Explainer(model).explain(x, "smooth_grad", base="legrad", samples=3, noise=1e-6, target=1)
    np.testing.assert_allclose(smooth.values, plain["legrad"].values, atol=1e-2)


def test_rows_of_several_targets_batches_and_singles() -> None:
    model, x = timms(), pixels((24, 32), 3)
    explainer = Explainer(model)
    pairs = explainer.explain(x, NAMES, target=[[0, 4], [1, 2], [3, 0]], batch_size=2)
    for name in NAMES:
        for row, target in enumerate([0, 4, 1, 2, 3, 0]):
            one = explainer.explain(x[row // 2], name, target=target)
            np.testing.assert_allclose(pairs[name].values[row], one.values[0], rtol=1e-4, atol=1e-6)


def test_one_pass_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    model = timms()
    model.patch_embed.register_forward_hook(lambda *_: runs.append(1))
    Explainer(model).explain(pixels((24, 32)), [*NAMES[:4], "saliency", "grad_cam"], target=1, layer="blocks.1")
    assert len(runs) == 1


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match="Did you mean 'max'"):
        seewhy.methods.AttentionRollout(heads="maxx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="blocks"):
        seewhy.methods.LeGrad(blocks=0)
