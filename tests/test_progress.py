"""Progress bars show where somebody watches or asks, and nowhere else."""

import pytest

from seewhy.progress import bar


def _work(progress: bool | None) -> None:
    with bar(progress, 3, doing="looking", unit="image") as shown:
        for _ in range(3):
            shown.update(1)


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_is_said_unasked(progress, capsys):
    _work(progress)
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_is_asked_for_counts_and_stays(capsys):
    _work(True)
    assert "looking: 100%" in (told := capsys.readouterr().err)
    assert "3/3" in told


def test_a_short_work_on_a_terminal_shows_none(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _work(None)
    assert "looking" not in capsys.readouterr().err
