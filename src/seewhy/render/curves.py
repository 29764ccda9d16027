"""Shares in 0..1 against the depth of a network: a curve for each quantity, a point for each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .panel import PLAIN
from .text import fit_end, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = (("#bd1f01", "s"), ("#3f90da", "o"), ("#832db6", "^"))  # colour and marker, as colours alone may be confused
SMALL, NAME = 8.0, 230.0  # points: of letters, and the room for a layer's name
LEAST = 10.0  # points from one name to the next


def size_of(names: Sequence[str]) -> tuple[float, float]:
    """The size in inches of a figure of so many layers.

    >>> size_of(["conv1", "conv2"])[0], size_of(["conv"] * 60)[0]
    (5.0, 11.0)
    """
    longest = max(width_of(name, SMALL) for name in names)
    return min(max(5.0, 0.17 * len(names) + 0.8), 11.0), 3.0 + min(longest, NAME) / 72


def draw(ax: Axes, names: Sequence[str], curves: Mapping[str, NDArray[np.floating]]) -> Axes:
    """Draw each of up to three curves (L,) over the layers' names, the first layer to the left; NaN is a gap."""
    places = np.arange(len(names))
    for (label, values), (colour, marker) in zip(curves.items(), LOOKS, strict=False):
        # Clipping would cut the markers at 0 and 1 in half.
        ax.plot(places, values, color=colour, marker=marker, markersize=4, lw=1.3, label=label, clip_on=False, zorder=3)
    ax.set_ylim(0, 1)
    ax.set_xlim(-0.5, len(names) - 0.5)
    room = ax.get_window_extent().width * 72 / ax.figure.dpi
    step = max(1, math.ceil(LEAST * len(names) / room))
    shown = [fit_end(name, NAME, SMALL) for name in names[::step]]
    ax.set_xticks(places[::step], shown, rotation=90, fontsize=SMALL, **PLAIN)
    ax.tick_params(axis="y", labelsize=SMALL)
    ax.set_ylabel("share, and entropy of its maximum", fontsize=SMALL)
    ax.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=3, frameon=False, fontsize=SMALL)
    return ax
