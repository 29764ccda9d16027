"""What is printed on a terminal: the progress bar, and lines that do not run through it."""

import io
import sys
import time

from seewhy import terminal


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def screen(monkeypatch):
    """What was printed by `work` on a terminal."""
    one = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", one)
        patch.setattr(sys, "stdout", one)
        work()
    return one.getvalue()


def work(steps=3):
    with terminal.progress(steps, " photos") as bar:
        for i in range(steps):
            time.sleep(0.15)  # more than the least time between two drawings
            terminal.say(f"line {i}")
            bar.update()


def test_lines_have_a_place_of_their_own(monkeypatch):
    monkeypatch.setattr(terminal, "PATIENCE", 0.0)
    printed = screen(monkeypatch)
    assert "2/3" in printed
    shown = [part.split("\r")[-1].rstrip() for part in printed.split("\n")]
    assert shown == ["line 0", "line 1", "line 2", ""]


def test_quick_work_has_no_bar(monkeypatch):
    assert "/3" not in screen(monkeypatch)


def test_where_there_is_no_terminal_there_is_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "PATIENCE", 0.0)
    work()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("line 0\nline 1\nline 2\n", "")


def test_errors_and_warnings_are_one_line(capsys):
    assert terminal.fail("two\n  lines") == 1
    assert capsys.readouterr().err == "seewhy: error: two lines\n"
