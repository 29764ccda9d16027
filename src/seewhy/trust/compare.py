"""Methods judged side by side, over as many images as there are."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..downloads import library
from ..engine.borrow import undisturbed
from ..errors import InputError, InputTypeError, MethodError, UnknownNameError, close_matches
from ..explanation import Explanation
from ..inside.asked import check_explainer
from ..inside.stream import Batch, Stream
from ..methods import Method, list_methods
from ..methods.make import make_methods
from ..result import Result
from ..targets import Top
from .mosaic import grid_pointing
from .score import Score, nanmean
from .subject import Common

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..explainer import Explainer

Metric: TypeAlias = "str | Callable[..., Score]"
_INSTALL = "'seewhy[datasets]'"
_ALL = Common.__annotations__


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison(Result):
    """M methods judged by K metrics over N images; what `compare` returns.

    Attributes:
        values: float32 ``(M, K, N)``, what each metric says of each map; NaN where it is undefined.
        methods: the names of the methods, with their layer where they look at one.
        metrics: the names of the metrics.
        higher_is_better: bool ``(K,)``.
        cost: float32 ``(M,)``, how long explaining an image took in the quickest batch, measured in forward passes.
    """

    values: NDArray[np.float32]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: NDArray[np.bool_]
    cost: NDArray[np.float32]

    @property
    def means(self) -> NDArray[np.float32]:
        """The mean over the images for which all methods have a value, if they have any, ``(M, K)``; else NaN."""
        return nanmean(np.where(self._shared, self.values, np.float32(np.nan))).astype(np.float32)

    @property
    def _shared(self) -> NDArray[np.bool_]:
        """For which images a metric compares the methods, ``(K, N)``."""
        defined = ~np.isnan(self.values)
        return np.asarray((defined | ~defined.any(2, keepdims=True)).all(0))

    @property
    def ranks(self) -> NDArray[np.float32]:
        """The place of each method by each metric, ``(M, K)``, 1 for the best; equal ones share the better place."""
        signed = np.where(self.higher_is_better, self.means, -self.means)
        better = (signed[None] > signed[:, None]).sum(1)
        return np.where(np.isnan(signed), np.nan, 1 + better).astype(np.float32)

    @property
    def table(self) -> Any:
        """A pandas DataFrame with a row for each method.

        Each metric has two columns: its mean, and the rank, with an arrow that says whether a higher or a lower mean is
        better. The last column is the cost.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = library("pandas", _INSTALL)
        columns: dict[str, Any] = {}
        for number, name in enumerate(self.metrics):
            arrow = "↑" if self.higher_is_better[number] else "↓"
            columns |= {name: self.means[:, number], f"{name} {arrow} rank": self.ranks[:, number]}
        columns["cost"] = self.cost
        return pandas.DataFrame(columns, index=pandas.Index(self.methods, name="method"))

    def __repr__(self) -> str:
        return f"Comparison({len(self.methods)} methods, {len(self.metrics)} metrics, {self.values.shape[2]:,} images)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The table as a picture: the means with their ranks, the best in the strongest colour, and the cost."""
        from ..render import table as drawing

        ax = self._axes(ax)
        arrows = np.where(self.higher_is_better, "↑", "↓")
        heads = [f"{arrow} {name}" for name, arrow in zip(self.metrics, arrows, strict=True)]
        cost = [f"{cost:.3g}" for cost in self.cost]
        drawing.draw(ax, self.methods, heads, self.means, self.ranks, ("cost in forward passes", cost))
        few = int(self._shared.sum(1).min())
        count = self.values.shape[2]
        partly = f", of which a metric is defined for {few:,}" if few < count else ""
        said = f"{count:,} images{partly}; in brackets the rank, which is the colour"
        ax.set_title(said, fontsize=9, loc="left")
        return ax

    def _size(self) -> tuple[float, float]:
        from ..render import table as drawing

        return drawing.size_of(self.methods, self.metrics)


def compare(
    explainer: Explainer,
    images: Any,
    methods: Sequence[Any],
    metrics: Sequence[Metric],
    masks: Any = None,
    *,
    target: Any = None,
    layer: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Judge methods by metrics over images, a batch at a time.

    Args:
        explainer: of the network.
        images: what `explain` takes, or a `DataLoader`, `Dataset`, generator or folder, which is streamed, the files of
            a folder in the order of their paths. Only `grid_pointing` holds all of them.
        methods: names, classes or instances.
        metrics: names of functions of `seewhy.trust`, or functions themselves: of an explainer and an explanation, to a
            `Score`. ``functools.partial(trust.deletion, step=1000)`` has options of its own.
        masks: bool ``(N, H, W)`` at the size of the model's input, for metrics that take any.
        target: as for `explain`: None (each image's predicted class), one for all, or a list with one for each image.
        layer: as for `explain`; at most one.
        seed: for all metrics that draw.
        batch_size: images at a time; 16 unless given, of a loader its own.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        options: of the methods; each goes to the methods that declare it.

    Returns:
        A `Comparison`, whose `table` is a pandas DataFrame.

    Raises:
        UnknownNameError: there is no such metric or method.
        InputError: a metric needs masks and there are none, or there are not as many as images.

    >>> import seewhy, torch
    >>> explainer, images = seewhy.Explainer(seewhy.testing.small_cnn()), torch.rand(4, 3, 16, 16)
    >>> found = compare(explainer, images, ["saliency", "grad_cam"], ["sparseness", "random_logit"], target=1)
    >>> list(found.table)
    ['sparseness', 'sparseness ↑ rank', 'random_logit', 'random_logit ↓ rank', 'cost']
    """
    check_explainer(explainer)
    judges = _metrics(metrics)
    made = _methods(methods, options)
    if isinstance(layer, list | tuple):
        raise InputError("compare looks at one layer: give one, or methods with a name= and compare twice.")
    masks, target = _masks(masks, judges), _targets(target)
    run = _Run(explainer, made, judges, masks, target, layer, seed, batch_size)
    with undisturbed(explainer._inner):  # a loader that shuffles draws
        for batch in Stream(
            explainer, images, batch_size=batch_size, progress=progress, doing="comparing", labelled=False
        ):
            run.add(batch)
    run.check_count()
    return run.result()


class _Run:
    """A comparison under way."""

    def __init__(
        self, explainer: Explainer, methods: Sequence[Method], metrics: Mapping[str, Callable[..., Score]], masks: Any,
        target: Any, layer: Any, seed: int, batch_size: int | None,
    ) -> None:  # fmt: skip
        self._explainer, self._methods, self._metrics = explainer, methods, metrics
        self._masks, self._target, self._layer = masks, target, layer
        self._seed, self._batch_size = seed, batch_size
        self._values: list[NDArray[np.float32]] = []
        self._seconds = np.full(len(methods), np.inf)  # for an image, in the quickest batch
        self._forward = np.inf
        self._kept: list[Tensor] = []  # all images, where a metric must see them together
        self._names: list[str] = []
        self._better: dict[str, bool] = {}
        self._count = 0

    def add(self, batch: Batch) -> None:
        """Judge every method on a batch."""
        rows = slice(batch.first, batch.first + len(batch.input))
        self._count = rows.stop
        for what, given in self._dealt():
            if len(given) < rows.stop:
                raise InputError(f"There are {len(given)} {what} and at least {rows.stop} images: give one for each.")
        if any(map(_together, self._metrics.values())):
            self._kept.append(batch.input.cpu())
        target = self._target[rows] if isinstance(self._target, list | tuple) else self._target
        forward = partial(self._explainer.predict, batch.input, 1)
        if not batch.first:
            forward()  # the first run of all takes longer
        seconds = min(self._timed(forward)[0] for _ in range(2))
        self._forward = min(self._forward, seconds / len(batch.input))
        found, self._names = [], []
        for number, method in enumerate(self._methods):
            layer = self._layer if method.needs.layer else None
            ask = partial(self._explainer.explain, batch.input, method, target=target, layer=layer)
            seconds, made = self._timed(ask)
            self._seconds[number] = min(self._seconds[number], seconds / len(batch.input))
            self._names.append(made.method if made.layer is None else f"{made.method} at {made.layer}")
            blank = np.full(len(made), np.nan, np.float32)
            alone = {name for name, metric in self._metrics.items() if not _together(metric)}
            found.append([self._judge(name, made, rows) if name in alone else blank for name in self._metrics])
        self._values.append(np.array(found, np.float32))

    def _timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        began = time.perf_counter()
        result = work()
        return time.perf_counter() - began, result

    def _judge(self, name: str, made: Explanation, rows: slice = slice(None)) -> NDArray[np.float32]:
        metric = self._metrics[name]
        known = _parameters(metric)
        given = {"seed": self._seed, "masks": None if self._masks is None else self._masks[rows]}
        given |= {"progress": False, "batch_size": self._batch_size}
        score = metric(self._explainer, made, **{key: value for key, value in given.items() if key in known})
        if not isinstance(score, Score) or len(score) != len(made):
            raise MethodError(f"The metric {name!r} must return a Score of {len(made)} maps, not {score!r}.")
        self._better[name] = score.higher_is_better
        return score.values

    def _all(self, method: Method) -> Explanation:
        """What a method gives of all images."""
        layer = self._layer if method.needs.layer else None
        images = torch.cat(self._kept)
        return self._explainer.explain(images, method, target=self._target, layer=layer, batch_size=self._batch_size)

    def _dealt(self) -> Iterator[tuple[str, Any]]:
        """What there must be one of for each image."""
        if self._masks is not None:
            yield "masks", self._masks
        if isinstance(self._target, list | tuple):
            yield "targets", self._target

    def check_count(self) -> None:
        """Refuse masks and targets that were of other images."""
        for what, given in self._dealt():
            if len(given) != self._count:
                raise InputError(f"There are {len(given)} {what} and {self._count} images: give one for each.")

    def result(self) -> Comparison:
        """What was found."""
        values = np.concatenate(self._values, 2)
        for place, (name, metric) in enumerate(self._metrics.items()):
            if _together(metric):
                values[:, place] = [self._judge(name, self._all(method)) for method in self._methods]
        return Comparison(
            values=values, methods=tuple(self._names), metrics=tuple(self._metrics),
            higher_is_better=np.array([self._better[name] for name in self._metrics]),
            cost=np.asarray(self._seconds / self._forward, np.float32),
            provenance={"model": type(self._explainer._inner).__name__},
        )  # fmt: skip


def _methods(given: Any, options: dict[str, Any]) -> list[Method]:
    if isinstance(given, str) or not isinstance(given, list | tuple):
        given = [given]
    if not given:
        raise InputError("No method is given: name at least one, as in ['grad_cam', 'saliency'].")
    if layered := [name for name in ("method", "metric") if name in options]:
        raise InputTypeError(f"compare has no {layered[0]}=: methods and metrics are lists.")
    return make_methods(list(given), options)


def _masks(masks: Any, judges: Mapping[str, Callable[..., Score]]) -> Any:
    """Masks that can be dealt out to batches.

    Raises:
        InputError: a metric needs some and there are none, or brings its own.
        InputTypeError: they are no array or list.
    """
    if own := [name for name, judge in judges.items() if "masks" in getattr(judge, "keywords", {})]:
        raise InputError(f"{own[0]} has masks= of its own: give them to compare, which deals them out to the images.")
    lacking = [name for name, judge in judges.items() if "masks" in _parameters(judge)]
    if masks is None and lacking:
        raise InputError(f"{', '.join(lacking)} need{'s' * (len(lacking) == 1)} masks=, bool (N, H, W): where the "
                         "thing is in each image.")  # fmt: skip
    if masks is not None and (isinstance(masks, str) or not hasattr(masks, "__len__")):
        raise InputTypeError(f"masks is one array (N, H, W) of true and false, not {type(masks).__name__}.")
    return masks


def _targets(target: Any) -> Any:
    """One target for all, or a list with one for each image."""
    if isinstance(target, np.ndarray | Tensor) and target.ndim:
        target = target.tolist()
    several = isinstance(target, list | tuple) and any(isinstance(one, list | tuple) for one in target)
    if isinstance(target, Top) or several:
        raise InputError("compare judges one target for each image: give one for all, or a list with one for each.")
    return target


def _together(metric: Any) -> bool:
    """Whether a metric must see all images together, as their mosaics are made of one another."""
    return getattr(metric, "func", metric) is grid_pointing


def _metrics(given: Any) -> dict[str, Callable[..., Score]]:
    from .. import trust

    if isinstance(given, str) or callable(given):
        given = [given]
    known = [name for name in trust.__all__ if name.islower() and name not in ("check", "compare")]
    found: dict[str, Callable[..., Score]] = {}
    for one in given:
        if isinstance(one, str) and one not in known:
            if one in list_methods():
                raise UnknownNameError(f"{one!r} is a method and no metric: methods come first, then metrics.")
            raise UnknownNameError(f"There is no metric {one!r}.{close_matches(one, known)} Known: {', '.join(known)}.")
        metric = getattr(trust, one) if isinstance(one, str) else one
        if not callable(metric) or isinstance(metric, Method):
            raise InputTypeError(f"A metric is a name or a function, not {type(one).__name__}.")
        found[_name_of(metric, found)] = metric
    if not found:
        raise InputError(f"No metric is given: name at least one of {', '.join(known)}.")
    return found


def _name_of(metric: Any, taken: Collection[str]) -> str:
    """What to call a function; of a partial one its function's name, with what was set where that is taken."""
    inner = getattr(metric, "func", metric)
    name = getattr(inner, "__name__", type(inner).__name__)
    if name in taken and (set_already := getattr(metric, "keywords", {})):
        name += f"({', '.join(f'{key}={value!r}' for key, value in set_already.items())})"
    while name in taken:
        name += "'"
    return name


def _parameters(metric: Callable[..., Score]) -> set[str]:
    """What a metric can be told: its arguments, and those of all metrics where it passes them on."""
    found = inspect.signature(metric).parameters
    set_already = getattr(metric, "keywords", {})
    passed_on = any(one.kind is one.VAR_KEYWORD for one in found.values())
    names = set(found) | (set(_ALL) if passed_on else set())
    return names - set(set_already)
