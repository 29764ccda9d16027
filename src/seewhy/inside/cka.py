"""Where two layers, or two networks, agree: how alike the images are to one another, seen by each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ..arguments import whole
from ..engine.borrow import borrowed, undisturbed
from ..engine.inputs import ModelInputs, make_inputs
from ..engine.look import look
from ..errors import InputError, NonFiniteError, warn
from ..images import Images
from ..layers import Layer, find_layers
from ..render.text import fit_end
from ..result import Result
from .asked import check_explainer
from .stream import Stream
from .usual import usual_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

BATCH = 32  # images whose likeness is compared at a time
LEAST = 4  # images that the unbiased estimator needs
NAMES = 30  # layers whose names find room along one side
ROUNDING = 0.5  # units in the last place: images that differ by less, all in all, are the same
_COLUMNS = 2**16  # features at a time, in float64


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Agreement(Result):
    """How far layers agree on which images are alike; what `cka` returns.

    Attributes:
        values: float32 ``(L, M)``, linear CKA of each pair: 1 where they agree up to rotation and scale, about 0 where
            not at all (slightly below for want of images); NaN for a layer that answers the same to every image.
        layers: the L layers.
        other_layers: the M layers, of the same network or of the other.
        images: how many images were seen.
        provenance: the classes of the networks, ``"model"`` and ``"other"``.
    """

    values: NDArray[np.float32]
    layers: tuple[str, ...]
    other_layers: tuple[str, ...]
    images: int

    def __repr__(self) -> str:
        names = dict.fromkeys(self.provenance.get(key, "") for key in ("model", "other"))
        return f"Agreement({' and '.join(filter(None, names))}, values={self.values.shape}, {self.images:,} images)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map from 0 to 1, the first layers at the lower left; grey where there is no value."""
        from matplotlib import colormaps

        ax = self._axes(ax)
        shown = ax.imshow(
            self.values, vmin=0, vmax=1, cmap=colormaps["inferno"].with_extremes(bad="#999999"), origin="lower"
        )
        _name(ax.xaxis, self.other_layers, rotation=90)
        _name(ax.yaxis, self.layers)
        ax.set_xlabel(self.provenance.get("other", self.provenance.get("model", "")))
        ax.set_ylabel(self.provenance.get("model", ""))
        ax.set_title(f"linear CKA, {self.images:,} images", fontsize=9)
        ax.figure.colorbar(shown, ax=ax, shrink=0.8)
        return ax

    def _size(self) -> tuple[float, float]:
        longest = max(self.values.shape)
        down, across = (max(1.2, 4.2 * count / longest) for count in self.values.shape)
        return across + 2.4, down + 1.6


def _name(axis: Any, names: Sequence[str], **how: Any) -> None:
    """Name every layer, or every second, third … so that all have room."""
    every = -(-len(names) // NAMES)
    shown = range(0, len(names), every)
    axis.set_ticks(list(shown), [fit_end(names[i], 110, 7) for i in shown], fontsize=7, parse_math=False, **how)


def cka(
    explainer: Explainer,
    images: Any,
    layer: Any = None,
    *,
    other: Explainer | None = None,
    other_layer: Any = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> Agreement:
    """Linear centred kernel alignment of every pair of layers (Kornblith 2019), batch by batch (Nguyen 2021, eq. 3-5).

    Two layers agree where the images that are alike to one are alike to the other. Features are all of a layer's
    outputs at its positions (without class tokens), so a rotation of its channels or another scale changes nothing.
    The similarity of images (Gram matrices) is
    compared within each batch by the unbiased estimator of HSIC (Song 2012), and averaged over batches, so that memory
    does not grow with the data; with all images in one batch it is the closed form. The biased estimator of Kornblith's
    equation 1 is higher where there are few images for the number of features.

    Args:
        explainer: of the network.
        images: what `explain` takes, or a `DataLoader`, `Dataset`, generator or folder; streamed.
        layer: layers by name or module; None: every convolution and pooling layer, the blocks of a transformer.
        other: of another network, which sees the same images through its own transform; None: the same network.
        other_layer: the other side's layers; None: the same as `layer`, of another network the usual ones.
        batch_size: images that are compared with one another, whatever comes at a time; None: 32, of a loader its own
            if that is 4 or more. At least 4; what is left over at the end and less joins those before. It changes the
            result a little.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the models, as for `Explainer.explain`, the same for all images.
        model_kwargs: the same by name.

    Returns:
        An `Agreement`.

    Raises:
        UnknownNameError: there is no such layer.
        InputError: there are fewer than 4 images.
        NonFiniteError: a layer gives NaN or infinite values.

    >>> import seewhy
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> agreement = cka(explainer, torch.rand(8, 3, 16, 16), ["left", "body"])
    >>> agreement.values.shape, round(float(agreement.values[0, 0]), 4)
    ((2, 2), 1.0)
    """
    check_explainer(explainer)
    if other is not None:
        check_explainer(other)
    size = whole(_batch_of(images) if batch_size is None else batch_size, "batch_size")
    if size < LEAST:
        raise InputError(f"CKA compares at least {LEAST} images at a time: batch_size={size} is too small.")
    how: dict[str, Any] = {"progress": progress, "doing": "comparing", "labelled": False}
    inputs, models = make_inputs(model_args, model_kwargs), (explainer._inner, (other or explainer)._inner)
    seers = [_Seer(explainer, layer, inputs)]
    if other is not None or other_layer is not None:
        seers.append(_Seer(other or explainer, other_layer, inputs))
    sums, count = _Sums(), 0
    with undisturbed(*models):
        for given in _chunks(Stream(explainer, images, batch_size=size, **how), size):
            with borrowed(*models):
                sums.add([seer.grams(given) for seer in seers])
            count += len(given)
    provenance = {"model": type(explainer._inner).__name__}
    if other is not None:
        provenance["other"] = type(other._inner).__name__
    names = [seer.labels for seer in seers]
    _warn_of_constant(sums, names)
    return Agreement(values=sums.values(), layers=names[0], other_layers=names[-1], images=count, provenance=provenance)


def _batch_of(images: Any) -> int:
    """How many images are compared at a time where nobody says it: as many as a loader gives, if these are enough."""
    own = images.batch_size if isinstance(images, DataLoader) else None
    return own if own and own >= LEAST else BATCH


def _chunks(stream: Stream, size: int) -> Iterator[Images]:
    """The images `size` at a time, however many the stream gives; fewer than 4 at the end join those before."""
    waiting: Images | None = None
    for images, _, _ in stream.gathered():
        waiting = images if waiting is None else waiting.joined(images)
        while len(waiting) >= size + LEAST:
            yield waiting.part(0, size)
            waiting = waiting.part(size, len(waiting))
    if waiting is None or len(waiting) < LEAST:
        raise InputError(
            f"CKA compares at least {LEAST} images at a time, and there are {len(waiting or ())} in all: give more."
        )
    yield waiting


class _Seer:
    """One side: a network and its layers.

    Attributes:
        labels: of the layers, once the first batch was seen.
    """

    def __init__(self, explainer: Explainer, layer: Any, inputs: ModelInputs) -> None:
        self._explainer, self._inputs = explainer, inputs
        self._layers: list[Layer] | None = None if layer is None else find_layers(explainer._inner, layer)
        if self._layers == []:
            raise InputError("The list of layers is empty: name at least one, or leave it out.")
        self.labels: tuple[str, ...] = ()

    def grams(self, given: Images) -> Tensor:
        """Of each layer how alike the images are, float64 ``(L, n, n)`` with a diagonal of 0."""
        about = self._explainer
        images, _ = about._load(given.part(0, len(given)), 0, len(given), seen=False)
        if self._layers is None:
            names = usual_layers(about._inner, images[:1], about._layout, self._inputs)
            self._layers = find_layers(about._inner, names)
        found, _ = look(about._inner, images, self._layers, about._layout, self._inputs)
        self.labels = tuple(layer.label for layer in dict.fromkeys(self._layers))
        return torch.stack([_gram(found[label].value, label) for label in self.labels])


def _gram(activation: Tensor, label: str) -> Tensor:
    """The inner products of the images' features but with themselves, float64 ``(n, n)``."""
    features = activation.flatten(1)
    if not features.isfinite().all():
        raise NonFiniteError(f"Layer {label!r} gives NaN or infinite values, which agree with nothing.")
    gram = torch.zeros(len(features), len(features), dtype=torch.float64, device=features.device)
    size = spread = 0.0
    for start in range(0, features.shape[1], _COLUMNS):
        part = features[:, start : start + _COLUMNS].double()
        centred = part - part.mean(0)  # which the estimator does not mind, and rounding does
        gram += centred @ centred.mT
        size, spread = size + float(part.square().sum()), spread + float(centred.square().sum())
    if spread <= (ROUNDING * torch.finfo(features.dtype).eps) ** 2 * size:
        gram.zero_()
    return gram.fill_diagonal_(0).cpu()


class _Sums:
    """HSIC of each pair of layers, added up over batches."""

    def __init__(self) -> None:
        self._cross: Tensor | float = 0.0
        self._own: list[Tensor | float] = [0.0, 0.0]

    def add(self, sides: Sequence[Tensor]) -> None:
        """Take in the Gram matrices ``(L, n, n)`` of one batch, of one side or of both."""
        self._cross = self._cross + hsic(sides[0], sides[-1])
        self._own = [
            own + hsic(side, side).diagonal() for own, side in zip(self._own, (sides[0], sides[-1]), strict=True)
        ]

    def values(self) -> NDArray[np.float32]:
        """CKA of each pair."""
        first, second = (torch.as_tensor(own) for own in self._own)
        scale = first.clamp(min=0).sqrt()[:, None] * second.clamp(min=0).sqrt()
        found = torch.as_tensor(self._cross) / scale
        return found.where(scale > 0, torch.nan).float().numpy()

    def constant(self) -> list[list[int]]:
        """Which layers of each side see no difference between images."""
        return [(torch.as_tensor(own) <= 0).nonzero().flatten().tolist() for own in self._own]


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased HSIC ``(L, M)`` of Gram matrices ``(L, n, n)``, ``(M, n, n)`` with a diagonal of 0 (Song 2012)."""
    n = first.shape[1]
    rows, others = first.sum(2), second.sum(2)
    traces = first.flatten(1) @ second.flatten(1).mT
    sums = rows.sum(1)[:, None] * others.sum(1) / ((n - 1) * (n - 2))
    return (traces + sums - 2 / (n - 2) * rows @ others.mT) / (n * (n - 3))


def _warn_of_constant(sums: _Sums, names: Sequence[tuple[str, ...]]) -> None:
    constant = dict.fromkeys(
        name
        for side, labels in zip(sums.constant(), (names[0], names[-1]), strict=True)
        for name in map(labels.__getitem__, side)
    )
    if constant:
        shown = ", ".join(map(repr, list(constant)[:5])) + (" …" if len(constant) > 5 else "")
        warn(f"To {shown} all images are the same, or too few to tell them apart: no value (NaN).")
