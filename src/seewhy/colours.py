"""What a model's transform makes of colours, worked out by sending flat pictures through it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .images import gather
from .preprocessing import Preprocessing

_COLOURS = (  # flat pictures that are sent through a transform: four say what it does, the others that it is all
    (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (40, 90, 200), (200, 130, 30), (128, 128, 128),
)  # fmt: skip
_FLAT = 64  # pixels of their sides
_SLACK = 0.01  # of the range of the results: pictures have 256 levels, on the way too


def colours(preprocessing: Preprocessing, channels: int) -> tuple[Tensor, Tensor] | None:
    """Weights ``(channels, channels)`` and offsets by which colours in 0..1 become the model's input; None if unknown.

    Where nobody gave a transform it is ImageNet's normalisation, of three channels.
    """
    if not preprocessing.assumed:
        return _measured(preprocessing, channels)
    if channels != 3 or not (preprocessing.mean and preprocessing.std):
        return None
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return torch.diag(1 / std), -mean / std


def _measured(preprocessing: Preprocessing, channels: int) -> tuple[Tensor, Tensor] | None:
    """The weights and offsets that a transform gives to colours; None where it does more, or nothing with them."""
    sent = np.array(_COLOURS, np.uint8)
    flat = np.broadcast_to(sent[:, None, None], (len(sent), _FLAT, _FLAT, 3))
    batch, _ = gather(np.ascontiguousarray(flat)).load(0, len(flat), preprocessing, seen=False)
    if batch.shape[1] != channels:
        return None
    found = batch.double().cpu()[:, :, batch.shape[2] // 2, batch.shape[3] // 2].numpy()
    given = np.column_stack([sent / 255, np.ones(len(sent))])
    fitted = np.linalg.lstsq(given, found, rcond=None)[0]
    spread = np.ptp(found)
    if not spread or np.abs(given @ fitted - found).max() > _SLACK * spread:
        return None
    weights, offset = torch.tensor(fitted[:3].T, dtype=torch.float32), torch.tensor(fitted[3], dtype=torch.float32)
    return (weights if channels == 3 else weights.sum(1, keepdim=True)), offset


def to_input(preprocessing: Preprocessing, sides: int, pictures: Tensor, inputs: Tensor) -> Tensor:
    """What a model of so many `sides` would get for `pictures` ``(n, C, H, W)`` of 0..1 in the place of these `inputs`.

    Raises:
        InputError: nobody can tell.
    """
    found = colours(preprocessing, inputs.shape[1]) if sides == 2 else None
    if found is None:
        raise InputError(
            "What the model would get for a black, white or noisy picture is unknown: its transform does more to "
            "colours than weigh and shift them, or it takes no pictures. Give baseline='mean', 'blur', or a tensor."
        )
    weights, offset = (part.to(pictures) for part in found)
    changed = torch.einsum("cd,ndhw->nchw", weights, pictures) + offset.view(-1, 1, 1)
    if preprocessing.assumed:
        preprocessing.say_once(
            "No transform was given: black, white and noise are taken to be normalised as ImageNet's usual, or to "
            "be 0..1 as they are for inputs within 0..1. Pass transform=..., or a tensor as the baseline."
        )
        plain = ((inputs >= 0) & (inputs <= 1)).flatten(1).all(1)
        changed = torch.where(plain.view(-1, 1, 1, 1), pictures, changed)
    return changed
