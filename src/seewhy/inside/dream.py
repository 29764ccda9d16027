"""Deep dream: a photo, changed to have more of what a layer already sees in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..arguments import whole
from ..engine.ascent import Ascent
from ..engine.borrow import borrowed
from ..engine.diagnose import refuse_unsound
from ..engine.inputs import make_inputs
from ..engine.rules import graph
from ..engine.straighten import straighten
from ..errors import GradientError, InputError, NonFiniteError
from ..photos import Photo, read
from ..progress import bar
from ..render.tiles import tile
from ..result import Result
from .asked import check_explainer, one_layer
from .canvas import Canvas
from .objectives import channel_numbers
from .wobble import seed_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

LONGEST = 512  # pixels of the photo's longer side while it dreams
SMALLEST = 64  # pixels of the shorter side of the first octave


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dream(Result):
    """A photo as a layer would have it; what `deep_dream` returns.

    Attributes:
        image: uint8 ``(H, W, 3)``, the dream.
        original: uint8 of the same shape, the photo.
        history: float32 ``(octaves, steps)``, the objective at each step, of the photo as it was shifted then.
        layer: whose activation grew.
    """

    image: NDArray[np.uint8]
    original: NDArray[np.uint8]
    history: NDArray[np.float32]
    layer: str

    def __repr__(self) -> str:
        octaves, steps = self.history.shape
        several = f"{octaves} octave{'s' * (octaves != 1)} of {steps} step{'s' * (steps != 1)}"
        return f"Dream(layer={self.layer!r}, image={self.image.shape}, {several})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The photo, and beside it the dream."""
        ax = self._axes(ax)
        ax.imshow(tile([self.original, self.image], columns=2))
        ax.set_title(f"a dream of {self.layer}", fontsize=9, parse_math=False)
        ax.set_axis_off()
        return ax

    def _size(self) -> tuple[float, float]:
        height, width = self.image.shape[:2]
        return 8.0, 4.0 * height / width + 0.35


def deep_dream(
    explainer: Explainer,
    image: Photo,
    layer: Any,
    *,
    channels: Sequence[int] | int | None = None,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    strength: float = 0.01,
    seed: int = 0,
    progress: bool | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> Dream:
    """The photo, changed step by step so that the mean square of a layer's activation grows (Mordvintsev 2015).

    It starts from the photo made small and goes on at `octaves` sizes; what was dreamt at one is carried to the next,
    together with the detail that the photo lost by being small. At every step the photo is shifted at random.

    Args:
        explainer: of the model; its transform says how images are normalised (without one: as for ImageNet).
        image: a path, PIL image or array ``(H, W[, 3 or 4])``; a longer side than 512 pixels is reduced to these. For a
            network that takes one size only the photo is squeezed into that at every step.
        layer: whose activation grows, by name or module.
        channels: those that count; None: all.
        octaves: sizes, each `scale` times the one before; fewer where the photo would be smaller than 64 pixels.
        scale: above 1.
        steps: at each size.
        strength: the mean change of the pixels in a step, in 0..1.
        seed: of the shifts: the same one gives the same dream.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the model, as for `Explainer.explain`.
        model_kwargs: the same by name.

    Returns:
        A `Dream`.

    Raises:
        UnknownNameError: there is no such layer.
        InputError: an option is out of range, or the layer has no such channel.
        GradientError: no gradient arrives at the photo.

    >>> import seewhy
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> dream = deep_dream(explainer, np.full((40, 60, 3), 128, np.uint8), "left", octaves=1, steps=2)
    >>> dream.image.shape, dream.history.shape
    ((40, 60, 3), (1, 2))
    """
    check_explainer(explainer)
    numbers = all(isinstance(one, int | float) for one in (scale, strength))
    if not numbers or not scale > 1 or not strength > 0:
        raise InputError(f"scale must be above 1 and strength above 0, not {scale!r} and {strength!r}.")
    original = _reduced(read(image))
    model, inputs = explainer._inner, make_inputs(model_args, model_kwargs)
    with borrowed(model):
        found = [one_layer(explainer, layer, "deep_dream")]
        canvas = Canvas(explainer, found, inputs)
        dreamer = _Dreamer(Ascent(model, found, explainer._layout, inputs, output=False), canvas, channels, strength)
        sizes = _sizes(original.shape[:2], whole(octaves, "octaves"), scale)
        with bar(progress, len(sizes) * whole(steps, "steps"), doing="dreaming", unit="step") as shown:
            image_now, history = dreamer.dream(original, sizes, steps, seed, shown.update)
    return Dream(
        image=image_now,
        original=original,
        history=np.array(history, np.float32).reshape(len(sizes), steps),
        layer=found[0].label,
        provenance={"model": type(model).__name__, "seed": str(seed)},
    )


class _Dreamer:
    """Climbs the photo at one size after another."""

    def __init__(self, ascent: Ascent, canvas: Canvas, channels: Any, strength: float) -> None:
        self._ascent, self._canvas, self._strength = ascent, canvas, strength
        width = next(iter(canvas.widths.values()))
        self._channels = channel_numbers(channels, width, most=width)

    def dream(
        self, original: NDArray[np.uint8], sizes: Sequence[tuple[int, int]], steps: int, seed: int, done: Any
    ) -> tuple[NDArray[np.uint8], list[float]]:
        """The dream at the last size, and the objective at each step."""
        photo = torch.tensor(original).movedim(-1, 0)[None].to(self._canvas.device).float() / 255
        photo = photo if self._canvas.channels == 3 else photo.mean(1, keepdim=True)
        draw, history = np.random.default_rng(seed_of(seed)), []
        dreamt = _resized(photo, sizes[0])
        moved = False
        for size in sizes:
            before = dreamt.shape[2:]
            lost = _resized(photo, size) - _resized(_resized(photo, tuple(before)), size)
            dreamt = (_resized(dreamt, size) + lost).clamp(0, 1)
            for _ in range(steps):
                stepped, value = self._step(dreamt, draw)
                moved |= not torch.equal(stepped, dreamt)
                dreamt = stepped
                history.append(value)
                done()
        if not moved:
            raise GradientError(
                "No gradient arrives at the photo: these channels are dead there. Name others, or a layer."
            )
        levels = (dreamt[0].clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
        return levels.movedim(0, -1).contiguous().cpu().numpy(), history

    def _step(self, image: Tensor, draw: np.random.Generator) -> tuple[Tensor, float]:
        """One step, with the image shifted at random and shifted back."""
        shift = tuple(int(draw.integers(-side // 8, side // 8 + 1)) for side in image.shape[2:])
        moved = image.roll(shift, (2, 3)).requires_grad_()
        shown = moved if self._canvas.free else _resized(moved, (self._canvas.size,) * 2)
        activations, _ = self._ascent(self._canvas.to_input(shown))
        (activation,) = activations.values()
        value = activation[:, self._channels].square().mean()
        if not value.isfinite():
            raise NonFiniteError("The layer answers NaN or infinity: the model's weights hold some, or it overflows.")
        if not value.requires_grad:
            raise GradientError("The layer does not depend on the image, so there is nothing to dream of.")
        nodes = list(graph([value]))
        refuse_unsound(value[None], nodes)
        straighten(nodes)
        (gradient,) = torch.autograd.grad(value, moved)
        with torch.no_grad():
            change = gradient / (gradient.abs().mean() + 1e-12)
            return (moved + self._strength * change).clamp(0, 1).roll([-s for s in shift], (2, 3)), float(value)


def _sizes(size: tuple[int, ...], octaves: int, scale: float) -> list[tuple[int, int]]:
    """The sizes (height, width) from small to the photo's own, none with a side below 64 but the last."""
    found = [(round(size[0] / scale**i), round(size[1] / scale**i)) for i in range(octaves)]
    return [one for i, one in enumerate(found) if i == 0 or min(one) >= SMALLEST][::-1]


def _reduced(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    share = LONGEST / max(photo.shape[:2])
    if share >= 1:
        return photo
    height, width = (max(1, round(side * share)) for side in photo.shape[:2])
    return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, tuple(size), mode="bilinear", antialias=True, align_corners=False)
