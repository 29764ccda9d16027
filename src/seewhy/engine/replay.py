"""Running only what comes after a layer, for changed activations there: what ran before it answers from memory.

While the model runs once on an image, what its modules return is kept. When it is run again, those that had finished
before the layer answer with that, the layer with the changed activation, and the rest runs as ever, functional code
between modules too. Nothing is traced. Whether it may be done so is tried once for each layer, against whole runs.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LayerNotRunError
from ..layers import Layer, tensors
from ..layouts import Layout
from .chunks import ran_out
from .inputs import ModelInputs
from .passes import run
from .recording import Recording, exchanged, mapped
from .switches import fast_path_off

_tried: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[_Way, bool]]] = weakref.WeakKeyDictionary()
_ROUNDING = 1024  # units in the last place, of the largest output, by which a replay may differ from a whole run
_HALF = 4  # the same where they are as coarse as those of half precision


class _LostError(Exception):
    """The model does not run as it did when it was recorded."""


class _Way(Enum):
    """How a model gives what it should for changed activations at a layer."""

    SHORT = "only what comes after the layer is run"
    WHOLE = "all of it is run"
    ALONE = "all of it is run, for one activation at a time"


class Tail:
    """Calling it gives what a borrowed `model` returns where a layer gives other activations than it gave for an image.

    Args:
        model: borrowed.
        image: ``(1, C, *sides)``.
        layer: in one of its calls.
        layout: where the positions are in what the layer returns; None for a layer without.
        inputs: what else the model is called with, for this image.
        recording: of a run on this image; None: one is made.

    Attributes:
        short: whether only what comes after the layer is run; else the whole model, as its parts cannot be told apart.
        alone: whether the model must be given one activation at a time.
        still: whether another activation was tried, and changed nothing that the model returns but for rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        layer: Layer,
        layout: Layout | None,
        inputs: ModelInputs,
        recording: Recording | None = None,
    ) -> None:
        self._model, self._image, self._layer, self._layout, self._inputs = model, image, layer, layout, inputs
        if recording is None:
            recording = Recording(model, layer)
            with recording, torch.no_grad():
                recording.run(image.clone(), inputs)
        self._raw, self._overwrites = recording.raw, recording.overwrites
        self._returned, self._before, self._written = recording.returned, recording.before, recording.written
        self._shown = image.clone()  # to replays; one that writes to it is the last
        way, self.still = self._way(recording.trace)
        self.short, self.alone = way is _Way.SHORT, way is _Way.ALONE

    def __call__(self, changed: Tensor, *, graph: bool = False) -> Any:
        """What the model returns where the layer gives `changed` ``(b, C, *grid)``, or ``(b, C)``; in a `graph`."""
        with torch.set_grad_enabled(graph), fast_path_off():
            if self.short:
                with suppress(_LostError):  # the activations may lead the model another way
                    return self._replayed(changed)
            return self._whole(changed)

    @property
    def rounding(self) -> float:
        """By how much what the model returns may differ by rounding."""
        found = [tensor for tensor in self._raw if tensor.is_floating_point() and tensor.numel()]
        return max((float(_rounding(tensor)) for tensor in found), default=0.0)

    def _filled(self, changed: Tensor) -> Any:
        """What the layer returns instead."""
        first = next(tensors(self._returned))
        changed = changed.to(first.device, first.dtype)
        shaped = self._layout.filled(first, changed) if self._layout else changed.reshape(-1, *first.shape[1:])
        shaped = shaped.clone() if self._written else shaped
        remaining = itertools.count()

        def fill(tensor: Tensor) -> Tensor:
            if next(remaining) == 0:
                return shaped
            return tensor.repeat_interleave(len(changed), 0) if _is_batch(tensor) else tensor.clone()

        return mapped(self._returned, fill)

    def _run(self, images: Tensor) -> Any:
        return run(self._model, images, self._inputs.picked([0] * len(images), 1))

    def _whole(self, changed: Tensor) -> Any:
        """By a whole run, in which the layer's output is exchanged."""
        calls, wanted = 0, self._layer.call or 1

        def exchange(*_: Any) -> Any:
            nonlocal calls
            calls += 1
            return filled if calls == wanted else None

        filled = self._filled(changed)
        handle = self._layer.module.register_forward_hook(exchange)
        try:
            raw = self._run(self._image.repeat_interleave(len(changed), 0))
        finally:
            handle.remove()
        if calls < wanted:
            raise LayerNotRunError(f"Layer {self._layer.label!r} ran at first, and did not when the model ran again.")
        return raw

    def _replayed(self, changed: Tensor) -> Any:
        """By a run in which what had finished before the layer does not run again."""
        calls = self._before or []
        waiting, filled, lost = list(reversed(calls)), self._filled(changed), False

        def answer(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal lost
            if not waiting:
                return forward(*args, **kwargs)
            call = waiting.pop()
            if module is not (call.module if call else self._layer.module):
                lost = True  # which the model may hide
                raise _LostError
            if call is None:
                return filled
            return call.answer(len(changed)) if call.stands else forward(*args, **kwargs)

        modules = dict.fromkeys([*(call.module for call in calls if call), self._layer.module])
        try:
            with exchanged(modules, answer):
                raw = self._run(self._images(len(changed)))
        except Exception as error:  # of whatever kind: if it is the model's own, whole runs have it too
            if ran_out(error):
                raise
            raise _LostError from error
        finally:
            self.short = self.short and not self._shown._version and not any(call.spoilt for call in calls if call)
        if lost or waiting or not self.short:
            raise _LostError
        return raw

    def _images(self, count: int) -> Tensor:
        """The image, for a replay: few of its parts look at it."""
        images = self._shown.expand(count, *self._shown.shape[1:])
        return images.clone() if self._overwrites else images

    def _way(self, trace: tuple[str, ...]) -> tuple[_Way, bool]:
        """How replays or whole runs give what they should, and whether that never changes.

        Tried once for each way through the model.
        """
        known = _tried.setdefault(self._model, {})
        layout, hooks = self._layout and self._layout.name, tuple(self._layer.module._forward_hooks)
        key = self._layer.label, hooks, tuple(self._image.shape), self._image.dtype, layout, trace
        if key not in known:
            with torch.no_grad(), fast_path_off():
                known[key] = self._try()
        return known[key]

    def _try(self) -> tuple[_Way, bool]:
        """Try it with two activations: the layer's own, and another one."""
        first = next(tensors(self._returned))
        own = self._layout.channels_first(first) if self._layout else first.flatten(1)
        both, still = torch.cat([own, own.roll(1, 1) * 0.5 + own.flip(-1) + 0.1]), False
        with suppress(Exception):  # of whatever kind: the model is not made for this
            expected = self._raw, self._whole(both[1:])
            still = _alike([*tensors(expected[1])], self._raw)
            if self._before is not None and self._replays(both, expected):
                return _Way.SHORT, still
            if _are(self._whole(both), expected):
                return _Way.WHOLE, still
        return _Way.ALONE, still

    def _replays(self, both: Tensor, expected: Sequence[Any]) -> bool:
        """Whether replays give what is expected, and do so again."""
        self.short = True
        with suppress(Exception):
            self._run(self._image.flip(-1) * 0.5)  # what the model may keep from run to run is now of another image
            return _are(self._replayed(both), expected) and _are(self._replayed(both[1:]), expected[1:])
        return False


def _is_batch(tensor: Tensor, count: int = 1) -> bool:
    return tensor.dim() > 0 and len(tensor) == count


def _alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether tensors are equal but for rounding."""
    return len(some) == len(others) and all(
        a.shape == b.shape and _close(a, b) for a, b in zip(some, others, strict=True)
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if not (a.is_floating_point() and b.is_floating_point()):
        return bool(torch.equal(a, b))
    return not b.numel() or bool(((a - b).abs() <= _rounding(b)).all())


def _rounding(tensor: Tensor) -> Tensor:
    """By how much a tensor may differ from its like by rounding."""
    unit = torch.finfo(tensor.dtype).eps
    return min(_ROUNDING * unit, _HALF * unit + 1e-3) * tensor.abs().max()


def _are(raw: Any, expected: Sequence[Any]) -> bool:
    """Whether what a model returned for several images is what it returned for each of them."""
    rows = [_row(raw, index, len(expected)) for index in range(len(expected))]
    return all(_alike([*tensors(row)], [*tensors(one)]) for row, one in zip(rows, expected, strict=True))


def _row(raw: Any, index: int, count: int) -> Any:
    """What a model returned for one of so many images; detectors return a list of dictionaries."""
    if isinstance(raw, list) and len(raw) == count and all(isinstance(part, dict) for part in raw):
        return raw[index]
    return [tensor[index : index + 1] if _is_batch(tensor, count) else tensor for tensor in tensors(raw)]
