"""Reliability diagrams: bars, gaps and counts at their places, and nothing where there are no images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy.errors import InputError
from seewhy.render import figure
from seewhy.render.reliability import ACCURACY, FLOOR, IMAGES, PALE, STRIP, reliability

EDGES = np.linspace(0, 1, 5)
CONFIDENCE = np.array([np.nan, 0.4, 0.6, 0.9])
RIGHT = np.array([np.nan, 0.7, 0.5, 0.9])
COUNTS = np.array([0, 10, 40, 20])


def axes(width: float = 4.8, height: float = 4.8) -> Any:
    return figure.new((width, height), shown=False, layout="constrained").add_subplot()


@pytest.fixture
def ax() -> Any:
    found = axes()
    reliability(found, CONFIDENCE, RIGHT, COUNTS, EDGES, ece=0.1)
    found.figure.canvas.draw()
    return found


def bars(ax: Any, colour: str) -> list[tuple[float, ...]]:
    """Left, right, bottom and top of the bars of a colour."""
    from matplotlib.colors import to_rgb

    found = [p for p in ax.patches if to_rgb(p.get_facecolor()) == to_rgb(colour)]
    return [
        tuple(np.round([p.get_x(), p.get_x() + p.get_width(), *sorted((p.get_y(), p.get_y() + p.get_height()))], 9))
        for p in found
    ]


def test_each_bin_has_a_bar_as_high_as_its_accuracy(ax: Any) -> None:
    assert bars(ax, ACCURACY) == [(0.25, 0.5, 0, 0.7), (0.5, 0.75, 0, 0.5), (0.75, 1, 0, 0.9)]


def test_the_gap_is_between_accuracy_and_confidence(ax: Any) -> None:
    assert bars(ax, PALE) == [(0.25, 0.5, 0.4, 0.7), (0.5, 0.75, 0.5, 0.6), (0.75, 1, 0.9, 0.9)]


def test_the_gaps_weighted_by_the_counts_are_the_error(ax: Any) -> None:
    gaps = np.array([top - bottom for _, _, bottom, top in bars(ax, PALE)])
    heights = np.array([top - bottom for _, _, bottom, top in bars(ax, IMAGES)])
    assert (gaps * heights).sum() / heights.sum() == pytest.approx((10 * 0.3 + 40 * 0.1 + 20 * 0.0) / 70)


def test_the_error_is_written_above(ax: Any) -> None:
    assert ax.get_title() == "ECE 0.100"


def test_the_counts_stand_below_the_diagram(ax: Any) -> None:
    tops = [FLOOR + STRIP * share for share in (0.25, 1, 0.5)]
    assert [bar[3] for bar in bars(ax, IMAGES)] == pytest.approx(tops)
    assert max(tops) < 0
    assert ax.get_ylim() == (FLOOR, 1)
    assert ax.get_yticks().min() == 0
    assert [t.get_text() for t in ax.texts] == ["70 images, up to 40 in a bin"]


def test_the_diagonal_is_drawn(ax: Any) -> None:
    (line,) = [line for line in ax.lines if line.get_label() == "perfect calibration"]
    assert line.get_xydata().tolist() == [[0, 0], [1, 1]]


def test_empty_bins_leave_nothing_that_is_nan(ax: Any) -> None:
    assert not any(left < 0.25 for bar in (ACCURACY, PALE, IMAGES) for left, *_ in bars(ax, bar))
    assert all(np.isfinite(p.get_extents().get_points()).all() for p in ax.patches)


def test_no_images_at_all_draw_an_empty_diagram() -> None:
    ax = axes()
    nothing = np.full(4, np.nan)
    reliability(ax, nothing, nothing, np.zeros(4, np.int64), EDGES, ece=0.0)
    ax.figure.canvas.draw()
    assert not ax.patches
    assert [t.get_text() for t in ax.texts] == ["0 images"]


@pytest.mark.parametrize("size", [(4.8, 4.8), (3, 2.6), (8, 3)])
def test_words_stay_in_the_figure_and_apart(size: tuple[float, float]) -> None:
    ax = axes(*size)
    reliability(ax, CONFIDENCE, RIGHT, COUNTS, EDGES, ece=0.1, title="a network with a $long_name of many words" * 2)
    ax.figure.canvas.draw()
    assert ax.get_title().endswith(" · ECE 0.100")
    title, legend, place = ax.title.get_window_extent(), ax.get_legend().get_window_extent(), ax.get_window_extent()
    note = ax.texts[0].get_window_extent()
    assert place.width > 0.7 * ax.figure.bbox.width  # the legend takes nothing of it
    assert not title.overlaps(legend.padded(-2))
    assert legend.y0 >= place.y1 - 1
    for box in (title, legend, note):
        assert box.x0 >= 0
        assert box.x1 <= ax.figure.bbox.x1
        assert box.y1 <= ax.figure.bbox.y1


def test_the_note_is_above_the_tallest_count(ax: Any) -> None:
    note = ax.texts[0].get_window_extent()
    assert not any(note.overlaps(p.get_window_extent()) for p in ax.patches if p.get_y() == FLOOR)
    assert note.y1 <= ax.transData.transform((0, 0))[1]


def test_arrays_of_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match=r"edges \(B \+ 1,\)"):
        reliability(axes(), CONFIDENCE, RIGHT, COUNTS, EDGES[:-1], ece=0.1)
