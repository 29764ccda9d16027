"""Points of a plane by class, with a legend beside them, rings around some, and pictures at some."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .text import fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# After Petroff (arXiv 2107.02270), its second grey replaced: told apart with each kind of colour blindness.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#204060", "#92dadd",
)  # fmt: skip
MARKERS = ("o", "^")  # of the first and of the second ten classes
MOST = len(COLOURS) * len(MARKERS)  # classes that can be told apart
OTHERS = "#d9d9d9"
RING = "#000000"
TEXT = 8  # points
NAME = 125  # points that a class name may take
PICTURE = 20  # points, the side of a thumbnail
FRAME = 1.8  # points of its group's colour around it, and as much black around a ringed one


def scatter(
    ax: Axes,
    points: NDArray[np.floating[Any]],
    groups: Sequence[str] | None = None,
    *,
    ringed: NDArray[np.bool_] | None = None,
    axis_names: tuple[str, str] = ("", ""),
    ticks: tuple[bool, bool] = (True, True),
    title: str = "",
    legend_title: str = "",
    ring_name: str = "misclassified",
    pictures: NDArray[np.uint8] | None = None,
) -> None:
    """Draw points (N, 2) on the Axes, one colour and marker for each of up to 20 groups.

    Of more groups the largest 19 have their own, and the rest is one grey group. Points are drawn in a shuffled order,
    so that no group covers another. `ringed` points get a black ring. `pictures` uint8 (N, s, s, 3) are drawn at as
    many points as there is room for without overlap, those of ringed points first, framed in their group's colour. Both
    axes have the same scale; the legend is to the right of the Axes.
    """
    looks, shown = _looks(groups, len(points))
    order = np.random.default_rng(0).permutation(len(points))
    size = float(np.clip(9000 / len(points), 5, 40))
    for marker in MARKERS:
        some = order[[looks[i][1] == marker for i in order]]
        if len(some):
            colours = [looks[i][0] for i in some]
            ax.scatter(points[some, 0], points[some, 1], s=size, c=colours, marker=marker, linewidths=0, alpha=0.85)
    if ringed is not None and ringed.any():
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": RING, "linewidths": 0.9, "zorder": 3}
        ax.scatter(points[ringed, 0], points[ringed, 1], s=2.2 * size + 12, label="_", **ring)
    _frame(ax, axis_names, ticks, title)
    if pictures is not None:
        _pictures(ax, points, pictures, [colour for colour, _ in looks], ringed)
    _legend(ax, shown, ringed, ring_name, legend_title)


def _looks(groups: Sequence[str] | None, count: int) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """Each point's colour and marker; and (name, colour, marker) of each entry of the legend."""
    if groups is None:
        return [(COLOURS[0], MARKERS[0])] * count, []
    sizes = Counter(groups)
    kept = [name for name, _ in sizes.most_common(MOST if len(sizes) <= MOST else MOST - 1)]
    own = {
        name: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS)]) for i, name in enumerate(sorted(kept, key=_order))
    }
    entries = [(name, *look) for name, look in own.items()]
    if rest := len(sizes) - len(own):
        images = count - sum(sizes[name] for name in own)
        entries.append((f"{rest} other classes ({images:,} images)", OTHERS, MARKERS[0]))
    return [own.get(name, (OTHERS, MARKERS[0])) for name in groups], entries


def _order(name: str) -> list[tuple[int, str]]:
    """By the alphabet, and numbers in it by their size."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def _frame(ax: Axes, axis_names: tuple[str, str], ticks: tuple[bool, bool], title: str) -> None:
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(axis_names[0])
    ax.set_ylabel(axis_names[1])
    ax.set_title(title, fontsize=10)
    ax.margins(0.05)
    if not ticks[0]:
        ax.set_xticks([])
    if not ticks[1]:
        ax.set_yticks([])


def _legend(
    ax: Axes, shown: list[tuple[str, str, str]], ringed: NDArray[np.bool_] | None, ring_name: str, title: str
) -> None:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "none", "markersize": 6}
    entries = [
        Line2D([], [], color=c, marker=m, markeredgewidth=0, label=_quiet(fit(name, NAME, TEXT, lines=1)), **dot)
        for name, c, m in shown
    ]
    if ringed is not None:
        how: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": RING, "markeredgewidth": 0.9}
        entries.append(Line2D([], [], marker="o", label=f"{ring_name} ({int(ringed.sum()):,})", **how, **dot))
    if entries:
        where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
        ax.legend(handles=entries, title=title or None, fontsize=TEXT, title_fontsize=TEXT, alignment="left", **where)


def _quiet(name: str) -> str:
    """A name that matplotlib takes as it is: no formula, and none of those that it hides."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def _pictures(
    ax: Axes,
    points: NDArray[np.floating[Any]],
    pictures: NDArray[np.uint8],
    colours: Sequence[str],
    ringed: NDArray[np.bool_] | None,
) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    wrong = np.zeros(len(points), bool) if ringed is None else ringed
    for i in _with_room(ax, points, np.argsort(~wrong, kind="stable")):
        image = OffsetImage(pictures[i], zoom=PICTURE / pictures.shape[1], interpolation="nearest")
        frame: dict[str, Any] = {"facecolor": colours[i], "edgecolor": RING, "linewidth": FRAME if wrong[i] else 0}
        box = AnnotationBbox(image, points[i], pad=FRAME, fontsize=1, bboxprops=frame, zorder=4)
        ax.add_artist(box)


def _with_room(ax: Axes, points: NDArray[np.floating[Any]], order: NDArray[np.integer[Any]]) -> list[int]:
    """The points, in this order, whose pictures do not overlap those before."""
    ax.apply_aspect()
    per_point = ax.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    places = ax.transData.transform(points) / per_point
    found: list[int] = []
    for i in order.tolist():
        apart = np.abs(places[found] - places[i]).max(1) if found else np.array([np.inf])
        if apart.min() >= PICTURE + 5 * FRAME:
            found.append(i)
    return found
