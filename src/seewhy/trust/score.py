"""What a metric says of each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..render.curves import LOOKS
from ..result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 30  # images, up to which each has a line of its own
_SMALL = 8.0  # points of letters


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Score(Result):
    """What a metric says of N maps; what the functions of `trust` return.

    Attributes:
        values: float32 ``(N,)``, a number for each map; NaN where it is undefined, as of an empty mask.
        name: of the metric.
        higher_is_better: whether a higher value speaks for the map.
        curves: float32 ``(N, L)`` by name, where the metric has any.
        steps: ``(L,)``, where the curves were taken; a share of the image in 0..1, unless `labels` names them.
        axis: what `steps` are, in words.
        labels: the names of the L steps, where they are no numbers.
        numbers: other numbers ``(N,)`` by name.
        provenance: the model's class, the method and the options.
    """

    values: NDArray[np.float32]
    name: str
    higher_is_better: bool
    curves: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    steps: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    axis: str = ""
    labels: tuple[str, ...] = ()
    numbers: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "steps"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        for name in ("curves", "numbers"):
            found = {key: np.asarray(value, np.float32) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, found)
        super().__post_init__()

    @property
    def mean(self) -> float:
        """The mean over the maps of which it is defined; NaN where there is none."""
        return float(nanmean(self.values))

    @property
    def undefined(self) -> int:
        """Of how many maps it is undefined."""
        return int(np.isnan(self.values).sum())

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        undefined = f", undefined for {self.undefined}" if self.undefined else ""
        return f"Score({self.name}, mean={self.mean:.4g}, maps={len(self)}{undefined}, {better} is better)"

    def plot(self, ax: Axes | None = None) -> Axes:
        """The curves, each map's thin and their mean thick; without curves a point for each map, and the mean."""
        ax = self._axes(ax)
        if self.curves:
            self._draw_curves(ax)
        else:
            self._draw_values(ax)
        better = "higher" if self.higher_is_better else "lower"
        of = f" of {self.provenance['method']}" if "method" in self.provenance else ""
        mean = "undefined for all maps" if self.undefined == len(self) else f"{self.mean:.3g} ({better} is better)"
        ax.set_title(f"{self.name}{of}: {mean}", fontsize=9)
        ax.tick_params(labelsize=_SMALL)
        ax.grid(color="#e0e0e0", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    def _draw_curves(self, ax: Axes) -> None:
        at = np.arange(len(self.labels)) if self.labels else self.steps
        for (name, curves), (colour, marker) in zip(self.curves.items(), LOOKS, strict=False):
            if 1 < len(curves) <= _MANY:
                ax.plot(at, curves.T, color=colour, linewidth=0.6, alpha=0.3)
            few = marker if len(at) <= _MANY else None
            ax.plot(at, nanmean(curves.T), color=colour, linewidth=1.8, marker=few, markersize=4, label=name)
        if self.labels:  # similarities
            ax.set_ylim(-1 if any((curves < 0).any() for curves in self.curves.values()) else 0, 1.02)
            ax.set_xticks(at, self.labels, rotation=90, fontsize=_SMALL, parse_math=False)
        ax.set_xlabel(self.axis, fontsize=_SMALL)
        if len(self.curves) > 1:
            ax.legend(frameon=False, fontsize=_SMALL)
        else:
            ax.set_ylabel(next(iter(self.curves)), fontsize=_SMALL)

    def _draw_values(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        ax.plot(np.arange(len(self)), self.values, "o", color=LOOKS[1][0], markersize=4, clip_on=False)
        ax.axhline(self.mean, color="#444444", linewidth=1, linestyle=(0, (4, 3)))
        low, high = np.nanmin(self.values, initial=0), np.nanmax(self.values, initial=0)
        if low >= -1 and high <= 1:
            ax.set_ylim(min(0, np.floor(low)), 1)  # of shares and correlations small differences must look small
        ax.set_xlim(-0.5, len(self) - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("map", fontsize=_SMALL)
        ax.set_ylabel(self.name, fontsize=_SMALL)

    def _size(self) -> tuple[float, float]:
        return 5.0, 3.4 + (1.2 if self.labels else 0.0)


def nanmean(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean over the last axis of what is not NaN; NaN where there is nothing."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(-1, dtype=np.float64)
    count = defined.sum(-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
