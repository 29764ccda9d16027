"""What a picture goes through on its way into the model, and the normalisation to undo when it is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import nn

from .errors import InputTypeError, warn
from .layers import unwrap

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input, and how to undo that for showing it.

    `transform` takes an RGB PIL image and gives a float tensor (C, H, W). `mean` and `std` are per channel (or one for
    all), of values in 0..1; None where they are unknown. `assumed` says that ImageNet's usual was taken because nobody
    said anything; `description` is one line for people; `said` what was already warned of.
    """

    transform: Callable[[PIL.Image.Image], torch.Tensor]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    assumed: bool
    description: str
    said: set[str] = field(default_factory=set, compare=False, repr=False)

    def say_once(self, message: str) -> None:
        """Warn of what was assumed, the first time."""
        if message not in self.said:
            self.said.add(message)
            warn(message)


def resolve_preprocessing(model: nn.Module, transform: Callable[..., Any] | None) -> Preprocessing:
    """The preprocessing that belongs to `transform`, else to the model (timm), else ImageNet's usual, assumed.

    Raises InputTypeError where `transform` cannot be called with an image.

    >>> resolve_preprocessing(nn.Identity(), None).description
    "ImageNet's usual (assumed): short side 256, crop 224x224, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    """
    if transform is not None:
        return _given(transform)
    owner = _timm_model(model)
    return _assumed() if owner is None else _from_timm(*owner)


def _given(transform: Callable[..., Any]) -> Preprocessing:
    if isinstance(transform, type) or not callable(transform):
        forgot = "()" if isinstance(transform, type) else ".transforms()" if hasattr(transform, "transforms") else ""
        hint = f" Pass {getattr(transform, '__name__', 'weights')}{forgot}." if forgot else ""
        raise InputTypeError(
            f"transform is {transform!r}; expected a callable from an RGB PIL image to a tensor.{hint}"
        )
    processor = getattr(transform, "image_processor", transform)
    if hasattr(processor, "image_mean") and hasattr(processor, "image_std"):
        found = _processor_normalisation(processor)
        transform = partial(_run_processor, processor)
    else:
        found = _normalisation(transform)
    mean, std = found or (None, None)
    return Preprocessing(transform, mean, std, False, f"given: {_describe(mean, std)}")


def _describe(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> str:
    if mean is None or std is None:
        return "normalisation unknown"
    return "mean ({}), std ({})".format(*(", ".join(f"{v:.4g}" for v in values) for values in (mean, std)))


def _run_processor(processor: Any, image: PIL.Image.Image) -> Any:
    return processor(images=image, return_tensors="pt")["pixel_values"]


def _processor_normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Of a Hugging Face image processor, which scales 0..255 by `rescale_factor` and then normalises."""
    normalises = getattr(processor, "do_normalize", True) is not False
    mean = _floats(processor.image_mean) if normalises else np.zeros(1)
    std = _floats(processor.image_std) if normalises else np.ones(1)
    if mean is None or std is None:
        return None
    factor = getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0
    return tuple((mean / (255 * factor)).tolist()), tuple((std / (255 * factor)).tolist())


def _normalisation(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of all the steps together; None where a step may do anything, or nothing makes floats."""
    mean, std = np.zeros(1), np.ones(1)
    normalised = is_float = opaque = False
    for step in _steps(transform):
        own_mean, own_std = _floats(getattr(step, "mean", None)), _floats(getattr(step, "std", None))
        if own_mean is not None and own_std is not None:
            mean, std = mean + std * own_mean, std * own_std
            normalised = is_float = True
        elif _makes_float(step):
            if not is_float and getattr(step, "scale", True) is False:  # ToDtype(torch.float32): 0..255 as floats
                std = std / 255
            is_float = True
        else:
            opaque = opaque or _may_do_anything(step)
    if not normalised and (opaque or not is_float):
        return None
    mean, std = np.broadcast_arrays(mean, std)
    return tuple(mean.tolist()), tuple(std.tolist())


def _steps(transform: Any) -> Iterator[Any]:
    inner = list(transform) if isinstance(transform, nn.Sequential) else getattr(transform, "transforms", None)
    if isinstance(inner, (list, tuple, nn.ModuleList)):
        for step in inner:
            yield from _steps(step)
    else:
        yield transform


def _makes_float(step: Any) -> bool:
    if any(kind.__name__ == "ToTensor" for kind in type(step).__mro__):
        return True
    dtype = getattr(step, "dtype", None)
    dtypes = dtype.values() if isinstance(dtype, Mapping) else [dtype]
    return any(isinstance(d, torch.dtype) and d.is_floating_point for d in dtypes)


def _may_do_anything(step: Any) -> bool:
    known = type(step).__module__.startswith(("torchvision.transforms", "timm.data"))
    return not known or type(step).__name__ in ("Lambda", "LinearTransformation")


def _floats(values: Any) -> NDArray[np.float64] | None:
    """A number, list or tensor as a vector; None where it is nothing of that kind (a method called `mean`)."""
    try:
        vector = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().flatten().numpy()
    except (TypeError, ValueError, RuntimeError):
        return None
    return vector if vector.size else None


def _assumed() -> Preprocessing:
    numbers = _describe(IMAGENET_MEAN, IMAGENET_STD)
    description = f"ImageNet's usual (assumed): short side 256, crop 224x224, {numbers}"
    usual = _resize_and_crop(256, (224, 224), "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(usual, IMAGENET_MEAN, IMAGENET_STD, True, description)


def _resize_and_crop(
    short: int, crop: tuple[int, int], interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[PIL.Image.Image], torch.Tensor]:
    from torchvision import transforms

    resize = transforms.Resize(short, transforms.InterpolationMode(interpolation), antialias=True)
    steps = [resize, transforms.CenterCrop(crop), transforms.ToTensor(), transforms.Normalize(mean, std)]
    composed: Callable[[PIL.Image.Image], torch.Tensor] = transforms.Compose(steps)
    return composed


def _timm_model(model: nn.Module) -> tuple[nn.Module, dict[str, Any]] | None:
    """The model inside its wrappers (DataParallel, torch.compile) that has a `pretrained_cfg`, and that."""
    inner: Any = model
    while isinstance(inner, nn.Module):
        inner = unwrap(inner)
        config = getattr(inner, "pretrained_cfg", None)
        if isinstance(config, Mapping) or hasattr(config, "__dict__"):
            return inner, dict(config if isinstance(config, Mapping) else vars(config))
        inner = getattr(inner, "module", None)
    return None


def _from_timm(model: nn.Module, config: dict[str, Any]) -> Preprocessing:
    try:
        timm_data: Any = importlib.import_module("timm.data")
    except ImportError:
        transform, size = _timm_by_hand(config)
    else:
        resolved = timm_data.resolve_model_data_config(model, pretrained_cfg=config)
        transform, size = timm_data.create_transform(**resolved, is_training=False), resolved["input_size"]
    mean, std = _normalisation(transform) or (None, None)
    described = f"timm's pretrained_cfg: {size[-2]}x{size[-1]}, {_describe(mean, std)}"
    return Preprocessing(transform, mean, std, False, described)


def _timm_by_hand(config: dict[str, Any]) -> tuple[Callable[[PIL.Image.Image], torch.Tensor], tuple[int, ...]]:
    """What timm would build for the usual centre crop, where timm is not installed."""
    size = tuple(config.get("input_size") or (3, 224, 224))
    short = int(min(size[-2:]) / (config.get("crop_pct") or 0.875))
    mean, std = tuple(config.get("mean") or IMAGENET_MEAN), tuple(config.get("std") or IMAGENET_STD)
    interpolation = config.get("interpolation") or "bicubic"
    return _resize_and_crop(short, (size[-2], size[-1]), interpolation, mean, std), size
