"""Text that fits a width, measured in the font that draws it."""

from __future__ import annotations

from bisect import bisect_right

MORE = "…"


def width_of(text: str, size: float) -> float:
    """The width of one line in points, in matplotlib's current font at `size` points.

    >>> width_of("www", 8) > width_of("iii", 8) > 0
    True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0])


def _room(text: str, width: float, size: float) -> int:
    """How many of the first characters fit; at least one, so that a line always gets on."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda n: width_of(text[:n], size)))


def fit(text: str, width: float, size: float, lines: int = 2) -> str:
    """The text wrapped at spaces to `lines` lines of `width` points, the last ended with an ellipsis where it goes on.

    >>> fit("a rather long name of a class", 60, 8, lines=1)
    'a rather long…'
    """
    rest = " ".join(text.split())
    done: list[str] = []
    while rest and len(done) < lines - 1 and (room := _room(rest, width, size)) < len(rest):
        cut = rest.rfind(" ", 1, room + 1)
        cut = cut if cut > 0 else room
        done.append(rest[:cut])
        rest = rest[cut:].strip()
    if width_of(rest, size) > width:
        rest = rest[: _room(rest, width - width_of(MORE, size), size)].rstrip(" ,") + MORE
    return "\n".join([*done, rest])


def fit_end(text: str, width: float, size: float) -> str:
    """The end of the text on one line, as a dotted name's last parts say most.

    >>> fit_end("features.denseblock4.denselayer16.conv2", 80, 8)
    '…nselayer16.conv2'
    """
    if width_of(text, size) <= width:
        return text
    return MORE + text[-_room(text[::-1], width - width_of(MORE, size), size) :]
