"""Figures: pyplot's where they are to be shown, nobody's else, and their pixels."""

import io

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from seewhy.errors import InputTypeError
from seewhy.render import figure


def test_only_what_is_shown_is_pyplots():
    pyplot.close("all")
    figure.new((2, 1), shown=False)
    assert not pyplot.get_fignums()
    shown = figure.new((2, 1), shown=True)
    assert pyplot.get_fignums() == [shown.number]
    pyplot.close("all")


def test_axes_that_are_given_are_used():
    ax = figure.new((2, 1), shown=False).add_subplot()
    assert figure.axes(ax, (5, 5)) is ax
    made = figure.axes(None, (5, 3))
    assert tuple(made.figure.get_size_inches()) == (5, 3)
    pyplot.close("all")
    with pytest.raises(InputTypeError, match="ax is one matplotlib Axes, or None for a new figure; got list"):
        figure.axes([ax], (5, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(("widest", "size"), [(figure.LONGEST, (640, 320)), (200, (200, 100))])
def test_pixels(widest, size):
    page = figure.new((4, 2), shown=False)
    page.add_axes((0, 0, 1, 1)).set_facecolor("red")
    drawn = Image.open(io.BytesIO(figure.png(page.axes[0], widest=widest)))
    assert drawn.size == size
    assert (np.asarray(drawn)[size[1] // 2, size[0] // 2] == (255, 0, 0)).all()
