"""What every function of `inside` is asked first: of which explainer, at which layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError, InputTypeError
from ..layers import Layer, find_layers

if TYPE_CHECKING:
    from ..explainer import Explainer


def check_explainer(given: Explainer) -> None:
    """Refuse what is no `Explainer`, as a bare network.

    Raises:
        InputTypeError: saying how to make one.
    """
    from ..explainer import Explainer

    if not isinstance(given, Explainer):
        raise InputTypeError(
            f"Expected an Explainer, not {type(given).__name__}: wrap the network in Explainer(model, transform=...)."
        )


def one_layer(explainer: Explainer, layer: Any, function: str) -> Layer:
    """The only layer that is named.

    Raises:
        InputError: there are several, or none.
        UnknownNameError: there is no such layer.
    """
    found = find_layers(explainer._inner, layer)
    if len(found) != 1:
        raise InputError(f"{function} looks at one layer, and {len(found)} are given: call it once for each.")
    return found[0]
