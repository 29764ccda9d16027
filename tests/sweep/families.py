"""One small network of every family of timm, and those that are only listed."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import timm
import torch
from nets import Net
from timm.models.convmixer import ConvMixer
from torch import nn

SOURCE = "timm"
MOST, LARGEST = 100, 512  # million parameters; pixels of the input


class Small(NamedTuple):
    """The smallest network of a family, and the sides of its input; `sized`: it is built for them."""

    name: str
    sides: tuple[int, int] = (128, 160)
    sized: bool = False

    def build(self) -> nn.Module:
        return timm.create_model(self.name, pretrained=False, **({"img_size": self.sides} if self.sized else {}))


FAMILIES = {
    "beit": Small("beit_base_patch16_224", sized=True),
    "byoanet": Small("halonet_h1", sides=(256, 256)),
    "byobnet": Small("mobileone_s1"),
    "cait": Small("cait_xxs24_224", sized=True),
    "coat": Small("coat_tiny", sized=True),
    "convit": Small("convit_tiny", sides=(128, 128), sized=True),
    "convnext": Small("convnext_zepto_rms"),
    "cpubone": Small("cpubone_nano"),
    "crossvit": Small("crossvit_tiny_240"),
    "cspnet": Small("cs3darknet_focus_s"),
    "cspnext": Small("cspnext_tiny"),
    "csatv2": Small("csatv2", sides=(256, 320)),
    "davit": Small("davit_tiny"),
    "deit": Small("deit_tiny_patch16_224", sized=True),
    "densenet": Small("densenet121"),
    "dla": Small("dla46x_c"),
    "dpn": Small("dpn48b"),
    "edgenext": Small("edgenext_xx_small"),
    "efficientformer": Small("efficientformer_l1", sides=(224, 224), sized=True),
    "efficientformer_v2": Small("efficientformerv2_s0", sized=True),
    "efficientnet": Small("mobilenetv2_035"),
    "efficientvim": Small("efficientvim_m1", sides=(256, 320)),
    "efficientvit_mit": Small("efficientvit_b0"),
    "efficientvit_msra": Small("efficientvit_m0", sides=(256, 320), sized=True),
    "eva": Small("vit_tiny_patch16_dinov3_qkvb", sized=True),
    "fasternet": Small("fasternet_t0"),
    "fastvit": Small("fastvit_t8"),
    "focalnet": Small("focalnet_tiny_srf"),
    "gcvit": Small("gcvit_xxtiny", sized=True),
    "ghostnet": Small("ghostnet_050"),
    "hardcorenas": Small("hardcorenas_b"),
    "hgnet": Small("hgnetv2_b0"),
    "hiera": Small("hiera_tiny_224", sized=True),
    "hieradet_sam2": Small("hieradet_small"),
    "hrnet": Small("hrnet_w18_small"),
    "iformer": Small("iformer_t"),
    "inception_next": Small("inception_next_atto"),
    "inception_resnet_v2": Small("inception_resnet_v2", sides=(192, 256)),
    "inception_v3": Small("inception_v3", sides=(192, 256)),
    "inception_v4": Small("inception_v4", sides=(192, 256)),
    "lcnetv2": Small("lcnetv2_small"),
    "levit": Small("levit_128s", sides=(256, 320), sized=True),
    "lowformer": Small("lowformer_b0"),
    "mambaout": Small("mambaout_femto"),
    "maxxvit": Small("maxvit_pico_rw_256", sized=True),
    "metaformer": Small("poolformerv2_s12"),
    "mlp_mixer": Small("gmlp_ti16_224", sized=True),
    "mobilenetv3": Small("mobilenetv3_small_050"),
    "mobilenetv5": Small("mobilenetv5_base"),
    "mobilevit": Small("mobilevit_xxs"),
    "mvitv2": Small("mvitv2_tiny"),
    "naflexvit": Small("naflexvit_base_patch16_parfac_gap"),
    "nasnet": Small("nasnetalarge", sides=(96, 128)),
    "nest": Small("nest_tiny", sides=(128, 128), sized=True),
    "nextvit": Small("nextvit_small"),
    "nfnet": Small("nf_regnet_b0"),
    "pit": Small("pit_ti_224", sized=True),
    "pnasnet": Small("pnasnet5large"),
    "pvt_v2": Small("pvt_v2_b0"),
    "rdnet": Small("rdnet_tiny"),
    "regnet": Small("regnetx_002"),
    "repghost": Small("repghostnet_050"),
    "repvit": Small("repvit_m1"),
    "res2net": Small("res2next50"),
    "resnest": Small("resnest14d"),
    "resnet": Small("resnet10t"),
    "resnetv2": Small("resnetv2_18"),
    "rexnet": Small("rexnet_100"),
    "selecsls": Small("selecsls42", sides=(256, 320)),
    "senet": Small("legacy_seresnet18"),
    "sequencer": Small("sequencer2d_s", sized=True),
    "shvit": Small("shvit_s1", sides=(256, 320)),
    "sknet": Small("skresnet18"),
    "starnet": Small("starnet_s050"),
    "swiftformer": Small("swiftformer_xs", sized=True),
    "swin_transformer": Small("swin_tiny_patch4_window7_224", sized=True),
    "swin_transformer_v2": Small("swinv2_tiny_window8_256", sized=True),
    "swin_transformer_v2_cr": Small("swinv2_cr_tiny_224", sized=True),
    "tiny_vit": Small("tiny_vit_5m_224"),
    "tnt": Small("tnt_s_legacy_patch16_224", sized=True),
    "tresnet": Small("tresnet_m"),
    "twins": Small("twins_svt_small", sized=True),
    "visformer": Small("visformer_tiny", sized=True),
    "vision_transformer": Small("vit_tiny_patch16_224", sized=True),
    "vision_transformer_hybrid": Small("vit_tiny_r_s16_p8_224", sized=True),
    "vision_transformer_relpos": Small("vit_srelpos_small_patch16_224", sized=True),
    "vision_transformer_sam": Small("samvit_base_patch16_224", sized=True),
    "vitamin": Small("vitamin_small_224", sized=True),
    "volo": Small("volo_d1_224", sized=True),
    "vovnet": Small("ese_vovnet19b_slim_dw"),
    "xception": Small("legacy_xception"),
    "xception_aligned": Small("xception41p"),
    "xcit": Small("xcit_nano_12_p8_224", sized=True),
}
ONLY_LISTED = {
    "deepseek_vit": "the smallest has 412 M parameters",
    "gemma4_vit": "the smallest has 167 M parameters",
    "qwen3_vit": "the smallest takes 768 px",
    "vgg": "the smallest has 133 M parameters",
}


def networks() -> list[Net]:
    """One of each family that the installed timm has."""
    return [_net(family) for family in timm.list_modules() if family not in ONLY_LISTED]


def _net(family: str) -> Net:
    if family == "convmixer":  # 32 layers, the least there are, leave of no place anything that could be told
        return Net(SOURCE, "convmixer: of 6 layers", partial(ConvMixer, 256, 6, kernel_size=7, patch_size=7))
    small = FAMILIES.get(family) or smallest(family)
    return Net(SOURCE, f"{family}: {small.name}", small.build, small.sides, off_centre=family == "levit")


def smallest(family: str) -> Small:
    """The network of fewest parameters, for families that are newer than the table above."""
    counts = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"):
            counts[name] = sum(weight.numel() for weight in timm.create_model(name, pretrained=False).parameters())
    name = min(counts, key=lambda name: counts[name])
    _, height, width = timm.get_pretrained_cfg(name).input_size
    return Small(name, (height, width))
