"""The model, to be asked again and again about changed images: what methods that perturb need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..errors import MethodError
from ..layers import find_layers
from ..progress import bar
from ..scoring import Scoring
from .capture import Captured
from .chunks import Chunks
from .faster import COMPILED, Faster, alike_gradients, alike_scores
from .passes import Request, measure, run
from .recording import Recording
from .replay import Tail
from .speed import Speed

if TYPE_CHECKING:
    from .record import Needs, Record

Change = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")
_FIRST, _FIRST_ELSEWHERE = 4, 32  # images of the first chunk, on the CPU and on other devices
_FIRST_TAILS = 32  # replays of the first chunk: what is run again is small
_NOT_SHORT = (
    "What comes after {!r} cannot be run alone in this model (with what its layers returned before it gives something "
    "else), so each evaluation runs all of it."
)

_AT_A_LAYER = "nothing: what a layer gives may be another thing in a copy, as where a batch norm was folded into it"


class Asked(NamedTuple):
    """What a chunk of changed images gave.

    Attributes:
        rows: int64 ``(b,)``, which row of the method's own record each is a change of.
        numbers: int64 ``(b,)``, which of its changes.
        record: a `Record` of the b changed images.
    """

    rows: Tensor
    numbers: Tensor
    record: Record


class Evaluations:
    """The model, to be asked again about changed images: as often as need be, in chunks of the size that is quickest.

    A change is a function of two int64 tensors ``(b,)``: which row of the record each changed image is made of, and the
    number of the change, from 0 to before `count`. It gives the b changed images ``(b, C, H, W)``. Where images have
    several targets, it is asked for the first row of an image alone: changes have nothing to do with targets. No result
    depends on how the changes are cut into chunks.

    Args:
        model: borrowed.
        batch: ``(n, C, *sides)``.
        request: as for the passes that were run over the batch.
        scoring: of the targets, held as they are for these images.
        captured: what the layer gave that the method looks at, if it looks at one.
        speed: how whole runs of the model may be made faster.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        recordings: of runs on the one image, by layer.
        dead: where a layer is noted that nothing reads.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        request: Request,
        scoring: Scoring,
        captured: Captured | None,
        speed: Speed | bool = True,
        progress: bool | None = None,
        recordings: Mapping[str, Recording] | None = None,
        dead: list[str] | None = None,
    ) -> None:
        self._dead = [] if dead is None else dead
        self._recordings = recordings or {}
        self._model, self._batch, self._request, self._scoring = model, batch, request, scoring
        self._captured, self._progress = captured, progress
        self._speed = speed if isinstance(speed, Speed) else Speed()
        self._layer = None if captured is None else find_layers(model, captured.label)[0]
        self.faster = ""  # what was used to be faster, in words
        self.warnings: list[str] = []
        self._shown: Any = None  # a progress bar of all that is asked
        self._alone = False  # whether each image is asked about by itself

    @contextmanager
    def apart(self, count: int) -> Iterator[Evaluations]:
        """The same where each row of the record is an image of its own: there a change may have to do with the target.

        For methods that look for something step by step: one progress bar is for all steps. Each image is asked about
        alone, as rounding differs by the size of the batch, and where a step decides that may lead another way.

        Args:
            count: how many changed images of each row will be asked about, in all.
        """
        own, each = copy.copy(self), self._scoring.each
        own._alone = True
        images = torch.arange(len(self._batch)).repeat_interleave(each).tolist()
        own._batch, own._scoring = self._batch.repeat_interleave(each, 0), replace(self._scoring, each=1)
        own._request = replace(self._request, inputs=self._request.inputs.picked(images, len(self._batch)))
        with self._bar(len(own._batch) * count) as own._shown:
            yield own
        self.faster = own.faster

    def scores(self, change: Change, count: int, where: Tensor | None = None) -> Tensor:
        """The targets' scores ``(n, count)`` of each row's changed images, float64.

        Args:
            change: makes changed images.
            count: how many of each.
            where: bool ``(n, count)``, which of them to ask about (an image's first row says it); the others' scores
                are NaN.
        """
        asked = self._asked(count, where, range(len(self._batch)))
        faster = self._faster(len(asked[0]))

        def ask(images: Tensor, numbers: Tensor) -> Tensor:
            def score(model: nn.Module, changed: Tensor) -> Tensor:
                with torch.no_grad():
                    inputs = self._request.inputs.picked(images.tolist(), len(self._batch))
                    raw = run(model, changed.clone(), inputs)  # which the model may change in place
                return self._read(raw, images, changed)

            return faster(score, change(images * self._scoring.each, numbers), alike_scores)

        with self._bar(len(asked[0])) as shown:
            return self._gathered(count, self._in_chunks(asked, "scores", ask, shown, faster))

    def layer_scores(self, change: Change, count: int, where: Tensor | None = None) -> Tensor:
        """As `scores`, of changed activations ``(b, C, h, w)`` at the layer: only what comes after it is run again."""
        still: list[float] = []  # of images of which the layer seems not to be read: by how much scores may differ

        def each(shown: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for image in range(len(self._batch)):
                tail = self._tail(image)
                still.extend([tail.rounding] if self._ignores(tail, image) else [])

                def ask(images: Tensor, numbers: Tensor, tail: Tail = tail) -> Tensor:
                    changed = change(images * self._scoring.each, numbers)
                    return self._read(tail(_own(changed)), images, self._batch)

                yield from self._in_chunks(self._asked(count, where, [image]), self._kind(tail), ask, shown)

        with self._bar(len(self._asked(count, where, range(len(self._batch)))[0])) as shown:
            found = self._gathered(count, each(shown))
        if self._captured and len(still) == len(self._batch) and _spread(found) <= max(still):
            self._dead.append(self._captured.label)
        return found

    def records(self, change: Change, count: int, needs: Needs) -> Iterator[Asked]:
        """What the passes over the changed images give, chunk by chunk, as a method with these `needs` gets it."""
        asked = self._asked(count, None, range(len(self._batch)))
        layers = (self._layer,) if needs.layer and self._layer else ()
        faster = None if layers else self._faster(len(asked[0]))
        if layers and self._speed != Speed():
            self.faster = _AT_A_LAYER

        def ask(images: Tensor, numbers: Tensor) -> Record:
            inputs = self._request.inputs.picked(images.tolist(), len(self._batch))
            original = (self._batch if self._request.original is None else self._request.original)[images]
            request = replace(
                self._request, needs=(needs,), layers=layers, choose=False, inputs=inputs, original=original
            )

            def measured(model: nn.Module, changed: Tensor) -> Record:
                with torch.enable_grad():
                    found = measure(model, changed, request, self._scoring.at(images.tolist()))
                self.warnings += [said for said in found.warnings if said not in self.warnings]
                return found.record(needs, found.layers[0] if found.layers else None, progress=False)

            changed = change(images * self._scoring.each, numbers)
            return faster(measured, changed, _alike_records) if faster else measured(self._model, changed)

        kind = "alone" if self._alone else "records"
        with self._bar(len(asked[0])) as shown:
            for images, numbers, record in self._in_chunks(asked, kind, ask, shown, faster):
                yield Asked(*self._paired(images, numbers), record)

    def _bar(self, count: int) -> Any:
        if self._shown is not None:
            return nullcontext(self._shown)
        return bar(self._progress, count, doing="asking again", unit="image")

    def _faster(self, count: int) -> Faster:
        """What runs whole evaluations, of which there will be so many; the same for all images of a call."""
        key = (self._model, self._speed)
        if key not in self._request.memory:
            inputs = self._request.inputs.picked([0], len(self._batch))
            self._request.memory[key] = Faster(self._model, self._speed, count, self._batch[:1], inputs)
        found: Faster = self._request.memory[key]
        return found

    def _asked(self, count: int, where: Tensor | None, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Which image and which change each evaluation is of."""
        if where is None:
            where = torch.ones(len(self._batch) * self._scoring.each, count, dtype=torch.bool)
        chosen = torch.zeros(len(self._batch), count, dtype=torch.bool)
        chosen[list(images)] = where.cpu()[:: self._scoring.each][list(images)]
        found, numbers = chosen.to(self._batch.device).nonzero(as_tuple=True)
        return found, numbers

    def _in_chunks(
        self,
        asked: tuple[Tensor, Tensor],
        kind: str,
        ask: Callable[[Tensor, Tensor], T],
        shown: Any,
        faster: Faster | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, T]]:
        """What `ask` gives for each chunk of what is asked; chunks of one `kind` have the size that was quickest."""
        images, numbers = asked
        chunks = self._request.memory.setdefault((self._model, kind), self._chunks(kind))

        def part(start: int, stop: int) -> T:
            result = ask(images[start:stop], numbers[start:stop])
            chunks.paused = faster is not None and faster.deciding
            return result

        for start, stop, result in chunks.run(len(images), part):
            shown.update(stop - start)
            yield images[start:stop], numbers[start:stop], result
        if faster:
            self.faster = faster.said

    def _ignores(self, tail: Tail, image: int) -> bool:
        """Whether the score does not seem to depend on what the layer returns for an image.

        The gradient knows, where there is one; that of a step is 0, and so it is not asked alone.
        """
        if not tail.still or self._captured is None:
            return False
        own = self._captured.value[image : image + 1].requires_grad_()
        with suppress(RuntimeError), torch.enable_grad():  # of a model without a backward
            raw = tail(own.clone(), graph=True)
            scores = self._scoring.at([image]).read(raw, tuple(self._batch.shape[2:])).scores
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(scores.sum(), own, allow_unused=True)
                return gradient is None or not gradient.any()
        return True

    def _kind(self, tail: Tail) -> str:
        """Which evaluations are alike: those after another layer take another time."""
        if tail.short:
            return f"after {self._layer and self._layer.label}"
        return "alone" if tail.alone else "scores"

    def _chunks(self, kind: str) -> Chunks:
        most, device = self._request.most, self._batch.device
        if kind == "alone":
            return Chunks(1, 1, device)
        if kind not in ("scores", "records"):
            return Chunks(_FIRST_TAILS, most, device)
        if self._speed.compile:
            return Chunks(COMPILED, COMPILED, device)
        return Chunks(_FIRST if device.type == "cpu" else _FIRST_ELSEWHERE, most, device)

    def _paired(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the record that these changed images are of, one for each target, and the changes' numbers."""
        each = self._scoring.each
        turns = torch.arange(each, device=images.device)
        return (images[:, None] * each + turns).flatten(), numbers.repeat_interleave(each)

    def _gathered(self, count: int, parts: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        found = self._batch.new_full((len(self._scoring.targets), count), torch.nan, dtype=torch.float64)
        for images, numbers, scores in parts:
            found[self._paired(images, numbers)] = scores.to(found)
        return found

    def _read(self, raw: Any, images: Tensor, changed: Tensor) -> Tensor:
        return self._scoring.at(images.tolist()).read(raw, tuple(changed.shape[2:])).scores.detach().double()

    def _tail(self, image: int) -> Tail:
        if self._captured is None or self._layer is None:
            raise MethodError("layer_scores changes what a layer gives: declare activation=True in the method's needs.")
        inputs = self._request.inputs.part(image, image + 1, len(self._batch))
        recording = self._recordings.get(self._captured.label)
        tail = Tail(
            self._model, self._batch[image : image + 1], self._layer, self._captured.layout_of_one, inputs, recording
        )
        if not tail.short:
            said = _NOT_SHORT.format(self._captured.label)
            self.warnings += [] if said in self.warnings else [said]
        return tail


def _alike_records(expected: Record, got: Record) -> str:
    """Why the record of a copy is not that of the model."""
    why = alike_scores(expected.scores, got.scores)
    if why or "input_gradient" not in vars(expected):
        return why
    return alike_gradients(expected.input_gradient, got.input_gradient)


def _spread(scores: Tensor) -> float:
    """The greatest difference between scores of a row, of those that are known."""
    most, least = scores.nan_to_num(-torch.inf).amax(1), scores.nan_to_num(torch.inf).amin(1)
    return float((most - least).amax())


def _own(changed: Tensor) -> Tensor:
    """Memory that the model may change."""
    return changed.clone() if changed._is_view() else changed
