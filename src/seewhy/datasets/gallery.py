"""Which images of an evaluation are shown, and with which maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole
from ..errors import ImageIndexError, InputError, UnknownNameError, close_matches
from ..explanation import Explanation
from ..pictures import in_words, percentile
from .work import TrueClass

if TYPE_CHECKING:
    from ..render.gallery import Pair, Tile
    from ..render.panel import AxesGrid
    from .evaluation import Evaluation

CHOICES = ("sample", "mistakes", "right")


def gallery(
    evaluations: Mapping[str, Evaluation],
    which: Any = "sample",
    k: int = 20,
    *,
    rows: int = 2,
    method: Any = None,
    layer: Any = None,
    seed: int = 0,
) -> NDArray[np.object_]:
    """A grid of photos under their maps for each of several evaluations, side by side, as of training and test set.

    Arguments and errors are those of `Evaluation.gallery`; returns the Axes, one for each evaluation.

    >>> import seewhy, torch
    >>> images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> evaluation = seewhy.Explainer(seewhy.testing.small_cnn()).evaluate(images, labels=[0, 1, 2, 3] * 2)
    >>> len(gallery({"training": evaluation, "test": evaluation}, k=4))
    2
    """
    from ..render import gallery as render

    groups: dict[str, list[Tile]] = {}
    titles: dict[str, None] = {}
    for name, one in evaluations.items():
        numbers = chosen(one, which, k, seed)
        explanations = explained(one, numbers, method, layer)
        groups[name] = _tiles(one, numbers, explanations)
        titles[_called(explanations[0])] = None
    found: NDArray[np.object_] = render.gallery(groups, rows=whole(rows, "rows"), shown=True, title=", ".join(titles))
    return found


def panels(evaluation: Evaluation, which: Any, k: int, *, method: Any, layer: Any, seed: int) -> AxesGrid:
    """As `Evaluation.panels`."""
    from ..render import gallery as render

    numbers = chosen(evaluation, which, k, seed)
    found = explained(evaluation, numbers, method, layer)
    return render.triples(_tiles(evaluation, numbers, found), shown=True, method=_called(found[0]))


def contrast(evaluation: Evaluation, k: int, *, method: Any, layer: Any) -> AxesGrid:
    """As `Evaluation.contrast`."""
    from ..render import gallery as render

    numbers = chosen(evaluation, "mistakes", k, 0)
    again = evaluation._again_or_refuse()
    predicted = again.explain(numbers, method, layer, None)
    true = again.explain(numbers, method, layer or predicted[0].layer, TrueClass())
    rows = evaluation.predictions.loc[numbers]
    pairs = [_pair(*one) for one in zip(predicted, true, rows.itertuples(), strict=True)]
    return render.contrasts(pairs, shown=True, method=_called(predicted[0]))


def chosen(evaluation: Evaluation, which: Any, k: int, seed: int) -> list[int]:
    """The numbers of the images to show."""
    table, most = evaluation.predictions, whole(k, "k")
    if isinstance(which, str):
        if which not in CHOICES:
            raise UnknownNameError(f"which is {', '.join(map(repr, CHOICES))} or numbers of images, not {which!r}."
                                   f"{close_matches(which, CHOICES)}")  # fmt: skip
        if which == "sample":
            some = np.random.default_rng(seed).choice(len(table), min(most, len(table)), replace=False)
            return [int(number) for number in table.index[np.sort(some)]]
        right = which == "right"
        found = evaluation._by_confidence(right=right)
        if not len(found):
            shown, others = ("right predictions", "wrong") if right else ("mistakes", "right")
            raise InputError(f"There are no {shown} to show: {len(evaluation._judged()):,} images are all {others}.")
        return [int(number) for number in found.index[:most]]
    return _numbers(evaluation, which)[:most]


def _numbers(evaluation: Evaluation, which: Any) -> list[int]:
    numbers = [int(number) for number in np.atleast_1d(np.asarray(which))]
    missing = [number for number in numbers if number not in evaluation.predictions.index]
    if missing or not numbers:
        what = f"There is no image {missing[0]} in this evaluation" if missing else "No image is named"
        raise ImageIndexError(f"{what}; predictions.index has the numbers of its {len(evaluation):,} images.")
    return numbers


def explained(evaluation: Evaluation, numbers: Sequence[int], method: Any, layer: Any) -> list[Explanation]:
    """One method's explanation of each image: from the store where it has it, else made now."""
    store = evaluation.store
    if store is not None:
        key = stored_key(store[0], method, layer)
        if key is not None:
            places = np.searchsorted(store.numbers, numbers)
            return [store[int(place)][key] for place in places]
    return evaluation._again_or_refuse().explain(numbers, method or "grad_cam", layer, None)


def stored_key(example: Any, method: Any, layer: Any) -> Any:
    """The key of a method's maps in a store, that of its first where no method is named; None where it has none."""
    for key in example:
        name, at = key if isinstance(key, tuple) else (key, None)
        if method in (None, name) and layer in (None, at) and example[key].maps.ndim == 3:
            return key
    return None


def _tiles(evaluation: Evaluation, numbers: Sequence[int], found: Sequence[Explanation]) -> list[Tile]:
    from ..render.gallery import Tile

    check_pictures(found[0].maps)
    rows = evaluation.predictions.loc[list(numbers)]
    return [
        Tile(
            image=one.images[0],
            map=one.maps[0],
            label=short(row.prediction),
            value=in_words(float(row.probability)),
            right=None if row.label_index < 0 else bool(row.correct),
            truth=short(row.label),
            signed=one.signed or bool((one.maps < 0).any()),
            percentile=percentile(one),
        )
        for one, row in zip(found, rows.itertuples(), strict=True)
    ]


def _pair(predicted: Explanation, true: Explanation, row: Any) -> Pair:
    from ..render.gallery import Pair

    check_pictures(predicted.maps)
    return Pair(
        image=predicted.images[0],
        predicted_map=predicted.maps[0],
        true_map=true.maps[0],
        predicted=short(row.prediction),
        predicted_value=in_words(float(row.probability)),
        true=short(row.label),
        true_value=in_words(float(row.label_probability)),
        signed=predicted.signed or bool((predicted.maps < 0).any() or (true.maps < 0).any()),
        percentile=percentile(predicted),
    )


def short(name: Any) -> str:
    """A class name up to its first comma; empty where there is none."""
    return "" if name is None or name != name else str(name).partition(",")[0]


def _called(one: Explanation) -> str:
    return f"{one.method} at {one.layer}" if one.layer else one.method


def check_pictures(maps: Any) -> None:
    """Refuse what is no picture, by its maps ``(n, H, W)``."""
    if maps.ndim != 3:
        raise InputError(f"Galleries and reports show pictures; these are {tuple(maps.shape[1:])}, signals or videos.")
