"""Replays of real networks, at layers of all kinds, give what whole runs give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torchvision
import transformers
from replaying import ask, assert_right, pixels
from torch import nn

pytestmark = pytest.mark.sweep
tv, hf = torchvision.models, transformers


def of_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


VIT = {"img_size": 32, "patch_size": 8, "depth": 3}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
HF_SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
HF_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "num_labels": 5}
SWIN_ARGS = [4, 4], 24, [2, 2], [2, 4], [2, 2]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, list[str]]] = {
    "resnet50": (lambda: tv.resnet50(num_classes=5), 64, ["layer4", "layer2.1.conv3", "layer3.0.downsample.1", "relu"]),
    "densenet121": (lambda: tv.densenet121(num_classes=5), 64, [
        "features", "features.norm5", "features.denseblock3.denselayer7", "features.denseblock3.denselayer7.conv1",
        "features.transition2.pool"]),
    "googlenet": (lambda: tv.googlenet(num_classes=5, aux_logits=False, init_weights=False), 64, [
        "inception4b.branch3.1", "inception5b", "inception3a.branch1.bn"]),
    "inception": (lambda: tv.inception_v3(num_classes=5, aux_logits=False, init_weights=False), 96, [
        "Mixed_6b.branch7x7_2", "Mixed_5b.branch_pool"]),
    "mobilenet": (lambda: tv.mobilenet_v3_small(num_classes=5), 64, ["features.5.block.2", "features.8"]),
    "efficientnet": (lambda: tv.efficientnet_b0(num_classes=5), 64, ["features.4.1.block.1", "features.8"]),
    "squeezenet": (lambda: tv.squeezenet1_1(num_classes=5), 64, ["features.6.expand3x3", "features.6"]),
    "vgg": (lambda: tv.vgg11(num_classes=5), 64, ["features.10", "features.11"]),
    "convnext": (lambda: tv.convnext_tiny(num_classes=5), 64, [
        "features.5.3.block.0", "features.5.3.block.5", "features.4.0"]),
    "vit": (lambda: tv.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=5), 32, [
        "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_1.mlp.0", "conv_proj",
        "encoder.layers.encoder_layer_1.self_attention"]),
    "swin": (lambda: tv.SwinTransformer(*SWIN_ARGS, num_classes=5), 32, [
        "features.1.1.attn", "features.3.1.mlp", "norm", "permute"]),
    "timm's vit": (of_timm("vit_tiny_patch16_224", embed_dim=24, num_heads=2, **VIT), 32, [
        "blocks.1.attn", "blocks.0", "blocks.1.mlp.fc1"]),
    "distilled": (of_timm("deit_tiny_distilled_patch16_224", embed_dim=24, num_heads=2, **VIT), 32, [
        "blocks.1", "blocks.2.norm1"]),
    "cait": (of_timm("cait_xxs24_224", **VIT), 32, ["blocks.1"]),
    "timm's swin": (of_timm("swin_tiny_patch4_window7_224", **SWIN), 64, ["layers.1.blocks.0.norm1", "layers.0"]),
    "levit": (of_timm("levit_128s", img_size=224), 224, ["stages.1.blocks.1", "stages.2"]),
    "mobilevit": (of_timm("mobilevit_xxs"), 64, ["stages.3.1", "stages.4.1.conv_1x1"]),
    "maxvit": (of_timm("maxvit_rmlp_pico_rw_256", img_size=64), 64, ["stages.2.blocks.1.attn_block"]),
    "pvt": (of_timm("pvt_v2_b0"), 64, ["stages.2", "stages.2.blocks.0.attn"]),
    "coat": (of_timm("coat_lite_tiny", img_size=64), 64, ["serial_blocks3.1"]),
    "Hugging Face's ConvNext": (lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**HF_STAGES)), 64, [
        "convnext.encoder.stages.2.layers.1", "convnext.encoder.stages.3"]),
    "Hugging Face's ResNet": (lambda: hf.ResNetForImageClassification(hf.ResNetConfig(
        embedding_size=16, layer_type="basic", **HF_STAGES)), 64, [
        "resnet.encoder.stages.2.layers.1", "resnet.encoder"]),
    "Hugging Face's Swin": (lambda: hf.SwinForImageClassification(hf.SwinConfig(**HF_SWIN, num_labels=5)), 64, [
        "swin.encoder.layers.1.blocks.0", "swin.layernorm"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layer"), [(name, layer) for name, (*_, layers) in NETWORKS.items() for layer in layers]
)
def test_only_what_comes_after_is_run(name: str, layer: str) -> None:
    build, size, _ = NETWORKS[name]
    model = build()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == 5:
            nn.init.normal_(module.weight)  # some begin with zeros
    asked = ask(model, layer, pixels(2, (size, size)))
    assert_right(asked)
    assert (asked.expected.std(1) > 0).all()
