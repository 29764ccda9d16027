"""Which layers are looked at where none is named."""

import pytest
import torch
import torchvision
from torch import nn

from seewhy import Explainer, errors, testing
from seewhy.engine.borrow import borrowed
from seewhy.engine.inputs import ModelInputs
from seewhy.inside.usual import layers_of_type, usual_layers
from seewhy.layers import find_layers

torch.set_num_threads(1)


def usual(model, *shape):
    explainer = Explainer(model.eval())
    with testing.unchanged(model), borrowed(explainer._inner):
        return usual_layers(explainer._inner, torch.rand(shape), explainer._layout, ModelInputs())


def of_modules(model, *kinds):
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def test_vgg():
    model = nn.Module()
    model.features = torchvision.models.vgg.make_layers([8, "M", 8, "M", 16, 16, "M"], batch_norm=True)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.forward = lambda x: model.avgpool(model.features(x)).flatten(1)
    assert usual(model, 1, 3, 64, 96) == of_modules(model, nn.Conv2d, nn.MaxPool2d)


def test_resnet_in_the_order_in_which_layers_run():
    model = torchvision.models.resnet18(weights=None)
    found = usual(model, 1, 3, 64, 96)
    assert sorted(found) == sorted(of_modules(model, nn.Conv2d, nn.MaxPool2d))
    assert found[:4] == ["conv1", "maxpool", "layer1.0.conv1", "layer1.0.conv2"]


def test_squeeze_and_excitation_has_no_positions():
    found = usual(torchvision.models.efficientnet_b0(weights=None), 1, 3, 64, 64)
    assert not any(".fc1" in name or ".fc2" in name for name in found)
    assert "features.1.0.block.0.0" in found


def test_vision_transformer():
    """Its patch embedding and its blocks, not what is in the blocks."""
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
    assert usual(model, 1, 3, 32, 32) == ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(2))]


def test_swin():
    model = torchvision.models.SwinTransformer([4, 4], 12, [2, 2, 2], [2, 2, 2], [4, 4])
    blocks = torchvision.models.swin_transformer.SwinTransformerBlock
    found = usual(model, 1, 3, 64, 96)
    assert found[0] == "features.0.0"
    assert [name for name in found if isinstance(model.get_submodule(name), blocks)] == of_modules(model, blocks)
    assert not any("attn" in name or "mlp" in name for name in found)


def test_timm_variants_of_layers():
    timm = pytest.importorskip("timm")
    found = usual(timm.create_model("tf_efficientnet_lite0"), 1, 3, 64, 64)
    assert "conv_stem" in found
    assert "conv_head" in found
    found = usual(timm.create_model("mixer_s32_224"), 1, 3, 224, 224)
    assert found == ["stem.proj", *(f"blocks.{i}" for i in range(8))]


def test_blocks_and_not_the_stages_that_hold_them():
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 2), num_heads=(2, 2), embed_dim=16)
    blocks = [f"layers.{stage}.blocks.{i}" for stage in (0, 1) for i in (0, 1)]
    assert usual(model, 1, 3, 224, 224) == ["patch_embed.proj", *blocks]


def test_signals_and_volumes():
    signal = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    assert usual(signal, 1, 2, 30) == ["0", "2"]
    volume = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten())
    assert usual(volume, 1, 1, 8, 12, 12) == ["0", "2"]


def test_each_call_of_a_layer_used_twice_can_be_found():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x):
            return self.pool(self.conv(self.pool(self.conv(x))))

    model = Twice()
    found = usual(model, 1, 3, 32, 32)
    assert found == ["conv#1", "pool#1", "conv#2", "pool#2"]
    assert [layer.call for layer in find_layers(model, found)] == [1, 1, 2, 2]


def test_nothing_to_look_at_is_an_error_that_says_what_to_do():
    with pytest.raises(errors.LayerError, match=r"layer=; explainer.layers\(\)"):
        usual(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), 1, 3, 4, 4)


def test_of_a_type():
    explainer = Explainer(testing.small_cnn())

    def of(kind):
        with borrowed(explainer._inner):
            return layers_of_type(explainer._inner, torch.rand(1, 3, 16, 24), None, ModelInputs(), kind)

    assert of(nn.ReLU) == ["stem.2"]
    assert of(nn.Conv2d) == ["stem.0", "left", "right", "body"]
    with pytest.raises(errors.LayerError, match=r"No module of type Linear.*Types that did: BatchNorm2d"):
        of(nn.Linear)
