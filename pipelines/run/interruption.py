"""Control-C and SIGTERM: end the workers, and exit the command with a single line of output.

The first signal kills all child processes, silences the errors of threads and workers, and unwinds
the main thread, so that temporary files are removed. A second signal, or an unwinding that takes
too long, ends the process at once. The module imports nothing that is slow to import, so that
signals are handled from the start of the command.
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
_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar that was not unwound has hidden the cursor

#: The functions that end the child processes of this process.
_END_CHILDREN: list[Callable[[], None]] = []


class Interrupted(BaseException):
    """A signal asked this process to end; not a KeyboardInterrupt, which libraries may catch."""


class _State:
    number: signal.Signals | None = None
    terminal: int = 2
    nudged = False
    advice = "finished work is kept, run the same command again to continue"
    leaving = threading.Lock()


def happened() -> bool:
    """Return whether a signal has asked this process to end."""
    return _State.number is not None


def advise(advice: str) -> None:
    """Set what the line says after a signal, for a command that keeps nothing."""
    _State.advice = advice


def ending_children(end_children: Callable[[], None]) -> None:
    """Register a function that ends child processes."""
    _END_CHILDREN.append(end_children)


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Handle signals while the block runs; end the process after a signal."""
    _State.terminal = os.dup(2)
    for number in _WORDS:
        # A shell makes the commands that it starts in the background ignore Control-C.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    except BaseException:
        # An error after a signal is a consequence of the signal.
        if not happened():
            raise
    if happened():
        _leave()


def _handle(number: int, frame: FrameType | None) -> None:
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
    # The code that is unwound may wait for workers that have ended: interrupt it again.
    for _ in range(_NUDGES):
        threading.Event().wait(_NUDGE_SECONDS)
        _State.nudged = True
        signal.pthread_kill(threading.main_thread().ident or 0, _State.number or signal.SIGINT)
    _leave()


def _end_children() -> None:
    for end_children in _END_CHILDREN:
        end_children()


def _leave() -> None:
    """End the process; return only if another thread is already ending it."""
    number = _State.number
    if number is None or not _State.leaving.acquire(blocking=False):
        return
    _end_children()
    message = f"melmill: {_WORDS[number]}; {_State.advice}\n"
    try:
        os.write(_State.terminal, _SHOW_CURSOR * os.isatty(_State.terminal) + message.encode())
    finally:
        os._exit(128 + number)
