"""At the end of a sweep: how many networks of each source were tried, right, refused, only listed or wrong."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from checks import Verdict
from listed import LISTED

_OUTCOMES = ("tried", "right", "refused", "only listed", "wrong")
verdicts = pytest.StashKey[list[Verdict]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[verdicts] = []


@pytest.fixture
def note(request: pytest.FixtureRequest) -> list[Verdict]:
    """Where the verdicts of a session go."""
    return request.config.stash[verdicts]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[verdicts]
    if not found:
        return
    terminalreporter.section("the sweep")
    for verdict in found:
        terminalreporter.write_line(verdict.line())
    terminalreporter.write_line("")
    for row in _table(found):
        terminalreporter.write_line(row)
    if path := os.environ.get("SEEWHY_SWEEP_JSON"):
        Path(path).write_text(json.dumps([verdict.record() for verdict in found], indent=1))


def _table(found: list[Verdict]) -> list[str]:
    """The counts, as a Markdown table."""
    sources = list(dict.fromkeys(verdict.net.source for verdict in found))
    rows = [" | ".join(["| source", *_OUTCOMES]) + " |", "|---" * (1 + len(_OUTCOMES)) + "|"]
    total: Counter[str] = Counter()
    for source in sources:
        outcomes = [verdict.outcome for verdict in found if verdict.net.source == source]
        counts = Counter({"tried": len(outcomes), "only listed": len(LISTED.get(source, {})), **Counter(outcomes)})
        total += counts
        rows.append(" | ".join([f"| {source}", *(str(counts[outcome]) for outcome in _OUTCOMES)]) + " |")
    return [*rows, " | ".join(["| all", *(str(total[outcome]) for outcome in _OUTCOMES)]) + " |"]
