"""The passes over one chunk of images: one forward, and one backward for each backward rule that is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError, LayerError, ModelError, SeewhyError
from ..given import Given
from ..layers import Layer, find_layers, tensors
from ..layouts import Layout, first_convolution
from ..scoring import Scoring, Selected
from .attention import Blocks, readout
from .backward import ATTENTION, BIAS, INPUT, NO_CANDIDATE, Backward
from .capture import Captured, Observer
from .inputs import ModelInputs
from .record import Attention, Bias, Head, LayerRecord, Needs, Record, Way
from .switches import plain_attention

if TYPE_CHECKING:
    from .recording import Recording

_OWN = (
    "Raised by the model itself, for an input of shape {}. Another size needs a transform of its own; further inputs "
    "are model_args= and model_kwargs=, tensors as the model takes them."
)
_NO_SCORES = "CAM explains class scores (N, K), which this target is not computed from. Use 'grad_cam'."
_FORMS = {1: "signals (N, C, L)", 2: "images (N, C, H, W)", 3: "videos or volumes (N, C, T, H, W)"}


@dataclass(frozen=True)
class Request:
    """What the passes must give: the united needs of all methods asked.

    Attributes:
        needs: of each method.
        layers: those that the user named.
        choose: whether a layer must be chosen.
        everything: whether every module is to be watched, for the list of layers.
        layout: what the user says of layouts.
        whole: whether the graph must start at the input.
        inputs: what the model is called with besides the batch, and where that goes.
        most: how many evaluations may run together; None: as many as is quickest.
        to_input: what the model would get for pictures of 0..1, in the place of some that it got.
        original: ``(n, C, *sides)``, of what the batch is a change; its colours are as these were taken.
        known: the layouts of layers for inputs of this shape, by label, where they were worked out before.
        memory: what one call of the user learns on the way: sizes of chunks, faster copies.
    """

    needs: tuple[Needs, ...]
    layers: tuple[Layer, ...] = ()
    choose: bool = False
    everything: bool = False
    layout: Given = None
    whole: bool = False
    inputs: ModelInputs = field(default_factory=ModelInputs)
    most: int | None = None
    to_input: Callable[[Tensor, Tensor], Tensor] | None = None
    original: Tensor | None = field(default=None, compare=False)
    known: Mapping[str, Layout | None] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict, compare=False)

    @property
    def ways(self) -> list[Way]:
        """The backward passes, each once; the plain one of the score first."""
        ways = dict.fromkeys(way for needs in self.needs for way in needs.ways)
        return sorted(ways, key=lambda way: way != Way())

    @property
    def gradients(self) -> bool:
        """Whether the forward pass must build a graph."""
        needed = self.ways or any(layer.relu for layer in self.layers)
        return bool(needed) or (self.choose and any(n.score for n in self.needs))  # a layer is chosen by its gradient

    @property
    def from_input(self) -> bool:
        """Whether the graph must start at the input."""
        return self.whole or any(n.input_gradient or n.biases or n.attention for n in self.needs)

    @property
    def changed(self) -> bool:
        """Whether what the layer returns may be changed."""
        return any(needs.evaluations and needs.layer for needs in self.needs)

    @property
    def plain_attention(self) -> bool:
        """Whether attention must be plain mathematics in the graph."""
        return any(needs.plain_attention for needs in self.needs)


@dataclass
class Measured:
    """What the passes gave for a chunk of images; gradients and what is `selected` have a row for each target of each.

    Attributes:
        model: as it was borrowed.
        request: what was asked for.
        scoring: how the targets' scores are read.
        raw: what the model returned, where no graph was built for gradients.
        dead: where the gradient is exactly 0 for every image of the chunk: layers, and ``""`` for the input.
        why: of the candidates that were looked at, why they were chosen or passed over.
        recordings: of the run, by the layer after which it is to be run again, if it was recorded.
    """

    input: Tensor
    observer: Observer
    model: nn.Module
    request: Request
    scoring: Scoring
    selected: Selected | None = None
    layers: list[Captured] = field(default_factory=list)
    gradients: dict[tuple[Way, str], Tensor] = field(default_factory=dict)
    curvatures: dict[tuple[Way, str], Tensor] = field(default_factory=dict)
    attention: Blocks | None = None
    formed: list[Tensor] = field(default_factory=list)
    head: Head | None = None
    output_gradient: Tensor | None = None
    raw: Any = None
    dead: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recordings: dict[str, Recording] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[int, ...]:
        """The input's sides, with the padding that a detector adds: what the grids of layers cover."""
        sides = zip(self.input.shape[2:], self.observer.cover, strict=True)
        return tuple(round(side / share) for side, share in sides)

    def record(self, needs: Needs, layer: Captured | None, progress: bool | None = None) -> Record:
        """What a method with these needs gets of it, a row for each pair of image and target."""
        selected = self.selected if needs.score else None
        measured: dict[str, Any] = {"input": self._paired(self.input), "to_input": self._to_input()}
        if selected:
            outputs = None if selected.outputs is None else self._paired(selected.outputs)
            measured |= {"outputs": outputs, "scores": selected.scores}
        if needs.evaluations and selected:
            scoring = self.scoring.held(selected, tuple(self.input.shape[2:]))
            from .evaluations import Evaluations  # which runs passes itself

            measured["evaluations"] = Evaluations(
                self.model, self.input, self.request, scoring, layer, needs.evaluations, progress, self.recordings,
                self.dead,
            )  # fmt: skip
        measured |= self._differentiated(needs)
        if needs.head and self.head:
            head = replace(self.head, activation=self._paired(self.head.activation))
            measured |= {"head": head, "output_gradient": self.output_gradient}
        if layer is None:
            return Record(**measured)
        if needs.gradient or needs.curvature or needs.evaluations:
            layer.check_positions()
        layer.check_batch(len(self.input))
        measured |= {
            "sides": self.sides,
            "layer": layer.label,
            "activation": self._paired(self._here(layer.value)) if needs.activation else None,
        }
        if needs.at_layer:
            measured["gradient"] = self._here(self.gradients[needs.at_layer, layer.label])
        if needs.curved:
            measured["curvature"] = self._here(self.curvatures[needs.curved, layer.label])
        return LayerRecord(**measured)

    def _to_input(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What the model would get for pictures; of changed images as of those that were changed."""
        given, original = self.request.to_input, self.request.original
        if given is None or original is None:
            return given
        return lambda pictures, _: given(pictures, self._paired(original))

    def _differentiated(self, needs: Needs) -> dict[str, Any]:
        """What the backward passes gave that is not at a layer."""
        found: dict[str, Any] = {}
        if needs.at_input:
            found["input_gradient"] = self.gradients[needs.at_input, INPUT]
        if needs.at_biases:
            found["biases"] = self._biases(needs.at_biases)
        if needs.at_attention and self.attention:
            found["attention"] = self._attention(needs, needs.at_attention, self.attention)
        return found

    def _biases(self, way: Way) -> list[Bias]:
        every = enumerate(self.observer.adding)
        found = [(adding, self._here(self.gradients[way, f"{BIAS}{index}"])) for index, adding in every]
        return [adding.found(self.observer.label(adding.call), g) for adding, g in found if len(g)]

    def _attention(self, needs: Needs, way: Way, found: Blocks) -> Attention:
        """What a method gets of attention, a row for each pair."""
        names = [f"{ATTENTION}{index}" for index in range(len(found.blocks))]
        last = self._here(self.gradients[way, names[-1]])
        gradients = self.formed if needs.attention == "formation" else []
        if needs.attention == "gradients":
            gradients = [self._here(self.gradients[way, name]) for name in names]
        weights = [self._paired(self._here(block.weights)) for block in found.blocks]
        layout = found.layout
        read = readout(found, last)
        return Attention(weights, gradients, layout.grid, layout.prefix, read, found.others, found.parallel)

    def _paired(self, tensor: Tensor) -> Tensor:
        """A row for each target of each image."""
        return tensor if self.scoring.each == 1 else tensor.repeat_interleave(self.scoring.each, 0)

    def _here(self, tensor: Tensor) -> Tensor:
        """On the device of the input: a model may be split over several."""
        return tensor.to(self.input.device)


def run(model: nn.Module, batch: Tensor, inputs: ModelInputs) -> Any:
    """What a borrowed `model` returns for `batch` among its `inputs`; an error of its own passes through, with a note.

    Raises:
        InputError: the model takes another kind of input, other channels, or further inputs.
        ModelError: the model would mix the images of the batch.
    """
    _refuse_mixing(model, len(batch))
    args, kwargs = inputs.arguments(batch)
    try:
        return model(*args, **kwargs)
    except SeewhyError:  # of our own hooks
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
        if told := _known(error, model, tuple(batch.shape)):
            raise told from error
        error.add_note(_OWN.format(tuple(batch.shape)))
        raise


def _known(error: Exception, model: nn.Module, shape: tuple[int, ...]) -> SeewhyError | None:
    """A mistake of the caller that an error of the model shows, for an input of this shape; None for any other."""
    first = first_convolution(model) if isinstance(error, RuntimeError) else None
    if first and len(first.kernel_size) != len(shape) - 2:
        return InputError(
            f"The model's first convolution is a {type(first).__name__}, and the input has shape {shape}: it takes "
            f"{_FORMS[len(first.kernel_size)]}."
        )
    if first and first.in_channels != shape[1]:
        return InputError(
            f"The images have {shape[1]} channels, and the model's first convolution takes {first.in_channels}. "
            "Convert them, or pass a transform that does."
        )
    if isinstance(error, TypeError) and "forward() missing" in str(error):
        return InputError(
            f"The model has further inputs: {error}. Pass them as model_args=(...,) or model_kwargs={{...}}."
        )
    if isinstance(error, AssertionError) and "Guard failed" in str(error):
        return ModelError(
            f"The model was exported for one shape of input, and refuses {shape} ({error}): give it that one "
            "(batch_size= says how many images), or export it with dynamic_shapes."
        )
    return None


def _refuse_mixing(model: nn.Module, count: int) -> None:
    for name, module in model.named_modules():
        if count > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ModelError(f"{name!r} ({type(module).__name__}) has no running statistics, so each image of a batch "
                             "would change the others' scores: explain them with batch_size=1.")  # fmt: skip


def measure(model: nn.Module, batch: Tensor, request: Request, scoring: Scoring) -> Measured:
    """Run the fewest passes of a borrowed `model` over `batch` ``(n, C, *sides)`` that give what is requested.

    Args:
        model: borrowed.
        batch: the model's input; untouched.
        request: what is needed.
        scoring: how the targets' scores are read out of what the model returns.

    Raises:
        GradientError: no gradient arrives where one is needed.
        LayerError: a layer did not run, ran several times, or no layer fits.
    """
    head = any(needs.head for needs in request.needs)
    known = bool(request.layers) and all(layer.label in request.known for layer in request.layers)
    follows = request.inputs.extra or (not known and _may_hold_tables(model, batch))
    whole = request.from_input or follows
    observer = Observer(
        model,
        batch,
        request.layers,
        gradients=request.gradients,
        choose=request.choose,
        head=head,
        everything=request.everything or any(needs.biases or needs.attention for needs in request.needs),
        layout=request.layout,
        follows=follows,
        strict=request.inputs.extra,
        whole=whole,
        returned=request.changed,
        adds=any(needs.biases for needs in request.needs),
        spans=any(needs.attention for needs in request.needs),
        blocks=any(needs.attention == "formation" for needs in request.needs),
        known=request.known,
    )
    found = Measured(batch.detach().clone().requires_grad_(whole), observer, model, request, scoring)
    plainly = plain_attention() if request.plain_attention else nullcontext()
    with observer, plainly:  # for the backward passes too, in which checkpoints run again
        with torch.set_grad_enabled(request.gradients or follows):
            raw = _run_once(found, graph=request.gradients or follows)
        observer.finish()
        if not (observer.incomplete or observer.stale):
            _read(found, raw)
    found.input.requires_grad_(False)
    if observer.incomplete or observer.stale:  # not before its hooks are gone
        again = replace(request, known={}, whole=request.whole or observer.incomplete)
        return measure(model, batch, again, scoring)
    if not all(layer.intact for layer in found.layers):
        layers = tuple(layer for chosen in found.layers for layer in find_layers(model, chosen.label))
        return measure(model, batch, replace(request, layers=layers, choose=False), scoring)
    return found


def _run_once(found: Measured, graph: bool) -> Any:
    """The forward pass; where the rest of one image's run will be asked for again, it is recorded on the way."""
    from .recording import Recording  # which runs models itself

    model, batch, request = found.model, found.input.clone(), found.request
    if graph or not request.changed or len(batch) > 1 or len(request.layers) != 1:
        return run(model, batch, request.inputs)
    recording = found.recordings[request.layers[0].label] = Recording(model, request.layers[0])
    with recording:
        return recording.run(batch, request.inputs)


def _read(found: Measured, raw: Any) -> None:
    """Take what is requested out of what the model returned, `raw`, and out of the graph that led there."""
    observer, request, scoring = found.observer, found.request, found.scoring
    found.layers = observer.captured
    found.raw = None if request.gradients else raw
    for layer in found.layers:
        layer.step_past_relu(tensors(raw))
    if any(needs.score for needs in request.needs):
        selected = scoring.read(raw, tuple(found.input.shape[2:]))
        if request.gradients:
            Backward(found, selected).run()
        found.selected = selected.detached()
    elif request.choose:
        found.layers = [_last(observer.candidates)]
    if observer.head and found.selected:
        if found.selected.outputs is None:
            raise ModelError(_NO_SCORES)
        found.head = observer.head.find(found.selected.outputs, observer.label)
        found.output_gradient = scoring.gradient(found.selected.outputs)


def _may_hold_tables(model: nn.Module, batch: Tensor) -> bool:
    """Whether layers may return tables that have nothing to do with the image, as position biases of transformers.

    For several images their first dimension tells them.
    """
    return len(batch) == 1 and any(isinstance(module, nn.LayerNorm) for module in model.modules())


def _last(candidates: list[Captured]) -> Captured:
    if not candidates:
        raise LayerError(NO_CANDIDATE)
    return candidates[-1]
