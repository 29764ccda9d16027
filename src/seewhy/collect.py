"""From what the passes measured, chunk by chunk, through the methods, to Explanations in NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ._version import __version__
from .engine.capture import Captured
from .engine.diagnose import NO_CHANGE
from .engine.passes import Measured, no_gradient
from .errors import GradientError, LayerError, MethodError, NonFiniteError
from .explanation import Explanation
from .methods import Method
from .methods.base import cut
from .scoring import Selected

NOTHING_ARGUES = "nothing there argues for the target."
_Key = tuple[int, str | None]  # which method, at which layer


class Collector:
    """Gathers the results of `methods` over chunks of images.

    Args:
        methods: in the order asked.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = methods
        self._pictures: list[np.ndarray] = []
        self._targets: list[tuple[np.ndarray, list[str], np.ndarray, np.ndarray]] = []
        self._results: dict[_Key, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._dead: Counter[str] = Counter()  # in how many chunks no image has a gradient there
        self.warnings: dict[str, None] = {}  # in order, each once
        self.padded = False  # whether grids of layers cover more than the input, as with detectors
        self.empty: dict[str, list[int]] = {}  # of which images a method's map is 0 everywhere

    def add(self, measured: Measured, pictures: np.ndarray) -> None:
        """Run the methods on one chunk."""
        self.padded = self.padded or measured.sides != tuple(measured.input.shape[2:])
        self._pictures.append(pictures)
        self._targets.append(_describe(measured.selected, len(pictures)))
        self.warnings |= dict.fromkeys(measured.warnings)
        self._dead.update(set(measured.dead))
        for index, method in enumerate(self._methods):
            for layer in measured.layers if method.needs.layer else [None]:
                name = layer.label if layer else measured.head.layer if method.needs.head and measured.head else None
                values, maps = _apply(method, measured, layer)
                self._results.setdefault((index, name), []).append((_numpy(values), _numpy(maps)))

    def check(self) -> None:
        """Refuse maps that are blank for want of any gradient.

        Raises:
            GradientError: no image has a gradient where one is needed.
        """
        for where, chunks in self._dead.items():
            if chunks == len(self._pictures):
                hint = " Leave layer out to have one chosen." if where else ""
                raise GradientError(f"{no_gradient(where)}: {NO_CHANGE}{hint}")

    def explanations(
        self, truth: tuple[str, ...] | None, sources: tuple[str | None, ...], provenance: Mapping[str, str]
    ) -> list[Explanation]:
        """One for each method and layer, over all images.

        Raises:
            LayerError: the model ran so differently that a method fell on several layers.
        """
        self._pictures = [_joined(self._pictures)]
        return [self._explanation(key, truth, sources, provenance) for key in self._results]

    def _explanation(
        self, key: _Key, truth: tuple[str, ...] | None, sources: tuple[str | None, ...], provenance: Mapping[str, str]
    ) -> Explanation:
        method, layer = self._methods[key[0]], key[1]
        if len(self._results[key]) < len(self._targets):
            layers = ", ".join(repr(name) for index, name in self._results if index == key[0])
            raise LayerError(
                f"For some of these images {method.label!r} fell on another layer than for others ({layers}): "
                "the model runs differently for them. Explain them in separate calls."
            )
        values, maps = (_joined(parts) for parts in zip(*self._results[key], strict=True))
        parts = self._targets if method.needs.score else [_describe(None, len(maps))]
        targets, names, scores, chances = zip(*parts, strict=True)
        if method.needs.score:
            self._note_empty(method.label, layer, maps)
        return Explanation(
            values=values, maps=maps, images=self._pictures[0], targets=np.concatenate(targets),
            target_names=tuple(name for chunk in names for name in chunk), scores=np.concatenate(scores),
            probabilities=np.concatenate(chances), method=method.label, layer=layer, truth=truth, sources=sources,
            signed=method.signed,
            provenance={**provenance, **_options(method)},
        )  # fmt: skip

    def _note_empty(self, name: str, layer: str | None, maps: np.ndarray) -> None:
        if empty := np.flatnonzero(~maps.reshape(len(maps), -1).any(1)).tolist():
            self.empty[f"{name} at {layer!r}" if layer else name] = empty

    def messages(self, sources: Sequence[str | None]) -> list[str]:
        """What users are to be warned of."""
        blank = [
            f"{what} is 0 everywhere for image "
            f"{', '.join(f'{i} ({sources[i]!r})' if sources[i] else str(i) for i in images)}: {NOTHING_ARGUES}"
            for what, images in self.empty.items()
        ]
        return [*self.warnings, *blank]


def _describe(selected: Selected | None, count: int) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Targets, their names, scores and probabilities."""
    if selected is None:
        nan = np.full(count, np.nan, np.float32)
        return np.full(count, -1), [""] * count, nan, nan
    classes = selected.classes.cpu().numpy()
    return classes, list(selected.names), _numpy(selected.scores), _numpy(selected.chances)


def _apply(method: Method, measured: Measured, layer: Captured | None) -> tuple[Tensor, Tensor]:
    """The values and maps of `method`, checked: right shape, finite, and the shared record unchanged."""
    record = measured.record(method.needs, layer)
    before = record.versions()
    with torch.no_grad():
        values = method.compute(record)
        count, _, *sides = measured.input.shape
        size = tuple(sides)
        _check_tensor(method, "compute", values, count)
        covered = size if values.shape[-len(size) :] == size else measured.sides
        maps = method.to_maps(values, covered)
    if record.versions() != before:
        raise MethodError(f"The method {method.label!r} changes its record in place, which other methods share: "
                          "work on new tensors (x.relu(), not x.relu_()).")  # fmt: skip
    _check_tensor(method, "to_maps", maps, count)
    if maps.shape != (count, *covered):
        raise MethodError(f"to_maps of {method.label!r} must return {(count, *covered)}, not {tuple(maps.shape)}.")
    return values, cut(maps, size)


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


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One read-only array, so that results can share it."""
    joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
    joined.flags.writeable = False
    return joined


def _options(method: Method) -> dict[str, str]:
    options = {f.name: getattr(method, f.name) for f in fields(method) if f.name != "name"}
    return {
        "options": ", ".join(f"{name}={value!r}" for name, value in options.items()),
        "seewhy": __version__,
        "torch": str(torch.__version__),
    }
