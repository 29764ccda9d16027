"""What filters look for: images that climb what a channel, a neuron or a class answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.ascent import Ascent
from ..engine.borrow import borrowed
from ..engine.inputs import make_inputs
from ..errors import InputError, UnknownNameError, close_matches, warn
from ..layers import find_layers
from ..progress import bar
from ..render.text import fit
from ..render.tiles import corners, tile
from ..result import Result
from .asked import check_explainer, one_layer
from .canvas import SIZE, Canvas
from .climb import Climbed, Climber
from .objectives import Channel, Objective, channel_numbers, make_objectives
from .parametrisation import Fourier, Parametrisation, Phase, Pixels, magnitude_of
from .recipes import RECIPES, Recipe
from .shown import opacity, pixels
from .stream import Stream
from .wobble import seed_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

MOST = 64  # channels where none are named
CAPTION = 7.0  # points


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Maximized(Result):
    """Images that excite what was asked for; what `maximize` returns.

    Attributes:
        images: uint8 ``(K, size, size, 3)``; with `copies` of each, one after another, ``(K * copies, …)``. Blank,
            all mid-grey, where no gradient ever arrived.
        alpha: float32 ``(K, size, size)`` in 0..1, where the gradient went while climbing: 1 where most, clipped at the
            99th percentile of each image (Fel 2023); 0 all over where none arrived.
        history: float32 ``(steps + 1, K)``, the objectives: the first and the last row of the images as they are, the
            rows between as they were shaken in that step; the mean over `copies`. Classic images count as they climbed:
            before they are evened, with their borders.
        names: of the objectives.
        layer: the layer looked at; ``""`` for classes, several joined by commas.
        method: ``"fourier"``, ``"maco"`` or ``"classic"``.
        copies: images of each objective.
    """

    images: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    history: NDArray[np.float32]
    names: tuple[str, ...]
    layer: str
    method: str
    copies: int = 1

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size, where = self.images.shape[1], f" at {self.layer}" if self.layer else ""
        rises = f"{int((self.history[-1] > self.history[0]).sum())} of {len(self.names)} rose"
        return f"Maximized({self.method}{where}, images={self.images.shape}, size={size}, {rises})"

    @property
    def _captions(self) -> list[str]:
        """The short names: of channels of one layer the numbers alone."""
        short = [name.replace(f" of {self.layer}", "") if self.layer else name for name in self.names]
        if all(name.startswith("channel ") and name[8:].isdecimal() for name in short):
            short = [name[8:] for name in short]
        every = [name for name in short for _ in range(self.copies)]
        return [name if alpha.any() else f"{name} dead" for name, alpha in zip(every, self.alpha, strict=True)]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The images as tiles, eight a row, each with the number of its channel or its name."""
        ax = self._axes(ax)
        columns, (height, width) = self._columns, self.images.shape[1:3]
        ax.imshow(tile(list(self.images), columns), interpolation="nearest" if width < 64 else "antialiased")
        places = corners(len(self), height, width, columns)
        room = 72 * ax.get_window_extent().width / ax.figure.dpi / columns - 2 * CAPTION  # points
        for caption, (x, y) in zip(self._captions, places, strict=True):
            ax.text(
                x + width * 0.03, y + height * 0.03, fit(caption, room, CAPTION, lines=3), va="top", fontsize=CAPTION,
                color="white", clip_on=True, parse_math=False,
                bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.0},
            )  # fmt: skip
        ax.set_title(f"{self.layer or 'classes'}, {self.method}", fontsize=9, parse_math=False)
        ax.set_axis_off()
        return ax

    @property
    def _columns(self) -> int:
        return min(8, len(self))

    def _size(self) -> tuple[float, float]:
        rows = -(-len(self) // self._columns)
        side = max(1.1, 2.6 / self._columns)
        return side * self._columns + 0.1, side * rows + 0.35


def maximize(
    explainer: Explainer,
    layer: Any = None,
    channels: Sequence[int] | int | None = None,
    *,
    objective: Any = None,
    method: Literal["fourier", "maco", "classic"] = "fourier",
    size: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    copies: int = 1,
    photos: Any = None,
    rate: float | None = None,
    batch_size: int = MOST,
    progress: bool | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> Maximized:
    """Images that excite channels of a layer, or any other objective, as much as gradient ascent can.

    All of them climb in one batch, and none knows of the others: the same channel alone gives the same image. On the
    CPU each passes the model by itself, which costs less than all at once and rounds as one alone; on a GPU all do.

    Args:
        explainer: of the model; its transform says how images are normalised (without one: as for ImageNet).
        layer: the layer, by name or module.
        channels: numbers of its channels; None: the first 64.
        objective: instead of channels an `Objective`, a function from the layer's activation ``(n, C, h, w)`` to
            ``(n,)``, or a list of these.
        method: ``"fourier"`` (Olah 2017: the spectrum of decorrelated colours is climbed by Adam, the image shifted,
            scaled and rotated a little at every step), ``"maco"`` (Fel 2023: the phase alone, the magnitudes staying
            as natural images have them) or ``"classic"`` (Simonyan 2013: pixels from near grey, 30 steps along the
            normalised gradient, shown with a mean of 128 and 64 grey levels per deviation, borders cut).
        size: pixels of the images' sides; None: 128, or what the model takes (of the classic without
            its borders).
        steps: of the ascent; None: 128, or 30 of the classic.
        seed: the same one gives the same images; on a GPU, whose sums have no fixed order, nearly.
        copies: images of each objective, for `inside.Diversity`.
        photos: for maco, natural images whose mean magnitude spectrum is taken; None: 1/f.
        rate: of a step; None: what suits the method.
        batch_size: images at once; halved where memory does not suffice. It changes no image.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the model, as for `Explainer.explain`, the same for all images.
        model_kwargs: the same by name.

    Returns:
        A `Maximized`.

    Raises:
        UnknownNameError: there is no such method, layer or class.
        InputError: no objective, or channels that the layer does not have; the model takes no pictures.
        GradientError: no gradient arrives at the image.

    >>> import seewhy
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> maximize(explainer, "left", channels=[0, 3], size=24, steps=4).images.shape
    (2, 24, 24, 3)
    """
    check_explainer(explainer)
    recipe, seed = _recipe(method, steps, rate), seed_of(seed)
    wanted = None if size is None else whole(size, "size")
    model, inputs = explainer._inner, make_inputs(model_args, model_kwargs)
    with borrowed(model):
        objectives, labels = _placed(explainer, objective, layer, channels)
        layers = tuple(find_layers(model, list(labels.values())))
        canvas = Canvas(explainer, layers, inputs, wanted and recipe.canvas(wanted), recipe.canvas(SIZE))
        if objective is None:
            numbers = channel_numbers(channels, canvas.widths[labels[layer]], MOST)
            objectives = [Channel(labels[layer], number) for number in numbers]
        ascent = Ascent(model, layers, explainer._layout, inputs, output=any(one.scores for one in objectives))
        starter = _starter(explainer, method, canvas, seed, photos)
        step = max(1, whole(batch_size, "batch_size") // whole(copies, "copies"))
        with bar(progress, recipe.steps * -(-len(objectives) // step), doing="climbing", unit="step") as shown:
            climber = Climber(ascent, canvas.to_input, explainer, labels, recipe, copies, seed, shown.update)
            parts = [_climbed(climber, objectives[i : i + step], starter) for i in range(0, len(objectives), step)]
    found = [one for part in parts for one in part]
    _warn_of_dead(objectives, torch.cat([one.alive for one in found]))
    side = wanted or (SIZE if canvas.free else canvas.size - 2 * round(canvas.size * recipe.margin))
    return Maximized(
        images=np.concatenate([pixels(one, side, even=recipe.normalised) for one in found]),
        alpha=np.concatenate([opacity(one, side) for one in found]),
        history=np.concatenate([one.history for one in found], 1),
        names=tuple(one.name for one in objectives),
        layer=", ".join(dict.fromkeys(labels.values())),
        method=method,
        copies=copies,
        provenance={"model": type(model).__name__, "seed": str(seed)},
    )


def _recipe(method: str, steps: int | None, rate: float | None) -> Recipe:
    if method not in RECIPES:
        raise UnknownNameError(
            f"There is no way to climb {method!r}.{close_matches(str(method), RECIPES)} Known: {', '.join(RECIPES)}."
        )
    recipe = RECIPES[method]
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
        raise InputError(f"rate must be above 0, not {rate!r}.")
    return replace(
        recipe,
        steps=recipe.steps if steps is None else whole(steps, "steps"),
        rate=recipe.rate if rate is None else float(rate),
    )


def _placed(explainer: Explainer, objective: Any, layer: Any, channels: Any) -> tuple[list[Objective], dict[Any, str]]:
    """The objectives given, none where channels are asked for, and the label of each layer that they name."""
    if objective is None:
        if layer is None:
            raise InputError("Say what to maximize: a layer (and channels of it), or objective=.")
        label = one_layer(explainer, layer, "maximize").label
        return [], {layer: label, label: label}
    if channels is not None:
        raise InputError("objective= and channels= are two ways to say what to maximize: give one of them.")
    given = make_objectives(objective, layer)
    labels = {one: one_layer(explainer, one, "maximize").label for objective in given for one in objective.layers}
    objectives = [one.resolved(explainer._about, labels) for one in given]
    return objectives, labels | {label: label for label in labels.values()}


def _starter(
    explainer: Explainer, method: str, canvas: Canvas, seed: int, photos: Any
) -> Callable[[Sequence[str]], Parametrisation]:
    """Makes the first images for names of objectives."""
    if photos is not None and method != "maco":
        raise InputError(f"photos= gives maco its magnitudes, and method is {method!r}: leave it out.")
    if method == "maco":
        magnitude = None
        if photos is not None:
            pictures = np.concatenate([batch.pictures for batch in Stream(explainer, photos)])
            magnitude = magnitude_of(pictures, canvas.size, canvas.channels)
        return lambda names: Phase(names, canvas.channels, canvas.size, seed, magnitude, canvas.device)
    kind = Fourier if method == "fourier" else Pixels
    return lambda names: kind(names, canvas.channels, canvas.size, seed, canvas.device)


def _climbed(
    climber: Climber, objectives: Sequence[Objective], starter: Callable[[Sequence[str]], Parametrisation]
) -> list[Climbed]:
    """All at once; in halves where memory does not suffice."""
    names = [f"{one.name} {i}" for one in objectives for i in range(climber.copies)]
    try:
        return [climber.climb(objectives, starter(names))]
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if len(objectives) < 2 or not is_out_of_memory(error):
            raise
    half = len(objectives) // 2
    return _climbed(climber, objectives[:half], starter) + _climbed(climber, objectives[half:], starter)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory does not suffice, on a GPU or the CPU."""
    words = ("out of memory", "DefaultCPUAllocator", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def _warn_of_dead(objectives: Sequence[Objective], alive: Tensor) -> None:
    """Say which objectives had no gradient, at any step, in any copy."""
    ever = alive.cpu().view(len(objectives), -1).any(1).tolist()
    if dead := [one.name for one, lives in zip(objectives, ever, strict=True) if not lives]:
        more = f" and {len(dead) - 8} more" if len(dead) > 8 else ""
        warn(
            f"No gradient reaches {', '.join(dead[:8])}{more}: dead from this start, and blank instead of an image. "
            "Another seed= may wake it, or the layer before a ReLU."
        )
