"""An evaluation as one HTML file: its numbers, its figures, and a card for each image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..render import figure
from .gallery import check_pictures
from .report.page import Card, Page, write_report

if TYPE_CHECKING:
    from .evaluation import Evaluation

BLOCK = 16  # images that are read from the store at a time


def save_report(evaluation: Evaluation, path: Path, title: str | None) -> None:
    """As `Evaluation.save_report`."""
    if evaluation.store is not None:
        check_pictures(next(iter(evaluation.store[0].values())).maps)
    judged = bool(len(evaluation._labelled))
    page = Page(
        title=title or f"Evaluation of {evaluation.model}",
        facts=_facts(evaluation, judged),
        classes=evaluation.report() if judged else None,
        confusion=evaluation.confusion_matrix if judged else None,
        skipped=[(one.source or f"image {one.number}", one.reason) for one in evaluation.skipped],
        figures={"Calibration": _calibration(evaluation)} if judged else {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(path, page, _cards(evaluation))


def _facts(evaluation: Evaluation, judged: bool) -> dict[str, str]:
    facts = {"model": evaluation.model, "images": f"{len(evaluation):,}"}
    if evaluation.skipped:
        facts["could not be read"] = f"{len(evaluation.skipped):,}"
    if judged:
        facts |= {"labelled": f"{len(evaluation._labelled):,}", "accuracy": f"{evaluation.accuracy:.1%}"}
        if len(evaluation.class_names) > 5:
            facts["top-5 accuracy"] = f"{evaluation.top_k(5):.1%}"
        facts["expected calibration error"] = f"{evaluation.calibration().ece:.3f}"
    return facts


def _calibration(evaluation: Evaluation) -> bytes:
    made = evaluation.calibration()
    page = figure.new(made._size(), shown=False, layout="constrained")
    return figure.png(made.plot(page.add_subplot()))


def _cards(evaluation: Evaluation) -> Iterator[Card]:
    rows = evaluation.predictions.itertuples()
    for (picture, maps, signed), row in zip(_pictures(evaluation), rows, strict=True):
        yield Card(
            number=int(row.Index),
            path=row.path,
            label=row.label,
            prediction=row.prediction,
            probability=float(row.probability),
            correct=None if row.label_index < 0 else bool(row.correct),
            picture=picture,
            maps=maps,
            signed=signed,
        )


def _pictures(evaluation: Evaluation) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any], dict[str, bool]]]:
    """Each image with its maps, in order."""
    store = evaluation.store
    if store is None:
        numbers = [int(number) for number in evaluation.predictions.index]
        for batch in evaluation._again_or_refuse().batches(numbers):
            check_pictures(batch.input[:, 0])
            yield from ((picture, {}, {}) for picture in batch.pictures)
        return
    for start in range(0, len(store), BLOCK):
        some = {_name(key): one for key, one in store[start : start + BLOCK].items()}
        first = next(iter(some.values()))
        for i in range(len(first)):
            yield (
                first.images[i],
                {k: one.maps[i] for k, one in some.items()},
                {k: one.signed for k, one in some.items()},
            )


def _name(key: Any) -> str:
    return f"{key[0]} at {key[1]}" if isinstance(key, tuple) else str(key)
