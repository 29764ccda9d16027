"""What an explanation looks like: its arrays as pictures with labels and scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, InputTypeError, UnknownNameError, close_matches
from .render import colour, panel
from .render.channels import COLUMNS, channel_grid
from .render.overlay import overlay

if TYPE_CHECKING:
    from .explanation import Explanation

STYLES = ("overlay", "map", "color", "channels")
CLIP = 99.0  # percentile: a few pixels of an input gradient dwarf all others
Span: TypeAlias = tuple[float, float]
Limits: TypeAlias = Literal["shared", "own"] | Span


def is_of_input(e: Explanation) -> bool:
    """Whether the raw attribution has a value per colour and pixel, as gradients of the input have."""
    return e.values.ndim == 4 and e.values.shape[1] in (1, 3) and e.values.shape[2:] == e.maps.shape[1:]


def drawable(e: Explanation) -> range:
    """The numbers of the images; an InputError where there is nothing to draw."""
    if e.maps.ndim != 3 or not len(e):
        raise InputError(f"pictures are drawn of maps (N, H, W) with N of 1 or more; these are {e.maps.shape}")
    return range(len(e))


def check_style(style: str | None) -> None:
    """Refuse a style that there is not."""
    if style not in (None, *STYLES):
        near = close_matches(str(style), STYLES)
        raise UnknownNameError(f"no style is called {style!r}: give None or one of {', '.join(STYLES)}.{near}")


def fits(e: Explanation, style: str | None) -> bool:
    """Whether the explanation can be drawn so."""
    check_style(style)
    if style == "color":
        return is_of_input(e) and e.values.shape[1] == 3
    return style != "channels" or (e.values.ndim == 4 and not is_of_input(e))


def _resolved(e: Explanation, style: str | None) -> str:
    if not fits(e, style):
        takes = "attributions of an input in three colours" if style == "color" else "activations (N, C, h, w)"
        raise InputError(f"style={style!r} is for {takes}; the values of {e.method!r} are {e.values.shape}")
    return style or ("map" if is_of_input(e) else "overlay")


def spans(e: Explanation, limits: Limits = "own", style: str | None = None) -> list[Span]:
    """The values at the ends of each image's colours: its own, the same for all, or those given."""
    if not isinstance(limits, str):
        span = _given(limits)
        most = max(map(abs, span))
        return [(-most, most) if style == "color" else span] * len(e)
    if limits not in ("shared", "own"):
        raise UnknownNameError(f"limits is 'shared', 'own' or a pair of numbers, not {limits!r}")
    arrays = _shown(e, style)
    # Of all images, so that a column has one colour table.
    signed = style == "color" or e.signed or bool((arrays < 0).any())
    percentile = CLIP if is_of_input(e) else 100.0
    if limits == "shared":
        return [colour.limits(arrays, signed, percentile=percentile)] * len(e)
    return [colour.limits(array, signed, percentile=percentile) for array in arrays]


def _shown(e: Explanation, style: str | None) -> NDArray[np.float32]:
    return e.values if style == "color" else e.maps


def _given(limits: Span) -> Span:
    try:
        low, high = map(float, limits)
    except (TypeError, ValueError):
        raise InputTypeError(f"limits is 'shared', 'own' or a pair of numbers (low, high), not {limits!r}") from None
    if not (np.isfinite((low, high)).all() and low < high):
        raise InputError(f"limits are two finite numbers, the lower first; got {limits!r}")
    return low, high


def draw(
    e: Explanation, style: str | None = None, limits: Limits = "own", *, beside: bool = False
) -> list[panel.Picture]:
    """A picture of each image; one that stands `beside` others in a grid has about square grids of channels."""
    style = _resolved(e, style)
    heading = (e.method, e.layer) if e.layer else (e.method,)
    return [
        panel.Picture(
            pixels=_channels(e, i, beside) if style == "channels" else _pixels(e, i, style, scale),
            heading=heading,
            label=label(e, i),
            scale=scale,
            columns=1 if style != "channels" or beside else COLUMNS,
        )
        for i, scale in zip(drawable(e), _scales(e, style, limits), strict=True)
    ]


def _scales(e: Explanation, style: str, limits: Limits) -> list[panel.Scale]:
    if style == "channels":
        return [_STANDARDIZED] * len(e)
    ends, arrays = spans(e, limits, style), _shown(e, style)
    grey = style == "color" or (style == "map" and is_of_input(e) and ends[0][0] == 0)
    beyond = [bool(((a < low) | (a > high)).any()) for a, (low, high) in zip(arrays, ends, strict=True)]
    own = isinstance(limits, str) and limits == "own"
    anywhere = any(beyond) and not own
    return [
        panel.Scale(
            colormap="gray" if grey else colour.table_name(None, (low, high)),
            low=low,
            high=high,
            end=f"{CLIP:g}th percentile" if is_of_input(e) else "max",
            beyond=anywhere or out,
            over=style == "overlay",
        )
        for (low, high), out in zip(ends, beyond, strict=True)
    ]


_STANDARDIZED = panel.Scale(colormap="gray", low=-2.0, high=2.0, texts=("-2 sd", "mean", "+2 sd"))


def _channels(e: Explanation, i: int, beside: bool) -> NDArray[np.uint8]:
    return channel_grid(e.values[i], columns=None if beside else COLUMNS)


def _pixels(e: Explanation, i: int, style: str, scale: panel.Scale) -> NDArray[np.uint8]:
    span = scale.low, scale.high
    if style == "color":
        return colour.in_colour(e.values[i], scale.high)
    if style == "map":
        return colour.colorize(e.maps[i], scale.colormap, span)
    return overlay(e.images[i], e.maps[i], colormap=scale.colormap, limits=span)


def label(e: Explanation, i: int) -> panel.Label | None:
    """What image `i` is said to show: the target with its probability, else its score, and the truth."""
    number, name = float(e.probabilities[i]), e.target_names[i]
    truth = e.truth[i] if e.truth and e.targets[i] >= 0 else None
    value = in_words(number) if np.isfinite(number) else f"score {e.scores[i]:.3g}"
    value = value if np.isfinite(number) or np.isfinite(e.scores[i]) else ""
    return panel.Label(name=name, value=value, truth=truth) if name or value else None


def in_words(probability: float) -> str:
    """A probability to two places, and never a certainty that it is not.

    >>> in_words(0.5), in_words(0.001), in_words(0.999), in_words(1.0)
    ('0.50', '<0.01', '>0.99', '1.00')
    """
    if 0 < probability < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= probability < 1 else f"{probability:.2f}"
