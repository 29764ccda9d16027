"""What is to be done with a data set: read it, ask the network, and note what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..collect import NOTHING_ARGUES
from ..engine.borrow import undisturbed
from ..engine.inputs import make_inputs
from ..errors import InputTypeError, warn
from ..inside.items import Columns, listed
from ..methods import Method
from ..methods.make import make_methods
from ..outputs import Outputs
from ..progress import bar
from .classes import Classes
from .reading import Reader
from .work import Answer, Work

if TYPE_CHECKING:
    from ..explainer import Explainer

_SHOWN = 3


@dataclass
class Job:
    """One run over a data set.

    Args:
        explainer: of the model.
        data: as of `Reader`.
        method: one or several, as for `Explainer.explain`; none: only predictions.
        layer: as for `Explainer.explain`.
        target: one for all, as for `Explainer.explain`, or `TrueClass()`.
        labels: of each image; or ``{label: class}``, from the data set's labels to the network's classes.
        columns: names of image and label in the mappings that the data set gives.
        batch_size: images per pass.
        workers: processes that read.
        strict: whether an image that cannot be read is an error.
        seen: whether pictures of what the model sees are wanted.
        progress: whether to show a progress bar.
        model_args: as for `Explainer.explain`, the same for all images.
        model_kwargs: the same by name.
        options: of the methods.
        check: is given what the model returned, and may refuse it.
        known: what labels mean; None: worked out of the data set.
    """

    explainer: Explainer
    data: Any
    method: Any = ()
    layer: Any = None
    target: Any = None
    labels: Sequence[Any] | Mapping[Any, int | str] | None = None
    columns: Columns = None
    batch_size: int | None = None
    workers: int = 0
    strict: bool = False
    seen: bool = True
    progress: bool | None = None
    model_args: Sequence[Any] = ()
    model_kwargs: Mapping[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    check: Callable[[Outputs], None] | None = None
    known: Classes | None = None

    def __post_init__(self) -> None:
        given, renamed = _told_apart(self.labels)
        none = isinstance(self.method, list | tuple) and not self.method
        self.methods: list[Method] = [] if none else make_methods(self.method, self.options)
        if none and self.options:
            raise InputTypeError(f"Options are of methods, and none is given: {', '.join(self.options)}.")
        self.reader = Reader(
            self.explainer,
            self.data,
            columns=self.columns,
            batch_size=self.batch_size,
            workers=self.workers,
            strict=self.strict,
            seen=self.seen,
            labels=given,
        )
        found = Classes(self.reader.classes, self.reader.folders, self.explainer._names, renamed)
        self.classes = self.known or found
        inputs = make_inputs(self.model_args, self.model_kwargs)
        self.work = Work(self.explainer, self.methods, self.layer, self.target, self.classes, inputs, self.check)

    def answers(self, numbers: Sequence[tuple[int, int]] | None = None) -> Iterator[Answer]:
        """Batch by batch; `numbers` as for `Reader.batches`.

        Afterwards users are warned of images that could not be read, and of what else there is to say.
        """
        skipped: list[str] = []
        total = self.reader.count
        if numbers is not None and total is not None:
            total = sum(stop - start for start, stop in numbers)
        with undisturbed(self.explainer._inner), bar(self.progress, total, doing="explaining", unit="image") as shown:
            for batch in self.reader.batches(numbers):
                yield self.work(batch)
                skipped += [one.source or f"image {one.number}" for one in batch.skipped]
                shown.update(len(batch) + len(batch.skipped))
        self.work.finish()
        self.say(skipped)

    def say(self, skipped: Sequence[str]) -> None:
        """Warn of files that were passed by, and of maps that are blank."""
        for message in self.work.warnings:
            warn(message)
        for what, count in self.work.empty.items():
            warn(f"{what} is 0 everywhere for {count} image{'s' * (count != 1)}: {NOTHING_ARGUES}")
        if skipped:
            some = ", ".join(map(repr, skipped[:_SHOWN])) + (", …" if len(skipped) > _SHOWN else "")
            images = f"{len(skipped)} image{'s' * (len(skipped) != 1)}"
            warn(f"{images} could not be read and {'were' if len(skipped) > 1 else 'was'} passed by: {some}. "
                 "The result's .skipped says why; strict=True makes it an error.")  # fmt: skip


def _told_apart(labels: Any) -> tuple[Sequence[Any] | None, Mapping[Any, int | str] | None]:
    if labels is None or isinstance(labels, Mapping):
        return None, labels
    return listed(labels), None
