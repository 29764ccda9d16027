"""Images of a data set looked at once more: their pictures, and maps that were not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..engine.borrow import undisturbed
from ..explanation import Explanation
from ..methods.make import make_methods
from .job import Job
from .reading import Batch
from .work import Work


class Again:
    """Reads and explains single images of the data set that a job was about.

    Args:
        job: that job, whose data set must give images by their number.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._reader = job, job.reader.showing()

    def batches(self, numbers: Sequence[int]) -> Iterator[Batch]:
        """The images of these numbers."""
        size = self._reader.batch_size
        with undisturbed(self._job.explainer._inner):
            for start in range(0, len(numbers), size):
                yield self._reader.some(numbers[start : start + size])

    def explain(self, numbers: Sequence[int], method: Any, layer: Any, target: Any) -> list[Explanation]:
        """One method's explanation of each image."""
        job = self._job
        work = Work(job.explainer, make_methods(method, {}), layer, target, job.classes, job.work.inputs)
        return [one for batch in self.batches(numbers) for one in work(batch).explanations[0]]
