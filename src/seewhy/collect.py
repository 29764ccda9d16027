"""From what the passes measured, chunk by chunk, through the methods, to Explanations in NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ._version import __version__
from .engine.backward import no_gradient
from .engine.capture import Captured
from .engine.diagnose import NO_CHANGE
from .engine.passes import Measured
from .engine.record import Record
from .errors import GradientError, InputError, LayerError, MethodError, NonFiniteError
from .explanation import Explanation
from .methods import Method
from .methods.base import cut
from .methods.fusing import Fusing, fuse_maps
from .origin import Origin
from .scoring import Selected

NOTHING_ARGUES = "nothing there argues for the target."
_Key = tuple[int, str | None]  # which method, at which layer


class Collector:
    """Gathers the results of `methods` over chunks of images.

    Args:
        methods: in the order asked.
        count: how many images will come; None: those of one chunk.
    """

    def __init__(self, methods: Sequence[Method], count: int | None = None) -> None:
        self._methods, self._count = methods, count
        self._pictures = _Rows()
        self._index = _Rows()
        self._targets: list[tuple[np.ndarray, list[str], np.ndarray, np.ndarray]] = []
        self._results: dict[_Key, tuple[_Rows, _Rows]] = {}
        self._measures: dict[_Key, dict[str, _Rows]] = {}
        self._faster: dict[_Key, str] = {}
        self._layers: dict[_Key, list[str]] = {}
        self._chunks = 0
        self._dead: Counter[str] = Counter()  # in how many chunks no image has a gradient there
        self.warnings: dict[str, None] = {}  # in order, each once
        self.padded = False  # whether grids of layers cover more than the input, as with detectors
        self.empty: dict[str, list[int]] = {}  # of which images a method's map is 0 everywhere

    def add(self, measured: Measured, pictures: np.ndarray) -> None:
        """Run the methods on one chunk."""
        each, images = measured.scoring.each, len(pictures)
        total = None if self._count is None else self._count * each
        self.padded = self.padded or measured.sides != tuple(measured.input.shape[2:])
        first = self._index.filled // each
        self._pictures.add(pictures if each == 1 else pictures.repeat(each, 0), total)
        self._index.add(np.arange(first, first + images).repeat(each), total)
        self._targets.append(_describe(measured.selected, images * each))
        self._chunks += 1
        self.warnings |= dict.fromkeys(measured.warnings)
        for index, method in enumerate(self._methods):
            if isinstance(method, Fusing) and method.fuse:
                self._fuse((index, "+".join(layer.label for layer in measured.layers)), method, measured, total)
                continue
            for layer in measured.layers if method.needs.layer else [None]:
                name = layer.label if layer else measured.head.layer if method.needs.head and measured.head else None
                record, values, maps = _apply(method, measured, layer)
                self._layers[index, name] = [layer.label] if layer else []
                self._keep((index, name), record, {"values": values, "maps": maps}, total)
        self._dead.update(set(measured.dead))

    def _fuse(self, key: _Key, method: Fusing, measured: Measured, total: int | None) -> None:
        """One map of all layers."""
        if len(measured.layers) < 2:
            raise InputError(
                f"fuse={method.fuse!r} makes one map of several layers, and there is one: name more, as in "
                "layer=['layer3', 'layer4']; explainer.layers() lists them."
            )
        applied = [_apply(method, measured, layer) for layer in measured.layers]
        self._layers[key] = [layer.label for layer in measured.layers]
        with torch.no_grad():
            fused = fuse_maps(torch.stack([maps for _, _, maps in applied]), method.fuse or "")
        for record, _, _ in applied:
            self.warnings |= dict.fromkeys(record.warnings)
        self._keep(key, applied[-1][0], {"values": fused, "maps": fused}, total)

    def _keep(self, key: _Key, record: Record, results: dict[str, Tensor], total: int | None) -> None:
        for rows, tensor in zip(self._results.setdefault(key, (_Rows(), _Rows())), results.values(), strict=True):
            rows.add(_numpy(tensor), total)
        count = len(record.input)
        for name, numbers in record.measures.items():
            if not isinstance(numbers, Tensor) or numbers.shape != (count,):
                given = tuple(numbers.shape) if isinstance(numbers, Tensor) else type(numbers).__name__
                raise MethodError(f"record.measures[{name!r}] must be a tensor ({count},), a number for each row, not "
                                  f"{given}.")  # fmt: skip
            self._measures.setdefault(key, {}).setdefault(name, _Rows()).add(_numpy(numbers), total)
        self.warnings |= dict.fromkeys(record.warnings)
        if again := vars(record).get("evaluations"):
            self.warnings |= dict.fromkeys(again.warnings)
            self._faster |= {key: again.faster} if again.faster else {}

    def check(self) -> None:
        """Refuse maps that are blank for want of any gradient.

        Raises:
            GradientError: no image has a gradient where one is needed.
        """
        for where, chunks in self._dead.items():
            if chunks == self._chunks:
                hint = " Leave layer out to have one chosen." if where else ""
                raise GradientError(f"{no_gradient(where)}: {NO_CHANGE}{hint}")

    def explanations(
        self,
        truth: tuple[str, ...] | None,
        sources: tuple[str | None, ...],
        provenance: Mapping[str, str],
        origin: Origin | None = None,
    ) -> list[Explanation]:
        """One for each method and layer, over all images; `origin` is what they were made of.

        Raises:
            LayerError: the model ran so differently that a method fell on several layers.
        """
        index = self._index.array.tolist()
        truth = None if truth is None else tuple(truth[i] for i in index)
        sources = tuple(sources[i] for i in index)
        return [self._explanation(key, truth, sources, provenance, origin) for key in self._results]

    def _explanation(
        self,
        key: _Key,
        truth: tuple[str, ...] | None,
        sources: tuple[str | None, ...],
        provenance: Mapping[str, str],
        origin: Origin | None,
    ) -> Explanation:
        method, layer = self._methods[key[0]], key[1]
        values, maps = self._results[key]
        if maps.filled < self._index.filled:
            layers = ", ".join(repr(name) for index, name in self._results if index == key[0])
            raise LayerError(
                f"For some of these images {method.label!r} fell on another layer than for others ({layers}): "
                "the model runs differently for them. Explain them in separate calls."
            )
        measures = self._measures.get(key, {})
        if lacking := [name for name, rows in measures.items() if rows.filled < self._index.filled]:
            raise MethodError(
                f"{method.label!r} measures {', '.join(lacking)} for some images only: give NaN for others."
            )
        faster = {"faster": self._faster[key]} if key in self._faster else {}
        parts = self._targets if method.needs.score else [_describe(None, maps.filled)]
        targets, names, scores, chances = zip(*parts, strict=True)
        if method.needs.score:
            self._note_empty(method.label, layer, maps.array)
        return Explanation(
            values=values.array, maps=maps.array, images=self._pictures.array, targets=np.concatenate(targets),
            target_names=tuple(name for chunk in names for name in chunk), scores=np.concatenate(scores),
            probabilities=np.concatenate(chances), method=method.label, layer=layer, truth=truth, sources=sources,
            signed=method.signed, image_index=self._index.array,
            measures={name: rows.array for name, rows in measures.items()},
            provenance={**provenance, **_options(method), **faster},
            origin=origin and origin.by(method, self._layers.get(key, ())),
        )  # fmt: skip

    def _note_empty(self, name: str, layer: str | None, maps: np.ndarray) -> None:
        if empty := np.flatnonzero(~maps.reshape(len(maps), -1).any(1)).tolist():
            self.empty[f"{name} at {layer!r}" if layer else name] = empty

    def messages(self, sources: Sequence[str | None]) -> list[str]:
        """What users are to be warned of; `sources` are those of the images."""
        index = self._index.array.tolist()
        said = [f"{i} ({sources[i]!r})" if sources[i] else str(i) for i in index]
        blank = [
            f"{what} is 0 everywhere for image {', '.join(dict.fromkeys(said[row] for row in rows))}: {NOTHING_ARGUES}"
            for what, rows in self.empty.items()
        ]
        return [*self.warnings, *blank]


def _describe(selected: Selected | None, count: int) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Targets, their names, scores and probabilities."""
    if selected is None:
        nan = np.full(count, np.nan, np.float32)
        return np.full(count, -1), [""] * count, nan, nan
    classes = selected.classes.cpu().numpy()
    return classes, list(selected.names), _numpy(selected.scores), _numpy(selected.chances)


def _apply(method: Method, measured: Measured, layer: Captured | None) -> tuple[Record, Tensor, Tensor]:
    """The values and maps of `method`, checked: right shape, finite, and the shared record unchanged."""
    record = measured.record(method.needs, layer)
    before = record.versions()
    with torch.no_grad():
        values = method.compute(record)
        count, size = len(record.input), tuple(record.input.shape[2:])
        _check_tensor(method, "compute", values, count)
        covered = size if values.shape[-len(size) :] == size else measured.sides
        maps = method.to_maps(values, covered)
    if record.versions() != before:
        raise MethodError(f"The method {method.label!r} changes its record in place, which other methods share: "
                          "work on new tensors (x.relu(), not x.relu_()).")  # fmt: skip
    _check_tensor(method, "to_maps", maps, count)
    if maps.shape != (count, *covered):
        raise MethodError(f"to_maps of {method.label!r} must return {(count, *covered)}, not {tuple(maps.shape)}.")
    return record, values, cut(maps, size)


def _check_tensor(method: Method, function: str, values: object, count: int) -> None:
    if not isinstance(values, Tensor) or values.dim() < 2 or len(values) != count:
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise MethodError(f"{function} of {method.label!r} must return a tensor of {count} images, (n, h, w) or "
                          f"(n, C, H, W), not {given}.")  # fmt: skip
    if not values.sum(dtype=torch.float32).isfinite() and not values.isfinite().all():  # the sum is the quick look
        raise NonFiniteError(
            f"{method.label!r} gives NaN or infinite values ({function}, {values.dtype}): the model's weights "
            "hold some, or something overflows; try the model in float32."
        )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


class _Rows:
    """An array that is filled chunk by chunk, of as many rows as are known to come, so that nothing is held twice."""

    def __init__(self) -> None:
        self._array: np.ndarray | None = None
        self.filled = 0

    def add(self, part: np.ndarray, total: int | None) -> None:
        """Add rows, of `total` that will come; None: these alone."""
        if self._array is None:
            total = len(part) if total is None else total
            self._array = part if total == len(part) else np.empty((total, *part.shape[1:]), part.dtype)
        if self._array is not part:
            self._array[self.filled : self.filled + len(part)] = part
        self.filled += len(part)

    @property
    def array(self) -> np.ndarray:
        """What is filled, read-only, so that results can share it."""
        if self._array is None:
            raise RuntimeError("no rows were added")
        self._array.flags.writeable = False
        return self._array


def _said(value: object) -> str:
    """An option in a few words."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return repr(value)


def _options(method: Method) -> dict[str, str]:
    options = {f.name: getattr(method, f.name) for f in fields(method) if f.init and f.name != "name"}
    return {
        "options": ", ".join(f"{name}={_said(value)}" for name, value in options.items()),
        "seewhy": __version__,
        "torch": str(torch.__version__),
    }
