"""What images a network takes when they are made and not given: their size, channels and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..arguments import device_of
from ..colours import colours
from ..engine.inputs import ModelInputs
from ..engine.look import look
from ..errors import InputError
from ..images import gather
from ..layers import Layer
from ..layouts import first_convolution

if TYPE_CHECKING:
    from ..explainer import Explainer

SIZE = 128  # pixels of a side, where the network takes any


class Canvas:
    """The images of an explainer's model ``(n, channels, size, size)`` of 0..1, and how they become its input.

    Args:
        explainer: of the borrowed model.
        layers: that are looked at, to try a size.
        inputs: what else the model is called with.
        size: pixels of a side; None: `usual` if the model takes that, else what its transform gives.
        usual: pixels of a side.

    Attributes:
        channels, size, device: of the images.
        widths: how many channels each layer has, by its label.

    Raises:
        InputError: the model takes no pictures of one or three channels.
    """

    def __init__(
        self,
        explainer: Explainer,
        layers: Sequence[Layer],
        inputs: ModelInputs,
        size: int | None = None,
        usual: int = SIZE,
    ) -> None:
        self._explainer, self._layers, self._inputs = explainer, layers, inputs
        first = first_convolution(explainer._inner)
        self.channels = first.in_channels if first else 3
        if explainer._sides != 2 or self.channels not in (1, 3):
            raise InputError(
                f"Images are made for networks that take pictures of 1 or 3 channels; this one begins with {first}."
            )
        parameters = (p for p in explainer._inner.parameters() if p.is_floating_point())
        self._dtype = next((p.dtype for p in parameters), torch.float32)
        self.device = device_of(explainer._inner, explainer._device) or torch.device("cpu")
        self._colours = self._own_colours()
        self.free = True  # whether the model takes other sizes than its transform's
        self.size = self._own_size(usual) if size is None else size
        self.widths = self._tried(self.size)

    def to_input(self, images: Tensor) -> Tensor:
        """Images in 0..1 with the colours that the model's transform gives them, in the model's precision."""
        weights, offset = (part.to(images) for part in self._colours)
        return (torch.einsum("cd,ndhw->nchw", weights, images) + offset.view(-1, 1, 1)).to(self._dtype)

    def _own_colours(self) -> tuple[Tensor, Tensor]:
        """What the model's transform makes of colours in 0..1: weights ``(channels, channels)`` and offsets.

        Where nobody gave a transform it is ImageNet's normalisation; else that of flat pictures which go through it.
        """
        preprocessing = self._explainer._preprocessing
        found = colours(preprocessing, self.channels)
        if found is None:
            preprocessing.say_once(
                "The normalisation of the model's transform is unknown, or more than weights and an offset for each "
                "colour, so images are given to the model as 0..1."
            )
            return torch.eye(self.channels), torch.zeros(self.channels)
        return found

    def _own_size(self, usual: int) -> int:
        try:
            self._tried(usual)
        except Exception:  # the model's own: of another size it says so in its own way
            noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
            batch, _ = self._explainer._load(gather(noise), 0, 1, seen=False)
            self.free = False
            return self._last_try(usual, int(batch.shape[-1]))
        return usual

    def _last_try(self, usual: int, own: int) -> int:
        """The size that the transform gives, if the model takes that."""
        try:
            self._tried(own)
        except Exception as error:
            raise InputError(
                f"The model takes neither images of {usual} pixels nor what its transform gives, {own}: say which with "
                "size=, or Explainer(..., transform=...). It says: " + " ".join(str(error).split())[:200]
            ) from error
        return own

    def _tried(self, size: int) -> dict[str, int]:
        """How many channels each layer has, in a run on an image of this size."""
        blank = torch.full((1, self.channels, size, size), 0.5, device=self.device)
        found, _ = look(
            self._explainer._inner, self.to_input(blank), self._layers, self._explainer._layout, self._inputs
        )
        return {label: captured.value.shape[1] for label, captured in found.items()}
