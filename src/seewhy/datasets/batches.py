"""Explain batches of arrays: for Ray Data, Hugging Face `datasets.map`, or a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InputTypeError, MethodError
from ..inside.items import Columns, pair
from .job import Job
from .reading import Reader
from .records import COLUMNS, records

if TYPE_CHECKING:
    from ..explainer import Explainer

_OWN = ("number", "path", "skipped")  # of the records: a batch has its own


class BatchExplainer:
    """From a dict of arrays to a dict of arrays: predictions and maps of a batch of images, and what came with them.

    It can be pickled, and makes its `Explainer` in the process where it is first called. The result has what was given
    but for the images, and for each image ``prediction`` (index, int64), ``prediction_name``, ``probability`` and
    ``score`` float32, the ``target`` that is explained with its name, score and probability, ``label``,
    ``label_probability`` and ``label_rank`` where labels are given, and the raw values of each method, float32, under
    its name, at several layers ``"grad_cam at layer4"``.

    Args:
        make_explainer: a function without arguments that gives an `Explainer`; of a module, where it is to be pickled.
        methods: one or several, as for `Explainer.explain`; none: predictions alone.
        layer: as for `Explainer.explain`; the one that is chosen for the first batch is kept.
        target: one for all, as for `Explainer.explain`, or `TrueClass()`.
        columns: the names of image and label in the batch; None: the usual ones. Images are uint8 ``(n, H, W, 3)``,
            lists of arrays, PIL images or paths, or float ``(n, C, H, W)`` that are already transformed.
        keep_images: whether the images are in the result, too.
        batch_size: images per pass; None: 16.
        labels: ``{label: class}``, from the labels to the network's classes.
        options: of the methods.

    >>> import seewhy
    >>> explain = BatchExplainer(lambda: seewhy.Explainer(seewhy.testing.small_cnn()), "grad_cam")
    >>> found = explain({"image": np.zeros((2, 3, 16, 16), np.float32), "name": ["a", "b"]})
    >>> found["name"], found["prediction"].shape, found["grad_cam"].shape
    (['a', 'b'], (2,), (2, 4, 4))
    """

    def __init__(
        self,
        make_explainer: Callable[[], Explainer],
        methods: Any = "grad_cam",
        *,
        layer: Any = None,
        target: Any = None,
        columns: Columns = None,
        keep_images: bool = False,
        batch_size: int | None = None,
        labels: Mapping[Any, int | str] | None = None,
        **options: Any,
    ) -> None:
        if not callable(make_explainer) or hasattr(make_explainer, "explain"):
            raise InputTypeError("make_explainer is a function without arguments that gives an Explainer, so that each "
                                 f"process makes its own; got {type(make_explainer).__name__}.")  # fmt: skip
        self._make, self._columns, self._keep = make_explainer, columns, keep_images
        self._asked = {
            "method": methods, "layer": layer, "target": target, "batch_size": batch_size, "labels": labels,
            "options": options,
        }  # fmt: skip
        self._job: Job | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_job": None}

    @property
    def job(self) -> Job:
        """What is done with each batch; made in the process where it is first asked for."""
        if self._job is None:
            explainer = self._make()
            self._job = Job(explainer=explainer, data=[None], strict=True, progress=False, **self._asked)
        return self._job

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The predictions and maps of a batch.

        Raises:
            InputTypeError: it has no images by the names that are expected.
            SeewhyError: as for `Explainer.explain`.
        """
        images, labels = pair(batch, self._columns)
        given = {name: column for name, column in batch.items() if self._keep or column is not images}
        return given | self._explained(_as_images(images), labels)

    def _explained(self, images: Any, labels: Any) -> dict[str, Any]:
        job = self.job
        known = None if labels is None else list(labels)
        reader = Reader(job.explainer, images, batch_size=job.reader.batch_size, strict=True, labels=known)
        answers = [job.work(one) for one in reader.batches()]
        table = records(answers)
        found: dict[str, Any] = {name: table[name].to_numpy() for name in COLUMNS if name not in _OWN}
        names = job.classes.names
        found["prediction_name"] = [names[i] if 0 <= i < len(names) else "" for i in found["prediction"]]
        found["target_name"] = [name or "" for name in found["target_name"]]
        if labels is None:
            found = {name: column for name, column in found.items() if not name.startswith("label")}
        for key, parts in _values([answer.explanations for answer in answers]).items():
            if key in found:
                raise MethodError(f"A method called {key!r} would hide that column: give it another name=.")
            found[key] = np.concatenate(parts)
        return found


def _as_images(images: Any) -> Any:
    """What a batch holds, as `Reader` takes it."""
    if isinstance(images, np.ndarray) and images.dtype == object:
        return list(images)
    if isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.ndim == 4 and images.shape[-1] != 3:
        import torch

        return torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, str | bytes) or not hasattr(images, "__len__"):
        raise InputError(f"A batch holds several images, not {type(images).__name__}.")
    return images


def _values(answers: Sequence[Sequence[Any]]) -> dict[str, list[NDArray[np.float32]]]:
    """The values of each method and layer, in the order of the batches."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for explanations in answers:
        methods = [one.method for one in explanations]
        for one in explanations:
            several = methods.count(one.method) > 1
            found.setdefault(f"{one.method} at {one.layer}" if several else one.method, []).append(one.values)
    return found
