"""Galleries and rows of panels: what is drawn where, in which colours, and that every word has room."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from seewhy.errors import InputError
from seewhy.render import figure
from seewhy.render.colour import colorize
from seewhy.render.gallery import MAT, MOST, Pair, Tile, contrasts, gallery, luminance, triples
from seewhy.render.overlay import overlay
from seewhy.render.verdict import Verdict, any_signed, proportion

LONG = "Egyptian cat, a domestic cat of Egypt with a really long $name"
WHITE, RED, GREY = "#ffffff", "#c62828", "#dddddd"
RNG = np.random.default_rng(0)


def tile(height: int = 24, width: int = 24, **parts: Any) -> Tile:
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Tile(image, RNG.random((height, width), dtype=np.float32), **{"label": "tabby", "value": "0.97", **parts})


def wrong(**parts: Any) -> Tile:
    return tile(**{"right": False, "truth": "tiger", **parts})


def boxes(ax: Any) -> list[Rectangle]:
    return [p for p in ax.patches if to_hex(p.get_facecolor()) != MAT]


def said(ax: Any) -> list[str]:
    """The words in the boxes; those of the key stand below the Axes' end."""
    return [t.get_text() for t in ax.texts if t.get_position()[1] < ax.get_ylim()[0]]


def pixels(ax: Any) -> np.ndarray:
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[::-1, :, :3]


def at(ax: Any, x: float, y: float) -> list[int]:
    """The drawn colour at a place of the Axes."""
    across, up = ax.transData.transform((x, y)).astype(int)
    return [int(value) for value in pixels(ax)[up, across]]


def test_each_photo_is_grey_under_its_own_map() -> None:
    tiles = [tile(), replace(tile(), map=7 * tile().map)]
    (ax,) = gallery({"": tiles}, shown=False)
    for image, one in zip(ax.images, tiles, strict=True):
        assert (image.get_array() == overlay(luminance(one.image), one.map)).all()


def test_a_map_of_zeros_leaves_the_grey_photo() -> None:
    one = tile()
    (ax,) = gallery({"": [replace(one, map=0 * one.map)]}, shown=False)
    assert (ax.images[0].get_array() == luminance(one.image)[..., None]).all()


def test_one_signed_map_gives_all_symmetric_colours() -> None:
    one, other = tile(), tile(signed=True)
    (ax,) = gallery({"": [one, other]}, shown=False)
    most = float(one.map.max())
    assert (ax.images[0].get_array() == overlay(luminance(one.image), one.map, limits=(-most, most))).all()
    assert any(t.get_text() == "−max" for t in ax.texts)
    (ax,) = gallery({"": [one]}, shown=False)
    assert not any("−" in t.get_text() for t in ax.texts)


def test_a_percentile_is_the_strongest_colour_and_is_said() -> None:
    one = tile(percentile=90.0)
    (ax,) = gallery({"": [one]}, shown=False)
    span = 0.0, float(np.percentile(one.map.astype(np.float64), 90))
    assert (ax.images[0].get_array() == overlay(luminance(one.image), one.map, limits=span)).all()
    assert any(t.get_text() == "90th percentile of each map" for t in ax.texts)


def test_boxes_are_white_if_right_red_if_wrong_and_grey_if_unknown() -> None:
    (ax,) = gallery({"": [tile(right=True, truth="tabby"), wrong(), tile()]}, rows=1, shown=False)
    assert [to_hex(box.get_facecolor()) for box in boxes(ax)] == [WHITE, RED, GREY]
    assert said(ax) == ["tabby 0.97", "tabby 0.97\ntrue: tiger", "tabby 0.97"]
    assert [t.get_color() for t in ax.texts[:3]] == ["black", "white", "black"]
    assert [t.get_text() for t in ax.texts[-3:]] == ["right", "wrong", "true class not known"]


def test_a_wrong_class_of_the_same_name_is_wrong() -> None:
    (ax,) = gallery({"": [wrong(label="crane", truth="crane")]}, shown=False)
    assert to_hex(boxes(ax)[0].get_facecolor()) == RED
    assert said(ax) == ["crane 0.97\ntrue: crane"]


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(20, 2, 10), (1, 2, 1), (3, 2, 2), (5, 2, 3), (7, 1, 7), (100, 2, MOST), (4, 9, 1)]
)
def test_tiles_stand_in_rows_and_the_last_may_be_short(count: int, rows: int, columns: int) -> None:
    (ax,) = gallery({"": [tile()] * count}, rows=rows, shown=False)
    corners = [(round(left, 3), round(top, 3)) for left, _, _, top in (i.get_extent() for i in ax.images)]
    across, down = sorted({x for x, _ in corners}), sorted({y for _, y in corners})
    assert len(across) == columns
    assert corners == [(across[i % columns], down[i // columns]) for i in range(count)]


def test_groups_stand_side_by_side_with_tiles_of_one_size_at_one_height() -> None:
    axes = gallery({"training": [tile()] * 4, "test": [wrong(label=LONG)] * 3}, shown=False)
    assert [ax.get_title() for ax in axes] == ["training", "test"]
    places = [ax.get_window_extent() for ax in axes]
    assert places[0].x1 < places[1].x0
    assert (places[0].y0, places[0].y1) == (places[1].y0, places[1].y1)
    drawn = [[i.get_window_extent() for i in ax.images] for ax in axes]
    assert np.ptp([box.width for row in drawn for box in row]) < 0.01
    assert [round(box.y1) for box in drawn[0][:3]] == [round(box.y1) for box in drawn[1]]


def test_a_group_without_images_says_so() -> None:
    axes = gallery({"training": [tile()], "test": []}, shown=False)
    assert [t.get_text() for t in axes[1].texts] == ["no images"]
    assert gallery({"": []}, shown=False).shape == (1,)


@pytest.mark.sweep
@pytest.mark.parametrize("size", [(24, 24), (10, 40), (40, 10)])
@pytest.mark.parametrize(("count", "label"), [(1, "cat"), (2, LONG), (5, "x" * 60), (20, LONG)])
@pytest.mark.parametrize("groups", [1, 2])
def test_words_fit_their_boxes_and_nothing_overlaps(size: tuple[int, int], count: int, label: str, groups: int) -> None:
    tiles = [(tile if i % 2 else wrong)(height=size[0], width=size[1], label=label) for i in range(count)]
    names = ["training and more words than fit", "test"][:groups]
    axes = gallery(dict.fromkeys(names, tiles), shown=False, title=f"grad_cam at {label}")
    fig = axes[0].figure
    fig.canvas.draw()
    for ax in axes:
        words = [t.get_window_extent() for t in ax.texts][:count]
        for box, text in zip(boxes(ax), words, strict=True):
            assert box.get_window_extent().padded(0.5).containsx(text.x0)
            assert box.get_window_extent().padded(0.5).containsx(text.x1)
            assert box.get_window_extent().padded(1.5).containsy(text.y0)
            assert box.get_window_extent().padded(1.5).containsy(text.y1)
        solid = [p.get_window_extent().padded(-0.5) for p in (*boxes(ax), *ax.images)]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(solid, 2))
        assert not any(ax.title.get_window_extent().overlaps(other) for other in solid)
    everything = [t.get_window_extent() for ax in axes for t in (*ax.texts, ax.title)]
    everything += [t.get_window_extent() for t in fig.texts]
    for text in everything:
        assert text.x0 >= 0
        assert text.y0 >= 0
        assert text.x1 <= fig.bbox.x1
        assert text.y1 <= fig.bbox.y1
    outside = [t.get_window_extent() for t in (*fig.texts, *(ax.title for ax in axes)) if t.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(outside, 2))


def test_no_picture_is_distorted_and_unequal_ones_have_a_mat() -> None:
    tiles = [tile(20, 40), tile(40, 20), tile(30, 30)]
    (ax,) = gallery({"": tiles}, rows=1, shown=False)
    for image, one in zip(ax.images, tiles, strict=True):
        place = image.get_window_extent()
        assert place.height / place.width == pytest.approx(one.image.shape[0] / one.image.shape[1], rel=1e-3)
    left, right, bottom, top = ax.images[0].get_extent()
    assert at(ax, (left + right) / 2, top - 5) == [0xF0] * 3
    assert at(ax, (left + right) / 2, (top + bottom) / 2) != [0xF0] * 3
    assert np.ptp([box.get_y() for box in boxes(ax)]) < 1e-6


def test_equal_pictures_fill_their_cells() -> None:
    (ax,) = gallery({"": [tile(24, 36)] * 4}, shown=False)
    mats = [p.get_window_extent() for p in ax.patches if to_hex(p.get_facecolor()) == MAT]
    for image, mat in zip(ax.images, mats, strict=True):
        assert np.allclose(image.get_window_extent().get_points(), mat.get_points(), atol=0.01)


def test_tiny_pictures_keep_their_pixels() -> None:
    """A chequerboard of 8 by 8 has no colour but its own, and sharp ends."""
    board = np.indices((8, 8)).sum(0) % 2 * np.uint8(255)
    one = Tile(board[..., None].repeat(3, axis=2), np.zeros((8, 8), np.float32), "board")
    (ax,) = gallery({"": [one]}, shown=False)
    left, right, bottom, top = ax.images[0].get_extent()
    (x0, y0), (x1, y1) = ax.transData.transform([(left, bottom), (right, top)]).astype(int)
    inner = pixels(ax)[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
    assert set(np.unique(inner).tolist()) == {0, 255}


def test_a_gallery_of_nothing_is_refused() -> None:
    for groups, rows in [({}, 2), ({"": [tile()]}, 0)]:
        with pytest.raises(InputError, match="a gallery has"):
            gallery(groups, rows=rows, shown=False)


def test_nothing_is_left_in_pyplot_unless_shown() -> None:
    from matplotlib import pyplot

    pyplot.close("all")
    gallery({"": [tile()]}, shown=False)
    triples([tile()], shown=False)
    assert not pyplot.get_fignums()
    gallery({"": [tile()]}, shown=True)
    assert len(pyplot.get_fignums()) == 1
    pyplot.close("all")


def bar_of(ax: Any) -> tuple[float, float]:
    """The values at the ends of the colour bar."""
    (bar,) = ax.child_axes
    return tuple(bar.images[0].get_extent()[:2])


def test_a_triple_is_the_photo_its_map_and_both() -> None:
    tiles = [tile(right=True, truth="tabby"), wrong(value=">0.99"), tile()]
    axes = triples(tiles, shown=False, method="grad_cam at layer4")
    assert axes.shape == (3, 3)
    assert [ax.get_title() for ax in axes[0]] == ["image", "grad_cam at layer4", "over the image"]
    for (photo, heat, over), one in zip(axes, tiles, strict=True):
        assert (photo.images[0].get_array() == one.image).all()
        assert (heat.images[0].get_array() == colorize(one.map)).all()
        assert (over.images[0].get_array() == overlay(one.image, one.map)).all()
        assert bar_of(heat) == (0, pytest.approx(float(one.map.max())))
    assert [row[0].get_xlabel() for row in axes] == ["true: tabby", "true: tiger", ""]
    assert [row[2].get_xlabel() for row in axes] == ["tabby 0.97", "tabby >0.99", "tabby 0.97"]
    looks = [row[2].xaxis.label.get_bbox_patch() for row in axes]
    assert [look and to_hex(look.get_facecolor()) for look in looks] == [WHITE, RED, None]


def test_rows_with_one_signed_map_have_all_symmetric_colours_and_zero_is_white() -> None:
    below, zero = tile(), replace(tile(), map=np.zeros((24, 24), np.float32))
    axes = triples([replace(below, map=below.map - 0.3), zero], shown=False)
    low, high = bar_of(axes[0, 1])
    assert low == -high < 0
    assert bar_of(axes[1, 1]) == (-1, 1)
    assert axes[1, 1].images[0].get_array().min() > 240
    assert (axes[1, 2].images[0].get_array() == zero.image).all()


def test_a_map_of_zeros_beside_others_has_a_bar_of_zero() -> None:
    axes = triples([tile(), replace(tile(), map=np.zeros((24, 24), np.float32))], shown=False)
    assert [t.get_text() for t in axes[1, 1].child_axes[0].get_xticklabels()] == ["0"]


def test_pictures_of_unequal_shapes_are_padded_to_one() -> None:
    axes = triples([tile(20, 40), tile(40, 20)], shown=False)
    places = [ax.get_window_extent() for ax in axes.flat]
    assert np.ptp([p.width for p in places]) < 1
    assert np.ptp([p.height for p in places]) < 1
    array = axes[0, 0].images[0].get_array()
    assert array.shape == (40, 40, 3)
    assert (array[:10] == 255).all()


def pair(**parts: Any) -> Pair:
    maps = RNG.random((2, 24, 24), dtype=np.float32)
    whole: dict[str, Any] = {
        "image": tile().image,
        "predicted_map": 3 * maps[0],
        "true_map": maps[1],
        "predicted": "tabby",
        "predicted_value": "0.97",
        "true": "tiger",
        "true_value": "0.02",
    }
    return Pair(**{**whole, **parts})


def test_both_maps_of_a_mistake_share_their_colours() -> None:
    pairs = [pair(), pair(true_map=9 * tile().map)]
    axes = contrasts(pairs, shown=False, method="grad_cam")
    assert axes.shape == (2, 4)
    for (photo, predicted, true, _), one in zip(axes, pairs, strict=True):
        span = 0.0, float(max(one.predicted_map.max(), one.true_map.max()))
        assert (photo.images[0].get_array() == one.image).all()
        assert (predicted.images[0].get_array() == colorize(one.predicted_map, limits=span)).all()
        assert (true.images[0].get_array() == colorize(one.true_map, limits=span)).all()
        assert bar_of(predicted) == bar_of(true) == (0, pytest.approx(span[1]))
        labels = [ax.child_axes[0].xaxis.label for ax in (predicted, true)]  # they stand below the bars
        assert [label.get_text() for label in labels] == ["predicted: tabby 0.97", "true: tiger 0.02"]
        assert [to_hex(label.get_bbox_patch().get_facecolor()) for label in labels] == [RED, WHITE]


def test_the_difference_is_red_where_the_predicted_class_has_more_and_white_at_zero() -> None:
    first, second = np.array([[[2, 1, 0]], [[0, 1, 1]]], np.float32)
    one = pair(image=np.zeros((1, 3, 3), np.uint8), predicted_map=first, true_map=second)
    ax = contrasts([one], shown=False)[0, 3]
    (more, equal, less) = ax.images[0].get_array()[0].astype(int)
    assert bar_of(ax) == (-2, 2)
    assert more[0] > more[2] + 50
    assert less[2] > less[0] + 50
    assert equal.min() > 240
    assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["-2", "0", "2"]


def test_equal_maps_differ_nowhere() -> None:
    heat = tile().map
    ax = contrasts([pair(predicted_map=heat, true_map=heat)], shown=False)[0, 3]
    assert ax.images[0].get_array().min() > 240


def test_signed_maps_of_a_mistake_have_symmetric_colours() -> None:
    one = pair(signed=True)
    axes = contrasts([one], shown=False)
    low, high = bar_of(axes[0, 1])
    assert -low == high == pytest.approx(float(one.predicted_map.max()))


def test_maps_of_two_sizes_and_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"got \(24, 24\) and \(7, 7\)"):
        contrasts([pair(true_map=np.zeros((7, 7), np.float32))], shown=False)
    for draw in (contrasts, triples):
        with pytest.raises(InputError, match="got none"):
            draw([], shown=False)


@pytest.mark.parametrize("size", [(24, 24), (16, 32), (32, 16)])
def test_the_words_of_rows_are_within_the_figure(size: tuple[int, int]) -> None:
    heat = np.ones(size, np.float32)
    image = np.zeros((*size, 3), np.uint8)
    one = pair(image=image, predicted_map=heat, true_map=heat / 2, predicted=LONG, true=LONG)
    whole = [
        triples([Tile(image, heat, LONG, "0.97", False, LONG)] * 2, shown=False, method=LONG),
        contrasts([one] * 2, shown=False, method=LONG),
    ]
    for axes in whole:
        fig = axes[0, 0].figure
        fig.canvas.draw()
        labels = [t for ax in axes.flat for a in (ax, *ax.child_axes) for t in (a.xaxis.label, ax.title)]
        places = [(t.get_bbox_patch() or t).get_window_extent() for t in labels if t.get_text()]
        assert len(places) > 6
        for box in places:
            assert 0 <= box.x0 < box.x1 <= fig.bbox.x1
            assert 0 <= box.y0 < box.y1 <= fig.bbox.y1
            assert not any(box.padded(-1).overlaps(ax.get_window_extent()) for ax in axes.flat)


def test_a_verdict_names_the_truth_only_if_wrong() -> None:
    assert Verdict(name="cat", truth="dog", correct=None).lines(100) == "cat"
    assert Verdict(name="cat", truth="cat", correct=True).lines(100) == "cat"
    assert Verdict(name="cat", correct=False).lines(100) == "cat"
    assert Verdict(name="cat", truth="dog", correct=False).lines(100) == "cat\ntrue: dog"
    long = Verdict(name=LONG, value="0.97", truth=LONG, correct=False).lines(60)
    assert long.splitlines()[2] == "0.97"
    assert long.splitlines()[3].startswith("true: ")
    assert len(long.splitlines()) == 5


def test_signs_and_proportions() -> None:
    assert not any_signed([tile()])
    assert any_signed([tile(), tile(signed=True)])
    assert any_signed([replace(tile(), map=-tile().map)])
    shapes = [np.zeros((*size, 3), np.uint8) for size in [(10, 20), (10, 30)]]
    assert proportion(shapes) == 0.5
    assert proportion([shapes[0], shapes[0].transpose(1, 0, 2)]) == 1
    assert proportion([np.zeros((100, 1, 3), np.uint8)]) == 2.5


def test_a_gallery_is_saved_as_it_is_drawn() -> None:
    axes = gallery({"": [tile()] * 20}, shown=False)
    assert figure.png(axes[0]).startswith(b"\x89PNG")
