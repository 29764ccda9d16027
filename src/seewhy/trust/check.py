"""Should I believe this map? The tests of `trust`, asked cheaply and answered in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from ..engine.record import Needs
from ..errors import InputTypeError, NonFiniteError
from ..explanation import Explanation
from ..explanations import Explanations
from ..methods import Method
from ..methods.baselines import check_seed, make_baseline, numbered
from .alike import spearman
from .finding import Answer, Check, Finding
from .order import ranks, replaced
from .sanity import random_logit, similarities, spread, states_down
from .score import nanmean
from .stability import most_changed
from .subject import Chunk, Common, Found, Subject

if TYPE_CHECKING:
    from ..explainer import Explainer

ALIKE, LESS = 0.9, 0.75  # of two maps: as good as the same, and clearly not
_FAR, _NEAR = 1.0, 0.5  # max-sensitivity: as much as the map itself, and half of that
_MISSED, _ROUGH = 0.05, 0.25  # of the difference that attributions must add up to
_NOISE = 0.02  # of the image's range, uniform
_SHARES = (0.1, 0.3)  # of the image, that go and come
_CONFIDENCE = 0.95
_COSTLY = "explaining again takes this method many passes; check(..., thorough=True) does it."
_FLAT = "the map is the same everywhere"
_OURS = (
    "our own limits: on the sample network guided backprop has .99 and more, Grad-CAM and saliency at most .6, "
    "LayerCAM and Grad-CAM++ lie between"
)
_SIMILAR = f"yes within ±{LESS}, no from {ALIKE}"


def check(
    explainer: Explainer, explanation: Explanation, *, thorough: bool = False, seed: int = 0, **common: Unpack[Common]
) -> Check:
    """The tests that fit a map; see `Explainer.check`."""
    check_seed(seed)
    if isinstance(explanation, Explanations):
        raise InputTypeError("check takes one Explanation, and these are several: found['grad_cam'].")
    if not isinstance(explanation, Explanation):
        raise InputTypeError("check asks how the maps were made: give the Explanation, as in "
                             "explainer.check(explainer.explain(image)). Plain maps are judged by the metrics of "
                             "seewhy.trust.")  # fmt: skip
    subject = Subject(explainer, explanation, **common)
    varied = bool((np.ptp(subject.maps.reshape(len(subject), -1), 1) > 0).any())
    method = subject.known_method
    again = varied and method is not None and (thorough or not _costly(method.needs))
    asked: list[tuple[str, bool, Callable[[], Finding]]] = [
        ("evidence", True, lambda: _evidence(subject)),
        ("faithful", varied, lambda: _faithful(subject, seed, 24 if thorough else 6)),
        ("target", again, lambda: _target(explainer, explanation, subject, 5 if thorough else 1, seed, common)),
        ("weights", again, lambda: _weights(subject, thorough, seed)),
        ("stable", again, lambda: _stable(subject, 10 if thorough else 1, seed)),
        ("complete", True, lambda: _complete(explanation)),
    ]
    why = _COSTLY if subject.known_method else "nothing says how the map was made: give method=."
    why = why if varied else f"{_FLAT}."
    findings = [ask() if can else Finding(name, "not asked", f"Not asked: {why}") for name, can, ask in asked]
    return Check(tuple(findings), explanation)


def _evidence(subject: Subject) -> Finding:
    source = "our own: a blank map, or a layer without gradient, cannot be evidence"
    maps = subject.maps.reshape(len(subject), -1)
    varied = np.ptp(maps, 1) > 0
    positive = (maps > 0).any(1)
    numbers = {"maps that are not constant": float(varied.mean()), "maps with a value above 0": float(positive.mean())}
    numbers |= _at_layer(subject)
    value = min(numbers.values())
    layer = "maps with a gradient at the layer" in numbers
    answer: Answer = "no"
    if not varied.any():
        said = "The map is the same everywhere: it says nothing."
    elif numbers.get("maps with a gradient at the layer", 1) == 0:
        said = "No gradient of the score arrives at the layer: nothing there can be evidence."
    elif not positive.any():
        said = "Nothing in it argues for the target."
    elif value < 1:
        answer, said = "unclear", f"Of {len(subject)} maps only {value:.0%} are not empty."
    else:
        answer, said = "yes", f"{'The layer carries gradient, and t' if layer else 'T'}he map is not empty."
    return Finding("evidence", answer, said, value, source=source, numbers=numbers)


@dataclass(frozen=True)
class _Gradient(Method):
    """The gradient at a layer, to see whether there is any."""

    needs = Needs(gradient=True)

    def compute(self, record: Any) -> Tensor:
        size: Tensor = record.gradient.abs()
        return size.sum(1) if size.dim() > 2 else size[:, :, None]

    def to_maps(self, values: Tensor, size: tuple[int, ...]) -> Tensor:
        return values.flatten(1).sum(1).view(-1, *(1 for _ in size)).expand(-1, *size)


def _at_layer(subject: Subject) -> dict[str, float]:
    """Of how many images a gradient arrives at the layer; nothing where the method looks at none.

    Where it takes the input's gradient too, a layer without one leaves the map blank, which is seen without asking.
    """
    needs = subject.known_method.needs if subject.known_method else Needs()
    if not subject.layers or not needs.at_layer or needs.at_input:
        return {}
    found = subject.each(
        lambda chunk: {
            "size": torch.from_numpy(subject.by(_Gradient(), chunk, chunk.record.input).maps.copy()).flatten(1).sum(1)
        }
    )
    return {"maps with a gradient at the layer": float((found["size"] > 0).mean())}


def _faithful(subject: Subject, seed: int, orders: int) -> Finding:
    found = {
        name: values.astype(np.float64) for name, values in subject.each(lambda c: _orders(c, seed, orders)).items()
    }
    found["gap"] = found["insertion"] - found["deletion"]
    found["random gap"] = found["random insertion"] - found["random deletion"]
    numbers: dict[str, float] = {}
    for name in ("deletion", "insertion", "gap"):
        drawn = found[f"random {name}"].mean(0)  # over the images: a number for each order
        reach = _student(orders - 1) * drawn.std(ddof=1) * math.sqrt(1 + 1 / orders)
        numbers |= {name: float(found[name].mean()), f"{name}, random": float(drawn.mean())}
        numbers |= {
            f"{name}, random low": float(drawn.mean() - reach),
            f"{name}, random high": float(drawn.mean() + reach),
        }
    gap, low, high = numbers["gap"], numbers["gap, random low"], numbers["gap, random high"]
    answer: Answer = "no" if gap < low else "yes" if gap > high else "unclear"
    said = {
        "yes": "It falls without what the map marks and rises with it, more than in random order.",
        "unclear": "It follows the map no better and no worse than random orders, as far as so few can tell.",
        "no": "It follows the map less than a random order.",
    }
    source = (
        f"our own, after Petsiuk 2018: the score with 10 % and 30 % of the image blurred, or shown; {orders} random "
        f"orders, the map itself at other places, one-sided {_CONFIDENCE:.0%} limits of Student's t on both sides"
    )
    limits = f"random {low:.2g} to {high:.2g}"
    return Finding("faithful", answer, said[answer], gap, low, "insertion − deletion", source, limits, numbers)


def _orders(chunk: Chunk, seed: int, orders: int) -> Found:
    """The mean score while the first positions go and come, in the map's order and in random ones of the same grain.

    A random order is the map itself, turned and moved to a random place, over the edges too: single pixels at random
    would break up an image where a map takes away one piece.
    """
    x, start = chunk.record.input, make_baseline("blur", chunk.record)
    counts = torch.tensor([round(share * chunk.maps[0].numel()) for share in _SHARES], device=x.device)

    def means(maps: Tensor) -> list[Tensor]:
        places = ranks(maps, seed)
        ways = (replaced(x, start, places, counts), replaced(start, x, places, counts))
        return [chunk.ask.scores(way, len(counts)).mean(1) for way in ways]

    gone, come = means(chunk.maps)
    drawn = [means(_moved(chunk.maps, seed, number)) for number in range(orders)]
    return {
        "deletion": gone,
        "insertion": come,
        "random deletion": torch.stack([pair[0] for pair in drawn], 1),
        "random insertion": torch.stack([pair[1] for pair in drawn], 1),
    }


def _moved(maps: Tensor, seed: int, number: int = 0) -> Tensor:
    """Maps at a random other place, and mirrored or not."""
    sides = maps.shape[1:]
    draw = torch.rand(2, len(sides), generator=numbered(seed, number))
    turned = maps.flip([axis + 1 for axis, mirrored in enumerate(draw[0]) if mirrored < 0.5])
    shifts = [int((0.15 + 0.7 * share) * side) for share, side in zip(draw[1], sides, strict=True)]
    return turned.roll(shifts, list(range(1, len(sides) + 1)))


def _target(
    explainer: Explainer, explanation: Explanation, subject: Subject, others: int, seed: int, common: Common
) -> Finding:
    score = random_logit(explainer, explanation, others=others, seed=seed, **common)
    if math.isnan(score.mean):
        return Finding("target", "not asked", f"Not asked: there is no other class to ask for, or {_FLAT}.")
    said = {
        "yes": "Another class gives another map.",
        "unclear": "Another class gives much the same map, or the same turned round.",
        "no": "Another class gives nearly the same map: it does not say why this one was answered.",
    }
    needs = subject.known_method.needs if subject.known_method else Needs()
    if int(score.numbers["classes"].min()) == 2 and needs.at_input and not explanation.signed:
        return Finding("target", "not asked", "Not asked: of two classes each is what the other is not, and magnitudes "
                       "are the same for both.")  # fmt: skip
    answer = _alike(score.mean)
    return Finding("target", answer, said[answer], score.mean, ALIKE, "similarity", f"Sixt 2020; {_OURS}", _SIMILAR)


def _weights(subject: Subject, thorough: bool, seed: int) -> Finding:
    states = states_down(subject)
    if not states:
        return Finding("weights", "not asked", "Not asked: the score depends on no weights.")
    reached = np.logical_or.accumulate([state.reaches for state in states])
    top = int(np.argmax(reached.sum(1) == reached[-1].sum()))  # the first that leaves no score as it was
    every = replace(states[top], reaches=reached[top])
    states = [states[place] for place in spread(states)] if thorough else [every]
    try:
        curve = nanmean(similarities(subject, states, spearman, seed).T)
    except NonFiniteError as error:
        return Finding("weights", "not asked", f"Not asked: with random weights the model overflows ({error})")
    numbers = {state.name: float(value) for state, value in zip(states, curve, strict=True) if not np.isnan(value)}
    if not numbers:
        return Finding("weights", "not asked", f"Not asked: {_FLAT}.")
    (name, first), (_, last) = (list(numbers.items())[place] for place in (0, -1))
    where = "the last layers, down to" if top and not thorough else "the last layer"
    what = f"{where} ({name!r})" if name else "the model's own parameters"
    said = {
        "yes": f"With random weights in {what} it is another map.",
        "unclear": f"With random weights in {what} it is much the same map, or turned round.",
        "no": f"This map does not depend on what {what} learned: do not read it as evidence.",
    }
    answer, value = _alike(first), first
    if answer != "no" and _alike(last) == "no":
        answer, value = "no", last
        said["no"] = "This map does not depend on what the network learned: do not read it as evidence."
    return Finding("weights", answer, said[answer], value, ALIKE, "similarity", f"Adebayo 2018; {_OURS}", _SIMILAR,
                   numbers)  # fmt: skip


def _stable(subject: Subject, samples: int, seed: int) -> Finding:
    value = float(nanmean(most_changed(subject, _NOISE, samples, seed, lambda one: one.maps)))
    if math.isnan(value):
        return Finding("stable", "not asked", "Not asked: it is 0 everywhere.")
    answer: Answer = "yes" if value < _NEAR else "unclear" if value < _FAR else "no"
    said = {
        "yes": "Noise that nobody sees changes it little.",
        "unclear": "Noise that nobody sees changes it by more than half of it.",
        "no": "Noise that nobody sees makes another map of it.",
    }
    source = f"Yeh 2019, of the map, {_NOISE:.0%} noise; our own limits: at 1 the change is as large as the map"
    limits = f"yes below {_NEAR:g}, no from {_FAR:g}"
    return Finding("stable", answer, said[answer], value, _FAR, "change", source, limits)


def _complete(made: Explanation) -> Finding:
    missed = made.measures.get("completeness_error")
    if missed is None:
        return Finding("complete", "not asked", "Not asked: the method does not claim to add up.")
    value = float(nanmean(missed))
    answer: Answer = "yes" if value <= _MISSED else "unclear" if value <= _ROUGH else "no"
    said = f"What it attributes misses what it explains by {value:.1%}."
    return Finding("complete", answer, said, value, _ROUGH, "missed", "Sundararajan 2017; our own limits",
                   f"yes to {_MISSED:g}, no above {_ROUGH:g}")  # fmt: skip


def _costly(needs: Needs) -> bool:
    """Whether explaining takes more than a forward pass and some backward ones."""
    return bool(needs.evaluations) or needs.curvature or needs.attention == "formation"


def _alike(similarity: float) -> Literal["yes", "unclear", "no"]:
    """A map turned round says much the same as it did."""
    return "no" if similarity >= ALIKE else "yes" if abs(similarity) < LESS else "unclear"


def _student(freedom: int) -> float:
    """The one-sided quantile of Student's t, by its expansion about the normal one (Abramowitz 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(_CONFIDENCE)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))
