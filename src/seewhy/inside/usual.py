"""Which layers to look at where none is named: convolutions and pooling layers, and the blocks of transformers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ..engine.inputs import ModelInputs
from ..engine.passes import Request, measure
from ..errors import LayerError
from ..given import FIRST, Given
from ..layers import LayerInfo, find_layers
from ..scoring import Scoring

_LOOKED_AT = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.LPPool1d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip


def usual_layers(model: nn.Module, batch: Tensor, layout: Given, inputs: ModelInputs) -> list[str]:
    """The names of the layers of a borrowed `model` that people look at, in the order in which they run on `batch`.

    Every convolution and pooling layer whose output has positions; in a transformer, where positions are tokens or
    before the channels, also every block: the outermost modules of a class that comes several times.

    Raises:
        LayerError: there are none.
    """
    modules, seen = _with_positions(model, batch, layout, inputs)
    blocks = _blocks(seen, modules)
    names = [info.name for info in seen if info.name in blocks or isinstance(modules[info.name], _LOOKED_AT)]
    if not names:
        raise LayerError(
            "The model has no convolution, pooling layer or block whose positions could be worked out: name layers "
            "with layer=; explainer.layers() lists what ran."
        )
    return names


def layers_of_type(
    model: nn.Module, batch: Tensor, layout: Given, inputs: ModelInputs, kind: type[nn.Module]
) -> list[str]:
    """The names of the layers of one type whose output has positions, in the order in which they run on `batch`.

    Raises:
        LayerError: there are none.
    """
    modules, seen = _with_positions(model, batch, layout, inputs)
    names = [info.name for info in seen if isinstance(modules[info.name], kind)]
    if not names:
        types = sorted({info.type for info in seen})
        raise LayerError(
            f"No module of type {kind.__name__} with positions ran. Types that did: {', '.join(types)}. A ReLU that is "
            "called as a function belongs to the layer before it: 'name+relu'."
        )
    return names


def _with_positions(
    model: nn.Module, batch: Tensor, layout: Given, inputs: ModelInputs
) -> tuple[dict[str, nn.Module], list[LayerInfo]]:
    """Every call of a module whose output has positions, in order, and the modules by the names of their calls."""
    request = Request((), everything=True, layout=layout, inputs=inputs)
    seen = [info for info in measure(model, batch, request, Scoring(())).observer.seen if info.layout != "-"]
    return {info.name: find_layers(model, info.name)[0].module for info in seen}, seen


def _blocks(seen: Sequence[LayerInfo], modules: dict[str, nn.Module]) -> set[str]:
    """The blocks of a transformer: of modules with children and channels last, those of a class that comes several
    times; the outermost, but for stages, which hold them in a list.
    """
    inner = [info.name for info in seen if info.layout not in FIRST.values() and _has_parts(modules[info.name])]
    times = Counter(type(modules[name]) for name in inner)
    repeated = {name for name in inner if times[type(modules[name])] > 1}
    within = {modules[name] for name in repeated}
    blocks = {name for name in repeated if within.isdisjoint(_listed(modules[name]))}
    return {name for name in blocks if not any(name.startswith(f"{other}.") for other in blocks)}


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that a module holds in lists."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from child.children()


def _has_parts(module: nn.Module) -> bool:
    return not isinstance(module, nn.Sequential | nn.ModuleList) and next(module.children(), None) is not None
