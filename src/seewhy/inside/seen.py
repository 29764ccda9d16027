"""What is kept of the images that go by: their features, labels and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..engine.inputs import ModelInputs
from ..engine.look import Features, look
from ..errors import InputError, LayerError, ModelError, NonFiniteError, warn
from ..layers import Layer
from ..outputs import Outputs, read_outputs
from .rows import Rows
from .stream import Batch
from .truth import Truth

if TYPE_CHECKING:
    from ..explainer import Explainer

THUMBNAIL = 32  # pixels of a thumbnail's side


class Seen:
    """What is kept of the images that went by."""

    def __init__(self, explainer: Explainer, named: Layer | None, inputs: ModelInputs, thumbnails: bool) -> None:
        self._explainer, self._named, self._inputs, self._small = explainer, named, inputs, thumbnails
        self._read: Features | None = None
        self._predicted: list[int] | None = []
        self._count = 0
        self._asked = False  # whether it was worked out what the model returns beside a named layer
        self.features, self.thumbnails = Rows(), Rows()
        self.labels: list[int | str] = []
        self.sources: list[str | None] = []
        self.layer = "" if named is None else named.label

    def add(self, batch: Batch) -> None:
        """Run the model on a batch, and keep its features."""
        features, raw = self._features(batch.input)
        rows = features.detach().float().cpu().numpy()
        if not np.isfinite(rows).all():
            bad = batch.first + int(np.isfinite(rows).all(1).argmin())
            raise NonFiniteError(f"The features of image {bad} ({self.layer}) are NaN, infinite or beyond float32.")
        self.features.add(rows)
        if self._small:
            self.thumbnails.add(small(batch.pictures))
        self._predict(raw, batch)
        self.labels += batch.labels
        self.sources += batch.sources

    def _features(self, batch: Tensor) -> tuple[Tensor, Any]:
        model, about = self._explainer._inner, self._explainer
        if self._named is not None:
            self._ask_for_scores(batch)
            found, raw = look(model, batch, [self._named], about._layout, self._inputs)
            captured = found[self.layer]
            value = captured.value
            return value.flatten(2).mean(2) if captured.layout else value, raw
        if self._read is None:
            self._read = Features(model, batch, self._inputs, about._output, about._classes)
            self.layer = self._read.label
            if self._read.assumed:
                warn(self._read.assumed)
        return self._read(batch)

    def _ask_for_scores(self, batch: Tensor) -> None:
        """Work out once whether what the model returns beside a named layer is class scores, and not features."""
        about = self._explainer
        if self._asked or about._classes is not None:
            return
        self._asked = True
        try:
            read = Features(about._inner, batch, self._inputs, about._output, about._classes)
        except (LayerError, ModelError):  # scores of a kind of its own, or none, as `_scores` finds
            return
        if not read.scored or read.assumed:
            self._predicted = None

    def _predict(self, raw: Any, batch: Batch) -> None:
        """Note the predicted classes, as long as every batch has some."""
        if self._predicted is None or (self._read is not None and not self._read.scored):
            self._predicted = None
            return
        scores = self._scores(raw, len(batch.input))
        if scores is not None and not bool(scores.isfinite().all()):
            bad = batch.first + int(scores.isfinite().all(1).logical_not().nonzero()[0])
            warn(f"The scores of image {bad} are NaN or infinite, so nothing is said of predictions.")
            scores = None
        if scores is None or scores.shape[1] < 2:
            self._predicted = None
            return
        self._count = scores.shape[1]
        self._predicted += scores.argmax(1).tolist()

    def _scores(self, raw: Any, count: int) -> Tensor | None:
        try:
            outputs = read_outputs(raw, count, self._explainer._output, self._explainer._classes)
        except ModelError:  # a layer can be looked at whatever the model returns
            outputs = Outputs()
        return None if outputs.scores is None or outputs.detections is not None else outputs.scores.detach()

    def truth(self, labels: tuple[int | str, ...], data_names: tuple[str, ...]) -> Truth:
        """Labels beside predictions."""
        predicted = None if self._predicted is None else np.array(self._predicted, np.int64)
        count, named = 0 if predicted is None else self._count, self._explainer._classes
        if count and named not in (None, count):
            warn(f"{named} class names were given, and the model has {count} scores: names may be wrong.")
        return Truth(labels, data_names, self._explainer._names, predicted, count)


def small(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures ``(n, H, W, 3)`` within squares of 32 pixels, white where they do not fill them."""
    import cv2

    if pictures.ndim != 4:
        raise InputError(f"Thumbnails are of pictures, and these inputs are shown as {pictures.shape}: leave them out.")
    height, width = pictures.shape[1:3]
    share = THUMBNAIL / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    how = cv2.INTER_AREA if share < 1 else cv2.INTER_NEAREST
    found = np.full((len(pictures), THUMBNAIL, THUMBNAIL, 3), 255, np.uint8)
    left, top = (THUMBNAIL - size[0]) // 2, (THUMBNAIL - size[1]) // 2
    for place, picture in zip(found, pictures, strict=True):
        place[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=how)
    return found
