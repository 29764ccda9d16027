"""Points by class: who has which look, what is in the legend, and what never overlaps."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from seewhy.render import figure
from seewhy.render.scatter import COLOURS, MOST, OTHERS, PICTURE, scatter

PLANE = np.random.default_rng(0).normal(size=(300, 2))
# What the eye without red, green or blue cones makes of linear RGB (Machado 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@pytest.fixture
def ax():
    return figure.new((7.6, 5.4), shown=False, layout="constrained").add_subplot()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(ax):
    """Each drawn point's colour, by its place."""
    found = {}
    for dots in ax.collections:
        for place, colour in zip(np.asarray(dots.get_offsets()), dots.get_facecolors(), strict=False):
            found[tuple(place)] = tuple(colour[:3])
    return found


def lab(rgb):
    """CIELAB of linear RGB."""
    x = XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_colours_can_be_told_apart_with_every_colour_blindness(kind):
    linear = [np.array(to_rgb(colour)) ** 2.2 for colour in (*COLOURS, "white")]
    seen = [lab(np.array(BLINDNESS[kind]) @ colour) for colour in linear]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


def test_each_class_has_a_look_of_its_own(ax):
    groups = [str(i % MOST) for i in range(300)]
    scatter(ax, PLANE, groups)
    assert legend(ax) == [str(i) for i in range(MOST)]
    looks = {(line.get_color(), line.get_marker()) for line in ax.get_legend().get_lines()}
    assert len(looks) == MOST
    shown = {line.get_color() for line in ax.get_legend().get_lines()}
    assert set(drawn(ax).values()) == {to_rgb(colour) for colour in shown}
    assert drawn(ax)[tuple(PLANE[3])] == to_rgb(COLOURS[3])
    assert drawn(ax)[tuple(PLANE[13])] == to_rgb(COLOURS[3])
    assert len(drawn(ax)) == 300


def test_of_more_classes_the_smallest_are_merged_and_counted(ax):
    groups = [f"c{min(i // 10, 24)}" for i in range(300)]  # c24 has 60 images, the other 24 ten each
    scatter(ax, PLANE, groups)
    assert len(legend(ax)) == MOST
    assert legend(ax)[-2:] == ["c24", "6 other classes (60 images)"]
    assert drawn(ax)[tuple(PLANE[235])] == to_rgb(OTHERS)
    assert drawn(ax)[tuple(PLANE[0])] == to_rgb(COLOURS[0])


def test_without_classes_there_is_no_legend(ax):
    scatter(ax, PLANE)
    assert ax.get_legend() is None
    assert len(drawn(ax)) == 300


def test_the_legend_is_beside_the_axes_and_all_of_it_is_on_the_page(ax):
    groups = [f"{i % MOST} a class with a name that goes on and on and on" for i in range(300)]
    scatter(ax, PLANE, groups, ringed=np.arange(300) < 3, title="A title", axis_names=("PC 1", "PC 2"))
    figure.png(ax)
    box, page = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert box.x0 >= ax.get_window_extent().x1
    assert box.x1 <= page.x1
    assert box.y0 >= 0
    assert box.y1 <= page.y1
    assert ax.get_window_extent().width > page.width / 2
    assert legend(ax)[0].endswith("…")
    assert legend(ax)[-1] == "misclassified (3)"


def test_names_are_drawn_as_they_are(ax):
    scatter(ax, PLANE[:3], ["_hidden", "a $x_1$", "$"])
    assert figure.png(ax)
    assert [name.strip().replace("\\", "") for name in legend(ax)] == ["$", "_hidden", "a $x_1$"]


def test_both_axes_have_one_scale(ax):
    scatter(ax, PLANE * [100, 1])
    figure.png(ax)
    across, up = ax.transData.transform([[1, 1]])[0] - ax.transData.transform([[0, 0]])[0]
    assert across == pytest.approx(up)


def test_pictures_do_not_overlap_and_those_of_ringed_points_come_first(ax):
    pictures = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    ringed = np.arange(300) == 250
    scatter(ax, PLANE, ["a", "b", "c"] * 100, ringed=ringed, pictures=pictures)
    figure.png(ax)
    assert 10 < len(ax.artists) < 300
    np.testing.assert_array_equal(ax.artists[0].xy, PLANE[250])
    boxes = [box.get_window_extent() for box in ax.artists]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    side = ax.artists[0].offsetbox.get_window_extent().width / ax.figure.dpi * 72
    assert side == pytest.approx(PICTURE, rel=0.1)
