"""What a metric is given to judge, made plain: the maps, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, InputTypeError, MethodError, NonFiniteError
from ..explanation import Explanation
from ..explanations import Explanations
from ..methods import Method
from ..methods.make import make_methods
from ..origin import Origin


def maps_of(given: Any, sides: int) -> NDArray[np.float32]:
    """The maps ``(N, *sides)`` of an explanation, or those given as an array.

    Raises:
        InputTypeError: something else was given.
        InputError: an array has another shape, or there is no map.
        NonFiniteError: a map holds NaN or infinite values.
    """
    if isinstance(given, Explanations):
        raise InputTypeError("A metric judges one Explanation; these are several: take one, as in found['grad_cam'].")
    if isinstance(given, Explanation):
        maps = given.maps
    else:
        try:
            maps = np.asarray(given.detach().float().cpu() if isinstance(given, Tensor) else given, np.float32)
        except (TypeError, ValueError):
            raise InputTypeError(
                f"A metric judges an Explanation or maps (N, H, W), not {type(given).__name__}."
            ) from None
        maps = maps[None] if maps.ndim == sides else maps
        if maps.ndim != sides + 1:
            colours = " Add up its colours first, as in maps.sum(1)." if maps.ndim == sides + 2 else ""
            raise InputError(f"Maps are (N, {'H, W' if sides == 2 else '*sides'}), a number for each position of the "
                             f"model's input; got {maps.shape}.{colours}")  # fmt: skip
    if not len(maps):
        raise InputError("There is no map to judge.")
    finite = np.isfinite(maps.reshape(len(maps), -1)).all(1)
    if not finite.all():
        raise NonFiniteError(f"The map of image {int(np.argmin(finite))} holds NaN or infinite values, which cannot be "
                             "put in order.")  # fmt: skip
    return maps


def method_of(
    explanation: Explanation | None, common: Mapping[str, Any], origin: Origin | None
) -> tuple[Method | None, tuple[str, ...]]:
    """What made the maps, and the names of the layers that it looked at; None where that is not known.

    Raises:
        InputError: several methods are named.
    """
    given, layer = common.get("method"), common.get("layer")
    layers = () if layer is None else tuple(layer) if isinstance(layer, list | tuple) else (layer,)
    if given is not None:
        method, *others = make_methods(given, {})
        if others:
            raise InputError(f"Maps are of one method; method= names {len(others) + 1}.")
        known = layers or (origin.layers if origin else ())
    elif origin and origin.method:
        method, known = origin.method, layers or origin.layers
    elif explanation is None or (method := _remembered(explanation)) is None:  # type: ignore[assignment]
        return None, ()
    else:
        known = layers or (() if explanation.layer is None else (explanation.layer,))
    return method, known if method.needs.layer else ()


def _remembered(explanation: Explanation) -> Method | None:
    """The method of an explanation from a file: the one of its name, if it has the same options."""
    from ..collect import _options

    try:
        method = make_methods(explanation.method, {})[0]
    except (KeyError, MethodError):
        return None
    return method if _options(method)["options"] == explanation.provenance.get("options") else None
