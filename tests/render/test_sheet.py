"""Channels of several layers on one page: what is drawn of which activation, how large, with which numbers."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from seewhy.render import curves
from seewhy.render.channels import standardized
from seewhy.render.figure import new
from seewhy.render.sheet import Sheet, columns_for, layer_picture, rows_for

RNG = np.random.default_rng(0)


def drawn(sheet):
    figure = new(sheet.size, shown=False, layout="constrained")
    ax = sheet.draw(figure.add_subplot())
    figure.canvas.draw()
    return ax


def test_values_without_positions_are_cells_standardised_together():
    values = RNG.normal(size=40)
    block = layer_picture(values, 16)
    side = 1024 // 26
    cells = block.pixels[side // 2 :: side, side // 2 :: side, 0]
    assert cells.shape == (2, 26)
    np.testing.assert_array_equal(cells.ravel()[:40], standardized(values[None, None])[0, 0])
    assert (cells.ravel()[40:] == 255).all()
    assert "26 a row" in block.about


def test_the_channels_of_a_signal_are_rows():
    values = RNG.normal(size=(5, 100))
    block = layer_picture(values, 16, numbers=[9, 7, 5, 3, 1])
    np.testing.assert_array_equal(block.pixels[24::48, 5::10, 0], standardized(values[:, None])[:, 0])
    assert [text for _, text in block.rows] == ["9", "7", "5", "3", "1"]
    assert [y for y, _ in block.rows] == [23.5 + 48 * i for i in range(5)]
    many = layer_picture(RNG.normal(size=(300, 50)), 16)
    assert len(many.rows) <= 16
    assert Sheet([many], 16).size[1] < 4


def test_the_middle_step_of_a_volume():
    values = RNG.normal(size=(3, 5, 30, 30))
    block = layer_picture(values, 3, about=["3 × 5 × 30 × 30"])
    np.testing.assert_array_equal(block.pixels[:30, :30, 0], standardized(values[:, 2])[0])
    assert block.about == "3 × 5 × 30 × 30 · time step 2 of 0..4"


@pytest.mark.parametrize("shape", [(4, 60), (1, 500), (60, 4), (30, 30)])
def test_tiles_of_any_aspect_keep_it_and_find_room(shape):
    columns = columns_for(20, shape)
    block = layer_picture(RNG.normal(size=(20, *shape)), columns)
    ax = drawn(Sheet([block], columns))
    left, right, bottom, top = ax.images[0].get_extent()
    rows, wide = block.pixels.shape[:2]
    assert (right - left) / (bottom - top) == pytest.approx(wide / rows)
    assert right <= ax.get_xlim()[1] + 1e-6
    assert bottom <= ax.get_ylim()[0]


def test_wide_tiles_have_fewer_columns():
    assert columns_for(512, (7, 7)) == columns_for(512, (7, 28)) == 16
    assert columns_for(512, (7, 29)) == 8
    assert columns_for(3, (1, 500)) == 1


def test_pages_have_the_width_of_sixteen_tiles_at_most():
    tiles = RNG.normal(size=(16, 8, 8))
    for layers, columns in ((1, 4), (3, 4), (9, 4), (1, 16), (5, 16), (7, 1)):
        width, height = Sheet([layer_picture(tiles, columns) for _ in range(layers)], columns).size
        assert 1 < width < 12, (layers, columns)
        assert height < 40


def test_rows_for_a_height():
    """As many as can be, so that the page is not higher."""
    for layers, columns in ((1, 16), (10, 16), (54, 4), (8, 2)):
        rows = rows_for(layers, columns, 30)
        blocks = [layer_picture(np.ones((rows * columns, 8, 8)), columns, name="a layer") for _ in range(layers)]
        assert rows == 1 or Sheet(blocks, columns).size[1] <= 31, (layers, columns)
    assert rows_for(500, 16, 30) == 1


def test_names_may_hold_what_other_texts_take_for_formulas():
    ax = drawn(Sheet([layer_picture(np.ones((2, 8, 8)), 2, name=r"a_$b^{$\frac", about=["2 × 8 × 8"])], 2))
    assert any(r"a_$b^{$\frac" in text.get_text() for text in ax.texts)


def test_letters_are_smaller_on_small_axes():
    sheet = Sheet([layer_picture(RNG.normal(size=(40, 8, 8)), 16, name="conv", about=["40 × 8 × 8"])], 16)
    own = drawn(sheet)
    small = sheet.draw(Figure(figsize=(sheet.size[0] / 2, sheet.size[1] / 2)).add_axes((0, 0, 1, 1)))
    assert own.texts[0].get_fontsize() == pytest.approx(8, rel=0.05)
    assert small.texts[0].get_fontsize() == pytest.approx(4, rel=0.05)


class TestCurves:
    def test_a_point_for_each_layer_and_gaps_for_nan(self):
        ax = curves.draw(Figure().add_subplot(), ["a", "b", "c"], {"one": np.array([0, np.nan, 1.0])})
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, np.nan, 1])
        assert list(ax.get_xticks()) == [0, 1, 2]
        assert ax.get_ylim() == (0, 1)

    def test_so_many_names_as_have_room(self):
        names = [f"features.denseblock{i // 50}.denselayer{i % 50}.conv2" for i in range(200)]
        figure = new(curves.size_of(names), shown=False, layout="constrained")
        ax = curves.draw(figure.add_subplot(), names, {"zeros": np.linspace(0, 1, 200)})
        figure.canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert 30 < len(boxes) <= 60
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
        assert min(box.y0 for box in boxes) >= 0
