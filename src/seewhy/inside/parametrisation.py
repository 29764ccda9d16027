"""Images as something easier to climb than pixels: spectra, phases, and colours that do not go together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Natural images' colours go together: brightness varies most, then blue against yellow. The square root of their
# covariance in ImageNet (Olah 2017, "Feature visualization", decorrelated space); columns are those three directions.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS = _COLOURS / _COLOURS.norm(dim=0).max()
SOFT = 3  # what the spectrum's steps are divided by: without it colours soon are nothing but full or none


class Parametrisation(Protocol):
    """Images ``(n, C, size, size)`` in 0..1 as a function of `values`, the leaf that is climbed."""

    values: Tensor

    def images(self) -> Tensor:
        """The images, in the graph of `values`."""


class Pixels:
    """The pixels themselves, from uniform noise in 0.4..0.6 on (Simonyan 2013); they may leave 0..1 while climbing."""

    def __init__(self, names: Sequence[str], channels: int, size: int, seed: int, device: torch.device) -> None:
        start = _noise(names, (channels, size, size), seed, torch.rand)
        self.values = (0.4 + 0.2 * start).to(device).requires_grad_()

    def images(self) -> Tensor:
        """As they are."""
        return self.values


class Fourier:
    """The spectrum, each frequency scaled as natural images have it, 1/f, and colours decorrelated (Olah 2017)."""

    def __init__(self, names: Sequence[str], channels: int, size: int, seed: int, device: torch.device) -> None:
        self._size, self._scale = size, _falloff(size) / SOFT
        shape = (channels, size, size // 2 + 1, 2)
        self.values = (0.01 * _noise(names, shape, seed, torch.randn)).to(device).requires_grad_()

    def images(self) -> Tensor:
        """The inverse transform, in colour and squeezed into 0..1."""
        spectrum = torch.view_as_complex(self.values) * self._scale.to(self.values.device)
        return _coloured(torch.fft.irfft2(spectrum, s=(self._size, self._size))).sigmoid()


class Phase:
    """The phase alone, under a magnitude spectrum that stays as natural images have it (MACO: Fel 2023, eq. 5).

    Args:
        names: of the objectives.
        channels: 3, or 1 for grey.
        size: of the images' sides.
        seed: of the first phases.
        magnitude: ``(channels, size, size // 2 + 1)``, of natural images in decorrelated colours; None: 1/f.
    """

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        size: int,
        seed: int,
        magnitude: Tensor | None,
        device: torch.device,
    ) -> None:
        self._size = size
        self._magnitude = _usual_magnitude(channels, size) if magnitude is None else magnitude
        noise = _noise(names, (channels, size, size // 2 + 1), seed, torch.randn)
        self.values = noise.to(device).requires_grad_()

    def images(self) -> Tensor:
        """The inverse transform, evened to a contrast that natural images have, in colour and squeezed into 0..1."""
        magnitude = self._magnitude.to(self.values.device)
        flat = torch.fft.irfft2(torch.polar(magnitude.expand_as(self.values), self.values), s=(self._size, self._size))
        return _coloured(torch.stack([_evened(one) for one in flat])).sigmoid()


def magnitude_of(pictures: NDArray[np.uint8], size: int, channels: int) -> Tensor:
    """The mean magnitude spectrum ``(channels, size, size // 2 + 1)`` of pictures ``(n, H, W, 3)``, decorrelated."""
    images = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
    images = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    flat = images.clamp(0.01, 0.99).logit()
    if channels == 3:
        flat = torch.einsum("cd,ndhw->nchw", torch.linalg.inv(_COLOURS), flat)
    else:
        flat = flat.mean(1, keepdim=True)
    spectra: Tensor = torch.fft.rfft2(flat - flat.mean((2, 3), keepdim=True))
    return spectra.abs().mean(0)


def _evened(flat: Tensor) -> Tensor:
    """One image ``(C, h, w)`` with a mean of 0 and a deviation of 1; alone, as sums over a batch round otherwise."""
    flat = flat - flat.mean((1, 2), keepdim=True)
    return flat / (flat.std() + 1e-6)


def _usual_magnitude(channels: int, size: int) -> Tensor:
    return _falloff(size).expand(channels, -1, -1)


def _falloff(size: int) -> Tensor:
    """1/f for each frequency of a spectrum ``(size, size // 2 + 1)``, so scaled that contrast hardly knows the size."""
    down, across = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    frequency = (down**2 + across**2).sqrt()
    scale: Tensor = size / frequency.clamp_min(1 / size)
    return scale


def _coloured(flat: Tensor) -> Tensor:
    """Decorrelated colours ``(n, 3, h, w)`` as red, green and blue; grey stays as it is."""
    if flat.shape[1] != 3:
        return flat
    return torch.einsum("cd,ndhw->nchw", _COLOURS.to(flat), flat)


def _noise(names: Sequence[str], shape: tuple[int, ...], seed: int, draw: Callable[..., Tensor]) -> Tensor:
    """Noise for each name, the same whatever names there are besides."""
    drawn = []
    for name in names:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))  # it takes 32 bits
        drawn.append(draw(shape, generator=generator))
    return torch.stack(drawn)
