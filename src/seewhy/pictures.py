"""What an explanation looks like: its arrays as pictures with labels and scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, InputTypeError, UnknownNameError, close_matches
from .render import colour, frames, panel, signal
from .render.channels import COLUMNS, channel_grid, standardized
from .render.overlay import overlay

if TYPE_CHECKING:
    from .explanation import Explanation

LONG = 3  # times the width of an image's picture: what a signal or a row of frames takes
STYLES = ("overlay", "map", "color", "channels")
CLIP = 99.0  # percentile: a few pixels of an input gradient dwarf all others
Span: TypeAlias = tuple[float, float]
Limits: TypeAlias = Literal["shared", "own"] | Span


def is_signal(e: Explanation) -> bool:
    """Whether it explains signals, whose maps are (N, L)."""
    return e.maps.ndim == 2


def is_video(e: Explanation) -> bool:
    """Whether it explains videos or volumes, whose maps are (N, T, H, W)."""
    return e.maps.ndim == 4


def has_curves(e: Explanation) -> bool:
    """Whether its channels are drawn as curves, not as rows of a grey picture."""
    return is_signal(e) and e.images.shape[1] <= signal.LANES


def is_of_input(e: Explanation) -> bool:
    """Whether the raw attribution has a value per colour or channel and position, as gradients of the input have."""
    channels = (e.images.shape[1],) if is_signal(e) else (1, 3)
    return _has_channels(e) and e.values.shape[1] in channels and e.values.shape[2:] == e.maps.shape[1:]


def _has_channels(e: Explanation) -> bool:
    return e.values.ndim == e.maps.ndim + 1


def drawable(e: Explanation) -> range:
    """The numbers of the images; an InputError where there is nothing to draw."""
    if not (e.maps.size and e.images.size):
        raise InputError(
            "pictures are drawn of maps (N, H, W), of signals (N, L) or of videos (N, T, H, W), with N of 1 or more; "
            f"these are {e.maps.shape}"
        )
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
        return is_of_input(e) and e.values.shape[1] == 3 and not is_signal(e)
    return style != "channels" or (_has_channels(e) and not is_of_input(e))


def _resolved(e: Explanation, style: str | None) -> str:
    if not fits(e, style):
        takes = f"activations (N, C, {('l', 'h, w', 't, h, w')[e.maps.ndim - 2]})"
        if style == "color":
            takes = "attributions of an input in three colours" + (", which a signal has not" if is_signal(e) else "")
        raise InputError(f"style={style!r} is for {takes}; the values of {e.method!r} are {e.values.shape}")
    return style or ("map" if is_of_input(e) and not is_signal(e) else "overlay")


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
    end = percentile(e)
    if limits == "shared":
        return [colour.limits(arrays, signed, percentile=end)] * len(e)
    return [colour.limits(array, signed, percentile=end) for array in arrays]


def percentile(e: Explanation) -> float:
    """Which percentile of |values| ends the colours: 99 for gradients of the input, of which a few dwarf all others."""
    return CLIP if _clips(e) else 100.0


def _clips(e: Explanation) -> bool:
    return is_of_input(e) and not is_signal(e)  # a column of a signal's picture has the largest of its values


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
        replace(
            picture,
            heading=heading if beside and style != "channels" else (*heading, *picture.heading),
            label=label(e, i),
            scale=scale,
        )
        for i, scale in zip(drawable(e), _scales(e, style, limits), strict=True)
        for picture in [_channels(e, i, beside) if style == "channels" else _picture(e, i, style, scale)]
    ]


def _scales(e: Explanation, style: str, limits: Limits) -> list[panel.Scale]:
    if style == "channels":
        return [_STANDARDIZED] * len(e)
    ends, arrays = spans(e, limits, style), _shown(e, style)
    grey = style == "color" or (style == "map" and _clips(e) and ends[0][0] == 0)
    beyond = [bool(((a < low) | (a > high)).any()) for a, (low, high) in zip(arrays, ends, strict=True)]
    own = isinstance(limits, str) and limits == "own"
    anywhere = any(beyond) and not own
    return [
        panel.Scale(
            colormap="gray" if grey else _table(e, style, (low, high)),
            low=low,
            high=high,
            end=f"{CLIP:g}th percentile" if _clips(e) else "max",
            beyond=anywhere or out,
            over=style == "overlay",
            behind=style == "overlay" and has_curves(e),
        )
        for (low, high), out in zip(ends, beyond, strict=True)
    ]


_STANDARDIZED = panel.Scale(colormap="gray", low=-2.0, high=2.0, texts=("-2 sd", "mean", "+2 sd"))


def _table(e: Explanation, style: str, span: Span) -> str:
    return colour.SIGNED if style == "overlay" and has_curves(e) else colour.table_name(None, span)


def _channels(e: Explanation, i: int, beside: bool) -> panel.Picture:
    """The channels of an activation: tiles of an image or of the middle of a video, rows of a signal."""
    values = e.values[i]
    if is_signal(e):
        grey = standardized(values[:, None])[:, 0]
        numbers = signal.channel_ticks(len(values), curves=False)
        return panel.Picture(pixels=signal.rows(grey), down=numbers, columns=LONG)
    middle = values.shape[1] // 2
    return panel.Picture(
        pixels=channel_grid(values[:, middle] if is_video(e) else values, columns=None if beside else COLUMNS),
        heading=(f"time step {middle} of 0..{values.shape[1] - 1}",) if is_video(e) else (),
        columns=1 if beside else COLUMNS,
    )


def seen(e: Explanation, i: int) -> panel.Picture:
    """What the model saw as image `i`, without a map."""
    if is_signal(e):
        return _over_time(e, signal.lanes(e.images[i]))
    return _sheet(e, lambda t: e.images[i][t]) if is_video(e) else panel.Picture(pixels=e.images[i])


def laid(e: Explanation, i: int, **how: Any) -> NDArray[np.uint8]:
    """The map's colours over what the model saw as image `i`, uint8 (H, W, 3); `how` is as for render.overlay."""
    image, heat = e.images[i], e.maps[i]
    if is_signal(e):
        return signal.lanes(image, heat, **how)
    if is_video(e):
        return frames.sheet([overlay(image[t], heat[t], **how) for t in frames.chosen(len(heat))])
    return overlay(image, heat, **how)


def _picture(e: Explanation, i: int, style: str, scale: panel.Scale) -> panel.Picture:
    span = scale.low, scale.high
    if is_signal(e) and style == "map":
        return replace(_over_time(e, signal.strip(e.maps[i], scale.colormap, span)), down=())
    if is_signal(e):
        named = {} if has_curves(e) else {"colormap": scale.colormap}  # behind curves, paler than the table
        return _over_time(e, laid(e, i, limits=span, **named))
    if not is_video(e):
        return panel.Picture(pixels=_pixels(e.images[i], e.maps[i], e.values[i], style, scale))
    values = e.values[i].swapaxes(0, 1) if style == "color" else e.maps[i]
    return _sheet(e, lambda t: _pixels(e.images[i][t], e.maps[i][t], values[t], style, scale))


def _pixels(
    image: NDArray[np.uint8], heat: NDArray[np.float32], values: NDArray[np.float32], style: str, scale: panel.Scale
) -> NDArray[np.uint8]:
    span = scale.low, scale.high
    if style == "color":
        return colour.in_colour(values, scale.high)
    if style == "map":
        return colour.colorize(heat, scale.colormap, span)
    return overlay(image, heat, colormap=scale.colormap, limits=span)


def _over_time(e: Explanation, pixels: NDArray[np.uint8]) -> panel.Picture:
    channels, length = e.images.shape[1:3]
    return panel.Picture(
        pixels=pixels, across=signal.time_ticks(length), down=signal.channel_ticks(channels), columns=LONG
    )


def _sheet(e: Explanation, drawn: Callable[[int], NDArray[np.uint8]]) -> panel.Picture:
    """Some frames of a video, as `drawn` by their number, with the numbers on them."""
    count, height, width = e.maps.shape[1:]
    shown = frames.chosen(count)
    return panel.Picture(
        pixels=frames.sheet([drawn(t) for t in shown]),
        heading=(f"{len(shown)} of {count} frames",) if len(shown) < count else (),
        marks=tuple(
            panel.Mark(label=panel.Label(name=f"frame {t}"), x=x, y=y, width=width, whole=True)
            for t, (x, y) in zip(shown, frames.places(len(shown), height, width), strict=True)
        ),
        columns=min(LONG, frames.columns(len(shown))),
    )


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
