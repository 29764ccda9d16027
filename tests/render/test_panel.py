"""Figures: what is written, that nothing is cut or overlaps, and that nothing is left in pyplot."""

from __future__ import annotations

import gc
import itertools
import weakref
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from seewhy.render.colour import colorize
from seewhy.render.figure import png
from seewhy.render.panel import Label, Mark, Picture, Scale, draw, grid, merge, single

LONG = "Egyptian cat, a domestic cat of Egypt with a really long name"
HEAT = Scale(colormap="inferno", low=0.0, high=12.3456)


def _picture(height: int = 40, width: int = 60, **parts: Any) -> Picture:
    return Picture(pixels=np.zeros((height, width, 3), np.uint8), **parts)


def _rows(height: int, width: int, rows: int = 2) -> list[list[Picture]]:
    labels = [Label(name=LONG, value="0.77", truth="tabby"), Label(name="moped", value="score 7.1", truth="moped")]
    dotted = ("cam", "features.denseblock4.denselayer16.conv2")
    maps = [
        _picture(height, width, heading=dotted, scale=HEAT),
        _picture(height, width, heading=("saliency",), scale=HEAT),
    ]
    return [[_picture(height, width, heading=("image",), label=labels[i % 2]), *maps] for i in range(rows)]


def _boxes(axes: np.ndarray) -> list[Any]:
    figure = axes[0, 0].figure
    renderer = figure.canvas.get_renderer()
    texts = [
        t for ax in axes.flat for a in (ax, *ax.child_axes) for t in (ax.title, a.xaxis.label, *a.get_xticklabels())
    ]
    unique = {id(t): t for t in texts if t.get_text().strip()}
    return [(t.get_bbox_patch() or t).get_window_extent(renderer).padded(-1) for t in unique.values()]


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (50, 50), (20, 100)])
def test_no_text_is_cut_or_overlaps(size: tuple[int, int]) -> None:
    axes = grid(_rows(*size), shown=False)
    figure = axes[0, 0].figure
    figure.canvas.draw()
    boxes = _boxes(axes)
    pictures = [ax.get_window_extent() for ax in axes.flat]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(picture) for picture in pictures)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("label", [None, Label(name=LONG, value="0.77", truth="tabby")])
@pytest.mark.parametrize("widest", [None, 1.5, 7.2])
def test_numbers_at_the_sides_are_not_cut_and_do_not_overlap(widest: float | None, label: Label | None) -> None:
    numbers: dict[str, Any] = {
        "across": tuple((10.0 * i, f"{'sample ' if not i else ''}{i * 10_000}") for i in range(30)),
        "down": tuple((5.0 * i, f"{'channel ' if not i else ''}{i}") for i in range(30)),
    }
    rows = [[_picture(150, 300, scale=HEAT, label=label, columns=3, **numbers)] * 2 for _ in range(2)]
    axes = grid(rows, widest=widest, shown=False)
    figure = axes[0, 0].figure
    figure.canvas.draw()
    shown = [t for ax in axes.flat for t in ax.get_yticklabels()]
    boxes = _boxes(axes) + [t.get_window_extent().padded(-1) for t in shown]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(ax.get_window_extent()) for ax in axes.flat)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert [[bool(ax.get_xticks().size) for ax in row] for row in axes] == [[False, False], [True, True]]
    assert shown[0].get_text() == "channel 0"


def test_numbers_below_push_the_bar_down_and_take_nothing_of_the_margin() -> None:
    feet, gaps = [], []
    for across in ((), ((0.0, "0"),)):
        ax = single([_picture(150, 300, scale=HEAT, across=across)], shown=False)
        ax.figure.canvas.draw()
        bar = ax.child_axes[0].get_window_extent()
        feet.append(bar.y0)
        gaps.append(ax.get_window_extent().y0 - bar.y1)
    assert feet[1] == pytest.approx(feet[0])
    assert gaps[1] > gaps[0] + 10


def test_numbers_stand_at_their_pixels_and_go_with_the_next_picture() -> None:
    ax = Figure(figsize=(6, 3)).add_subplot()
    draw(ax, _picture(100, 300, across=((0.0, "0"), (150.0, "50")), down=((20.0, "a"), (70.0, "b"))))
    assert (ax.get_xticks().tolist(), ax.get_yticks().tolist()) == ([0, 150], [20, 70])
    draw(ax, _picture(100, 300))
    assert not [*ax.get_xticks(), *ax.get_yticks()]


def test_tiles_keep_the_numbers_of_the_first_row_and_column() -> None:
    one = _picture(40, 60, across=((5.0, "0"),), down=((7.0, "a"),))
    whole = merge([one] * 4)
    assert whole.across == ((5.0, "0"), (66.0, "0"))
    assert whole.down == ((7.0, "a"), (48.0, "a"))


def test_a_mark_that_must_be_whole_is_left_out_where_it_has_no_room() -> None:
    for width, shown in ((300, ["frame 12"]), (50, [])):
        mark = Mark(label=Label(name="frame 12"), x=0, y=0, width=width, whole=True)
        ax = single([_picture(40, 300, marks=(mark,))], shown=False)
        assert [t.get_text() for t in ax.texts] == shown


def test_pictures_of_a_grid_are_aligned_and_of_one_size() -> None:
    axes = grid(_rows(30, 70), shown=False)
    axes[0, 0].figure.canvas.draw()
    boxes = np.array([[ax.get_window_extent().bounds for ax in row] for row in axes])
    assert np.ptp(boxes[..., 2:], axis=(0, 1)).max() < 1e-6
    assert np.ptp(boxes[..., 0], axis=0).max() < 1e-6
    assert np.ptp(boxes[..., 1], axis=1).max() < 1e-6


def test_a_colour_bar_is_as_wide_as_its_picture_and_says_its_range() -> None:
    ax = grid([[_picture(scale=HEAT)]], shown=False)[0, 0]
    ax.figure.canvas.draw()
    (bar,) = ax.child_axes
    assert np.allclose(bar.get_window_extent().intervalx, ax.get_window_extent().intervalx)
    assert [t.get_text() for t in bar.get_xticklabels()] == ["0", "12.3"]
    assert bar.get_xlim() == (0.0, 12.3456)


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        (Scale(colormap="RdBu_r", low=-2.0, high=2.0), ["-2", "0", "2"]),
        (Scale(colormap="gray", low=0.0, high=0.5, beyond=True), ["0", "≥ 0.5"]),
        (Scale(colormap="RdBu_r", low=-1.0, high=1.0, beyond=True), ["≤ -1", "0", "≥ 1"]),
        (Scale(colormap="inferno", low=0.0, high=0.0), ["0"]),
        (Scale(colormap="inferno", low=0.0, high=1.5e-9), ["0", "1.5e-09"]),
    ],
)
def test_ticks_are_the_ends_and_zero(scale: Scale, texts: list[str]) -> None:
    assert [text for _, text in scale.ticks()] == texts
    ax = grid([[_picture(scale=scale)]], shown=False)[0, 0]
    assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == texts


def test_right_is_a_white_box_and_wrong_a_red_one_with_the_truth() -> None:
    rows = [[_picture(label=Label(name="cat", value="0.77", truth=truth))] for truth in ("cat", "dog", None)]
    right, wrong, unknown = (ax.xaxis.label for ax in grid(rows, shown=False)[:, 0])
    red, green, _, _ = wrong.get_bbox_patch().get_facecolor()
    assert right.get_bbox_patch().get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert red > 0.7 > 0.3 > green
    assert unknown.get_bbox_patch() is None
    assert (right.get_text(), wrong.get_text()) == ("cat 0.77", "cat 0.77\ntrue: dog")


def test_the_value_is_never_shortened_away() -> None:
    text = Label(name="W" * 200, value="0.77").lines(80)
    assert text.endswith("\n0.77")
    assert "…" in text


def _bar_texts(pictures: list[Picture]) -> list[str]:
    return [t.get_text() for t in single(pictures, shown=False).child_axes[0].get_xticklabels()]


def test_tiles_have_one_range_or_say_that_each_has_its_own() -> None:
    pictures = [_picture(label=Label(name=f"class {i}", value="0.5"), scale=HEAT) for i in range(3)]
    ax = single(pictures, shown=False)
    assert [t.get_text() for t in ax.texts] == ["class 0 0.5", "class 1 0.5", "class 2 0.5"]
    assert _bar_texts(pictures) == ["0", "12.3"]
    assert _bar_texts([*pictures, _picture(scale=replace(HEAT, high=7.0))]) == ["0", "max of each"]
    signed = [_picture(scale=Scale(colormap="RdBu_r", low=-m, high=m, end="99th percentile")) for m in (1.0, 2.0)]
    assert _bar_texts(signed) == ["-99th percentile", "0", "99th percentile of each"]
    assert merge([_picture(scale=HEAT), _picture(scale=Scale(colormap="RdBu_r", low=-1, high=1))]).scale is None
    assert merge([_picture(scale=HEAT), _picture()]).scale is None


def test_a_column_of_one_range_has_one_colour_bar_at_its_foot() -> None:
    own = [replace(HEAT, high=float(i + 1)) for i in range(3)]
    axes = grid([[_picture(scale=HEAT), _picture(scale=one)] for one in own], shown=False)
    assert [len(ax.child_axes) for ax in axes[:, 0]] == [0, 0, 1]
    assert [len(ax.child_axes) for ax in axes[:, 1]] == [1, 1, 1]


def test_the_bar_shows_the_colours_of_the_map_and_of_an_overlay_as_over_mid_grey() -> None:
    map_bar = HEAT.bar()
    assert map_bar.shape == (1, 256, 3)
    assert (map_bar[0, [0, -1]] == colorize(np.array([[0.0, 1.0]]))[0]).all()
    over = replace(HEAT, over=True).bar()
    assert over[0, 0].tolist() == [128, 128, 128]
    assert (over[0, -1] == np.rint(128 + 0.85 * (map_bar[0, -1].astype(float) - 128))).all()


def test_pictures_of_many_tiles_get_more_room() -> None:
    def width(*pictures: Picture) -> float:
        return float(single(list(pictures), shown=False).figure.get_figwidth())

    assert width(_picture()) < width(_picture(), _picture(), _picture(), _picture()) < width(_picture(columns=16)) < 11


def test_names_are_not_read_as_formulas() -> None:
    ax = grid([[_picture(heading=("a_$\\frac$",), label=Label(name="$\\oops{$"), scale=HEAT)]], shown=False)[0, 0]
    assert png(ax).startswith(b"\x89PNG")


@pytest.mark.parametrize(("face", "ink"), [("white", "black"), ("black", "white")])
def test_text_is_legible_on_the_figure_that_it_is_drawn_on(face: str, ink: str) -> None:
    ax = Figure(facecolor=face).add_subplot()
    draw(ax, _picture(heading=("grad_cam",), label=Label(name="cat"), scale=HEAT))
    assert ax.title.get_color() == ink
    assert ax.child_axes[0].xaxis.label.get_color() == ink


def test_drawing_into_a_subfigure_works() -> None:
    figure = Figure(figsize=(6, 3))
    left, _ = figure.subfigures(1, 2)
    draw(left.add_subplot(), _picture(label=Label(name=LONG), scale=HEAT))
    figure.canvas.draw()


def test_a_png_is_as_wide_as_allowed() -> None:
    import io

    from PIL import Image

    axes = grid([[_picture()] * 12], shown=False)
    assert Image.open(io.BytesIO(png(axes[0, 0], widest=700))).width <= 700


def test_drawing_again_leaves_nothing_of_the_first() -> None:
    ax = Figure().add_subplot()
    draw(ax, _picture(heading=("cam", "layer4"), label=Label(name="cat"), scale=HEAT))
    draw(ax, _picture(heading=("saliency",), marks=(Mark(label=Label(name="dog"), x=0, y=0, width=60),)))
    assert (len(ax.images), len(ax.child_axes), ax.get_xlabel(), ax.get_title()) == (1, 0, "", "saliency")
    assert [t.get_text() for t in ax.texts] == ["dog"]
    draw(ax, _picture())
    assert not ax.texts


@pytest.mark.parametrize("width", [0.5, 0.8, 1.3, 3.0])
@pytest.mark.parametrize("texts", [(), ("-99th percentile", "0", "99th percentile of each")])
def test_the_numbers_of_a_bar_never_overlap(width: float, texts: tuple[str, ...]) -> None:
    figure = Figure(figsize=(width, width))
    ax = figure.add_axes((0, 0.4, 1, 0.6))
    draw(ax, _picture(scale=Scale(colormap="gray", low=-3.18e-05, high=3.18e-05, beyond=True, texts=texts)))
    figure.draw_without_rendering()
    labels = [t for t in ax.child_axes[0].get_xticklabels() if t.get_text()]
    boxes = [t.get_window_extent() for t in labels]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_users_settings_do_not_move_titles_and_numbers() -> None:
    settings = {"axes.titley": 0.5, "xtick.labeltop": True, "xtick.labelbottom": False, "xaxis.labellocation": "left"}
    with mpl.rc_context(settings):
        ax = grid([[_picture(heading=("cam",), label=Label(name="cat"), scale=HEAT)]], shown=False)[0, 0]
        ax.figure.draw_without_rendering()
    bar, picture = ax.child_axes[0], ax.get_window_extent()
    assert ax.title.get_window_extent().y0 >= picture.y1
    assert all(t.get_window_extent().y1 <= bar.get_window_extent().y0 for t in bar.get_xticklabels())
    middle = bar.xaxis.label.get_window_extent()
    assert (middle.x0 + middle.x1) / 2 == pytest.approx((picture.x0 + picture.x1) / 2, abs=1)


def test_a_tiles_label_is_at_its_corner() -> None:
    ax = Figure().add_subplot()
    draw(ax, _picture(marks=(Mark(label=Label(name="dog"), x=10, y=20, width=60),)))
    assert ax.texts[0].xy == (9.5, 19.5)  # pixel centres are at whole numbers


def test_drawing_again_after_the_user_cleared_the_axes_works_and_the_users_own_stays() -> None:
    ax = Figure().add_subplot()
    draw(ax, _picture(scale=HEAT))
    ax.clear()
    ax.text(1, 1, "mine")
    draw(ax, _picture(scale=HEAT))
    draw(ax, _picture(scale=HEAT))
    assert (len(ax.images), len(ax.child_axes), [t.get_text() for t in ax.texts]) == (1, 1, ["mine"])


def test_what_was_drawn_is_freed_with_its_figure() -> None:
    figure = Figure()
    axes = weakref.ref(figure.add_subplot())
    draw(axes(), _picture(scale=HEAT, marks=(Mark(label=Label(name="dog"), x=0, y=0, width=60),)))
    del figure
    gc.collect()
    assert axes() is None
