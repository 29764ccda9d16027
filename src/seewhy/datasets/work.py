"""One batch of a data set through the network: what it answers, and the maps, in one shared pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..collect import Collector
from ..engine.borrow import borrowed
from ..engine.inputs import ModelInputs
from ..engine.passes import run
from ..errors import InputTypeError, SeewhyError, TargetError
from ..explanation import Explanation
from ..layers import Layer, find_layers
from ..methods import Method
from ..outputs import Outputs, read_outputs
from ..scoring import find_targets, with_embeddings
from ..targets import Target
from .answers import Columns, answers
from .classes import Classes
from .reading import Batch

if TYPE_CHECKING:
    from ..explainer import Explainer

LOOK = 16  # images none of which has a gradient, before it is said to be missing


@dataclass(frozen=True)
class TrueClass:
    """As ``target=``: each image's own label, so that the maps say what argues for the truth.

    >>> TrueClass()
    TrueClass()
    """


@dataclass(frozen=True)
class Answer:
    """What the network says of a batch.

    Attributes:
        batch: the images.
        columns: as `answers` gives them.
        explanations: for each method and layer; empty where no method was asked.
        padded: whether grids of layers cover more than the input, as with detectors.
    """

    batch: Batch
    columns: Columns
    explanations: list[Explanation]
    padded: bool = False

    def without_input(self) -> Answer:
        """It without what the model took, which takes room."""
        return replace(self, batch=replace(self.batch, input=torch.zeros(0)))

    def without_skipped(self) -> Answer:
        """It without the images that could not be read."""
        return replace(self, batch=replace(self.batch, skipped=()))


class Work:
    """Explains batches.

    Args:
        explainer: of the model.
        methods: those wanted; none for predictions alone.
        layer: as for `Explainer.explain`; the layer that is chosen for the first batch is kept for all.
        target: one for all images, as for `Explainer.explain`, or `TrueClass()`.
        classes: what labels mean.
        inputs: what else the model is called with.
        check: is given what the model returned for each batch, and may refuse it.

    Attributes:
        layers: the names of the layers in use; empty until they are known.
        asked: those of them that were named.
        empty: of how many images each method's map is 0 everywhere.
        warnings: what users are to be told, each once.
    """

    def __init__(
        self,
        explainer: Explainer,
        methods: Sequence[Method],
        layer: Any,
        target: Any,
        classes: Classes,
        inputs: ModelInputs,
        check: Callable[[Outputs], None] | None = None,
    ) -> None:
        self._explainer, self._methods, self._target, self._check = explainer, methods, target, check
        self._classes, self.inputs = classes, inputs
        self._layers: tuple[Layer, ...] | None = None
        self._fixed: Target | None = None
        if layer is not None:
            self._layers = tuple(dict.fromkeys(find_layers(explainer._inner, layer)))
        self.asked = self.layers
        if isinstance(target, list | tuple):
            raise InputTypeError("target is one for all images of a data set, or TrueClass(): not a list.")
        self._looked, self._alive = 0, False
        self._blank: Collector | None = None
        self.empty: Counter[str] = Counter()
        self.warnings: dict[str, None] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers in use."""
        return tuple(layer.label for layer in self._layers or ())

    def use(self, layers: Sequence[str]) -> None:
        """Take these layers, which were chosen before."""
        if layers:
            self._layers = tuple(find_layers(self._explainer._inner, list(layers)))

    def __call__(self, batch: Batch) -> Answer:
        """What the network says of the images, and the maps."""
        if not len(batch):
            return Answer(batch, {}, [])
        explainer = self._explainer
        try:
            with borrowed(explainer._inner):
                placed = explainer._placed(batch.input)
                outputs, found = self._explained(batch, placed) if self._methods else (self._predicted(placed), None)
            if self._check:
                self._check(outputs)
            columns = answers(outputs, batch.labels, self._classes, explainer._activation)
        except SeewhyError as error:
            error.add_note(f"seewhy: among images {batch.numbers[0]} to {batch.numbers[-1]} of the data set")
            raise
        if found is None:
            return Answer(batch, columns, [])
        return Answer(batch, columns, self._collected(found, batch, columns), found.padded)

    def _predicted(self, placed: Tensor) -> Outputs:
        explainer = self._explainer
        with torch.no_grad():
            raw = run(explainer._inner, placed, self._part(len(placed)))
            outputs = read_outputs(raw, len(placed), explainer._output, explainer._classes)
            explainer._cautions.check_outputs(outputs)
        return outputs

    def _part(self, count: int) -> ModelInputs:
        return self.inputs.part(0, count, count)

    def _explained(self, batch: Batch, placed: Tensor) -> tuple[Outputs, Collector]:
        explainer, count = self._explainer, len(batch)
        scoring = explainer._scoring(self._targets(batch), 0)
        measured = explainer._measure(self._methods, self._layers, placed, scoring, self._part(count))
        if measured.layers and self._layers is None:
            self._layers = tuple(find_layers(explainer._inner, measured.layers[0].label))
        found = Collector(self._methods)
        found.add(measured, batch.pictures)
        self._look_for_gradients(found, count, bool(measured.dead))
        if measured.selected:
            self._check_truth(measured.selected.source)
            return measured.selected.source, found
        return read_outputs(measured.raw, count, explainer._output, explainer._classes), found

    def _targets(self, batch: Batch) -> Sequence[Target]:
        about = self._explainer._about
        if isinstance(self._target, TrueClass):
            labels = self._classes.indices(batch.labels)
            if (labels < 0).any():
                raise TargetError(
                    f"target=TrueClass() needs a label of every image, and image {batch.numbers[labels < 0][0]} has "
                    "none: labels=[...] gives them."
                )
            return find_targets(labels, len(batch), about)
        if self._fixed is None:
            embed = partial(self._explainer._embedding, self.inputs.part(0, 1, 1))
            self._fixed = with_embeddings(find_targets(self._target, 1, about), embed)[0]
        return [self._fixed] * len(batch)

    def _check_truth(self, outputs: Outputs) -> None:
        """A single score stands for the second of two classes, and there is none for the first."""
        if isinstance(self._target, TrueClass) and outputs.scores is not None and outputs.scores.shape[1] == 1:
            raise TargetError("target=TrueClass() needs a score for each class, and the model has one: target=0 "
                              "explains it, which argues for the second class and against the first.")  # fmt: skip

    def _look_for_gradients(self, found: Collector, count: int, dead: bool) -> None:
        """Refuse a layer that none of the first images has a gradient at; one without is no reason to stop."""
        self._alive |= not dead
        self._looked += count
        self._blank = found if dead else None
        if self._looked >= LOOK:
            self.finish()

    def finish(self) -> None:
        """Refuse maps that are blank for want of a gradient at any of the images, where these were few."""
        if self._blank and not self._alive:
            self._blank.check()

    def _collected(self, found: Collector, batch: Batch, columns: Columns) -> list[Explanation]:
        names = self._classes.names
        labels = columns["label"]
        truth = tuple(names[label] for label in labels) if len(labels) and (labels >= 0).all() else None
        provenance = {"model": type(self._explainer._inner).__name__}
        explanations = found.explanations(truth, batch.sources, provenance)
        self.warnings |= found.warnings
        self.empty.update({what: len(images) for what, images in found.empty.items()})
        return explanations
