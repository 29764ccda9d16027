"""Methods judged side by side, over as many images as there are."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..downloads import library
from ..errors import InputError, InputTypeError, MethodError, UnknownNameError, close_matches
from ..explanation import Explanation
from ..inside.asked import check_explainer
from ..inside.stream import Batch, Stream
from ..methods import Method
from ..methods.make import make_methods
from ..result import Result
from .score import Score
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
        cost: float32 ``(M,)``, how long explaining an image took, in forward passes of it, as measured here.
    """

    values: NDArray[np.float32]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: NDArray[np.bool_]
    cost: NDArray[np.float32]

    @property
    def means(self) -> NDArray[np.float32]:
        """The mean over the images for which it is defined, ``(M, K)``; NaN where there is none."""
        defined = ~np.isnan(self.values)
        total = np.where(defined, self.values, 0).sum(2, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / defined.sum(2), np.float32)

    @property
    def ranks(self) -> NDArray[np.float32]:
        """The place of each method by each metric, ``(M, K)``, 1 for the best; equal ones share the better place."""
        signed = np.where(self.higher_is_better, self.means, -self.means)
        better = (signed[None] > signed[:, None]).sum(1)
        return np.where(np.isnan(signed), np.nan, 1 + better).astype(np.float32)

    @property
    def table(self) -> Any:
        """A pandas DataFrame, a row for each method: for each metric its mean, and the rank beside it, whose arrow says
        whether higher or lower is better; last the cost, in forward passes.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = library("pandas", _INSTALL)
        columns: dict[str, Any] = {}
        for number, name in enumerate(self.metrics):
            arrow = "↑" if self.higher_is_better[number] else "↓"
            columns |= {name: self.means[:, number], f"{name} rank {arrow}": self.ranks[:, number]}
        columns["cost"] = self.cost
        return pandas.DataFrame(columns, index=pandas.Index(self.methods, name="method"))

    def __repr__(self) -> str:
        return f"Comparison({len(self.methods)} methods, {len(self.metrics)} metrics, {self.values.shape[2]:,} images)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The table as a picture: the means with their ranks, the best in the strongest colour, and the cost."""
        from ..render import table as drawing

        ax = self._axes(ax)
        heads = [f"{name} {'↑' if up else '↓'}" for name, up in zip(self.metrics, self.higher_is_better, strict=True)]
        cost = [f"{cost:.3g}" for cost in self.cost]
        drawing.draw(ax, self.methods, heads, self.means, self.ranks, ("cost in forward passes", cost))
        ax.set_title(f"{self.values.shape[2]:,} images", fontsize=9, loc="left")
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
        images: what `explain` takes, or a `DataLoader`, `Dataset`, generator or folder, which is streamed.
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
    ['sparseness', 'sparseness rank ↑', 'random_logit', 'random_logit rank ↓', 'cost']
    """
    check_explainer(explainer)
    made, judges = _methods(methods, options), _metrics(metrics)
    if isinstance(layer, list | tuple):
        raise InputError("compare looks at one layer: give one, or methods with a name= and compare twice.")
    if masks is None and (lacking := [name for name, judge in judges.items() if "masks" in _parameters(judge)]):
        raise InputError(f"{', '.join(lacking)} need masks=, bool (N, H, W): where the thing is in each image.")
    run = _Run(explainer, made, judges, masks, target, layer, seed, batch_size)
    with_all = Stream(explainer, images, batch_size=batch_size, progress=progress, doing="comparing", labelled=False)
    for batch in with_all:
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
        self._seconds = np.zeros(len(methods))
        self._forward = 0.0  # seconds
        self._names: list[str] = []
        self._better: dict[str, bool] = {}
        self._count = 0

    def add(self, batch: Batch) -> None:
        """Judge every method on a batch."""
        rows = slice(batch.first, batch.first + len(batch.input))
        self._count = rows.stop
        target = self._target[rows] if isinstance(self._target, list | tuple) else self._target
        forward = partial(self._explainer.predict, batch.input, 1)
        if not batch.first:
            forward()  # the first run of all takes longer
        self._forward += self._timed(forward)[0]
        found, self._names = [], []
        for number, method in enumerate(self._methods):
            layer = self._layer if method.needs.layer else None
            ask = partial(self._explainer.explain, batch.input, method, target=target, layer=layer)
            seconds, made = self._timed(ask)
            self._seconds[number] += seconds
            self._names.append(made.method if made.layer is None else f"{made.method} at {made.layer}")
            found.append([self._judge(name, made, rows) for name in self._metrics])
        self._values.append(np.array(found, np.float32))

    def _timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        began = time.perf_counter()
        result = work()
        return time.perf_counter() - began, result

    def _judge(self, name: str, made: Explanation, rows: slice) -> NDArray[np.float32]:
        metric = self._metrics[name]
        known = _parameters(metric)
        given = {"seed": self._seed, "masks": None if self._masks is None else self._masks[rows]}
        given |= {"progress": False, "batch_size": self._batch_size}
        score = metric(self._explainer, made, **{key: value for key, value in given.items() if key in known})
        if not isinstance(score, Score) or len(score) != len(made):
            raise MethodError(f"The metric {name!r} must return a Score of {len(made)} maps, not {score!r}.")
        self._better[name] = score.higher_is_better
        return score.values

    def check_count(self) -> None:
        """Refuse masks and targets that were of other images."""
        for what, given in (("masks", self._masks), ("targets", self._target)):
            if (what == "masks" or isinstance(given, list | tuple)) and given is not None and len(given) != self._count:
                raise InputError(f"There are {len(given)} {what} and {self._count} images: give one for each.")

    def result(self) -> Comparison:
        """What was found."""
        return Comparison(
            values=np.concatenate(self._values, 2), methods=tuple(self._names), metrics=tuple(self._metrics),
            higher_is_better=np.array([self._better[name] for name in self._metrics]),
            cost=np.asarray(self._seconds / self._forward, np.float32),
            provenance={"model": type(self._explainer._inner).__name__},
        )  # fmt: skip


def _methods(given: Any, options: dict[str, Any]) -> list[Method]:
    if isinstance(given, str) or not isinstance(given, list | tuple):
        given = [given]
    if layered := [name for name in ("method", "metric") if name in options]:
        raise InputTypeError(f"compare has no {layered[0]}=: methods and metrics are lists.")
    return make_methods(list(given), options)


def _metrics(given: Any) -> dict[str, Callable[..., Score]]:
    from .. import trust

    if isinstance(given, str) or callable(given):
        given = [given]
    known = [name for name in trust.__all__ if name.islower() and name != "compare"]
    found: dict[str, Callable[..., Score]] = {}
    for one in given:
        if isinstance(one, str) and one not in known:
            raise UnknownNameError(f"There is no metric {one!r}.{close_matches(one, known)} Known: {', '.join(known)}.")
        metric = getattr(trust, one) if isinstance(one, str) else one
        if not callable(metric):
            raise InputTypeError(f"A metric is a name or a function, not {type(one).__name__}.")
        found[_name_of(metric, found)] = metric
    if not found:
        raise InputError(f"No metric is given: name at least one of {', '.join(known)}.")
    return found


def _name_of(metric: Any, taken: Collection[str]) -> str:
    """What to call a function; of a partial one its function's name, with what was set where that is taken."""
    inner = getattr(metric, "func", metric)
    name = getattr(inner, "__name__", type(inner).__name__)
    if name in taken:
        name += f"({', '.join(f'{key}={value!r}' for key, value in getattr(metric, 'keywords', {}).items())})"
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
