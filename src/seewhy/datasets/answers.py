"""What the network answers to images, in columns: its prediction, and how that compares with the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ModelError
from ..outputs import KINDS, Outputs, activated, fitting, ranked
from ..scoring import check_finite
from .classes import Classes

Columns = dict[str, NDArray[Any]]


def answers(outputs: Outputs, labels: tuple[Any, ...], classes: Classes, activation: str | None) -> Columns:
    """Columns for n images, with the network's `classes` learned from `outputs`.

    ``prediction`` int64, the class with the greatest score; its ``probability`` and ``score`` (the logit, as the model
    gives it) float32; ``label`` int64; the label's ``label_probability`` float32 and ``label_rank`` int64, how many
    classes have a greater score. -1 and NaN stand for what there is not. A single score is that of the second of two
    classes. Of dense scores the prediction is by the mean probability over positions, of detections by the best one;
    there is no score then, and nothing of the label.

    Raises:
        NonFiniteError: a score is NaN or infinite.
        SeewhyError: a label is no class of the network.
    """
    if outputs.kind != "scores" or outputs.scores is None:
        return _of_others(outputs, labels, activation)
    scores, chances = _scored(outputs.scores, activation)
    classes.saw(scores.shape[1], single=outputs.scores.shape[1] == 1)
    label = classes.indices(labels)
    best = scores.argmax(1)
    rows, known = np.arange(len(scores)), label >= 0
    of_label = scores[rows, label][:, None]
    before = (scores == of_label) & (np.arange(scores.shape[1]) < label[:, None])  # the first of equals is predicted
    return {
        "prediction": best,
        "probability": chances[rows, best],
        "score": scores[rows, best],
        "label": label,
        "label_probability": np.where(known, chances[rows, label], np.nan).astype(np.float32),
        "label_rank": np.where(known, ((scores > of_label) | before).sum(1), -1),
    }


def _scored(scores: Tensor, activation: str | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and probabilities of two classes or more, on the CPU."""
    scores = scores.detach().float().cpu()
    check_finite(scores)
    chances = activated(scores, activation)
    if scores.shape[1] == 1:
        other = 1 - scores if fitting(scores, activation) == "none" else -scores
        scores, chances = torch.cat([other, scores], 1), torch.cat([1 - chances, chances], 1)
    return scores.numpy(), chances.numpy()


def _of_others(outputs: Outputs, labels: tuple[Any, ...], activation: str | None) -> Columns:
    count = len(labels)
    best: list[list[tuple[int, float]]] = [[] for _ in labels]
    if outputs.kind != "embedding":
        best = ranked(outputs, activation, 1)
    nan = np.full(count, np.nan, np.float32)
    return {
        "prediction": np.array([row[0][0] if row else -1 for row in best], np.int64),
        "probability": np.array([row[0][1] if row else np.nan for row in best], np.float32),
        "score": nan,
        "label": np.full(count, -1),
        "label_probability": nan,
        "label_rank": np.full(count, -1),
    }


def require_scores(outputs: Outputs) -> None:
    """Refuse a network that is no classifier.

    Raises:
        ModelError: it gives no class scores.
    """
    if outputs.kind != "scores":
        raise ModelError(
            f"evaluate() judges classifiers, and the model gives {KINDS[outputs.kind]}. "
            "Explainer(model, output=...) picks class scores (N, K) out of what it returns."
        )
