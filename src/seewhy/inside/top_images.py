"""Which images of a data set excite a channel most, and where in them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole as whole_number
from ..engine.borrow import borrowed, undisturbed
from ..engine.inputs import ModelInputs, make_inputs
from ..engine.look import look
from ..errors import InputError, InputTypeError, LayerError, NonFiniteError, close_matches
from ..layers import Layer
from ..render import ranks
from ..result import WIDEST, Result
from .asked import check_explainer, one_layer
from .receptive import ReceptiveField, receptive_field, whole
from .stream import Batch, Stream
from .winners import Winner, Winners, clipped, cut, fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

USUAL = 64  # channels that are looked at unless some are named
MOST = 16  # channels that a notebook shows
By = Literal["max", "mean"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TopImages(Result):
    """The images that excite each channel most; what `top_images` returns. K channels, k images of each, best first.

    Attributes:
        values: float32 ``(K, k)``, what the channel answers to each image, descending.
        indices: int64 ``(K, k)``, the number of the image: its place among those that were given, from 0; of a loader
            that shuffles, in the order of arrival.
        positions: int64 ``(K, k, 2)``, row and column of the channel's highest value on the layer's grid; None where
            the layer has no positions.
        boxes: int64 ``(K, k, 4)``, the receptive field of that position in the model's input, clipped to it: x0, y0,
            x1, y1 in pixels, x1 and y1 not included.
        crops: uint8 ``(K, k, size, size, 3)``, what the model saw there; grey where the field goes beyond the image.
        pictures: uint8 ``(K, k, size, size, 3)``, all of what the model saw, grey at the sides unless square.
        channels: int64 ``(K,)``, their numbers.
        layer: whose channels they are.
        by: ``"max"`` or ``"mean"``, what of a channel is compared.
        sources: each image's file ``(K, k)``; None for what was none.
        receptive_field: height and width of the boxes before they are clipped, in pixels.
        effective: whether it is the effective receptive field, as the exact one is more than half of the images, or
            differs from position to position.
        count: how many images were looked at.
        provenance: the model's class.
    """

    values: NDArray[np.float32]
    indices: NDArray[np.int64]
    positions: NDArray[np.int64] | None
    boxes: NDArray[np.int64]
    crops: NDArray[np.uint8]
    pictures: NDArray[np.uint8]
    channels: NDArray[np.int64]
    layer: str
    by: str
    sources: tuple[tuple[str | None, ...], ...]
    receptive_field: tuple[int, int]
    effective: bool
    count: int

    def __len__(self) -> int:
        return len(self.channels)

    def __repr__(self) -> str:
        channels, k = self.values.shape
        height, width = self.receptive_field
        field = f"{'effective ' * self.effective}receptive field {height} x {width}"
        return (
            f"TopImages({channels} channel{'s' * (channels != 1)} of {self.layer}, the best {k} of {self.count:,} "
            f"images by {self.by}, {field})"
        )

    def plot(self, ax: Axes | None = None, crops: bool = True, rows: int | None = None) -> Axes:
        """A row for each channel, its number to the left, the best image first, with the channel's value below it.

        Args:
            ax: where to draw; None: a new figure.
            crops: draw the receptive fields; else the whole images.
            rows: how many channels to draw; None: all.
        """
        part = self if rows is None else self._first(whole_number(rows, "rows"))
        ax = part._axes(ax)
        ranks.draw(ax, part.crops if crops else part.pictures, part.values, part.channels.tolist())
        more = f" · {len(part)} of {len(self)} channels" if len(part) < len(self) else ""
        of = {"max": "highest value", "mean": "mean"}[self.by]
        ax.set_title(f"{self.layer}: the best {self.values.shape[1]} of {self.count:,} images, by {of}{more}", size=8)
        return ax

    def _first(self, count: int) -> TopImages:
        names = ("values", "indices", "boxes", "crops", "pictures", "channels", "sources")
        parts: dict[str, Any] = {name: getattr(self, name)[:count] for name in names}
        return replace(self, **parts, positions=None if self.positions is None else self.positions[:count])

    def _png(self, widest: int | None = None) -> bytes:
        part = self if widest != WIDEST or len(self) <= MOST else self._first(MOST)
        return Result._png(part, *(() if widest is None else (widest,)))

    def _size(self) -> tuple[float, float]:
        count, k = self.values.shape
        return ranks.size_of(count, k)


def top_images(
    explainer: Explainer,
    images: Any,
    layer: Any,
    channels: Iterable[int] | int | None = None,
    *,
    k: int = 9,
    by: By = "max",
    size: int = 112,
    batch_size: int | None = None,
    progress: bool | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> TopImages:
    """The images of a data set that excite each channel of a layer most, and the part of them that does (Zeiler 2013).

    Images are streamed; only the best so far are kept. Of images with equal values the one that came first is the
    better one, so the result is that of a stable sort of all images, whatever the batch size.

    What is cropped is the receptive field of the position where the channel is highest: measured, by gradients on
    noise, so that it holds for any model. Where that is more than half as high or wide as the input, as in deep
    networks and wherever attention or squeeze-and-excitation mixes all positions, it is the effective one (Luo 2016):
    the smallest square about the position that holds 90 % of the gradient's absolute value; `TopImages.effective` says
    so.

    Args:
        explainer: of the model.
        images: what `explain` takes, or a `DataLoader`, `Dataset`, generator or folder.
        layer: by name, or the module. If it has no positions, its units are the channels, and crops are whole images.
        channels: their numbers; None: the first 64, or all if they are fewer.
        k: how many images of each channel. Of fewer images there are fewer columns.
        by: compare the highest value of the channel (``"max"``) or its mean over positions (``"mean"``).
        size: pixels of the crops' sides.
        batch_size: images per pass; 16 unless given, of a loader its own. It changes no result.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the model, as for `Explainer.explain`, the same for all images.
        model_kwargs: the same by name.

    Returns:
        `TopImages`.

    Raises:
        InputError: no image, no such channel, or a model of signals or volumes.
        UnknownNameError: there is no such layer.
        LayerError: the layer did not run, ran several times, or gives another number of channels for each batch.
        NonFiniteError: the channel is NaN or infinite for an image.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> top_images(explainer, torch.rand(20, 3, 16, 16), "left", channels=range(4), k=3)
    TopImages(4 channels of left, the best 3 of 20 images by max, receptive field 7 x 7)
    """
    check_explainer(explainer)
    if by not in ("max", "mean"):
        raise InputError(f"by is 'max' or 'mean', not {by!r}.{close_matches(str(by), ('max', 'mean'))}")
    if explainer._sides != 2:
        raise InputError("top_images looks at pictures, and this model takes signals or volumes.")
    search = _Search(
        explainer,
        one_layer(explainer, layer, "top_images"),
        make_inputs(model_args, model_kwargs),
        whole_number(k, "k"),
        by,
        whole_number(size, "size"),
        _numbers(channels),
    )
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "doing": "top images", "labelled": False}
    model = explainer._inner
    with undisturbed(model):
        for batch in Stream(explainer, images, **how):  # which may itself ask the model, even in another thread
            with borrowed(model):
                search.add(batch)
    return search.result()


def _numbers(channels: Iterable[int] | int | None) -> list[int] | None:
    """The channels as a list of numbers."""
    if channels is None:
        return None
    try:
        given = list(channels) if isinstance(channels, Iterable) else [channels]
        if any(isinstance(one, bool | np.bool_) for one in given):
            raise TypeError
        numbers = list(map(operator.index, given))
    except TypeError:
        raise InputTypeError(f"channels are whole numbers, as range(16), not {channels!r}.") from None
    if not numbers:
        raise InputError("channels is empty: name at least one, or leave it out for the first 64.")
    return numbers


class _Search:
    """What is known after some batches."""

    def __init__(
        self,
        explainer: Explainer,
        layer: Layer,
        inputs: ModelInputs,
        k: int,
        by: By,
        size: int,
        channels: list[int] | None,
    ) -> None:
        self._explainer, self._layer, self._inputs, self._by, self._size = explainer, layer, inputs, by, size
        self._k, self._channels = k, channels
        self._best = Winners(0, k)
        self._all = 0  # the layer's channels
        self._grids: dict[tuple[int, ...], tuple[int, int] | None] = {}  # by the size of the input
        self._fields: dict[tuple[int, ...], ReceptiveField] = {}
        self._count = 0

    def add(self, batch: Batch) -> None:
        """Look at some more images."""
        model, about, sides = self._explainer._inner, self._explainer, tuple(batch.input.shape[2:])
        captured = look(model, batch.input, [self._layer], about._layout, self._inputs)[0][self._layer.label]
        values, positions = self._reduced(self._picked(captured.value), batch.first)
        grid = captured.layout.grid if captured.layout else None
        if sides not in self._fields:
            self._fields[sides] = whole((sides[0], sides[1])) if grid is None else self._field(batch.input)
            self._grids[sides] = None if grid is None else (grid[0], grid[1])
        self._best.add(values, positions, batch.first, lambda winner: self._fill(winner, batch))
        self._count += len(values)

    def _field(self, batch: Tensor) -> ReceptiveField:
        return receptive_field(self._explainer._inner, self._layer, batch, self._explainer._layout, self._inputs)

    def _picked(self, value: Tensor) -> Tensor:
        """The wanted channels."""
        if not self._all:
            self._start(value.shape[1])
        if value.shape[1] != self._all:
            raise LayerError(
                f"Layer {self._layer.label!r} gives {value.shape[1]} channels for this batch, and gave {self._all} for "
                "the first: images of one size are needed, or a layer with channels."
            )
        return value[:, self._channels]

    def _start(self, count: int) -> None:
        if self._channels is None:
            self._channels = list(range(min(count, USUAL)))
        wrong = [channel for channel in self._channels if not 0 <= channel < count]
        if wrong:
            raise InputError(
                f"Layer {self._layer.label!r} has {count} channels, numbered from 0 to {count - 1}; there is no "
                f"{', '.join(map(str, wrong[:5]))}{' …' * (len(wrong) > 5)}."
            )
        self._all, self._best = count, Winners(len(self._channels), self._k)

    def _reduced(self, value: Tensor, first: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What is compared, and the number of the position where it is highest; ``(n, channels)``."""
        flat = value.reshape(*value.shape[:2], -1).float().cpu().numpy()
        finite = np.isfinite(flat).all((1, 2))
        if not finite.all():
            image = first + int(finite.argmin())
            raise NonFiniteError(f"Layer {self._layer.label!r} is NaN, infinite or beyond float32 for image {image}.")
        positions = flat.argmax(2)
        if self._by == "max":
            return np.take_along_axis(flat, positions[..., None], 2)[..., 0], positions
        return flat.mean(2, dtype=np.float64).astype(np.float32), positions

    def _fill(self, winner: Winner, batch: Batch) -> None:
        """Crop a new winner."""
        picture = batch.pictures[winner.image - batch.first]
        sides = tuple(batch.input.shape[2:])
        grid = self._grids[sides]
        winner.position = divmod(winner.place, grid[1]) if grid else (0, 0)
        box = self._fields[sides].box(*winner.position)
        winner.box = clipped(box, picture.shape[:2])
        winner.crop, winner.picture = fitted(cut(picture, box), self._size), fitted(picture, self._size)
        winner.source = batch.sources[winner.image - batch.first]

    def result(self) -> TopImages:
        """The best of all."""
        rows = self._best.rows
        fields = list(self._fields.values())
        return TopImages(
            values=_gathered(rows, "value", np.float32),
            indices=_gathered(rows, "image", np.int64),
            positions=_gathered(rows, "position", np.int64) if any(self._grids.values()) else None,
            boxes=_gathered(rows, "box", np.int64),
            crops=_gathered(rows, "crop", np.uint8),
            pictures=_gathered(rows, "picture", np.uint8),
            channels=np.array(self._channels, np.int64),
            layer=self._layer.label,
            by=self._by,
            sources=tuple(tuple(winner.source for winner in row) for row in rows),
            receptive_field=(max(field.size[0] for field in fields), max(field.size[1] for field in fields)),
            effective=any(field.effective for field in fields),
            count=self._count,
            provenance={"model": type(self._explainer._inner).__name__},
        )


def _gathered(rows: list[list[Winner]], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.array([[getattr(winner, name) for winner in row] for row in rows], dtype)
