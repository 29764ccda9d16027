"""The judgement of a classifier over a data set: how often it is right, where it is wrong, and what it looked at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole
from ..downloads import library
from ..errors import InputError
from ..render import figure
from .again import Again
from .calibration import Calibration, calibration
from .records import INSTALL
from .single import Skipped
from .store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ..render.panel import AxesGrid

Which = Literal["sample", "mistakes", "right"]


class Evaluation:
    """What a classifier makes of a data set; what `Explainer.evaluate` returns.

    Attributes:
        predictions: a pandas table with a row for each image that could be read, by its number in the data set: `path`,
            `label` and `prediction` (names), `probability` (0..1) and `score` of the prediction, `correct`,
            `label_probability`, `label_rank` (how many classes have a greater score: 0 where right), `label_index` and
            `prediction_index`. What is not known is missing (None, NaN, -1). `predictions.to_parquet` writes it.
        class_names: what the network's classes are called, with the index where several have one name.
        skipped: the images that could not be read, each with `number`, `source` and `reason`.
        store: the maps, where methods were asked; else None.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        class_names: Sequence[str],
        *,
        model: str = "",
        store: Store | None = None,
        again: Again | None = None,
    ) -> None:
        self.class_names, self.store, self.model = told_apart(class_names), store, model
        self.predictions = predictions(records, self.class_names)
        missing = records.dropna(subset="skipped")[["number", "path", "skipped"]]
        self.skipped = tuple(Skipped(int(n), p, r) for n, p, r in missing.itertuples(index=False))
        self._again = again

    def __repr__(self) -> str:
        judged = f"accuracy {self.accuracy:.4f}" if len(self._labelled) else "no labels"
        missing = f", {len(self.skipped):,} skipped" if self.skipped else ""
        return f"Evaluation({self.model}, {len(self):,} images{missing}, {judged})"

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def _labelled(self) -> pd.DataFrame:
        return self.predictions[self.predictions["label_index"] >= 0]

    def _judged(self) -> pd.DataFrame:
        found = self._labelled
        if not len(found):
            raise InputError("No image has a label, so nothing can be judged: labels=[...] gives them, or a folder for "
                             "each class does.")  # fmt: skip
        return found

    @property
    def accuracy(self) -> float:
        """The share of the labelled images whose predicted class is the label, 0..1."""
        return float(self._judged()["correct"].mean())

    def top_k(self, k: int = 5) -> float:
        """The share of the labelled images whose label is among the `k` classes with the greatest scores, 0..1."""
        return float((self._judged()["label_rank"] < whole(k, "k")).mean())

    def report(self) -> pd.DataFrame:
        """Precision, recall, F1 and support of each class that is a label or predicted, and their means.

        The numbers are those of scikit-learn's `classification_report`; 0 where a share of nothing is asked.
        """
        pd: Any = library("pandas", INSTALL)
        metrics: Any = library("sklearn.metrics", INSTALL)
        labels, predicted, classes = self._indices()
        names = [self.class_names[index] for index in classes]
        found = metrics.classification_report(
            labels, predicted, labels=classes, target_names=names, output_dict=True, zero_division=0
        )
        found.setdefault("accuracy", metrics.accuracy_score(labels, predicted))
        total = found.pop("accuracy")
        table: pd.DataFrame = pd.DataFrame(found).T
        table.loc["accuracy"] = [np.nan, np.nan, total, len(labels)]
        return table.astype({"support": int})

    @property
    def confusion_matrix(self) -> pd.DataFrame:
        """How many images of each true class (rows) are taken for each class (columns), of all that occur."""
        pd: Any = library("pandas", INSTALL)
        metrics: Any = library("sklearn.metrics", INSTALL)
        labels, predicted, classes = self._indices()
        counts = metrics.confusion_matrix(labels, predicted, labels=classes)
        names = [self.class_names[index] for index in classes]
        table: pd.DataFrame = pd.DataFrame(
            counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted")
        )
        return table

    def _indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
        found = self._judged()
        labels, predicted = found["label_index"].to_numpy(), found["prediction_index"].to_numpy()
        return labels, predicted, sorted({*labels.tolist(), *predicted.tolist()})

    def calibration(self, bins: int = 15) -> Calibration:
        """Whether the network is as often right as its probabilities say: ECE and reliability diagram (Guo 2017)."""
        found = self._judged()
        return calibration(found["probability"].to_numpy(), found["correct"].to_numpy(bool), bins)

    def mistakes(self, k: int | None = None) -> pd.DataFrame:
        """The `k` wrong predictions (None: all) with the greatest probabilities, the most confident first."""
        wrong = self._by_confidence(right=False)
        return wrong if k is None else wrong.head(whole(k, "k"))

    def _by_confidence(self, *, right: bool) -> pd.DataFrame:
        """The right or wrong predictions, the most confident first."""
        found = self._judged()
        some = found[found["correct"].astype(bool) == right]
        return some.sort_values("probability", ascending=False, kind="stable")

    def plot_confusion(self, ax: Axes | None = None) -> Axes:
        """The confusion matrix: counts, coloured by their share of the true class."""
        from ..render.confusion import confusion, confusion_size

        counts = self.confusion_matrix
        names = list(counts.columns)
        ax = figure.axes(ax, confusion_size(len(names)))
        confusion(
            ax, counts.to_numpy(np.int64), names, title=f"{len(self._labelled):,} images · {self.accuracy:.1%} right"
        )
        return ax

    def gallery(
        self,
        which: Which | Sequence[int] = "sample",
        k: int = 20,
        *,
        rows: int = 2,
        method: Any = None,
        layer: Any = None,
        seed: int = 0,
    ) -> Axes:
        """A grid of photos in grey under their maps, with a label box each: white where right, red where wrong.

        Args:
            which: ``"sample"`` (drawn by `seed`), ``"mistakes"`` or ``"right"`` (the most confident first), or numbers
                of images.
            k: how many at most.
            rows: of the grid.
            method: whose maps; None: those in the store, else Grad-CAM, which is then made of these images.
            layer: where it looks.
            seed: of the sample.

        Raises:
            InputError: there are no such images, or the data set could only be read once and no maps were kept.
        """
        from .gallery import gallery

        found: Axes = gallery({"": self}, which, k, rows=rows, method=method, layer=layer, seed=seed)[0]
        return found

    def panels(
        self,
        which: Which | Sequence[int] = "sample",
        k: int = 5,
        *,
        method: Any = None,
        layer: Any = None,
        seed: int = 0,
    ) -> AxesGrid:
        """A row for each image: the photo with its true class, the map, and the map over it with the predicted class.

        Arguments and errors are those of `gallery`.
        """
        from .gallery import panels

        return panels(self, which, k, method=method, layer=layer, seed=seed)

    def contrast(self, k: int = 5, *, method: Any = "grad_cam", layer: Any = None) -> AxesGrid:
        """The `k` most confident mistakes: the map of the predicted class, that of the true class, and the difference.

        The maps are made now, so the data set must give its images again. Both maps of a row have one scale.

        Raises:
            InputError: there are no mistakes, or the data set could only be read once.
        """
        from .gallery import contrast

        return contrast(self, k, method=method, layer=layer)

    def save_report(self, path: str | os.PathLike[str], *, title: str | None = None) -> None:
        """Write one HTML file that shows all of it: numbers, confusion matrix, and a gallery to be filtered and sorted.

        It opens without a network. Maps are shown where they were kept (``evaluate(..., method=...)``).

        Raises:
            InputError: the data set could only be read once, and no maps were kept.
        """
        from .reporting import save_report

        save_report(self, Path(path), title)

    def _again_or_refuse(self) -> Again:
        if self._again is None:
            raise InputError("The images are not at hand any more: the data set could only be read once, or this was "
                             "opened from a store. evaluate() on a Dataset, folder or list keeps them.")  # fmt: skip
        return self._again


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with the index where several classes are called the same.

    >>> told_apart(["crane", "cat", "crane"])
    ('crane (0)', 'cat', 'crane (2)')
    """
    often = Counter(names)
    return tuple(f"{name} ({i})" if often[name] > 1 else name for i, name in enumerate(names))


def predictions(records: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """The table of predictions, of `records` as a store keeps them."""
    pd: Any = library("pandas", INSTALL)
    read = records[records["skipped"].isna()]
    names = dict(enumerate(class_names)) | {-1: None}
    label, best = read["label"], read["prediction"]
    named: Mapping[str, Any] = {
        "path": read["path"],
        "label": label.map(names).astype(object),
        "prediction": best.map(lambda i: names.get(i, f"class {i}")).astype(object),
        "probability": read["probability"],
        "score": read["score"],
        "correct": (label == best).astype("boolean").where(label >= 0),
        "label_probability": read["label_probability"],
        "label_rank": read["label_rank"],
        "label_index": label,
        "prediction_index": best,
    }
    found: pd.DataFrame = pd.DataFrame(named)
    found.index = pd.Index(read["number"], name="image")
    return found
