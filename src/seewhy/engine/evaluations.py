"""The model, to be asked again and again about changed images: what methods that perturb need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from .passes import Request, measure, run
from .replay import Tail

if TYPE_CHECKING:
    from .record import Needs, Record

Change = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")
_FIRST = {"cpu": 4}  # images of the first chunk, by the kind of device
_ELSEWHERE = 32
_FIRST_TAILS = 32  # replays of the first chunk: what is run again is small
_NOT_SHORT = (
    "What comes after {!r} cannot be run alone in this model (it runs another way with what its layers returned before), "
    "so each evaluation runs all of it."
)


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
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        request: Request,
        scoring: Scoring,
        captured: Captured | None,
        progress: bool | None = None,
    ) -> None:
        self._model, self._batch, self._request, self._scoring = model, batch, request, scoring
        self._captured, self._progress = captured, progress
        self._layer = None if captured is None else find_layers(model, captured.label)[0]
        self._chunks: dict[int, Chunks] = {}
        self.warnings: list[str] = []

    def scores(self, change: Change, count: int, where: Tensor | None = None) -> Tensor:
        """The targets' scores ``(n, count)`` of each row's changed images, float32.

        Args:
            change: makes changed images.
            count: how many of each.
            where: bool ``(n, count)``, which of them to ask about (an image's first row says it); the others' scores
                are NaN.
        """

        def ask(images: Tensor, numbers: Tensor) -> Tensor:
            changed = _own(change(images * self._scoring.each, numbers))
            with torch.no_grad():
                raw = run(self._model, changed, self._request.inputs.picked(images.tolist(), len(self._batch)))
            return self._read(raw, images, changed)

        asked = self._asked(count, where, range(len(self._batch)))
        return self._gathered(count, self._in_chunks(asked, _FIRST.get(self._batch.device.type, _ELSEWHERE), ask))

    def layer_scores(self, change: Change, count: int, where: Tensor | None = None) -> Tensor:
        """As `scores`, of changed activations ``(b, C, h, w)`` at the layer: only what comes after it is run again."""

        def each() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for image in range(len(self._batch)):
                tail = self._tail(image)

                def ask(images: Tensor, numbers: Tensor, tail: Tail = tail) -> Tensor:
                    raw = tail(change(images * self._scoring.each, numbers))
                    return self._read(raw, images, self._batch)

                yield from self._in_chunks(self._asked(count, where, [image]), _FIRST_TAILS, ask)

        return self._gathered(count, each())

    def records(self, change: Change, count: int, needs: Needs) -> Iterator[Asked]:
        """What the passes over the changed images give, chunk by chunk, as a method with these `needs` gets it."""

        def ask(images: Tensor, numbers: Tensor) -> Record:
            changed = change(images * self._scoring.each, numbers)
            layers = (self._layer,) if needs.layer and self._layer else ()
            inputs = self._request.inputs.picked(images.tolist(), len(self._batch))
            request = replace(self._request, needs=(needs,), layers=layers, choose=False, inputs=inputs)
            with torch.enable_grad():
                measured = measure(self._model, changed, request, self._scoring.at(images.tolist()))
            self.warnings += [said for said in measured.warnings if said not in self.warnings]
            return measured.record(needs, measured.layers[0] if measured.layers else None, progress=False)

        asked = self._asked(count, None, range(len(self._batch)))
        for images, numbers, record in self._in_chunks(asked, _FIRST.get(self._batch.device.type, _ELSEWHERE), ask):
            yield Asked(*self._paired(images, numbers), record)

    def _asked(self, count: int, where: Tensor | None, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Which image and which change each evaluation is of."""
        if where is None:
            where = torch.ones(len(self._batch) * self._scoring.each, count, dtype=torch.bool)
        chosen = torch.zeros(len(self._batch), count, dtype=torch.bool)
        chosen[list(images)] = where.cpu()[:: self._scoring.each][list(images)]
        found, numbers = chosen.to(self._batch.device).nonzero(as_tuple=True)
        return found, numbers

    def _in_chunks(
        self, asked: tuple[Tensor, Tensor], first: int, ask: Callable[[Tensor, Tensor], T]
    ) -> Iterator[tuple[Tensor, Tensor, T]]:
        images, numbers = asked
        chunks = self._chunks.setdefault(first, Chunks(first, self._request.most, self._batch.device))
        with bar(self._progress, len(images), doing="asking again", unit="image") as shown:
            for start, stop, result in chunks.run(len(images), lambda a, b: ask(images[a:b], numbers[a:b])):
                shown.update(stop - start)
                yield images[start:stop], numbers[start:stop], result

    def _paired(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the record that these changed images are of, one for each target, and the changes' numbers."""
        each = self._scoring.each
        turns = torch.arange(each, device=images.device)
        return (images[:, None] * each + turns).flatten(), numbers.repeat_interleave(each)

    def _gathered(self, count: int, parts: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        found = self._batch.new_full((len(self._scoring.targets), count), torch.nan, dtype=torch.float32)
        for images, numbers, scores in parts:
            found[self._paired(images, numbers)] = scores.to(found)
        return found

    def _read(self, raw: Any, images: Tensor, changed: Tensor) -> Tensor:
        return self._scoring.at(images.tolist()).read(raw, tuple(changed.shape[2:])).scores.detach()

    def _tail(self, image: int) -> Tail:
        if self._captured is None or self._layer is None:
            raise MethodError("layer_scores changes what a layer gives: declare activation=True in the method's needs.")
        inputs = self._request.inputs.part(image, image + 1, len(self._batch))
        tail = Tail(self._model, self._batch[image : image + 1], self._layer, self._captured.layout, inputs)
        if not tail.short:
            said = _NOT_SHORT.format(self._captured.label)
            self.warnings += [] if said in self.warnings else [said]
        return tail


def _own(changed: Tensor) -> Tensor:
    """Memory that the model may change."""
    return changed.clone() if changed._is_view() else changed
