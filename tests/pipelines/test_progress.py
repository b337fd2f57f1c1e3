"""Tests of progress: what is received from the workers, and what is displayed."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest

from melmill.pipelines.run import progress
from melmill.pipelines.run.progress import Board, counting, showing_progress
from melmill.transforms.beam.progress import Progress


def hear(board: Board, source: str, **totals: float) -> None:
    board.hear(json.dumps({"source": source, "totals": totals}).encode())


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """Return the board of two workers, of which one sent the first row four seconds ago."""
    clock = iter([6.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 10.0))
    board = Board()
    hear(board, "a", listed=3, seconds_listed=7200, planned=3, seconds_planned=7200)
    hear(board, "b", recordings=1.5, seconds=3600, rows=1200, failed=1)
    return board


def test_the_workers_are_added_up(board: Board) -> None:
    hear(board, "c", rows=34)
    assert board.total("rows") == 1234
    assert board.total("nothing") == 0


def test_a_workers_latest_totals_replace_its_earlier_totals(board: Board) -> None:
    hear(board, "b", rows=1300)
    assert board.total("rows") == 1300


def test_the_share_is_of_the_audio(board: Board) -> None:
    assert board.share == 0.5


def test_the_share_is_never_more_than_all(board: Board) -> None:
    hear(board, "b", seconds=8000)
    assert board.share == 1.0


def test_without_a_plan_nothing_is_done() -> None:
    assert Board().share == 0.0


def test_a_line_tells_how_far_and_how_fast(board: Board) -> None:
    assert board.describe() == (
        "2/3 recordings, 1.00/2.00 h, 1,200 rows, 900 × real time, 1 failed, 0:00:04 left"
    )


def test_before_the_first_row_the_line_says_what_was_listed() -> None:
    board = Board()
    hear(board, "a", listed=1234, seconds_listed=5400)
    assert board.describe() == "1,234 recordings listed, 1.50 h"


def test_a_standstill_has_no_end_but_no_error_either() -> None:
    board = Board()
    hear(board, "a", recordings=1, planned=2, seconds_planned=10)
    assert "0 × real time" in board.describe()


def test_new_workers_may_come_while_totals_are_added_up() -> None:
    board, done = Board(), threading.Event()

    def send_totals() -> None:
        for i in range(20_000):
            hear(board, str(i % 5_000), rows=1)
        done.set()

    thread = threading.Thread(target=send_totals)
    thread.start()
    while not done.is_set():
        assert 0 <= board.total("rows") <= 5_000
    thread.join()


class _Once(threading.Event):
    """An event whose waits return at once: the first time false, then true."""

    def wait(self, timeout: float | None = None) -> bool:
        was_set, _ = self.is_set(), self.set()
        return was_set


def test_outside_a_terminal_there_are_plain_lines(board: Board) -> None:
    terminal = io.StringIO()
    progress._show_lines("extract", board, _Once(), terminal)
    (line,) = terminal.getvalue().splitlines()
    assert line.startswith("extract: 2/3 recordings, ")
    assert "\x1b" not in line


def test_a_bar_ends_with_the_last_totals(board: Board) -> None:
    terminal = io.StringIO()
    progress._show_bar("extract", board, _Once(), terminal)
    assert "1,200 rows" in " ".join(terminal.getvalue().split())


def test_what_workers_send_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    boards: list[Board] = []
    monkeypatch.setattr(progress, "Board", lambda: boards.append(Board()) or boards[0])
    with showing_progress("extract", quiet=True) as address:
        reporter = Progress(address)
        reporter.add(rows=3, recordings=0.5)
        reporter.add(rows=4)
        reporter.tell()
        deadline = time.monotonic() + 10
        while boards[0].total("rows") < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (boards[0].total("rows"), boards[0].total("recordings")) == (7, 0.5)


def test_where_nobody_listens_sending_does_nothing() -> None:
    reporter = Progress("")
    reporter.add(rows=3)
    reporter.tell()
    assert reporter.totals == {"rows": 3}


def test_the_display_ends_with_an_error_of_the_run() -> None:
    thread_count = threading.active_count()
    with pytest.raises(RuntimeError, match="broken"), showing_progress("extract", quiet=True):
        raise RuntimeError("broken")
    assert threading.active_count() == thread_count


def test_counting_shows_lines(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    with counting("validate", "shards") as report:
        report(1200)
        time.sleep(0.1)
    lines = capfd.readouterr().err.splitlines()
    assert lines
    assert lines[-1] == "validate: 1,200 shards"


def test_quiet_counting_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("validate", "shards", quiet=True) as report:
        report(3)
    assert capsys.readouterr().err == ""
