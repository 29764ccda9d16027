"""The builders of torchvision and the models of Hugging Face, small and from no file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers as hf
from nets import Net
from torch import nn
from torchvision import models

MOST = 100_000_000  # parameters
# What takes no image of (128, 160), or tells places too coarsely there.
_SIDES = {
    "inception_v3": (192, 256),
    "googlenet": (128, 160),
    "vit_b_16": (128, 128),
    "vit_b_32": (128, 128),
    "maxvit_t": (224, 224),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "vit_b_16": {"image_size": 128},
    "vit_b_32": {"image_size": 128},
    "maxvit_t": {"input_size": (224, 224)},
}


def _count(name: str) -> int:
    return int(models.get_model_weights(name).DEFAULT.meta["num_params"])


def classifiers() -> list[Net]:
    """torchvision's classifiers up to 100 million parameters."""
    return [
        Net(
            "torchvision classification",
            name,
            partial(models.get_model, name, weights=None, **_OPTIONS.get(name, {})),
            _SIDES.get(name, (128, 160)),
        )
        for name in models.list_models(module=models)
        if _count(name) <= MOST
    ]


def only_listed() -> dict[str, str]:
    """torchvision's classifiers that are larger, with the reason."""
    return {
        name: f"{_count(name) / 1e6:.0f} M parameters"
        for name in models.list_models(module=models)
        if _count(name) > MOST
    }


def segmenters() -> list[Net]:
    """torchvision's networks with scores for each pixel."""
    make = partial(partial, models.get_model, weights=None, weights_backbone=None)
    return [
        Net("torchvision segmentation", name, make(name), (96, 128))
        for name in models.list_models(module=models.segmentation)
    ]


_DETECTORS: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"box_score_thresh": 0.0, "box_detections_per_img": 5},
    "retinanet_resnet50_fpn": {"score_thresh": 0.0, "detections_per_img": 5},
    "fcos_resnet50_fpn": {"score_thresh": 0.0, "detections_per_img": 5},
}


def detectors() -> list[Net]:
    """Three of torchvision's networks that find boxes; random weights are sure of nothing, so all boxes count."""
    return [
        Net(
            "torchvision detection",
            name,
            partial(models.get_model, name, weights=None, weights_backbone=None, min_size=128, max_size=160, **options),
        )
        for name, options in _DETECTORS.items()
    ]


_VIDEO = {
    "r3d_18": (16, 48, 64),
    "mc3_18": (16, 48, 64),
    "r2plus1d_18": (16, 48, 64),
    "s3d": (16, 224, 224),
    "swin3d_t": (8, 64, 96),
}


def videos() -> list[Net]:
    """Five of torchvision's networks for videos ``(N, C, T, H, W)``."""
    return [
        Net("torchvision video", name, partial(models.get_model, name, weights=None), sides)
        for name, sides in _VIDEO.items()
    ]


_WIDE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
_IMAGE = {"image_size": (128, 160), "patch_size": 16}
_SQUARE = {"image_size": 128, "patch_size": 16}
_STAGES = {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "image_size": (128, 160), "window_size": 4}
_CLASSES = {"num_labels": 7}


def transformers() -> list[Net]:
    """Hugging Face's models from small configurations."""
    made: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
        "ViT": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**_WIDE, **_IMAGE, **_CLASSES)), (128, 160)),
        "DeiT": (lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**_WIDE, **_IMAGE, **_CLASSES)), (128, 160)),
        "DINOv2 with registers": (
            lambda: hf.Dinov2WithRegistersForImageClassification(
                hf.Dinov2WithRegistersConfig(**_WIDE, **_SQUARE, **_CLASSES, num_register_tokens=4)
            ),
            (128, 160),
        ),
        "Swin": (lambda: hf.SwinForImageClassification(hf.SwinConfig(**_STAGES, **_CLASSES)), (128, 160)),
        "SwinV2": (lambda: hf.Swinv2ForImageClassification(hf.Swinv2Config(**_STAGES, **_CLASSES)), (128, 160)),
        "ConvNeXt": (
            lambda: hf.ConvNextForImageClassification(
                hf.ConvNextConfig(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], **_CLASSES)
            ),
            (128, 160),
        ),
        "ResNet": (
            lambda: hf.ResNetForImageClassification(
                hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 2, 1], **_CLASSES)
            ),
            (128, 160),
        ),
        "SegFormer": (
            lambda: hf.SegformerForSemanticSegmentation(
                hf.SegformerConfig(hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=32, **_CLASSES)
            ),
            (128, 160),
        ),
        "SegFormer, classes": (
            lambda: hf.SegformerForImageClassification(hf.SegformerConfig(hidden_sizes=[16, 32, 48, 64], **_CLASSES)),
            (128, 160),
        ),
        "CLIP vision": (
            lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**_WIDE, **_SQUARE, projection_dim=32)),
            (128, 128),
        ),
        "SigLIP vision": (lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**_WIDE, **_SQUARE)), (128, 128)),
        "MobileViT": (
            lambda: hf.MobileViTForImageClassification(
                hf.MobileViTConfig(
                    hidden_sizes=[24, 32, 48], neck_hidden_sizes=[8, 8, 16, 24, 32, 48, 64], image_size=128, **_CLASSES
                )
            ),
            (128, 160),
        ),
    }
    return [Net("Hugging Face", name, build, sides) for name, (build, sides) in made.items()]
