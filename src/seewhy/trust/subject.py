"""What a metric judges: maps, with the images and targets that they are of, and the network to be asked about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import chunks
from ..collect import Collector
from ..engine.borrow import borrowed
from ..engine.inputs import ModelInputs, make_inputs
from ..engine.passes import Measured
from ..engine.record import Needs, Record
from ..engine.uses import uses_of
from ..errors import InputError, InputTypeError, close_matches, warn
from ..explanation import Explanation
from ..inside.asked import check_explainer
from ..layers import find_layers
from ..methods import Method
from ..methods.baselines import Baseline, make_baseline
from ..origin import Origin
from ..scoring import Scoring, Selected, find_pairs, with_embeddings
from ..targets import Builtin, Class, Probability, Target
from .alike import spearman
from .given import maps_of, method_of
from .randomise import Step, learned, steps_down
from .shown import find_shown

if TYPE_CHECKING:
    from ..explainer import Explainer

Found = Mapping[str, Tensor]
_APART, _ROUGHLY = 0.01, 0.05  # of the image's scores, by which other batches may differ, and half precision
_MADE = 0.5  # correlation of ranks with what the method makes, below which it did not make the map
_NO_ORIGIN = (
    " If it explains anything else than the score of a class, which an explanation from a file or another process does "
    "not have with it: give target=."
)


class Common(TypedDict, total=False):
    """What every metric takes.

    Attributes:
        images: what the maps are of, as for `explain`; of an `Explanation` its own unless given.
        target: what they explain, as for `explain`; of an `Explanation` its own unless given.
        method: what made plain maps, for metrics that explain again; a name, class or instance.
        layer: where it looked, for a method that looks at one.
        batch_size: maps at a time, and changed images at most; it changes no result.
        progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
        model_args: further inputs of the model, as for `explain`.
        model_kwargs: the same by name.
    """

    images: Any
    target: Any
    method: Any
    layer: Any
    batch_size: int | None
    progress: bool | None
    model_args: Sequence[Any]
    model_kwargs: Mapping[str, Any] | None


@dataclass(frozen=True)
class Asking(Method):
    """A method that only wants to ask again."""

    needs = Needs(evaluations=True)


@dataclass(frozen=True)
class Chunk:
    """Some of the maps, with what the network gives for their images.

    Attributes:
        start: the number of the first.
        maps: float32 ``(n, *sides)``.
        attribution: float32 ``(n, C, *sides)``, or one number for all colours ``(n, 1, *sides)``.
        record: with ``input``, the targets' ``scores`` and ``evaluations`` to ask about changed images.
        targets: each held as what is explained in its image.
        inputs: what else the model gets.
        classes: int64 ``(n,)``, -1 where the target is no class.
        count: how many classes there are; 0 where there are none.
    """

    start: int
    maps: Tensor
    attribution: Tensor
    record: Record
    targets: Sequence[Target]
    inputs: ModelInputs
    classes: Tensor
    count: int

    @property
    def ask(self) -> Any:
        """The model, to be asked about changed images."""
        return self.record.evaluations


class Subject:
    """Maps to be judged, with the images and targets that they are of.

    Args:
        explainer: of the network.
        explanation: an `Explanation`, or maps ``(N, *sides)``, or that of one image ``(*sides)``.
        probability: whether the targets' probabilities are asked for in the place of their scores, where they have any.
        blind: whether the maps alone are looked at, and images have no say.
        common: as for all metrics.

    Raises:
        InputTypeError: something else was given.
        InputError: maps and images do not fit together, or there are no images.
        NonFiniteError: a map holds NaN or infinite values.
    """

    def __init__(
        self, explainer: Explainer, explanation: Any, *, probability: bool = False, blind: bool = False, **common: Any
    ) -> None:
        check_explainer(explainer)
        if unknown := common.keys() - Common.__annotations__.keys():
            name = sorted(unknown)[0]
            raise InputTypeError(f"There is no option {name!r} here.{close_matches(name, Common.__annotations__)} All "
                                 f"metrics have {', '.join(Common.__annotations__)}; each its own.")  # fmt: skip
        self._explainer, self._probability = explainer, probability
        self._sides = explainer._sides
        self._batch_size, self._progress = common.get("batch_size"), common.get("progress")
        self.explanation = explanation if isinstance(explanation, Explanation) else None
        self.maps = maps_of(explanation, self._sides)
        origin = self.explanation.origin if self.explanation else None
        self._method, self._layers = method_of(self.explanation, common, origin)
        if blind:
            return
        self._shown = find_shown(explainer, self.maps, self.explanation, common.get("images"))
        self._inputs = self._find_inputs(common, origin)
        self._targets = self._find_targets(common.get("target"), origin)
        self._recognised = common.get("target") is None  # whether the scores must be those of the explanation

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def method(self) -> Method:
        """What made the maps.

        Raises:
            InputError: that is not known.
        """
        if self._method is None:
            raise InputError("This metric explains changed images again, and nothing says by which method the maps "
                             "were made: give method= (and layer=), or the Explanation itself.")  # fmt: skip
        return self._method

    @property
    def image_index(self) -> NDArray[np.integer]:
        """Which image each map is of."""
        return self._shown.index

    @property
    def known_method(self) -> Method | None:
        """What made the maps, if that is known."""
        return self._method

    @property
    def provenance(self) -> dict[str, str]:
        """Of a score of these maps."""
        made = {"method": self._method.label} if self._method else {}
        return {"model": type(self._explainer._inner).__name__} | made

    @property
    def inner(self) -> torch.nn.Module:
        """The network."""
        return self._explainer._inner

    def each(self, compute: Callable[[Chunk], Found]) -> dict[str, NDArray[np.float32]]:
        """What `compute` gives for each chunk of the maps, tensors ``(n, ...)`` by name, put together."""
        found: list[Found] = []
        memory: dict[Any, Any] = {}
        told: dict[str, None] = {}
        with self._borrowed():
            for start, stop in chunks(len(self), self._batch_size):
                with torch.no_grad():
                    chunk = self._chunk(start, stop, memory)
                    found.append(compute(chunk))
                told |= dict.fromkeys(chunk.record.warnings)
        for message in told:
            warn(message)
        names = found[0].keys()
        return {name: torch.cat([part[name].detach().float().cpu() for part in found]).numpy() for name in names}

    def steps_down(self) -> list[Step]:
        """The layers on which the scores depend, the last to be used first."""
        with self._borrowed():
            uses = [uses_of(self.inner, *self._asked(row, row + 1)) for row in range(len(self))]
            return steps_down(learned(self.inner), uses)

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        """Have the network, and what targets are compared with."""
        with borrowed(self.inner):
            embed = partial(self._explainer._embedding, self._inputs.part(0, 1, self._shown.count))
            self._targets = with_embeddings(self._targets, embed)
            yield

    @property
    def layers(self) -> tuple[str, ...]:
        """Where the method looked, if at any layer."""
        return self._layers

    def again(self, chunk: Chunk, batch: Tensor, targets: Sequence[Target] | None = None) -> Explanation:
        """Other images in the places of a chunk's, or the same for other targets, explained by the same method."""
        return self.by(self.method, chunk, batch, targets)

    def by(self, method: Method, chunk: Chunk, batch: Tensor, targets: Sequence[Target] | None = None) -> Explanation:
        """What any method gives at the same layers."""
        count, before = len(batch), chunk.record.input
        original = before if batch.shape == before.shape else None  # a mosaic is a picture of its own
        scoring = self._explainer._scoring(chunk.targets if targets is None else targets, 0)
        layers = tuple(find_layers(self._explainer._inner, list(self._layers))) if self._layers else None
        with torch.enable_grad():
            measured = self._explainer._measure(
                [method], layers, batch, scoring, chunk.inputs, self._batch_size, {}, original
            )
            found = Collector([method])
            found.add(measured, np.zeros((count, *_picture_sides(batch), 3), np.uint8))
        return found.explanations(None, (None,) * count, {})[0]

    def start(self, chunk: Chunk, given: Baseline | None, seed: int = 0) -> Tensor:
        """What comes in the place of a chunk's images; None: what the method measured them against, else black.

        Raises:
            InputError: the method has several.
        """
        if given is not None:
            return make_baseline(given, chunk.record, seed)
        own = getattr(self._method, "baseline", None)
        if isinstance(own, list | tuple):
            raise InputError("The method measures against several baselines: give the one that is meant, baseline=.")
        return make_baseline("black" if own is None else own, chunk.record, getattr(self._method, "seed", 0))

    def image(self, row: int) -> Tensor:
        """The model's input ``(C, *sides)`` that a map is of."""
        return self._shown.load(row, row + 1)[0]

    def _asked(self, start: int, stop: int) -> tuple[Tensor, ModelInputs, Scoring]:
        """What the model gets for some of the maps, and how their targets' scores are read."""
        batch = self._shown.load(start, stop)
        inputs = self._inputs.picked(self._shown.index[start:stop].tolist(), self._shown.count)
        return batch, inputs, self._explainer._scoring(self._targets[start:stop], start)

    def _chunk(self, start: int, stop: int, memory: dict[Any, Any]) -> Chunk:
        batch, inputs, scoring = self._asked(start, stop)
        if self._method and self._method.needs.layer and not self._layers:  # chosen before anything is changed
            with torch.enable_grad():
                chosen = self._explainer._measure([self._method], None, batch, scoring, inputs, self._batch_size, {})
            self._layers = tuple(layer.label for layer in chosen.layers)
        measured = self._explainer._measure([Asking()], None, batch, scoring, inputs, self._batch_size, memory)
        if self._recognised:
            self._check_scores(measured, start)
        held = measured.scoring.held(measured.selected, tuple(batch.shape[2:])).targets if measured.selected else []
        classes, outputs = measured.selected.classes, measured.selected.source.classes  # type: ignore[union-attr]
        if self._probability:
            _take_probabilities(measured)
        maps = torch.from_numpy(np.array(self.maps[start:stop])).to(batch.device)
        if maps.shape[1:] != batch.shape[2:]:
            raise InputError(
                f"The maps are {tuple(maps.shape[1:])} and the model's input {tuple(batch.shape[2:])}: a map has a "
                "number for each position of the input. Resize them, or give the Explanation."
            )
        chunk = Chunk(
            start, maps, self._attribution(maps, batch, start), measured.record(Asking.needs, None, self._progress),
            held, inputs, classes, 0 if outputs is None else outputs.shape[1],
        )  # fmt: skip
        if self.explanation is None and self._method:
            self._check_made(chunk)
        return chunk

    def _check_made(self, chunk: Chunk) -> None:
        """Refuse plain maps that the method does not make of these images."""
        made = torch.from_numpy(self.again(chunk, chunk.record.input).maps.copy())
        similar = spearman(chunk.maps, made.to(chunk.maps))
        if float(similar.min()) < _MADE:
            row = int(similar.argmin())
            raise InputError(
                f"The map of image {chunk.start + row} is not what {self.method.label} makes of it here (their "
                f"correlation is {similar[row]:.2f}): give the method=, layer=, target= and options that made it, or "
                "the Explanation."
            )

    def _attribution(self, maps: Tensor, batch: Tensor, start: int) -> Tensor:
        """The raw values where they are of the input's colours, else the maps."""
        values = None if self.explanation is None else self.explanation.values
        if values is None or values.shape[1:] != tuple(batch.shape[1:]):
            return maps[:, None]
        return torch.from_numpy(np.array(values[start : start + len(batch)])).to(batch.device)

    def _find_inputs(self, common: Mapping[str, Any], origin: Origin | None) -> ModelInputs:
        if origin and not (common.get("model_args") or common.get("model_kwargs")):
            return origin.inputs
        return make_inputs(common.get("model_args") or (), common.get("model_kwargs"))

    def _find_targets(self, given: Any, origin: Origin | None) -> Sequence[Target]:
        if given is None and origin:
            found = zip(origin.targets, self.explanation.targets.tolist(), strict=True)  # type: ignore[union-attr]
            return [target.of(cls) if cls >= 0 and _open(target) else target for target, cls in found]
        if given is None and self.explanation is not None and (self.explanation.targets >= 0).all():
            return [Class(int(index)) for index in self.explanation.targets]
        about = self._explainer._about
        if self.explanation is not None:
            targets, each = find_pairs(given, len(self), about)
            if each > 1:
                raise InputError(f"The explanation has {len(self)} maps, and the target asks for {each} of each: give "
                                 "one target for all, or a list with one for each map.")  # fmt: skip
            return targets
        count = self._shown.count
        targets, each = find_pairs(given, count, about)
        if count * each != len(self):
            raise InputError(f"{len(self)} maps of {count} images with {each} target{'s' * (each != 1)} each: "
                             "give a map for each pair of image and target.")  # fmt: skip
        return targets

    def _check_scores(self, measured: Measured, start: int) -> None:
        """Refuse to judge maps of another network, or of other weights."""
        explained, selected = self.explanation, measured.selected
        if explained is None or selected is None:
            return
        now = selected.scores.double().cpu().numpy()
        before = explained.scores[start : start + len(now)].astype(np.float64)
        exact = self._shown.images is not None and measured.input.dtype in (torch.float32, torch.float64)
        apart = np.abs(now - before) > (_APART if exact else _ROUGHLY) * _scale(selected, before)
        if apart.any():  # NaN is not: a method without a score
            row = int(np.argmax(apart))
            raise InputError(
                f"The network gives image {start + row} the score {now[row]:.4g} where the explanation has "
                f"{before[row]:.4g}: it was made by another network, or with other weights. Explain it again, or give "
                "its .maps with images= and target=." + ("" if explained.origin else _NO_ORIGIN)
            )


def _open(target: Target) -> TypeGuard[Builtin]:
    """Whether it is of whatever class is predicted, which was settled when it was explained."""
    return isinstance(target, Builtin) and target.reads != "detections" and getattr(target, "cls", 0) is None


def _take_probabilities(measured: Measured) -> None:
    """Ask for the probability of each target that is a class."""
    selected = measured.selected
    if selected is None or selected.outputs is None:
        return
    pairs = zip(measured.scoring.targets, selected.classes.tolist(), strict=True)
    targets = [Probability(index) if isinstance(target, Class) and index >= 0 else target for target, index in pairs]
    measured.scoring = replace(measured.scoring, targets=targets)
    measured.selected = measured.scoring.read(measured.raw, tuple(measured.input.shape[2:])).detached()


def _scale(selected: Selected, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What differences of each image's score are measured by: its size, or how far the scores of classes spread."""
    classes = selected.source.classes
    if classes is None or classes.shape[1] < 2:
        return np.abs(scores)
    spread: NDArray[np.float64] = classes.double().flatten(1).std(1).cpu().numpy()
    scale: NDArray[np.float64] = np.maximum(np.abs(scores), np.repeat(spread, len(scores) // len(spread)))
    return scale


def _picture_sides(batch: Tensor) -> tuple[int, ...]:
    """The sides of pictures of such inputs; a signal has a row for each channel."""
    sides = tuple(batch.shape[2:])
    return (batch.shape[1], *sides) if len(sides) == 1 else sides
