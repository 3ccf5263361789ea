"""How far work has come: a bar on a terminal, a log line every so often elsewhere, with the total and the time left."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from idgr import progress as module
from idgr.progress import Progress, progress
from idgr.stages.gen_ids import _watched


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until it is told to go on by so many seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_a_line_after_ten_seconds_then_every_thirty(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in progress(range(100), "work", unit="items"):
        later(4.0)
    # The third element ends after 12 seconds, the first to do so after ten; from then on every eighth.
    told = lines(capsys)
    assert told[0] == "work: 3/100 items, 0.2 items/s, 0:06:28 left"
    assert told[1] == "work: 11/100 items, 0.2 items/s, 0:05:56 left"
    assert [line.split()[1] for line in told] == [f"{n}/100" for n in range(3, 100, 8)]


def test_hours_are_told_and_unknown_totals_are_not(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("work", total=1000, unit="items") as shown:
        later(40)
        shown.advance(5)
    with Progress("pipe", unit="lines") as shown:
        later(20)
        shown.advance(40)
    assert lines(capsys) == ["work: 5/1000 items, 0.1 items/s, 2:12:40 left", "pipe: 40 lines, 2.0 lines/s"]


def test_more_than_the_total_leaves_no_time(later: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    """As where a file has grown since it was counted."""
    with Progress("work", total=2, unit="items") as shown:
        later(10)
        shown.advance(3)
    assert lines(capsys) == ["work: 3/2 items, 0.3 items/s"]


def test_gen_ids_counts_items_not_batches(later: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in _watched([[0, 1, 2], [3, 4], [5]]):
        later(30)
    told = ["gen-ids: 3/6 items, 0.1 items/s, 0:00:30 left", "gen-ids: 5/6 items, 0.1 items/s, 0:00:12 left"]
    assert lines(capsys)[:2] == told


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2, 3], "work", unit="items")) == [1, 2, 3]
    shown = terminal.getvalue()
    assert "work:   0%" in shown
    assert "/3 [" in shown


def test_only_the_first_of_several_processes_tells(
    later: Callable[[float], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    for _ in progress(range(3), "work"):
        later(60)
    assert lines(capsys) == []
