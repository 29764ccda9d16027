"""The preprocessing is read from the transform or the model, and what is assumed is said."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torchvision import transforms as v1
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from seewhy.errors import InputTypeError, SeewhyWarning
from seewhy.images import gather
from seewhy.preprocessing import Preprocessing, resolve_preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = nn.Identity()


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape or (20, 30, 3), dtype=np.uint8)


def load(inputs: Any, preprocessing: Preprocessing) -> tuple[torch.Tensor, np.ndarray]:
    images = gather(inputs)
    return images.load(0, len(images), preprocessing)


@pytest.mark.parametrize(
    ("transform", "words"),
    [(3, "3"), (ResNet18_Weights.DEFAULT, r"weights\.transforms\(\)"), (v1.ToTensor, r"ToTensor\(\)")],
)
def test_transform_that_is_none(transform: Any, words: str) -> None:
    with pytest.raises(InputTypeError, match=words):
        resolve_preprocessing(MODEL, transform)


FLOAT = v2.ToDtype(torch.float32, scale=True)


@pytest.mark.parametrize(
    ("transform", "mean", "std"),
    [
        (ResNet18_Weights.DEFAULT.transforms(), MEAN, STD),
        (v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)]), MEAN, STD),
        (v1.Compose([v1.Compose([v1.ToTensor()]), v1.Compose([v1.Normalize([0.5], [0.25])])]), (0.5,), (0.25,)),
        (v1.Compose([v1.ToTensor(), v1.Normalize(torch.tensor(MEAN), torch.tensor(STD))]), MEAN, STD),
        (v2.Compose([v2.ToImage(), FLOAT, v2.Normalize(list(MEAN), list(STD))]), MEAN, STD),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8, scale=True), FLOAT]), (0,), (1,)),
        (nn.Sequential(v2.ToImage(), FLOAT, v2.Normalize([0.5] * 3, [0.25] * 3)), (0.5,) * 3, (0.25,) * 3),
        (v1.ToTensor(), (0,), (1,)),
        (v1.Compose([v1.Resize(8), v1.ToTensor()]), (0,), (1,)),
        (v1.Compose([v1.PILToTensor(), v1.ConvertImageDtype(torch.float32)]), (0,), (1,)),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=False)]), (0,), (1 / 255,)),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=False), v2.Normalize([127], [128])]),
         (127 / 255,), (128 / 255,)),
        (v1.Compose([v1.ToTensor(), v1.Normalize([0.5], [0.5]), v1.Normalize([0.1], [2.0])]), (0.55,), (1.0,)),
        (v1.Compose([v1.PILToTensor(), v1.Lambda(lambda x: x / 255), v1.Normalize(MEAN, STD)]), MEAN, STD),
        (v1.Compose([v1.ToTensor(), v1.Lambda(lambda x: 2 * x - 1)]), None, None),
        (v1.Compose([v1.ToTensor(), lambda x: 2 * x - 1]), None, None),
        (lambda image: torch.zeros(3, 4, 5), None, None),
    ],
)  # fmt: skip
def test_normalisation_is_read(transform: Any, mean: Any, std: Any) -> None:
    """From presets, nested Compose of either version, Sequential; scaling and several Normalize are accounted for."""
    found = resolve_preprocessing(MODEL, transform)
    assert found.mean == (None if mean is None else pytest.approx(mean))
    assert found.std == (None if std is None else pytest.approx(std))
    assert not found.assumed
    assert ("unknown" in found.description) == (mean is None)


class Processor:
    """What a Hugging Face image processor looks like from outside."""

    image_mean, image_std = list(MEAN), list(STD)
    do_rescale, do_normalize, rescale_factor = True, True, 1 / 255

    def __call__(self, images: PIL.Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
        assert return_tensors == "pt"
        x = torch.from_numpy(np.array(images)).permute(2, 0, 1).double()
        x = x * self.rescale_factor if self.do_rescale else x
        if self.do_normalize:
            x = (x - torch.tensor(self.image_mean).view(-1, 1, 1)) / torch.tensor(self.image_std).view(-1, 1, 1)
        return {"pixel_values": x[None]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0] * 3},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0], "image_std": [1.0]},
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_hugging_face_processor(settings: dict[str, Any], wrapped: bool) -> None:
    """Called its own way and undone by its own settings; also within a multi-modal processor."""
    processor: Any = Processor()
    vars(processor).update(settings)
    if wrapped:
        inner, processor = processor, lambda text: text
        processor.image_processor = inner
    batch, seen = load(random_picture(), resolve_preprocessing(MODEL, processor))
    assert batch.shape == (1, 3, 20, 30)
    assert np.array_equal(seen[0], random_picture())


def timm_like(config: Any) -> nn.Module:
    model = nn.Identity()
    model.pretrained_cfg = config
    return model


CONFIG = {"input_size": (3, 32, 48), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.8}


@pytest.mark.parametrize("without", [True, False])
@pytest.mark.parametrize("wrap", ["bare", "object", "parallel", "inside", "compiled", "compiled inside"])
def test_timm_config(monkeypatch: pytest.MonkeyPatch, without: bool, wrap: str) -> None:
    """Size and normalisation are the model's own, with timm or without, in its wrappers too; nothing is assumed."""
    if without:
        monkeypatch.setitem(sys.modules, "timm.data", None)
    else:
        pytest.importorskip("timm")
    model = timm_like(type("Config", (), {})() if wrap == "object" else CONFIG)
    if wrap == "object":
        vars(model.pretrained_cfg).update(CONFIG)
    if wrap.startswith("compiled"):  # a wrapper that hands on all attributes, and is no model of timm's
        model = torch.compile(model)
    if wrap == "parallel":
        model = nn.DataParallel(model)
    if wrap.endswith("inside"):
        outer = nn.Identity()
        outer.module, model = model, outer
    found = resolve_preprocessing(model, None)
    assert found.mean == pytest.approx(CONFIG["mean"])
    assert found.std == pytest.approx(CONFIG["std"])
    assert not found.assumed
    assert "32x48" in found.description
    assert load(random_picture(60, 90, 3), found)[0].shape == (1, 3, 32, 48)


def test_given_transform_wins_over_the_model() -> None:
    assert resolve_preprocessing(timm_like(CONFIG), v1.ToTensor()).mean == (0.0,)


def assumed() -> Preprocessing:
    return resolve_preprocessing(MODEL, None)


def test_assumed_is_imagenets_usual() -> None:
    """The very pixels of torchvision's preset of the same settings; said in the description."""
    picture = PIL.Image.fromarray(random_picture(300, 400, 3))
    found = assumed()
    with pytest.warns(SeewhyWarning, match="No transform was given"):
        batch, seen = load(picture, found)
    preset = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert torch.equal(batch[0], preset(picture))
    assert found.assumed
    assert (found.mean, found.std) == (MEAN, STD)
    assert "assumed" in found.description
    assert seen.shape == (1, 224, 224, 3)


def test_assumption_is_said_once_and_only_for_pictures() -> None:
    """Float tensors do not go through the assumed transform; a second picture is not spoken of again."""
    found = assumed()
    load(torch.rand(3, 20, 30), found)
    with pytest.warns(SeewhyWarning, match="No transform was given") as said:
        load([random_picture(), random_picture()], found)
    assert len(said) == 1
    load(random_picture(), found)
    with pytest.warns(SeewhyWarning):
        load(random_picture(), assumed())
