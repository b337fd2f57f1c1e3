"""The progress display of a run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from melmill.transforms.core.naming import number_of

_LINE_SECONDS = 10.0
_REFRESH_SECONDS = 0.25


@dataclass(slots=True)
class Board:
    """The latest totals of every worker, added up."""

    sources: dict[str, dict[str, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    first_row: float | None = None

    def hear(self, message: bytes) -> None:
        """Store the totals in a worker's message."""
        report = json.loads(message)
        self.sources[report["source"]] = report["totals"]
        if self.first_row is None and report["totals"].get("rows"):
            self.first_row = time.monotonic()

    def total(self, name: str) -> float:
        """Return a number added up over the workers."""
        # A copy, since another thread may add a worker at the same time.
        return sum(totals.get(name, 0) for totals in list(self.sources.values()))

    @property
    def share(self) -> float:
        """Return the finished share of the planned audio, from 0 to 1."""
        planned = self.total("seconds_planned")
        return min(1.0, self.total("seconds") / planned) if planned else 0.0

    def describe(self) -> str:
        """Return the progress as a line of text."""
        if not self.sources:
            return "starting"
        if exported := self.total("exported"):
            return f"{number_of(exported, 'shard')}, {number_of(self.total('rows'), 'row')}"
        if read := self.total("fingerprints"):
            compared = number_of(self.total("compared"), "pair")
            return f"{number_of(read, 'fingerprint')} read, {compared} compared"
        counted = list(self.sources.values())
        if not self.total("listed") and any("shards" in totals for totals in counted):
            return f"{number_of(self.total('shards'), 'shard')} finished"
        if measured := self.total("measured"):
            share = f"{measured:,.0f}/{number_of(self.total('planned'), 'recording')}"
            if not self.total("recordings"):
                return f"{share} measured"
        if not self.total("recordings"):
            hours = self.total("seconds_listed") / 3600
            return f"{number_of(self.total('listed'), 'recording')} listed, {hours:,.2f} h"
        elapsed = max(1e-3, time.monotonic() - (self.first_row or self.started))
        rate = self.total("seconds") / elapsed
        return (
            f"{self.total('recordings'):,.0f}/{number_of(self.total('planned'), 'recording')}, "
            f"{self.total('seconds') / 3600:,.2f}/{self.total('seconds_planned') / 3600:,.2f} h, "
            f"{number_of(self.total('rows'), 'row')}, {rate:,.0f} × real time, "
            f"{self.total('failed'):,.0f} failed, {self._left(rate)}"
        )

    def _left(self, rate: float) -> str:
        seconds = max(0.0, self.total("seconds_planned") - self.total("seconds")) / max(rate, 1e-9)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02.0f} left"


@contextmanager
def showing_progress(title: str, quiet: bool = False) -> Iterator[str]:
    """Show progress on standard error while the block runs.

    Yields
    ------
    str
        The address that workers on this machine send their totals to.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(_REFRESH_SECONDS)
        board, done = Board(), threading.Event()
        # A copy, since quiet_workers may redirect standard error to a log file.
        terminal = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8"))
        show = _show_nothing if quiet else _show_bar if terminal.isatty() else _show_lines
        threads = [
            threading.Thread(target=_listen, args=(listener, board, done), daemon=True),
            threading.Thread(target=show, args=(title, board, done, terminal), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            for thread in threads:
                thread.join()


def _listen(listener: socket.socket, board: Board, done: threading.Event) -> None:
    while not done.is_set():
        try:
            board.hear(listener.recv(65_536))
        except TimeoutError:
            continue


def _show_nothing(title: str, board: Board, done: threading.Event, terminal: TextIO) -> None:
    done.wait()


def _show_lines(title: str, board: Board, done: threading.Event, terminal: TextIO) -> None:
    line = ""
    while not done.wait(_LINE_SECONDS if line else 2.0):
        line = board.describe()
        print(f"{title}: {line}", file=terminal, flush=True)


def _show_bar(title: str, board: Board, done: threading.Event, terminal: TextIO) -> None:
    columns: tuple[Any, ...] = (SpinnerColumn(), "{task.description}", BarColumn(24))
    console = Console(file=terminal)
    with Progress(*columns, TextColumn("{task.fields[status]}"), console=console) as bar:
        task = bar.add_task(title, total=1.0, status="starting")
        while not done.wait(_REFRESH_SECONDS):
            bar.update(task, completed=board.share, status=board.describe())
        bar.update(task, completed=1.0, status=board.describe())


@contextmanager
def counting(title: str, unit: str, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a growing number on standard error while the block runs.

    Yields
    ------
    callable
        A function to call with the number reached so far.
    """
    board: Counter[str] = Counter()
    done = threading.Event()
    # A copy, since quiet_workers may redirect standard error to a log file.
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal:
        arguments = title, unit, board, done, terminal
        thread = threading.Thread(target=_show_count, args=arguments, daemon=True)
        if not quiet:
            thread.start()
        try:
            yield lambda number: board.update({unit: number - board[unit]})
        finally:
            done.set()
            if not quiet:
                thread.join()


def _show_count(
    title: str, unit: str, board: Counter[str], done: threading.Event, terminal: TextIO
) -> None:
    end = "\r" if terminal.isatty() else "\n"
    while not done.wait(_REFRESH_SECONDS if terminal.isatty() else _LINE_SECONDS):
        print(f"{title}: {board[unit]:,} {unit}", file=terminal, end=end, flush=True)
    if terminal.isatty():
        print(file=terminal)
