"""Confusion matrices: shares as colours, counts as text, and names that have room whatever their number."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.errors import InputError
from seewhy.render import figure
from seewhy.render.confusion import BLANK, SMALLEST, confusion, confusion_size, shares

LONG = "Egyptian cat, a domestic cat of Egypt with a really long name $x_1$"


def counts_of(classes: int, each: int = 50) -> NDArray[np.int64]:
    chance = 0.7 * np.eye(classes) + 0.3 / classes
    return np.random.default_rng(0).multinomial(each, chance / chance.sum(1, keepdims=True)).astype(np.int64)


def drawn(counts: NDArray[np.int64], names: list[str], layout: Any = "constrained", title: str = "") -> Any:
    ax = figure.new(confusion_size(len(names)), shown=False, layout=layout).add_subplot()
    confusion(ax, counts, names, title=title)
    ax.figure.canvas.draw()
    return ax


def written(ax: Any) -> dict[tuple[int, int], str]:
    """The text in each cell (row, column)."""
    return {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts}


def words(ax: Any) -> list[Any]:
    """Where all text outside of the matrix is."""
    (bar,) = ax.child_axes
    texts = [ax.title, ax.xaxis.label, ax.yaxis.label, bar.yaxis.label]
    texts += [*ax.get_xticklabels(), *ax.get_yticklabels(), *bar.get_yticklabels()]
    return [t.get_window_extent() for t in texts if t.get_text()]


def test_the_colours_are_shares_of_the_row_and_the_texts_counts() -> None:
    ax = drawn(np.array([[3, 1], [0, 1234]]), ["cat", "dog"])
    (image,) = ax.images
    assert image.get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert image.get_clim() == (0, 1)
    assert written(ax) == {(0, 0): "3", (0, 1): "1", (1, 1): "1,234"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "dog"]
    assert ax.get_ylim() == (1.5, -0.5)  # the first class is at the top
    ends = ax.child_axes[0].get_yticks()
    assert (ends.min(), ends.max()) == (0, 1)


def test_a_class_without_images_is_blank_and_nothing_is_nan() -> None:
    counts = counts_of(10)
    counts[3] = 0
    ax = drawn(counts, [str(i) for i in range(10)])
    array = ax.images[0].get_array()
    assert array.mask[3].all()
    assert not np.delete(array.mask, 3, axis=0).any()
    assert np.isfinite(array.filled(0)).all()
    assert [t for (row, _), t in written(ax).items() if row == 3] == ["no images"]
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[::-1, :, :3]
    x, y = ax.transData.transform((0.2, 3.3)).astype(int)
    assert pixels[y, x].tolist() == [int(BLANK[i : i + 2], 16) for i in (1, 3, 5)]


def test_only_blank_rows_do_not_break_it() -> None:
    assert set(written(drawn(np.zeros((3, 3), np.int64), ["a", "b", "c"])).values()) == {"no images"}


def test_dark_cells_have_white_letters() -> None:
    ax = drawn(np.array([[97, 3], [45, 55]]), ["cat", "dog"])
    assert {t.get_text(): t.get_color() for t in ax.texts} == {
        "97": "white",
        "3": "black",
        "45": "black",
        "55": "black",
    }


@pytest.mark.sweep
@pytest.mark.parametrize("layout", ["constrained", "none"])
@pytest.mark.parametrize(("classes", "most"), [(2, 9), (10, 99_999), (25, 9_999)])
def test_every_count_stays_within_its_cell(classes: int, most: int, layout: str) -> None:
    ax = drawn(np.full((classes, classes), most), [f"class {i}" for i in range(classes)], layout)
    assert len(ax.texts) == classes**2
    for text in ax.texts:
        assert text.get_fontsize() >= SMALLEST
        column, row = text.get_position()
        (left, bottom), (right, top) = ax.transData.transform([(column - 0.5, row + 0.5), (column + 0.5, row - 0.5)])
        box = text.get_window_extent()
        assert left < box.x0 < box.x1 < right
        assert bottom < box.y0 < box.y1 < top


@pytest.mark.sweep
@pytest.mark.parametrize("classes", [1, 2, 6, 40, 300])
@pytest.mark.parametrize("name", ["{}", LONG + " {}", "{} tree frog"])
def test_names_neither_overlap_nor_leave_the_figure(classes: int, name: str) -> None:
    ax = drawn(counts_of(classes), [name.format(i) for i in range(classes)], title="1,797 images · 93.2% right")
    places = words(ax)
    for box in places:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= ax.figure.bbox.x1 + 1
        assert box.y1 <= ax.figure.bbox.y1 + 1
        assert not box.padded(-1).overlaps(ax.get_window_extent())
    assert not any(a.padded(-1).overlaps(b.padded(-1)) for a, b in itertools.combinations(places, 2))


def test_all_names_are_there_as_long_as_they_have_room_and_then_evenly_thinned() -> None:
    names = [f"c{i}" for i in range(300)]
    few = drawn(counts_of(40), names[:40])
    assert [t.get_text() for t in few.get_yticklabels()] == names[:40]
    many = drawn(counts_of(300), names)
    rows, columns = many.get_yticks(), many.get_xticks()
    assert rows.tolist() == columns.tolist()
    assert len(set(np.diff(rows))) == 1
    assert [t.get_text() for t in many.get_yticklabels()] == [names[i] for i in rows]
    assert len(rows) > 30


def test_names_lie_where_they_have_room_and_stand_where_not() -> None:
    def turned(names: list[str]) -> float:
        return float(drawn(counts_of(len(names)), names).get_xticklabels()[0].get_rotation())

    assert turned(["Egyptian cat, Nile cat", "dog"]) == 0
    assert turned([str(i) for i in range(10)]) == 0
    assert turned(["mountaineering"] * 10) == 90


def test_a_rare_confusion_among_many_classes_can_be_seen() -> None:
    counts = np.diag(np.full(1000, 50))
    counts[700, 50] = 1
    ax = drawn(counts, [f"c{i}" for i in range(1000)])
    assert not ax.texts
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[::-1, :, 0].astype(int)
    x, y = ax.transData.transform((50, 700)).astype(int)
    away_x, away_y = ax.transData.transform((150, 700)).astype(int)
    assert pixels[y - 3 : y + 4, x - 3 : x + 4].min() < pixels[away_y, away_x] - 20
    bar = ax.child_axes[0]
    assert bar.get_yticks().tolist() == [0, 0.02, 0.1, 0.25, 0.5, 1]
    assert [t.get_text() for t in bar.get_yticklabels()] == ["0", "0.02", "0.10", "0.25", "0.50", "1.00"]
    bottom, middle, top = bar.transData.transform([(0, 0), (0, 0.25), (0, 1)])[:, 1]
    assert (middle - bottom) / (top - bottom) == pytest.approx(0.5, abs=0.01)  # the bar's steps are the colours'


def test_the_matrix_is_square_and_the_bar_as_high() -> None:
    ax = drawn(counts_of(10), [LONG] * 10)
    place, bar = ax.get_window_extent(), ax.child_axes[0].get_window_extent()
    assert place.width == pytest.approx(place.height, rel=0.01)
    assert (bar.y0, bar.y1) == pytest.approx((place.y0, place.y1), abs=1)


def test_what_is_no_matrix_of_these_names_is_refused() -> None:
    ax = figure.new((3, 3), shown=False).add_subplot()
    for counts, names in [(np.zeros((2, 3)), ["a", "b"]), (np.eye(2), ["a"]), (np.zeros((0, 0)), [])]:
        with pytest.raises(InputError, match="counts are"):
            confusion(ax, counts.astype(np.int64), names)


def test_shares_of_a_row_sum_to_one() -> None:
    assert np.allclose(shares(counts_of(7)).sum(1), 1)


@pytest.mark.parametrize("classes", [1, 2, 10, 40, 1000])
def test_the_figure_grows_with_the_classes_but_not_beyond_a_page(classes: int) -> None:
    width, height = confusion_size(classes)
    assert 3.5 < height < width < 10
    assert confusion_size(classes + 10) >= (width, height)
