"""Sanity: does the map have to do with what the network learned, and with the class that it explains?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from ..arguments import whole
from ..errors import InputError, UnknownNameError, close_matches
from ..methods.baselines import check_seed, generator
from ..targets import Class, Target
from .alike import Alike, find_alike
from .randomise import learned, randomised
from .score import Score
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

_STEPS = 10  # states of a network that are looked at


def mprt(
    explainer: Explainer,
    explanation: Any,
    *,
    order: Literal["cascading", "independent"] = "cascading",
    layers: Sequence[str] | None = None,
    steps: int = _STEPS,
    similarity: Alike = "spearman",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Model parameter randomisation test (Adebayo 2018, section 4.1): how alike maps stay when weights are random.

    Weights are drawn anew, layer by layer from the top, and the same target is explained again. Values are the mean
    similarity of the maps before and after, at most 1: lower is better, as a map that stays does not depend on what the
    network learned. The network comes back to the last bit.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=``, ``target=`` and ``method=``.
        order: ``"cascading"``: all layers from the top down to each; ``"independent"``: each layer alone.
        layers: the names of modules with weights, the top one first; None: all that the score depends on, the last to
            be used first. ``[name]`` looks at one.
        steps: how many states are looked at, evenly spaced, the top layer and the last one among them.
        similarity: ``"spearman"`` or ``"pearson"`` correlation, or ``"ssim"`` of the maps stretched to 0..1. A map that
            has become the same everywhere is like none (0).
        seed: of the weights: normal, with the mean and deviation that each tensor had.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` with the curve ``"similarity"`` ``(N, L)`` over the L layers in `labels`.

    Raises:
        InputError: nothing says how the maps were made, or an option is out of its range.
        UnknownNameError: there is no such layer with weights.
        NonFiniteError: the network overflows with random weights.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=1)
    >>> mprt(explainer, found, layers=["head", "body"]).labels
    ('head', 'body')
    """
    check_seed(seed)
    alike = find_alike(similarity)
    if order not in ("cascading", "independent"):
        raise InputError(f"order is 'cascading' or 'independent', not {order!r}.")
    subject = Subject(explainer, explanation, **common)
    _ = subject.method  # refused before anything is computed
    names = subject.layers_used() if layers is None else _known(subject.inner, layers)
    if not names:
        raise InputError("The model has no weights: nothing of it can be made random.")
    at = np.unique(np.linspace(0, len(names) - 1, min(whole(steps, "steps"), len(names))).round().astype(int))

    def compute(chunk: Chunk) -> Found:
        found = []
        for place in at:
            with randomised(subject.inner, names[: place + 1] if order == "cascading" else [names[place]], seed):
                found.append(alike(chunk.maps, _maps(subject, chunk)))
        return {"similarity": torch.stack(found, 1)}

    curve = subject.each(compute)["similarity"]
    return Score(
        name="mprt", values=curve.mean(1), higher_is_better=False, curves={"similarity": curve},
        steps=at, labels=tuple(names[place] for place in at), provenance=subject.provenance,
        axis=f"random {'down to' if order == 'cascading' else 'alone'}",
    )  # fmt: skip


def random_logit(
    explainer: Explainer,
    explanation: Any,
    *,
    others: int = 1,
    similarity: Alike = "spearman",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Random logit test (Sixt 2020, section 5): how alike the map is to that of another class.

    Values are the mean similarity, at most 1: lower is better, as a map that is the same for any class does not say why
    this one was answered.

    Args:
        explainer: of the network.
        explanation: an `Explanation` of classes, or maps ``(N, H, W)`` with ``images=``, ``target=`` and ``method=``.
        others: how many other classes, drawn at random, each one time; all where there are fewer.
        similarity: as for `mprt`.
        seed: of the classes, which are as far from each image's own.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score`; undefined where the target is no class.

    Raises:
        InputError: nothing says how the maps were made.

    >>> import seewhy, torch
    >>> explainer = seewhy.Explainer(seewhy.testing.small_cnn())
    >>> found = explainer.explain(torch.rand(1, 3, 16, 16), "saliency", target=1)
    >>> random_logit(explainer, found).mean < 1
    True
    """
    check_seed(seed)
    alike, count = find_alike(similarity), whole(others, "others")
    subject = Subject(explainer, explanation, **common)
    _ = subject.method  # refused before anything is computed

    def compute(chunk: Chunk) -> Found:
        if chunk.count < 2 or bool((chunk.classes < 0).all()):
            return {"values": torch.full((len(chunk.maps),), torch.nan)}
        away = 1 + torch.randperm(chunk.count - 1, generator=generator(seed))[:count]
        found = [alike(chunk.maps, _maps(subject, chunk, _moved(chunk, int(step)))) for step in away]
        undefined = chunk.classes.to(chunk.maps.device) < 0
        return {"values": torch.where(undefined, torch.nan, torch.stack(found, 1).mean(1))}

    values = subject.each(compute)["values"]
    return Score(name="random_logit", values=values, higher_is_better=False, provenance=subject.provenance)


def _moved(chunk: Chunk, step: int) -> list[Target]:
    """The target of each image that is a class moved on by so many, from the last to the first; others stay."""
    pairs = zip(chunk.targets, chunk.classes.tolist(), strict=True)
    return [Class((index + step) % chunk.count) if index >= 0 else target for target, index in pairs]


def _maps(subject: Subject, chunk: Chunk, targets: Sequence[Target] | None = None) -> Tensor:
    """The maps of a chunk, made again."""
    return torch.from_numpy(subject.again(chunk, chunk.record.input, targets).maps.copy()).to(chunk.maps)


def _known(model: torch.nn.Module, layers: Sequence[str]) -> list[str]:
    """The names that the user gave, each of a module with weights."""
    known = list(learned(model))
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if name not in known:
            raise UnknownNameError(f"No module called {name!r} has weights of its own.{close_matches(name, known)} "
                                   f"The top ones: {', '.join(known[::-1][:8])}.")  # fmt: skip
    if not names:
        raise InputError("layers is empty: name at least one, or leave it out.")
    return names
