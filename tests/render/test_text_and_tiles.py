"""Text fits its width, tiles fit their grid."""

from __future__ import annotations

import numpy as np
import pytest

from seewhy.render.text import fit, fit_end, width_of
from seewhy.render.tiles import columns_of, corners, tile

NAMES = [
    "cat",
    "Egyptian cat, a domestic cat of Egypt with a really long name",
    "W" * 80,
    "a_$b$ " * 20,
    "Ägyptische Katze" * 3,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [30, 90, 150])
@pytest.mark.parametrize("lines", [1, 2, 3])
def test_every_line_fits_and_nothing_is_lost_without_an_ellipsis(name: str, width: float, lines: int) -> None:
    text = fit(name, width, 8, lines)
    assert len(text.split("\n")) <= lines
    assert all(width_of(line, 8) <= width for line in text.split("\n"))
    assert text.endswith("…") or text.replace("\n", "").replace(" ", "") == name.replace(" ", "")


def test_text_breaks_at_spaces_and_only_where_needed() -> None:
    assert fit("tiger cat", 500, 8) == "tiger cat"
    assert fit("tiger shark", width_of("tiger sha", 8), 8) == "tiger\nshark"
    assert fit("a\n b\t c", 500, 8) == "a b c"
    assert fit("", 50, 8) == ""


def test_the_end_of_a_dotted_name_is_kept() -> None:
    text = fit_end("features.denseblock4.denselayer16.conv2", 70, 8)
    assert text.startswith("…")
    assert text.endswith("conv2")
    assert width_of(text, 8) <= 70
    assert fit_end("layer4", 70, 8) == "layer4"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("size", [(6, 9), (9, 6), (3, 40), (40, 3)])
def test_every_tile_is_whole_and_where_its_corner_says(count: int, size: tuple[int, int]) -> None:
    pictures = [np.full((*size, 3), i, np.uint8) for i in range(count)]
    whole = tile(pictures)
    for i, (x, y) in enumerate(corners(count, *size)):
        assert (whole[y : y + size[0], x : x + size[1]] == i).all()
    assert (whole != 255).all(2).sum() == count * size[0] * size[1]


def test_the_grid_is_about_square_on_the_page() -> None:
    assert columns_of(16, 50, 50) == 4
    assert columns_of(16, 100, 25) == 8
    assert columns_of(2, 10, 1000) == 1
