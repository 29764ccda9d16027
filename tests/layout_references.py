"""Networks of every layout, and what their explanations must be: written by hand, one image at a time.

Nothing here knows of seewhy. Where the positions are in what a layer returns is derived from the architecture and
written down for each layer (`Spot`); forward hooks keep the output and `torch.autograd.grad` gives its gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import timm
import torch
import transformers
from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitConvCfg, MaxxVitTransformerCfg
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MaxVit, VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.video import MViT, VideoResNet
from torchvision.models.video.mvit import MSBlockConfig
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple
from torchvision.models.video.swin_transformer import SwinTransformer3d

CLASSES = 7
Grid = tuple[int, ...]
Arrange = Callable[[Tensor, Grid], Tensor]


def as_it_is(output: Tensor, grid: Grid) -> Tensor:
    """(1, C, *grid) already."""
    return output.reshape(1, -1, *grid)


def channels_last(output: Tensor, grid: Grid) -> Tensor:
    """From (1, *grid, C)."""
    return output.reshape(*grid, -1).permute(-1, *range(len(grid)))[None]


def tokens(prefix: int) -> Arrange:
    """From (1, prefix + positions, C), the positions row by row."""

    def arrange(output: Tensor, grid: Grid) -> Tensor:
        rows = output[0][prefix : prefix + math.prod(grid)]
        assert len(output[0]) == prefix + math.prod(grid)
        return rows.T.reshape(1, -1, *grid)

    return arrange


def tokens_first(output: Tensor, grid: Grid) -> Tensor:
    """From (positions, 1, C)."""
    assert output.shape[1] == 1
    return output[:, 0].T.reshape(1, -1, *grid)


class Spot(NamedTuple):
    """A layer, how far apart its positions are in the input (for each side), and how it holds them."""

    layer: str
    stride: tuple[int, ...]
    arrange: Arrange


class Case(NamedTuple):
    """A network for inputs of each of `sizes`, some of its layers, and which of them is the automatic one.

    `targets` are classes, one for each of two images, for which no Grad-CAM is zero; `cam` is the layer and the linear
    layer where CAM is defined.
    """

    build: Callable[[Grid], nn.Module]
    sizes: Sequence[Grid]
    spots: Sequence[Spot]
    automatic: str
    channels: int = 3
    targets: tuple[int, int] = (5, 4)
    cam: tuple[str, str] | None = None


# --- networks, narrow and shallow


def vit(size: Grid) -> nn.Module:
    """torchvision's ViT-B/16, of its width, with two blocks; its input is square."""
    return VisionTransformer(size[0], 16, 2, 12, 768, 3072, num_classes=CLASSES)


def timm_vit(size: Grid) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=16, embed_dim=24, depth=3, num_heads=3, num_classes=CLASSES
    )


def mean_vit(size: Grid) -> nn.Module:
    """A ViT that averages its tokens after the last norm, and for which CAM is so defined."""
    return timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=16, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES,
        global_pool="avg", fc_norm=False, class_token=False,
    )  # fmt: skip


def timm_dino(size: Grid) -> nn.Module:
    net: nn.Module = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=size, num_classes=CLASSES, depth=3, embed_dim=24, num_heads=2
    )
    for module in net.modules():
        if hasattr(module, "gamma"):
            nn.init.constant_(module.gamma, 0.5)  # 1e-5 before training
    return net


def dino(size: Grid) -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(
        image_size=56, patch_size=14, hidden_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_register_tokens=4, num_labels=CLASSES, initializer_range=0.2,
    )  # fmt: skip
    return transformers.Dinov2WithRegistersForImageClassification(config)


def swin(size: Grid) -> nn.Module:
    return SwinTransformer([4, 4], 12, [2, 2, 2, 2], [1, 2, 2, 2], [7, 7], num_classes=CLASSES)


def swin_v2(size: Grid) -> nn.Module:
    return SwinTransformer(
        [4, 4], 12, [2, 2], [1, 2], [8, 8], num_classes=CLASSES,
        block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2,
    )  # fmt: skip


def swin_of_tokens(size: Grid) -> nn.Module:
    """The Swin of transformers, which has tokens where torchvision's has channels last; a linear layer merges them."""
    config = transformers.SwinConfig(
        image_size=size, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[1, 2], window_size=4, num_labels=CLASSES
    )
    return transformers.SwinForImageClassification(config)


def maxvit(size: Grid) -> nn.Module:
    return MaxVit((size[0], size[1]), 8, 4, [8, 16], [1, 2], 4, 0.0, num_classes=CLASSES)


def timm_maxvit(size: Grid) -> nn.Module:
    """timm's MaxViT, which takes sizes that are not square."""
    blocks = MaxxVitTransformerCfg(dim_head=4, window_size=(4, 4), init_values=0.5)
    config = MaxxVitCfg((8, 16), (1, 2), ("M", "M"), 8, conv_cfg=MaxxVitConvCfg(), transformer_cfg=blocks)
    return MaxxVit(config, img_size=size, num_classes=CLASSES)


def convnext(size: Grid) -> nn.Module:
    blocks = [CNBlockConfig(12, 24, 2), CNBlockConfig(24, 32, 2), CNBlockConfig(32, None, 1)]
    return ConvNeXt(blocks, layer_scale=0.5, num_classes=CLASSES)


def resnet_3d(size: Grid) -> nn.Module:
    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], BasicStem, num_classes=CLASSES)


def swin_3d(size: Grid) -> nn.Module:
    return SwinTransformer3d([2, 4, 4], 12, [2, 2], [1, 2], [2, 4, 4], num_classes=CLASSES)


def mvit(size: Grid) -> nn.Module:
    blocks = [
        MSBlockConfig(1, 12, 24, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        MSBlockConfig(2, 24, 24, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        MSBlockConfig(2, 24, 24, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
    ]
    return MViT(
        (size[1], size[2]), size[0], blocks, residual_pool=False, residual_with_cls_embed=False, rel_pos_embed=False,
        proj_after_attn=False, num_classes=CLASSES,
    )  # fmt: skip


class Encoder(nn.Module):
    """Patches by a convolution, an encoder over `prefix` tokens and those of the patches, their mean, scores.

    With `first` the encoder has the tokens first: (tokens, N, C).
    """

    def __init__(self, patch: nn.Module, width: int, prefix: int = 0, *, first: bool = False) -> None:
        super().__init__()
        self.patch, self.first = patch, first
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=not first, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        x = self.encoder(x.transpose(0, 1)).transpose(0, 1) if self.first else self.encoder(x)
        out: Tensor = self.head(x.mean(1))
        return out


def conv_1d(size: Grid) -> nn.Module:
    blocks = [
        part
        for a, b in ((2, 8), (8, 12), (12, 16))
        for part in (nn.Conv1d(a, b, 5, 2, 2), nn.BatchNorm1d(b), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def audio(size: Grid) -> nn.Module:
    """A spectrogram's frequencies and times are not pooled alike: the grid has not the input's aspect."""
    blocks = [
        part
        for a, b, stride in ((1, 8, (2, 4)), (8, 12, (4, 2)), (12, 16, (1, 2)))
        for part in (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(stride))
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


IMAGES = [(64, 64), (64, 96)]
CASES: dict[str, Case] = {
    "ViT-B/16": Case(
        vit, [(64, 64)],
        [
            Spot("conv_proj", (16, 16), as_it_is),
            Spot("encoder.layers.encoder_layer_0", (16, 16), tokens(1)),
            Spot("encoder.layers.encoder_layer_0.mlp", (16, 16), tokens(1)),
            Spot("encoder.layers.encoder_layer_0.self_attention", (16, 16), tokens(1)),
            Spot("encoder.layers.encoder_layer_1.ln_1", (16, 16), tokens(1)),
        ],
        "encoder.layers.encoder_layer_1.ln_1",
    ),
    "timm ViT": Case(
        timm_vit, [(64, 64), (48, 80), (80, 32)],
        [
            Spot("patch_embed", (16, 16), tokens(0)),
            Spot("blocks.0", (16, 16), tokens(1)),
            Spot("blocks.0.mlp.fc1", (16, 16), tokens(1)),
            Spot("blocks.1", (16, 16), tokens(1)),
            Spot("blocks.2.norm1", (16, 16), tokens(1)),
        ],
        "blocks.2.norm1",
    ),
    "ViT that averages": Case(
        mean_vit, [(64, 64), (48, 80)],
        [Spot("blocks.0", (16, 16), tokens(0)), Spot("norm", (16, 16), tokens(0))], "norm", cam=("norm", "head"),
    ),
    "DINOv2, registers, timm": Case(
        timm_dino, [(56, 56), (42, 70)],
        [
            Spot("patch_embed.proj", (14, 14), as_it_is),
            Spot("blocks.0.norm2", (14, 14), tokens(5)),
            Spot("blocks.1", (14, 14), tokens(5)),
            Spot("blocks.2.norm1", (14, 14), tokens(5)),
        ],
        "blocks.2.norm1",
    ),
    "DINOv2, registers, transformers": Case(
        dino, [(56, 56), (42, 70)],
        [
            Spot("dinov2_with_registers.encoder.layer.0.norm2", (14, 14), tokens(5)),
            Spot("dinov2_with_registers.encoder.layer.0.attention", (14, 14), tokens(5)),
            Spot("dinov2_with_registers.encoder.layer.1", (14, 14), tokens(5)),
            Spot("dinov2_with_registers", (14, 14), tokens(5)),
        ],
        "dinov2_with_registers",
    ),
    "Swin-T": Case(
        swin, IMAGES,
        [
            Spot("features.0.0", (4, 4), as_it_is),
            Spot("features.1.0.norm1", (4, 4), channels_last),
            Spot("features.1.1.attn", (4, 4), channels_last),
            Spot("features.3", (8, 8), channels_last),
            Spot("features.5.1.mlp", (16, 16), channels_last),
            Spot("features.7", (32, 32), channels_last),
            Spot("permute", (32, 32), as_it_is),
        ],
        "permute", cam=("permute", "head"),
    ),
    "SwinV2": Case(
        swin_v2, IMAGES,
        [
            Spot("features.0", (4, 4), channels_last),
            Spot("features.1.1", (4, 4), channels_last),
            Spot("features.2", (8, 8), channels_last),
            Spot("features.3.0.attn", (8, 8), channels_last),
            Spot("permute", (8, 8), as_it_is),
        ],
        "permute", cam=("permute", "head"),
    ),
    "Swin, transformers": Case(
        swin_of_tokens, IMAGES,
        [
            Spot("swin.embeddings.norm", (4, 4), tokens(0)),
            Spot("swin.encoder.layers.0.blocks.1", (4, 4), tokens(0)),
            Spot("swin.encoder.layers.1.blocks.0", (8, 8), tokens(0)),
            Spot("swin", (8, 8), tokens(0)),
        ],
        "swin",
    ),
    "MaxViT": Case(
        maxvit, [(64, 64)],
        [
            Spot("stem", (2, 2), as_it_is),
            Spot("blocks.0.layers.0.layers.grid_attention", (4, 4), as_it_is),
            Spot("blocks.1.layers.0.layers.window_attention", (8, 8), as_it_is),
            Spot("blocks.1", (8, 8), as_it_is),
        ],
        "blocks.1", 3, (5, 4),
    ),
    "MaxViT, timm": Case(
        timm_maxvit, [(64, 64), (64, 96)],
        [
            Spot("stem", (2, 2), as_it_is),
            Spot("stages.0.blocks.0.conv", (4, 4), as_it_is),
            Spot("stages.0.blocks.0.attn_block", (4, 4), channels_last),
            Spot("stages.1.blocks.0.attn_grid.norm2", (8, 8), channels_last),
            Spot("norm", (8, 8), as_it_is),
        ],
        "norm", 3, (6, 5), cam=("norm", "head.fc"),
    ),
    "ConvNeXt": Case(
        convnext, IMAGES,
        [
            Spot("features.0", (4, 4), as_it_is),
            Spot("features.1.1.block.2", (4, 4), channels_last),
            Spot("features.1.1.block.3", (4, 4), channels_last),
            Spot("features.3.0", (8, 8), as_it_is),
            Spot("features", (16, 16), as_it_is),
        ],
        "features",
    ),
    "spectrograms": Case(
        audio, [(64, 64), (32, 160)],
        [
            Spot("5", (2, 4), as_it_is),
            Spot("7", (8, 8), as_it_is),
            Spot("11", (8, 16), as_it_is),
        ],
        "11", 1, cam=("11", "14"),
    ),
    "spectrogram transformer": Case(
        lambda size: Encoder(nn.Conv2d(1, 12, (16, 8), (16, 8)), 12, 2), [(64, 64), (48, 80)],
        [
            Spot("patch", (16, 8), as_it_is),
            Spot("encoder.layers.0", (16, 8), tokens(2)),
            Spot("encoder.layers.1.self_attn", (16, 8), tokens(2)),
            Spot("encoder", (16, 8), tokens(2)),
        ],
        "encoder", 1,
    ),
    "tokens first": Case(
        lambda size: Encoder(nn.Conv2d(3, 12, 16, 16), 12, first=True), [(64, 64), (48, 80)],
        [
            Spot("patch", (16, 16), as_it_is),
            Spot("encoder.layers.0", (16, 16), tokens_first),
            Spot("encoder.layers.1.norm2", (16, 16), tokens_first),
            Spot("encoder", (16, 16), tokens_first),
        ],
        "encoder",
    ),
    "1-D CNN": Case(
        conv_1d, [(96,), (160,)],
        [Spot("1", (2,), as_it_is), Spot("5", (4,), as_it_is), Spot("8", (8,), as_it_is)],
        "8", 2, (0, 5), cam=("8", "11"),
    ),
    "1-D transformer": Case(
        lambda size: Encoder(nn.Conv1d(2, 14, 8, 8), 14, 1), [(96,), (160,)],
        [
            Spot("patch", (8,), as_it_is),
            Spot("encoder.layers.0", (8,), tokens(1)),
            Spot("encoder.layers.1.norm1", (8,), tokens(1)),
            Spot("encoder", (8,), tokens(1)),
        ],
        "encoder", 2,
    ),
    "3-D ResNet": Case(
        resnet_3d, [(4, 24, 24), (3, 32, 16)],
        [
            Spot("stem", (1, 2, 2), as_it_is),
            Spot("layer2.0.conv1", (2, 4, 4), as_it_is),
            Spot("layer4", (8, 16, 16), as_it_is),
        ],
        "layer4", 3, (1, 2), cam=("layer4", "fc"),
    ),
    "3-D Swin": Case(
        swin_3d, [(8, 32, 32), (4, 48, 32)],
        [
            Spot("patch_embed.proj", (2, 4, 4), as_it_is),
            Spot("patch_embed", (2, 4, 4), channels_last),
            Spot("features.0.1", (2, 4, 4), channels_last),
            Spot("features.1", (2, 8, 8), channels_last),
            Spot("norm", (2, 8, 8), channels_last),
        ],
        "norm", cam=("norm", "head"),
    ),
    "MViT": Case(
        mvit, [(8, 32, 32), (4, 48, 32)],
        [
            Spot("conv_proj", (2, 4, 4), as_it_is),
            Spot("blocks.0", (2, 4, 4), tokens(1)),
            Spot("blocks.1", (2, 8, 8), tokens(1)),
            Spot("blocks.2.norm1", (2, 8, 8), tokens(1)),
        ],
        "blocks.2.norm1",
    ),
}  # fmt: skip


@functools.cache
def network(name: str, size: Grid) -> nn.Module:
    """The case's network in float64 and eval mode, its weights all random; not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = CASES[name].build(size).double()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, 0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)
            elif isinstance(module, nn.LayerNorm) and module.bias is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
            elif isinstance(module, nn.Linear) and module.out_features == CLASSES:
                nn.init.normal_(module.weight)  # torchvision's ViT starts at 0
                if module.bias is not None:
                    nn.init.normal_(module.bias)
    return net.eval()


def inputs(name: str, size: Grid, count: int = 2) -> Tensor:
    """Normally distributed inputs (count, C, *size)."""
    rng = torch.Generator().manual_seed(5)
    return torch.randn(count, CASES[name].channels, *size, generator=rng, dtype=torch.float64)


def scores(net: nn.Module, x: Tensor) -> Tensor:
    """(N, CLASSES)."""
    out = net(x)
    found: Tensor = out if isinstance(out, Tensor) else out.logits
    return found


# --- the methods again


def grid_of(size: Grid, spot: Spot) -> Grid:
    return tuple(math.ceil(side / stride) for side, stride in zip(size, spot.stride, strict=True))


def kept(net: nn.Module, layer: str, image: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer gave for one image (1, C, ...), and the scores that followed."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        outputs.append(first)  # itself: the layer may have read it already, as a pooler inside it does
        goes_on = first.clone()  # what follows may change it in place
        if isinstance(output, transformers.utils.ModelOutput):
            return type(output)(**{**output, "last_hidden_state": goes_on})
        return goes_on if isinstance(output, Tensor) else (goes_on, *output[1:])

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        found = scores(net, image)
    finally:
        handle.remove()
    (output,) = outputs
    return output, found


def activations(net: nn.Module, x: Tensor, spot: Spot) -> Tensor:
    """A (N, C, *grid)."""
    grid = grid_of(tuple(x.shape[2:]), spot)
    return torch.cat([spot.arrange(kept(net, spot.layer, image[None])[0].detach(), grid) for image in x])


def grad_cam(net: nn.Module, x: Tensor, targets: Sequence[int], spot: Spot) -> Tensor:
    """ReLU(sum over k of mean(dS/dA_k) A_k) (N, *grid)."""
    maps, grid = [], grid_of(tuple(x.shape[2:]), spot)
    for image, target in zip(x, targets, strict=True):
        output, found = kept(net, spot.layer, image[None])
        (gradient,) = torch.autograd.grad(found[0, target], output)
        a, g = (spot.arrange(t.detach(), grid)[0].flatten(1) for t in (output, gradient))
        maps.append((g.mean(1) @ a).clamp(min=0).reshape(grid))
    return torch.stack(maps)


def saliency(net: nn.Module, x: Tensor, targets: Sequence[int]) -> Tensor:
    """dS/dx (N, C, *size)."""
    gradients = []
    for image, target in zip(x, targets, strict=True):
        image = image[None].clone().requires_grad_()
        gradients.append(torch.autograd.grad(scores(net, image)[0, target], image)[0])
    return torch.cat(gradients)


def cam(net: nn.Module, x: Tensor, targets: Sequence[int], spot: Spot, linear: str) -> Tensor:
    """sum over k of w_k A_k (N, *grid)."""
    weights = net.get_submodule(linear).get_parameter("weight").detach()[list(targets)]
    return torch.einsum("nk,nk...->n...", weights, activations(net, x, spot))


def enlarged(values: Tensor, size: Grid) -> Tensor:
    """(N, *grid) at the input's size, linear in each direction, the pixels' centres aligned."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(values[:, None].double(), list(size), mode=mode, align_corners=False)[:, 0]
