"""Capturing what layers return while the model runs once: the value untouched, and where its gradient is."""

from __future__ import annotations

import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from ..errors import LayerError, LayerNotRunError, close_matches
from ..given import FIRST, TOKENS, TOKENS_FIRST, Given
from ..layers import Layer, LayerInfo, tensors, unfit, with_first_tensor
from ..layouts import TELLING, Layout, Layouts
from .biases import Adding, added, edge_of
from .head import HeadFinder
from .rules import relu_after
from .spans import Span, as_tokens, operation, span_of

_ELSEWHERE = (
    "What layer {!r} returned does not depend on the images explained: it belongs to another input of the model or to "
    "a table of its own (or autograd is off there). explainer.layers() lists the others."
)
_PADS = "GeneralizedRCNNTransform"  # of torchvision's detectors
_CHEAP_COPY = 2  # candidates up to so many times the input's size are copied at once, larger ones if they change


@dataclass(frozen=True)
class Call:
    """One call of a module, the `number`-th of the run from 1; `several`: it returned more tensors than one."""

    module: nn.Module
    name: str
    number: int
    several: bool = False


@dataclass
class Captured:
    """What one call of a layer returned.

    Attributes:
        label: the layer's name, with ``#n`` where it ran several times.
        layout: where the positions are; None for a layer without.
        edge: where autograd finds the gradient of this output; None if gradients were not asked for.
        returned: where it finds that of what the module returned, without what was read of the output inside the
            module; None if that was not asked for, or is the same.
    """

    label: str
    layout: Layout | None
    edge: GradientEdge | None
    _output: Tensor
    _version: int | None = None  # of an output that was not copied
    relu: bool = False  # whether the functional ReLU after the layer is wanted with it
    returned: GradientEdge | None = None

    @property
    def intact(self) -> bool:
        """Whether the value is still what the layer returned."""
        return self._version is None or self._version == self._output._version

    @property
    def value(self) -> Tensor:
        """The output as the layer returned it, as ``(n, C, *grid)`` where it has positions, else ``(n, C)``."""
        output = self._output.detach()
        return self.oriented(output) if self.layout else output.flatten(1)

    @property
    def raw(self) -> Tensor:
        """The output as the layer returned it."""
        return self._output.detach()

    @property
    def layout_of_one(self) -> Layout | None:
        """The layout of what the layer returns for one image alone."""
        return self.layout and self.layout.single(tuple(self._output.shape))

    def oriented(self, tensor: Tensor) -> Tensor:
        """`tensor`, of the output's shape, as ``(n, C, *grid)`` where the layer has positions."""
        return self.layout.channels_first(tensor) if self.layout else tensor

    def step_past_relu(self, outputs: Iterable[Tensor]) -> None:
        """Go on to the result of the functional ReLU after the layer, if that is wanted; `outputs` are the model's."""
        if self.relu and self.edge:
            self.edge = relu_after(self.edge, outputs)
            if self.edge is None:
                raise LayerError(f"No functional ReLU follows straight after {self.label.removesuffix('+relu')!r}.")
            node = self.edge.node
            self._output = self._output.clamp(0, getattr(node, "_saved_max_val", getattr(node, "_saved_max", None)))

    def check_batch(self, count: int) -> None:
        """Refuse a layer that does not return something for each of `count` images."""
        if not self.layout and (not self._output.dim() or len(self._output) != count):
            raise LayerError(
                f"Layer {self.label!r} returned a tensor of shape {tuple(self._output.shape)} for {count} "
                f"image{'s' * (count != 1)}: its first dimension is not the batch."
            )

    def check_positions(self) -> None:
        """Refuse a layer that has no positions."""
        if self.layout is None:
            raise LayerError(
                f"Layer {self.label!r} has no positions that could be worked out: it returned a tensor of shape "
                f"{tuple(self._output.shape)}. explainer.layers() lists those that have; "
                "Explainer(..., layout=...) says where they are."
            )


class Observer:
    """Watches one run of `model` on a batch ``(n, C, *sides)``; a context manager that owns its hooks.

    Args:
        model: borrowed.
        batch: what it will run on.
        wanted: the layers to capture.
        gradients: whether gradients will be asked for; captured outputs then take part in the graph, and start it where
            nothing before them needs one.
        choose: capture every candidate of the automatic choice too.
        head: also look for the linear head that CAM needs.
        everything: watch every module; else, but to choose or for a head, those that are wanted or tell layouts.
        layout: what the user says of layouts.
        follows: whether layers must depend on `batch`, which then requires grad, as far as autograd can follow.
        strict: whether layers that it cannot follow are refused too, for the model has other inputs.
        whole: whether the graph starts at the input. Else it starts at the first layer that is captured, and of the
            candidates anew where grids shrink: the deepest are asked first, and what was before need not be kept.
        returned: whether candidates must be told by what they return, for that will be changed.
        adds: whether layers that add a bias are to be kept.
        spans: whether the calls that give sequences of tokens are to be kept.
        blocks: whether what these give is to be kept too.
        known: the layouts of wanted layers, by label, that were worked out before for inputs of this shape; with all of
            them, no other module need be watched.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        wanted: Sequence[Layer],
        *,
        gradients: bool,
        choose: bool,
        head: bool,
        everything: bool,
        layout: Given = None,
        follows: bool = False,
        strict: bool = False,
        whole: bool = False,
        returned: bool = False,
        adds: bool = False,
        spans: bool = False,
        blocks: bool = False,
        known: Mapping[str, Layout | None] | None = None,
    ) -> None:
        self._known = known or {}
        self._adds, self._spans, self._blocks = adds, spans, blocks
        self._gradients, self._choose, self._wanted = gradients, choose, wanted
        self._follows, self._strict, self._whole = follows, strict, whole
        self._returned = returned
        self._restart: int | None = None  # when the graph started anew, by autograd's count of operations
        self.stale = False  # whether a layout that was known does not fit
        self.incomplete = False  # whether the graph starts too late for the gradient of some layer
        self._everything = everything or choose or head
        self._limit = _CHEAP_COPY * batch.numel()
        self._names = {module: name for name, module in model.named_modules() if name}
        tokens_first = any(vars(module).get("batch_first", True) is False for module in self._names)
        self._layouts = Layouts(batch.shape[0], tuple(batch.shape[2:]), tokens_first=tokens_first, given=layout)
        self._handles: list[RemovableHandle] = []
        self._thread: int | None = threading.get_ident()  # whose calls are recorded; None when recording is over
        self._off = False  # whether the model switched autograd off
        self._branched: set[nn.Module] = set()  # modules whose output was branched off
        self._elsewhere: set[nn.Module] = set()  # modules that ran in another thread
        self._transformed: set[nn.Module] = set()  # modules that ran inside vmap or another transform of torch.func
        self._calls: Counter[nn.Module] = Counter()
        self._seen: list[tuple[Call, tuple[int, ...], str, str]] = []
        self._candidates: list[tuple[Call, Captured]] = []
        # What the model went on with after each candidate, and how often that had been changed in place by then.
        self._went_on: list[tuple[weakref.ref[Tensor], int | None]] = []
        self.captured: list[Captured] = []
        self.adding: list[Adding] = []
        self.spans: list[Span] = []
        # Where the positions are in sequences of so many tokens; None where the user says that it is not in a row.
        self.sequences: dict[int, Layout | None] = {}
        self._said: set[int] = set()  # of how many tokens the user said it
        self.cover: tuple[float, ...] = (1.0,) * (batch.dim() - 2)  # the share of each side that is image, not padding
        self.head = HeadFinder() if head else None

    def __enter__(self) -> Observer:
        wanted = {layer.module for layer in self._wanted}
        told = all(layer.label in self._known for layer in self._wanted)
        pads = {kind for kind in set(map(type, self._names)) if any(base.__name__ == _PADS for base in kind.__mro__)}
        try:
            for module in self._names:
                if self._everything or module in wanted:
                    self._hook(module, self._finished)
                elif not told and isinstance(module, TELLING):
                    self._hook(module, self._told)
                if type(module) in pads:
                    self._hook(module, self._padded)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _hook(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook` with a module, all that it is given, by position or keyword, and what it returns."""

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return hook(module, (*args, *kwargs.values()) if kwargs else args, output)

        if not isinstance(module, torch.jit.ScriptModule):  # scripted code calls no hooks
            self._handles.append(module.register_forward_hook(called, with_kwargs=True))

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _told(self, module: nn.Module, args: Any, output: Any) -> None:
        """Called after a module that only tells grids to later ones; it is on the way of every pass, so it is brief."""
        if isinstance(output, Tensor) and self._thread == threading.get_ident():
            self._off = self._off or not torch.is_grad_enabled()
            self._layouts.take(args)
            self._layouts.tell(module, output)

    def _padded(self, _: nn.Module, __: Any, output: Any) -> None:
        """Called after a detector has resized the images and padded them to a common size."""
        images = output[0]
        self.cover = tuple(s / whole for s, whole in zip(images.image_sizes[0], images.tensors.shape[2:], strict=True))

    def _finished(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Called after each module's forward; in the backward pass too, where a checkpoint computes again."""
        found = list(tensors(output))
        tensor = found[0] if found else None
        if self._thread is None:  # the same graph must be built again
            again = module in self._branched and tensor is not None
            return with_first_tensor(output, _branch(tensor)[0]) if again and tensor is not None else None
        if self._thread != threading.get_ident():  # somebody else runs this module too
            self._elsewhere.add(module)
            return None
        self._calls[module] += 1
        if tensor is not None and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            self._transformed.add(module)
            return None
        self._off = self._off or not torch.is_grad_enabled()
        self._layouts.take(args)
        if tensor is None or not tensor.is_floating_point():
            return None
        call = Call(module, self._names[module], self._calls[module], len(found) > 1)
        layout = self._layout(call, tensor)
        why = self._passed_over(call, args, tensor, layout) if self._choose else ""
        self._seen.append((call, tuple(tensor.shape), layout.name if layout else "-", why))
        self._note(call, args, tensor, layout)
        goes_on = self._take(call, args, tensor, layout, bool(why))
        if self.head:
            self.head.see(call, module, args, goes_on, layout)
        return None if goes_on is tensor else with_first_tensor(output, goes_on)

    def _note(self, call: Call, args: Any, output: Tensor, layout: Layout | None) -> None:
        """Keep what tells of attention and of biases."""
        if layout and (found := as_tokens(layout, tuple(output.shape))):
            self._tell_sequence(*found, said=layout.picks is not None)
        if self._adds and output.requires_grad and (bias := added(call.module)) is not None:
            self.adding.append(Adding(call, layout, edge_of(call.module, output), bias))
        if self._spans and output.requires_grad and (span := span_of(call, args, output, layout, self._blocks)):
            self.spans.append(span)

    def _tell_sequence(self, count: int, layout: Layout | None, *, said: bool) -> None:
        """Keep where the positions are in so many tokens: what the user `said`, or else what a sequence of them has."""
        if said:
            self._said.add(count)
        elif count in self._said or (count in self.sequences and layout and layout.name not in (TOKENS, TOKENS_FIRST)):
            return
        self.sequences[count] = layout

    def _wanted_of(self, module: nn.Module) -> list[Layer]:
        return [layer for layer in self._wanted if layer.module is module]

    def _layout(self, call: Call, tensor: Tensor) -> Layout | None:
        for layer in self._wanted_of(call.module):
            if layer.label in self._known and layer.call in (None, call.number):
                known = self._known[layer.label]
                self.stale = self.stale or (known is not None and not known.fits(tuple(tensor.shape)))
                return known if not self.stale else None
        try:
            return self._layouts.see(call.module, tensor)
        except LayerError as error:
            if any(layer.call in (None, call.number) for layer in self._wanted_of(call.module)):
                raise LayerError(f"Layer {call.name!r}: {error}") from None
            return None

    def _passed_over(self, call: Call, args: Any, output: Tensor, layout: Layout | None) -> str:
        """Why an output is no candidate of the automatic choice; empty where it is."""
        if why := unfit(call.module, layout):
            return why
        if _hands_through(call.module, args, output):
            return "hands its input through"
        if self._is_elsewhere(output):
            return "nothing of the image"
        before = [earlier() is output and version == _version(output) for earlier, version in self._went_on]
        return "hands an earlier one on" if any(before[:-1]) and not before[-1] else ""

    def _take(self, call: Call, args: Any, output: Tensor, layout: Layout | None, passed_over: bool) -> Tensor:
        """Capture the output if it is wanted or a candidate; gives what the model goes on with."""
        if wanted := [layer for layer in self._wanted_of(call.module) if layer.call in (None, call.number)]:
            if self._is_elsewhere(output):
                raise LayerError(_ELSEWHERE.format(wanted[0].label))
            value, goes_on = output.detach().clone(), output
            edge = branch = None
            if self._gradients:
                goes_on, edge, branch = self._branch(call, args, output)
            self.captured += [
                Captured(layer.label, layout, branch if layer.relu else edge, value, relu=layer.relu)
                for layer in wanted
            ]
            return goes_on
        return self._consider(call, args, output, layout) if self._choose and not passed_over else output

    def _is_elsewhere(self, output: Tensor) -> bool:
        """Whether an output does not depend on the batch; unknown once the model has switched autograd off."""
        return self._follows and not output.requires_grad and (self._strict or not self._off)

    def _consider(self, call: Call, args: Any, output: Tensor, layout: Layout | None) -> Tensor:
        """Keep a candidate as cheaply as can be: there are hundreds, and one of them will be chosen."""
        goes_on, edge, returned = output, None, None
        if self._gradients and not self._whole and self._shrinks(call.module, args, output, layout):
            output = output.detach()
            goes_on, edge = self._start_anew(call, output)
        elif self._gradients:
            self.incomplete = self.incomplete or (output.requires_grad and self._precedes_restart(output))
            if self._returned and call.several:  # the next module may read another tensor, which was made of this one
                goes_on, edge, returned = self._branch(call, args, output)
            elif output.requires_grad:
                edge = get_gradient_edge(output)
            else:
                goes_on, edge, _ = self._branch(call, args, output)
        self._went_on.append((weakref.ref(goes_on), _version(goes_on)))
        copied = output.numel() <= self._limit or output.is_inference()
        value, version = (output.detach().clone(), None) if copied else (output, output._version)
        self._candidates.append((call, Captured(call.name, layout, edge, value, version, returned=returned)))
        return goes_on

    @property
    def restarted(self) -> bool:
        """Whether the graph started anew, so that earlier candidates are gone."""
        return self._restart is not None

    def _start_anew(self, call: Call, output: Tensor) -> tuple[Tensor, GradientEdge]:
        self._candidates.clear()
        self._branched.add(call.module)
        goes_on, edge, _ = _branch(output)
        self._restart = operation(goes_on)
        return goes_on, edge

    def _precedes_restart(self, output: Tensor) -> bool:
        """Whether a tensor was there before the graph started anew, so that some of what it led to may be cut off."""
        return self._restart is not None and operation(output) < self._restart

    def _shrinks(self, module: nn.Module, args: Any, output: Tensor, layout: Layout | None) -> bool:
        """Whether a module without others inside has a coarser grid than what it got, or than the one before it."""
        if layout is None or not output.requires_grad or next(module.children(), None) is not None:
            return False
        before = [math.prod(captured.layout.grid) for _, captured in self._candidates[-1:] if captured.layout]
        if isinstance(args[0] if args else None, Tensor) and layout.name in FIRST.values():
            before.append(math.prod(args[0].shape[2:]))
        return any(positions > math.prod(layout.grid) for positions in before)

    def _branch(self, call: Call, args: Any, output: Tensor) -> tuple[Tensor, GradientEdge, GradientEdge]:
        """What the model goes on with, where the gradient of the output is, and where that of this branch of it is.

        The gradient is taken at the output itself, so that no use of it is missed; but of a module that hands its
        input or a tensor of the model through, at the branch, for the rest is not the module's. Where the graph starts
        here, one of several tensors may have been read for the others already.
        """
        self._branched.add(call.module)
        self.incomplete = self.incomplete or (call.several and not self._whole and not output.requires_grad)
        alias = _hands_through(call.module, args, output) or self._is_the_models(output)
        goes_on, edge, branch = _branch(output.detach() if alias and not output.requires_grad else output)
        return goes_on, branch if alias else edge, branch

    def _is_the_models(self, output: Tensor) -> bool:
        """Whether a module returned a parameter or buffer."""
        if output.requires_grad:
            return False
        kept = (own for module in self._names for own in (module._parameters, module._buffers) if own)
        return any(output is tensor for own in kept for tensor in own.values())

    def finish(self) -> None:
        """End the recording when the forward pass is over, and check that each wanted layer ran as named."""
        self._thread = None
        for layer in self._wanted:
            self._check_ran(layer)
        order = [layer.label for layer in self._wanted]
        self.captured.sort(key=lambda captured: order.index(captured.label))

    @property
    def seen(self) -> list[LayerInfo]:
        """Every watched call of a module that returned a tensor, in the order in which they finished."""
        return [
            LayerInfo(self.label(call), type(call.module).__name__, shape, layout, why=why)
            for call, shape, layout, why in self._seen
        ]

    @property
    def candidates(self) -> list[Captured]:
        """What the automatic choice may take, in the order in which they finished."""
        for call, candidate in self._candidates:
            candidate.label = self.label(call)
        return [candidate for _, candidate in self._candidates]

    def label(self, call: Call) -> str:
        """The name of a call: with its number where the module ran several times."""
        return f"{call.name}#{call.number}" if self._calls[call.module] > 1 else call.name

    def _check_ran(self, layer: Layer) -> None:
        calls = self._calls[layer.module]
        if isinstance(layer.module, torch.jit.ScriptModule):
            raise LayerError(
                f"Layer {layer.name!r} is in scripted code (torch.jit), which shows nothing of its layers: explain the "
                "network as it was before it was scripted, or use 'saliency'."
            )
        if calls == 0 and layer.module in self._elsewhere:
            raise LayerError(
                f"Layer {layer.name!r} ran in another thread, and only calls in the thread that explains are recorded: "
                "let the model run in one thread, or use 'saliency'."
            )
        if calls == 0:
            close = close_matches(layer.name, [self._names[module] for module in self._calls])
            raise LayerNotRunError(f"The model did not run layer {layer.name!r} for this input.{close}")
        if layer.call is None and calls > 1:
            choices = [repr(f"{layer.name}#{call + 1}") for call in range(calls)]
            shown = ", ".join(choices if calls < 6 else [*choices[:3], "…", choices[-1]])
            raise LayerError(f"The model runs layer {layer.name!r} {calls} times. Say which call: {shown}.")
        if layer.call is not None and layer.call > calls:
            raise LayerNotRunError(f"The model runs layer {layer.name!r} {calls} times; there is no {layer.label!r}.")
        if layer.module in self._transformed:
            raise LayerError(
                f"Layer {layer.name!r} runs inside vmap, grad or another transform of torch.func, and what it returns "
                "cannot be taken out of there: name a layer outside of it, or use 'saliency'."
            )
        if not any(captured.label == layer.label for captured in self.captured):
            raise LayerError(f"Layer {layer.name!r} returned no tensor of floating-point numbers to explain.")


def _branch(output: Tensor) -> tuple[Tensor, GradientEdge, GradientEdge]:
    """A copy of `output` for the model to go on with, and the edges of both; the graph starts here if need be.

    Also where the model runs under no_grad or inference_mode itself, as frozen backbones do.
    """
    with torch.inference_mode(False), torch.enable_grad():
        output = output.clone() if output.is_inference() else output
        output = output if output.requires_grad else output.requires_grad_()
        copy = output.clone()
        with torch._C.DisableTorchFunctionSubclass():  # else the edge of a leaf of the model's own tensor type is wrong
            return copy, get_gradient_edge(output), get_gradient_edge(copy)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _hands_through(module: nn.Module, args: Any, output: Tensor) -> bool:
    """Whether the module returns its input itself, as Identity does, and did not change it in place."""
    return any(output is tensor for tensor in tensors(args)) and not getattr(module, "inplace", False)
