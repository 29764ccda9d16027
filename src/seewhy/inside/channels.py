"""Activations layer by layer: every channel of a network's layers for one image, as tiles and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import whole
from ..engine.borrow import borrowed
from ..engine.capture import Captured
from ..engine.inputs import ModelInputs, make_inputs
from ..engine.look import look
from ..engine.passes import Request, measure
from ..engine.record import Needs
from ..errors import InputError, UnknownNameError, close_matches, warn
from ..images import gather
from ..layers import Layer, find_layers
from ..render import curves, figure, sheet
from ..result import WIDEST, Result
from ..scoring import find_targets, with_embeddings
from .asked import check_explainer
from .picks import Kept, Picks
from .usual import layers_of_type, usual_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

By = Literal["activation", "gradient"]
Floats = NDArray[np.float32]
LAYERS = 16  # that a notebook shows
LONG, SHORT = 60.0, 20.0  # inches of a figure's height from which on channels are left out; and in a notebook


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Channels(Result):
    """What the layers of a network answer to one image; what `channels` returns.

    Attributes:
        layers: their names, in the order in which they were asked, else in which they run; L of them.
        activations: of each layer float32 ``(K, h, w)``, of the K channels that are kept; ``(K, l)`` of a signal,
            ``(K, t, h, w)`` of a volume, ``(K,)`` of a layer without positions. As the layer returned it, whatever the
            model did to it afterwards.
        numbers: of each layer int64 ``(K,)``, which of its channels are kept, in the order of `activations`.
        values: of each layer float32 ``(K,)``, what channels are ranked by (see `by`).
        shapes: of each layer ``(C, h, w)``, with all its channels.
        types: of each layer the class of its module.
        dead: float64 ``(L,)``, the share of all C channels that are zero everywhere.
        zeros: float64 ``(L,)``, the share of zeros among all values. Most are made by ReLUs, which are layers that can
            be named: a convolution gives zeros only where all that it reads is zero.
        entropy: float64 ``(L,)``, how evenly channels answer over the image, in 0..1: the mean over channels that are
            not dead of -sum(p log p) / log(positions), where p = |A| / sum(|A|). 1 is the same everywhere, 0 a single
            position. It is divided by the largest value that it can take, as layers have grids of different sizes.
            NaN of a layer without positions, or with none but dead channels.
        by: ``"activation"`` or ``"gradient"``, what `values` are.
        target: the name of the class that gradients are of; None for activations.
        ranked: whether channels are in the order of `values`; else in the order asked, or of their numbers.
        picture: uint8 ``(H, W, 3)``, what the model saw.
        source: the image's file; None if it was none.
        provenance: the model's class.
    """

    layers: tuple[str, ...]
    activations: Mapping[str, Floats]
    numbers: Mapping[str, NDArray[np.int64]]
    values: Mapping[str, Floats]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    dead: NDArray[np.float64]
    zeros: NDArray[np.float64]
    entropy: NDArray[np.float64]
    by: str
    target: str | None
    ranked: bool
    picture: NDArray[np.uint8]
    source: str | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        kept, every = (sum(map(len, self.numbers.values())), sum(shape[0] for shape in self.shapes.values()))
        of = f"{kept:,}" if kept == every else f"{kept:,} of {every:,}"
        first, last = self.layers[0], self.layers[-1]
        between = "…" if len(self) > 2 else "and"
        alone = f"{first} {sheet.size_in_words(self.shapes[first])}"
        where = alone if len(self) == 1 else f"{first} {between} {last}"
        return f"Channels({len(self)} layer{'s' * (len(self) != 1)}, {of} channels: {where})"

    def tiles(self, layer: str | None = None, columns: int | None = None) -> NDArray[np.uint8]:
        """The channels of one layer as tiles, each standardised; uint8 ``(H, W, 3)``.

        Args:
            layer: which; None: the only one.
            columns: tiles a row; None: 16, of up to 16 channels an about square whole. Channels of a signal are rows
                of one picture; of a volume the middle step in time is drawn; values without positions are one tile.

        Raises:
            UnknownNameError: there is no such layer here.
            InputError: there are several, and none is named.
        """
        if layer is None and len(self) > 1:
            raise InputError(f"There are {len(self)} layers: say which, as in tiles({self.layers[0]!r}).")
        (name,) = self._named(layer)
        columns = self._columns(name) if columns is None else whole(columns, "columns")
        return sheet.layer_picture(self.activations[name], columns).pixels

    def plot(
        self,
        ax: Axes | None = None,
        layer: str | Sequence[str] | None = None,
        columns: int | None = None,
        rows: int | None = None,
    ) -> Axes:
        """Every channel as a tile, below its layer's name and shape.

        Each channel is standardised by itself: its mean is mid-grey, black and white are two standard deviations; one
        that is zero everywhere is blank. Numbers to the left are those of a row's first channel; where channels were
        picked or ranked each tile has its own.

        Args:
            ax: where to draw; None: a new figure.
            layer: one layer or some of them; None: all.
            columns: tiles a row; None: 16, or about square wholes where no layer keeps more than 16 channels.
            rows: rows of tiles of a layer; None: as many as keep the figure below 60 inches. What is left out is said.

        Raises:
            UnknownNameError: there is no such layer here.
        """
        page = self._sheet(self._named(layer), LONG, columns, rows)
        return page.draw(figure.axes(ax, page.size))

    def plot_statistics(self, ax: Axes | None = None, layer: str | Sequence[str] | None = None) -> Axes:
        """`dead`, `zeros` and `entropy` against depth, a point for each layer, or for some of them.

        Layers of one kind compare: ``channels(explainer, image, nn.ReLU)`` shows how silence grows with depth.
        """
        names = self._named(layer)
        some = [self.layers.index(name) for name in names]
        lines = {"dead channels": self.dead, "zeros": self.zeros, "entropy over positions": self.entropy}
        return curves.draw(
            figure.axes(ax, curves.size_of(names)), names, {label: values[some] for label, values in lines.items()}
        )

    def _png(self, widest: int = figure.LONGEST) -> bytes:
        small = widest <= WIDEST
        some = np.linspace(0, len(self) - 1, min(len(self), LAYERS)).round().astype(int) if small else range(len(self))
        page = self._sheet([self.layers[i] for i in some], SHORT if small else LONG)
        drawn = figure.new(page.size, shown=False, layout="constrained")
        return figure.png(page.draw(drawn.add_subplot()), widest=widest)

    def _sheet(
        self, names: Sequence[str], longest: float, columns: int | None = None, rows: int | None = None
    ) -> sheet.Sheet:
        columns = max(map(self._columns, names)) if columns is None else whole(columns, "columns")
        shape = self.shapes[names[0]]
        rows = sheet.rows_for(len(names), columns, longest, shape[1:]) if rows is None else whole(rows, "rows")
        notes = [f"the {max(map(len, self.numbers.values()))} of most {self._by}"] if self.ranked else []
        if len(names) < len(self) and longest == SHORT:
            notes.append(f"{len(names)} of {len(self)} layers")
        return sheet.Sheet([self._block(name, columns, rows) for name in names], columns, " · ".join(notes))

    @property
    def _by(self) -> str:
        return "mean activation" if self.target is None else f"gradient × activation for {self.target}"

    def _columns(self, name: str) -> int:
        return sheet.columns_for(len(self.numbers[name]), self.shapes[name][1:])

    def _block(self, name: str, columns: int, rows: int) -> sheet.Block:
        numbers, shape = self.numbers[name], self.shapes[name]
        about = [sheet.size_in_words(shape)]
        counted = np.array_equal(numbers, np.arange(shape[0]))
        return sheet.layer_picture(
            self.activations[name], columns, rows, name, about, None if counted else numbers.tolist()
        )

    def _named(self, layer: str | Sequence[str] | None) -> list[str]:
        """The names of the layers asked for, which are here."""
        names = list(self.layers if layer is None else [layer] if isinstance(layer, str) else layer)
        for name in names:
            if name not in self.layers:
                raise UnknownNameError(
                    f"Layer {name!r} was not looked at.{close_matches(str(name), self.layers)} "
                    f"These were: {', '.join(self.layers[:8])}{' …' * (len(self) > 8)}."
                )
        if not names:
            raise InputError("The list of layers is empty: name at least one, or leave layer out.")
        return names


def channels(
    explainer: Explainer,
    image: Any,
    layer: Any = None,
    *,
    channels: Any = None,
    top: int | None = None,
    by: By = "activation",
    target: Any = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> Channels:
    """What every channel of a network's layers answers to one image, and how much of each layer is silent.

    It asks for no score: what the model returns is never read, but for ``by="gradient"``.

    Args:
        explainer: of the model.
        image: one image, as `explain` takes it.
        layer: by name, as the module, or a list of these; or a type of modules, as ``nn.ReLU``: each call of one whose
            output has positions. None: every convolution and pooling layer with positions, of a transformer also every
            block.
        channels: the numbers of those to keep, in this order, from 0: a list for all layers, or a dict of lists by
            layer (others keep all; with ``layer=None`` only these layers are looked at). None: all.
        top: keep this many of each layer instead, or all if it has fewer; most first, of equals the lower number.
        by: what is most. ``"activation"``: the mean over positions of the activation A as it is, not of its absolute
            value: below zero a channel does not fire. ``"gradient"``: the sum over positions of dS/dA · A, a
            first-order estimate of what the score S of `target` owes to the channel.
        target: for ``by="gradient"``, one target as `explain` takes it; None: the predicted class.
        model_args: further inputs of the model, as for `Explainer.explain`.
        model_kwargs: the same by name.

    Returns:
        `Channels`.

    Raises:
        InputError: several images, or no such channel.
        UnknownNameError: there is no such layer.
        LayerError: a layer did not run or ran several times; or there is none of the type, or none to choose.
        NonFiniteError: a layer's output is NaN or infinite; the first that is gets named.
        GradientError: ``by="gradient"``, and none arrives at a layer.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    >>> channels(explainer, image)
    Channels(4 layers, 40 channels: stem.0 … body)
    >>> found = channels(explainer, image, "stem.2", top=4)
    >>> found, found.activations["stem.2"].shape, found.tiles().shape
    (Channels(1 layer, 4 of 8 channels: stem.2 8 × 16 × 24), (4, 16, 24), (65, 97, 3))
    """
    check_explainer(explainer)
    model, inputs = explainer._inner, make_inputs(model_args, model_kwargs)
    picks = Picks(channels, top, by, target)
    images = gather(image, explainer._sides)
    if len(images) != 1:
        raise InputError(f"channels looks at one image, and {len(images)} are given: call it once for each.")
    if layer is None and isinstance(channels, Mapping):
        layer = list(channels)
    named = [] if layer is None or isinstance(layer, type) else _found(explainer, layer)
    with borrowed(model):
        batch, pictures = explainer._load(images, 0, 1)
        layers = named or _worked_out(explainer, batch, layer, inputs)
        wanted = picks.of_layers(explainer, layers)
        seen = _Seen.of(explainer, batch, layers, inputs, picks)
        kept = [_kept(one, seen, wanted, top) for one in seen.found.values()]
    if seen.silent:
        warn(
            f"The score of {seen.target} has no gradient at the positions of {', '.join(seen.silent)}: the channels "
            "there are in the order of their numbers."
        )
    return Channels(
        layers=tuple(one.name for one in kept),
        activations={one.name: one.activation for one in kept},
        numbers={one.name: one.numbers for one in kept},
        values={one.name: one.values for one in kept},
        shapes={one.name: one.shape for one in kept},
        types={one.label: type(one.module).__name__ for one in layers},
        dead=np.array([one.statistics.dead for one in kept]),
        zeros=np.array([one.statistics.zeros for one in kept]),
        entropy=np.array([one.statistics.entropy for one in kept]),
        by=by,
        target=seen.target,
        ranked=top is not None,
        picture=pictures[0],
        source=images.sources[0],
        provenance={"model": type(model).__name__},
    )


def _kept(one: Captured, seen: _Seen, wanted: Mapping[str, list[int]], top: int | None) -> Kept:
    return Kept.of(one, seen.gradients.get(one.label), wanted.get(one.label), top)


def _worked_out(explainer: Explainer, batch: Tensor, layer: type | None, inputs: ModelInputs) -> list[Layer]:
    """The layers that are looked at where none is named, or those of a type."""
    model, layout = explainer._inner, explainer._layout
    if layer is None:
        return _found(explainer, usual_layers(model, batch, layout, inputs))
    return _found(explainer, layers_of_type(model, batch, layout, inputs, layer))


def _found(explainer: Explainer, layer: Any) -> list[Layer]:
    found = list(dict.fromkeys(find_layers(explainer._inner, layer)))
    if not found:
        raise InputError("The list of layers is empty: name at least one, or leave layer out.")
    return found


@dataclass(frozen=True)
class _Seen:
    """What a run gave: the layers' outputs by label, and for gradients those, and the target's name.

    `silent` are the layers at whose positions the gradient is zero everywhere.
    """

    found: dict[str, Captured]
    gradients: dict[str, Tensor]
    target: str | None = None

    @property
    def silent(self) -> list[str]:
        return [label for label, gradient in self.gradients.items() if not gradient.any()]

    @classmethod
    def of(
        cls, explainer: Explainer, batch: Tensor, layers: Sequence[Layer], inputs: ModelInputs, picks: Picks
    ) -> _Seen:
        """Run a borrowed model, once, and once backwards where gradients are wanted."""
        if picks.by == "activation":
            return cls(look(explainer._inner, batch, layers, explainer._layout, inputs)[0], {})
        needs = (Needs(activation=True, gradient=True),)
        request = Request(needs, tuple(layers), layout=explainer._layout, inputs=inputs)
        targets = find_targets(picks.target, 1, explainer._about)
        scoring = explainer._scoring(with_embeddings(targets, partial(explainer._embedding, inputs)), 0)
        measured = measure(explainer._inner, batch, request, scoring)
        explainer._cautions.check(measured.selected, scoring)
        for one in measured.layers:
            one.check_batch(1)
        name = measured.selected.names[0] if measured.selected else None
        gradients = {label: gradient for (_, label), gradient in measured.gradients.items()}
        return cls({one.label: one for one in measured.layers}, gradients, name)
