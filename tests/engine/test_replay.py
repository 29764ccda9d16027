"""Running only what comes after a layer gives what whole runs give, or whole runs are made; the model comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from replaying import NEEDS, Convolutions, Hostile, ask, assert_right, many_relus, pixels
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.engine.borrow import borrowed
from seewhy.engine.choice import Choice
from seewhy.engine.evaluations import Evaluations
from seewhy.engine.inputs import make_inputs
from seewhy.engine.passes import Request
from seewhy.layers import find_layers
from seewhy.scoring import Scoring, find_targets
from seewhy.testing import small_cnn, unchanged

REAL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=5), "layer4"),
    "a convolution in a block": (lambda: torchvision.models.resnet18(num_classes=5), "layer2.0.conv2"),
    "a norm before an addition in place": (lambda: torchvision.models.resnet18(num_classes=5), "layer3.1.bn2"),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5), "features.denseblock2"),
    "a dense layer": (lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5),
                      "features.denseblock2.denselayer1"),
    "functional ReLU after": (lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5), "features"),
    "googlenet": (lambda: torchvision.models.googlenet(num_classes=5, aux_logits=False, init_weights=False),
                  "inception4c.branch2"),
    "mobilenet": (lambda: torchvision.models.mobilenet_v3_small(num_classes=5), "features.7.block.1"),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=5), "features.9.expand1x1"),
    "convnext": (lambda: timm.create_model("convnext_atto", num_classes=5), "stages.2.blocks.1.conv_dw"),
    "vit": (lambda: torchvision.models.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=5),
            "encoder.layers.encoder_layer_1.ln_1"),
    "timm's vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, embed_dim=24,
                                             num_heads=2, num_classes=5), "blocks.1.norm2"),
    "swin": (lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [2, 2], num_classes=5),
             "features.3.0.norm1"),
    "Hugging Face": (lambda: transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
        num_labels=5)), "vit.layernorm"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_architectures_are_replayed(name: str) -> None:
    build, layer = REAL[name]
    model = build()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == 5:
            nn.init.normal_(module.weight)  # torchvision's ViT begins with zeros
    small = name in ("vit", "timm's vit", "swin", "Hugging Face")
    assert_right(ask(model, layer, pixels(size=(32, 32) if small else (64, 96))))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.mean((2, 3), keepdim=True)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"one": x.tanh(), "two": x.exp().clamp(max=3)}


class Table(nn.Module):
    """Returns something of its own, whatever it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 6, 32, 32))

    def forward(self) -> Tensor:
        return self.table


class Keeper(nn.Module):
    """Hands its input on."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Windows(nn.Module):
    """Its first dimension is not the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (4, 8)).movedim(2, 1).flatten(0, 1)


def in_place_after(m: Any, x: Tensor) -> Tensor:
    y = m.b(m.a(x))
    y += m.a(x)
    return F.relu(y, inplace=True) + m.c(y)


def earlier_changed(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    z = y * 2
    y += 1
    return m.c(torch.relu_(m.b(y)) + z) + y


def concatenated(m: Any, x: Tensor) -> Tensor:
    one, two = m.a(x), m.relu(m.a(x))
    return m.b(one) + m.c(m.relu(m.b(two))) + torch.cat([one, two], 1)[:, 3:9]


def pairs(m: Any, x: Tensor) -> Tensor:
    double, mean = m.pair(m.a(x))
    return m.c(m.b(double) + mean)


def named(m: Any, x: Tensor) -> Tensor:
    out = m.named(m.a(x))
    return m.c(m.b(out["one"]) * out["two"])


def tables(m: Any, x: Tensor) -> Tensor:
    return m.c(m.b(m.a(x)) + m.table()) + m.table()


def handed_on(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    z = m.keeper(y)
    z += 1
    return m.c(m.b(z)) + y


def windows(m: Any, x: Tensor) -> Tensor:
    y = m.windows(m.a(x))
    return m.c(m.b(y.unflatten(0, (len(x), 4)).movedim(1, 2).flatten(2, 3)))


def checkpointed(m: Any, x: Tensor) -> Tensor:
    y = checkpoint(m.a, x, use_reentrant=False)
    out: Tensor = checkpoint(lambda t: m.c(m.relu(m.b(t))), y, use_reentrant=False)
    return out


HOSTILE: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module], str]] = {
    "in place after": (in_place_after, {}, "b"),
    "an earlier one changed in place": (earlier_changed, {}, "b"),
    "concatenated": (concatenated, {}, "c"),
    "one ReLU everywhere": (many_relus, {}, "c"),
    "the second call of a ReLU": (many_relus, {}, "relu#2"),
    "the first of several calls": (concatenated, {}, "b#1"),
    "a tuple before": (pairs, {"pair": Pair()}, "b"),
    "a tuple is the layer's": (pairs, {"pair": Pair()}, "pair"),
    "a dict before": (named, {"named": Named()}, "b"),
    "a dict is the layer's": (named, {"named": Named()}, "named"),
    "a table that is no batch": (tables, {"table": Table()}, "b"),
    "the batch is not first": (windows, {"windows": Windows()}, "b"),
    "checkpoints": (checkpointed, {}, "b"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_replayed(name: str) -> None:
    run, more, layer = HOSTILE[name]
    assert_right(ask(Hostile(run, **more), layer, pixels(2)))


def test_what_hands_its_input_on_to_be_changed_in_place_is_run_whole() -> None:
    assert_right(ask(Hostile(handed_on, keeper=Keeper()), "b", pixels(2)), short=False)


def test_a_model_that_counts_its_runs_is_run_whole() -> None:
    class Counting(nn.Module):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.runs += 1
            return x * (1 + Counting.runs % 2)

    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(m.count(m.b(m.a(x))))

    model = Hostile(run, count=Counting()).eval()
    with borrowed(model):
        request = Request((NEEDS,), tuple(find_layers(model, "b")))
        measured = Choice(model).measure(request, pixels(), Scoring(find_targets(1, 1)))
        record = measured.record(NEEDS, measured.layers[0])
        record.evaluations.layer_scores(lambda rows, _: record.activation[rows] * 2, 1)
    assert any("'b' cannot be run alone" in said for said in record.evaluations.warnings)


def test_where_the_activation_leads_the_model_another_way_it_is_followed() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.b(m.a(x))
        return m.c(y) if float(y[:, 0].abs().sum()) > 0 else m.a(x) + m.relu(y)

    assert_right(ask(Hostile(run), "b", most=1))  # the model itself decides for all images of a batch


def test_a_transformer_encoder_has_no_fast_path_past_its_layers() -> None:
    class Encoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 24, 8, 8)
            layer = nn.TransformerEncoderLayer(24, 2, 32, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 3), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            out: Tensor = self.head(self.encoder(tokens).mean(1))
            return out

    before = torch.backends.mha.get_fastpath_enabled()
    assert_right(ask(Encoded(), "encoder.layers.1", pixels(2)))
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_hooks_of_the_user_are_heeded_before_and_at_the_layer() -> None:
    model = Hostile(many_relus)
    model.a.register_forward_hook(lambda _, __, output: output * 3)
    model.b.register_forward_pre_hook(lambda _, args: (args[0] - 1,))
    model.c.register_forward_hook(lambda _, __, output: output + 2)
    assert_right(ask(model, "b", pixels(2)))


def test_a_forward_of_the_users_own_is_put_back() -> None:
    model = Hostile(many_relus)
    mine = model.a.forward = lambda x: nn.Conv2d.forward(model.a, x) * 2
    assert_right(ask(model, "b"))
    assert model.a.forward is mine


def test_further_inputs_follow_the_images() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            y = self.b(self.a(x)) * scale.view(-1, 1, 1, 1)
            out: Tensor = self.head(y.mean((2, 3)))
            return out

    assert_right(ask(Two(), "b", pixels(3), make_inputs((torch.tensor([1.0, 2.0, 3.0]),), {})))


def test_scripted_and_parametrised_parts_run() -> None:
    model = Hostile(many_relus)
    nn.utils.parametrizations.weight_norm(model.a)
    model.c = torch.jit.script(model.c)
    assert_right(ask(model, "b", pixels(2)))


def test_a_layer_that_nobody_reads_changes_nothing() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        m.b(m.a(x))
        return m.c(m.a(x))

    asked = ask(Hostile(run), "b")
    assert_right(asked)
    assert float(asked.found.std()) == 0


def test_only_the_rest_is_run_and_what_was_tried_once_is_not_tried_again() -> None:
    model = torchvision.models.resnet18(num_classes=4).eval()
    with borrowed(model):
        request = Request((NEEDS,), tuple(find_layers(model, "layer4")))
        measured = Choice(model).measure(request, pixels(size=(64, 64)), Scoring(find_targets(1, 1)))
        again: Evaluations = measured.record(NEEDS, measured.layers[0]).evaluations
        value = measured.layers[0].value
        counts = []
        for _ in range(2):
            with Convolutions() as ran:
                again.layer_scores(lambda rows, _: value[rows] * 2, 200)
            counts.append(ran.count)
    assert counts == [40, 0], "two whole runs to try it, then none: the run on the image itself was recorded"


@pytest.mark.filterwarnings("ignore:.*is 0 everywhere:seewhy.SeewhyWarning")
@pytest.mark.parametrize("where", ["stem", "stem.1", "left", "right", "body", "head", ""])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_the_model_comes_back_after_an_interruption_anywhere(where: str, call: int) -> None:
    model = small_cnn()
    calls = itertools.count()

    def interrupt(*_: Any) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    model.get_submodule(where).register_forward_hook(interrupt)
    with unchanged(model):
        try:
            seewhy.Explainer(model).explain(pixels(), "ablation_cam", target=1, layer="body")
        except KeyboardInterrupt:
            return
    assert next(calls) <= call + 1
