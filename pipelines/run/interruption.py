"""Control-C and SIGTERM: the command ends in one line, whatever it is doing, and ends its workers.

The first signal ends all child processes, silences what threads and workers still complain of,
and unwinds the main thread, so that temporary files go. A second signal, or an unwinding that
takes too long, ends the process at once. Imports nothing that takes time: signals are heard from
the command's first moment.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NUDGES, _NUDGE_SECONDS = 8, 1.0
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_SHOW_CURSOR = b"\x1b[?25h"  # of a progress bar that was not unwound

#: What ends the processes that this one has started.
_END_CHILDREN: list[Callable[[], None]] = []


class Interrupted(BaseException):
    """A signal asked this process to end; no kin of what libraries take for Control-C."""


class _State:
    number: signal.Signals | None = None
    terminal: int = 2
    nudged = False
    leaving = threading.Lock()


def happened() -> bool:
    """Whether this process was asked to end."""
    return _State.number is not None


def ending_children(end_children: Callable[[], None]) -> None:
    """Register what ends this process's children."""
    _END_CHILDREN.append(end_children)


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Hear signals while the block runs, and end the process when one came."""
    _State.terminal = os.dup(2)
    for number in _WORDS:
        # A shell that starts a command in the background has it ignore Control-C.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _hear)
    try:
        yield
    except BaseException:
        # Whatever is raised after a signal is a consequence of it.
        if not happened():
            raise
    if happened():
        _leave()


def _hear(number: int, frame: FrameType | None) -> None:
    if _State.nudged:
        _State.nudged = False
        raise Interrupted
    if happened():
        _leave()
        return
    _State.number = signal.Signals(number)
    threading.Thread(target=_leave_in_time, daemon=True).start()
    silenced = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silenced, 2)
    os.close(silenced)
    _end_children()
    raise Interrupted


def _leave_in_time() -> None:
    # What is unwound may wait for workers that are gone.
    for _ in range(_NUDGES):
        threading.Event().wait(_NUDGE_SECONDS)
        _State.nudged = True
        signal.pthread_kill(threading.main_thread().ident or 0, _State.number or signal.SIGINT)
    _leave()


def _end_children() -> None:
    for end_children in _END_CHILDREN:
        end_children()


def _leave() -> None:
    """End the process; returns only where it is being ended already."""
    number = _State.number
    if number is None or not _State.leaving.acquire(blocking=False):
        return
    _end_children()
    said = f"melmill: {_WORDS[number]}; what is finished stays, the same command goes on from it\n"
    try:
        os.write(_State.terminal, _SHOW_CURSOR * os.isatty(_State.terminal) + said.encode())
    finally:
        os._exit(128 + number)
