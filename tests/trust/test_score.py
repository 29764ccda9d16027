"""A score: its mean, its pictures, its file."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from seewhy.trust import Score

CURVED = Score(
    name="deletion", values=[0.2, np.nan, 0.6], higher_is_better=False, steps=[0, 0.5, 1],
    curves={"deletion": [[1, 0.2, 0], [np.nan] * 3, [1, 0.8, 0]]}, axis="share",
)  # fmt: skip


def test_means_leave_out_what_is_undefined():
    assert CURVED.mean == pytest.approx(0.4)
    assert CURVED.undefined == 1
    assert np.isnan(Score(name="x", values=[np.nan], higher_is_better=True).mean)
    assert repr(CURVED) == "Score(deletion, mean=0.4, maps=3, undefined for 1, lower is better)"
    assert CURVED.values.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        CURVED.values[0] = 1


def test_the_picture_has_the_mean_curve():
    ax = CURVED.plot(Figure().add_subplot())
    assert ax.get_lines()[-1].get_ydata() == pytest.approx([1, 0.5, 0])
    assert "lower is better" in ax.get_title()


def test_labels_stand_below_their_steps():
    score = Score(name="mprt", values=[0.5], higher_is_better=False, curves={"similarity": [[0.6, 0.4]]}, steps=[0, 9],
                  labels=["head", "stem"])  # fmt: skip
    ax = score.plot(Figure().add_subplot())
    assert [text.get_text() for text in ax.get_xticklabels()] == ["head", "stem"]
    assert ax.get_lines()[0].get_xdata().tolist() == [0, 1]


def test_values_alone_are_points():
    ax = Score(name="x", values=[0.1, 0.4], higher_is_better=True).plot(Figure().add_subplot())
    assert ax.get_lines()[0].get_ydata() == pytest.approx([0.1, 0.4])


def test_it_can_be_saved(tmp_path):
    CURVED.save(tmp_path / "score")
    again = Score.load(tmp_path / "score")
    assert again.mean == pytest.approx(CURVED.mean)
    np.testing.assert_array_equal(again.curves["deletion"], CURVED.curves["deletion"])
    assert (tmp_path / "score.png").stat().st_size > 5000
    assert CURVED._repr_png_()
