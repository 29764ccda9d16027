"""Sanity: does the map have to do with what the network learned, and with the class that it explains?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..arguments import whole
from ..errors import InputError, UnknownNameError, close_matches
from ..methods.baselines import check_seed, generator
from ..targets import Builtin, Target
from .alike import Alike, find_alike
from .randomise import Step, learned, randomised
from .score import Score, nanmean
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

Order: TypeAlias = Literal["cascading", "independent"]
Likeness: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_STEPS = 10  # states of a network that are looked at


def mprt(
    explainer: Explainer,
    explanation: Any,
    *,
    order: Order = "cascading",
    layers: Sequence[Any] | Any = None,
    steps: int = _STEPS,
    similarity: Alike = "spearman",
    seed: int = 0,
    **common: Unpack[Common],
) -> Score:
    """Model parameter randomisation test (Adebayo 2018, section 3): how alike maps stay when weights are random.

    Weights are drawn anew, layer by layer from the top, and the same target is explained again. Values are the mean
    similarity of the maps before and after, at most 1: lower is better, as a map that stays does not depend on what the
    network learned. The network comes back to the last bit.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, H, W)`` with ``images=``, ``target=`` and ``method=``.
        order: ``"cascading"``: all layers from the top down to each; ``"independent"``: each layer alone.
        layers: modules with weights, or their names, the top one first; None: all with a matrix or kernels on which the
            score depends, the last to be used first, each with the scales and offsets after it (norms, biases).
            ``[name]`` looks at one.
        steps: how many states are looked at, evenly spaced, the top layer and the last one among them.
        similarity: ``"spearman"`` or ``"pearson"`` correlation, or ``"ssim"`` of the maps stretched to 0..1. A map that
            has become the same everywhere is like none (0).
        seed: of the weights: normal, with the mean and deviation that each tensor had.
        common: as for all metrics, see `Common`.

    Returns:
        A `Score` with the curve ``"similarity"`` ``(N, L)`` over the L layers in `labels`; NaN where the image's score
        does not depend on what is random, and for maps that are the same everywhere, of which nothing can be told.

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
    states = states_down(subject, order) if layers is None else _named(subject, layers, order)
    if not states:
        raise InputError("The model has no weights that its score depends on: nothing of it can be made random.")
    at = spread(states, steps)
    states = [states[place] for place in at]
    curve = similarities(subject, states, alike, seed)
    return Score(
        name="mprt", values=nanmean(curve).astype(np.float32), higher_is_better=False, curves={"similarity": curve},
        steps=at.astype(np.float32), labels=tuple(state.name for state in states), provenance=subject.provenance,
        axis=f"random {'down to' if order == 'cascading' else 'alone'}",
    )  # fmt: skip


def states_down(subject: Subject, order: Order = "cascading") -> list[Step]:
    """What is random in each state of the network: all layers from the top down to each, or each alone."""
    return _in(order, subject.steps_down())


def _in(order: Order, steps: list[Step]) -> list[Step]:
    return steps if order == "independent" else list(accumulate(steps, lambda above, step: step.below(above)))


def spread(states: Sequence[Step], steps: int = _STEPS) -> NDArray[np.int64]:
    """The places of so many states, evenly spaced, the first and the last among them."""
    count = min(whole(steps, "steps"), len(states))
    return np.unique(np.linspace(0, len(states) - 1, count).round().astype(int))


def similarities(subject: Subject, states: Sequence[Step], alike: Likeness, seed: int) -> NDArray[np.float32]:
    """How alike each map is to that of each state ``(N, L)``.

    NaN where the state has nothing to do with the image's score, and where the map is the same everywhere.
    """

    def compute(chunk: Chunk) -> Found:
        found = []
        for state in states:
            with randomised(subject.inner, state.names, seed):
                found.append(alike(chunk.maps, _maps(subject, chunk)))
        return {"similarity": judged(chunk.maps, torch.stack(found, 1))}

    curve = subject.each(compute)["similarity"]
    return np.where(np.stack([state.reaches for state in states], 1), curve, np.float32(np.nan))


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
        A `Score`; undefined where the target is no class, and where the map is the same everywhere. What is asked of
        the other class is what was asked of its own: its score, probability, or what argues for it against another.
        ``numbers["classes"]`` is how many classes there are.

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
        away, classes = _others(chunk, seed, count), torch.full((len(chunk.maps),), float(chunk.count))
        if not away.numel():
            return {"values": torch.full((len(chunk.maps),), torch.nan), "classes": classes}
        found = [alike(chunk.maps, _maps(subject, chunk, _moved(chunk, classes))) for classes in away.T]
        similar = torch.where(away.to(chunk.maps.device) < 0, torch.nan, torch.stack(found, 1))
        return {"values": judged(chunk.maps, similar.nanmean(1, keepdim=True))[:, 0], "classes": classes}

    found = subject.each(compute)
    return Score(name="random_logit", values=found.pop("values"), higher_is_better=False, numbers=found,
                 provenance=subject.provenance)  # fmt: skip


def judged(maps: Tensor, similar: Tensor) -> Tensor:
    """Similarities ``(n, L)`` to maps, NaN where these are the same everywhere: then nothing can be told."""
    flat = maps.flatten(1)
    return torch.where((flat.amax(1) > flat.amin(1))[:, None], similar, torch.nan)


def _others(chunk: Chunk, seed: int, count: int) -> Tensor:
    """For each image other classes ``(n, k)``, at most `count`, as far from its own; −1 where there is none."""
    if chunk.count < 2:
        return torch.full((0,), -1)
    steps = 1 + torch.randperm(chunk.count - 1, generator=generator(seed))
    found = torch.full((len(chunk.classes), min(count, len(steps))), -1)
    for row, (own, target) in enumerate(zip(chunk.classes.tolist(), chunk.targets, strict=True)):
        if own >= 0:
            against = getattr(target, "minus", None)  # of a contrast, which must stay one
            classes = [cls for cls in ((own + steps) % chunk.count).tolist() if cls != against][: found.shape[1]]
            found[row, : len(classes)] = torch.tensor(classes, dtype=torch.int64)
    return found[:, (found >= 0).any(0)]


def _moved(chunk: Chunk, classes: Tensor) -> list[Target]:
    """The target of each image with another class in the place of its own; where that is -1 it stays."""
    pairs = zip(chunk.targets, classes.tolist(), strict=True)
    return [target.of(index) if index >= 0 and isinstance(target, Builtin) else target for target, index in pairs]


def _maps(subject: Subject, chunk: Chunk, targets: Sequence[Target] | None = None) -> Tensor:
    """The maps of a chunk, made again."""
    return torch.from_numpy(subject.again(chunk, chunk.record.input, targets).maps.copy()).to(chunk.maps)


def _named(subject: Subject, layers: Sequence[Any] | Any, order: Order) -> list[Step]:
    """The states of the layers that the user gave, by name or as modules."""
    model = subject.inner
    known, names_of = learned(model), {module: name for name, module in model.named_modules()}
    given = list(layers) if isinstance(layers, list | tuple) else [layers]
    names: list[Any] = [names_of.get(layer, layer) if isinstance(layer, nn.Module) else layer for layer in given]
    for name in names:
        if name not in known:
            raise UnknownNameError(f"No module called {name!r} has weights of its own."
                                   f"{close_matches(str(name), known)} The last ones: "
                                   f"{', '.join(list(known)[:-9:-1])}.")  # fmt: skip
    if not names:
        raise InputError("layers is empty: name at least one, or leave it out.")
    everyone = np.ones(len(subject), bool)
    return _in(order, [Step(name, (name,), everyone) for name in names])
