"""What the view offers to pick, and what is picked, as the browser shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..layers import find_layers
from ..methods import list_methods
from ..pictures import in_words
from .maps import Found, Maps, Pick

COMMON = ("grad_cam", "cam", "guided_grad_cam", "saliency", "guided_backprop", "activations")
TOP = 5  # classes offered


@dataclass(frozen=True)
class Offer:
    """The methods, layers (name and type) and classes (None: the most probable of each image) that are offered."""

    methods: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]
    targets: tuple[int, ...] | None = None


def offer(maps: Maps, methods: Any = None, layers: Any = None, targets: Any = None) -> Offer:
    """What to offer, from what the user gave; each is checked.

    >>> import torch
    >>> from seewhy import Explainer
    >>> from seewhy.testing import small_cnn
    >>> offer(Maps(Explainer(small_cnn()), torch.rand(3, 8, 8)), layers=["body"], targets=[2]).layers
    (('body', 'Conv2d'),)
    """
    known = list_methods()
    names = maps.add_methods([name for name in COMMON if name in known] if methods is None else methods)
    if layers is None:
        shown = maps.layers()
    else:
        shown = [(one.label, type(one.module).__name__) for one in find_layers(maps.explainer._inner, layers)]
    if not shown and layers is not None:
        raise InputError("The list of layers is empty: name at least one, or leave layers out.")
    return Offer(tuple(names), tuple(dict.fromkeys(shown)), _classes(maps, targets))


def _classes(maps: Maps, targets: Any) -> tuple[int, ...] | None:
    if targets is None:
        return None
    several = isinstance(targets, list | tuple | range) or getattr(targets, "ndim", 0) > 0
    given = targets if several else [targets]
    return tuple(dict.fromkeys(maps.index_of(one) for one in given))


def pickers(maps: Maps, offered: Offer, pick: Pick, found: Found) -> dict[str, Any]:
    """For each picker its options, [value, text] each, the number of the selected one, and whether it is of use."""
    return {
        "image": _picker(list(enumerate(maps.titles)), pick.image),
        "method": _picker([(name, name) for name in dict.fromkeys((*offered.methods, pick.method))], pick.method),
        "layer": _layers(maps, offered, pick, found),
        "target": _targets(maps, offered, pick, found),
    }


def _picker(options: list[tuple[Any, str]], value: Any, *, enabled: bool = True) -> dict[str, Any]:
    selected = next((i for i, (one, _) in enumerate(options) if one == value), 0)
    return {"options": [list(option) for option in options], "selected": selected, "enabled": enabled}


def _layers(maps: Maps, offered: Offer, pick: Pick, found: Found) -> dict[str, Any]:
    shown = found.explanation.layer
    if not maps.method(pick.method).needs.layer:
        text = f"{shown} (where it is defined)" if shown else "not used"
        return _picker([(pick.layer, text)], pick.layer, enabled=False)
    automatic = "automatic" if pick.layer else f"automatic: {shown}"
    options = [(name, f"{name} ({kind})") for name, kind in offered.layers]
    if pick.layer is not None and pick.layer not in dict(options):
        options.append((pick.layer, pick.layer))
    return _picker([(None, automatic), *options], pick.layer)


def _targets(maps: Maps, offered: Offer, pick: Pick, found: Found) -> dict[str, Any]:
    known = {one.index: f"{one.name}  {in_words(one.probability)}" for one in found.predictions}
    shown = list(known)[:TOP] if offered.targets is None else list(offered.targets)
    picked = None if pick.target is None else maps.index_of(pick.target)
    if picked is not None and picked not in shown:
        shown.append(picked)
    best = f"predicted: {next(iter(known.values()))}" if known else "predicted"
    return _picker([(None, best), *((index, known.get(index, f"class {index}")) for index in shown)], picked)
