"""Workers on this machine: none is missed or left behind; what they write is kept aside."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import IO, TypeVar

import psutil

from melmill.pipelines.run import interruption
from melmill.pipelines.run.errors import LostWorkerError
from melmill.transforms.core.errors import UserError

T = TypeVar("T")

_LOST_WORKER = re.compile(r"Worker subprocess exited with return code (-?\d+)")
#: Control-C, and often SIGTERM, reach the workers too; what is to be done then, this process does.
_INTERRUPTED = frozenset({"-2", "130", "-15", "143"})
_HEARING_SECONDS = 2.0
_ENDING_SECONDS = 10.0
_WAKING_SECONDS = 5.0
#: Not the one of Control-C: a command that a shell started in the background ignores that.
_LOST_SIGNAL = signal.SIGUSR1

#: Lines of what workers wrote that are shown, letters of each, and bytes that are kept.
_LAST_LINES, _LINE_LETTERS, _KEPT_BYTES = 20, 300, 10 << 20
#: Beam's and gRPC's own logs; Beam repeats there what it raises.
_NOISE = re.compile(
    r"[A-Z]+:apache_beam\.|[IWEF]\d{4} |WARNING: All log messages before|\s*[\^~]*$"
)


@contextlib.contextmanager
def quiet_workers(unnoted: tuple[type[Exception], ...] = (UserError,)) -> Iterator[None]:
    """Keep what local workers write out of the terminal; add the last of it to an exception.

    They inherit this process's standard error, and say many lines about each other.

    Parameters
    ----------
    unnoted
        Exceptions that say all there is to say.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except Exception as error:
            if not isinstance(error, unnoted):
                _note_last_lines(error, log)
            raise
        finally:
            sys.stderr.flush()
            if not interruption.happened():
                os.dup2(terminal, 2)
            os.close(terminal)


def _note_last_lines(error: Exception, log: IO[bytes]) -> None:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_BYTES))
    said = str(error)
    lines = (line.decode(errors="replace").rstrip("\n") for line in log)
    last = deque(
        (one[:_LINE_LETTERS] for one in lines if not _NOISE.match(one) and one not in said),
        maxlen=_LAST_LINES,
    )
    if not last:
        return
    log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_BYTES))
    with tempfile.NamedTemporaryFile(
        prefix="melmill-workers-", suffix=".log", delete=False
    ) as kept:
        shutil.copyfileobj(log, kept)
    error.add_note(
        "\n  ".join([f"the last lines that workers wrote ({kept.name} has more):", *last])
    )


class _Watch:
    """A run that a lost worker is noticed of, which the direct runner waits for in vain."""

    def __init__(self) -> None:
        self.lost = ""
        self.ended = threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()
        self._outcomes: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()

    def run(self, work: Callable[[], T]) -> T:
        """Do the work; ``LostWorkerError`` where a worker is lost meanwhile."""
        try:
            return work() if self._in_main else self._run_aside(work)
        except (KeyboardInterrupt, RuntimeError) as error:
            if self.lost:
                raise LostWorkerError(self.lost) from error
            raise

    def _run_aside(self, work: Callable[[], T]) -> T:
        # Signals wake the main thread alone: another one leaves a run behind that waits in vain.
        def run() -> None:
            try:
                self._outcomes.put((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised where it was waited for
                self._outcomes.put((None, error))

        threading.Thread(target=run, name="run-pipeline", daemon=True).start()
        result, error = self._outcomes.get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def notice(self, status: str) -> None:
        """Hear how a worker ended."""
        if self.lost or (status in _INTERRUPTED and self._is_ending()):
            return
        self.lost = f"a worker process ended with status {status}"
        if not self._in_main:
            self._outcomes.put((None, LostWorkerError(self.lost)))
            return
        # Not interrupt_main, which does not wake a thread that waits for a lock; and more than
        # once, because Beam's own cleaning up may wait for the lost worker too.
        while not self.ended.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, _LOST_SIGNAL)
            self.ended.wait(_WAKING_SECONDS)

    def _is_ending(self) -> bool:
        return self.ended.wait(_HEARING_SECONDS) or interruption.happened()

    @contextlib.contextmanager
    def waking(self) -> Iterator[None]:
        """Have the lost worker's signal raise ``KeyboardInterrupt`` in the main thread."""
        before = signal.signal(_LOST_SIGNAL, signal.default_int_handler) if self._in_main else None
        try:
            yield
        finally:
            self.ended.set()
            if before is not None:
                signal.signal(_LOST_SIGNAL, before)


@contextlib.contextmanager
def watching_workers() -> Iterator[_Watch]:
    """Notice when a worker process is lost, and end all of them where the block fails."""
    watch, previous = _Watch(), threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        found = _LOST_WORKER.search(str(args.exc_value))
        if interruption.happened():
            return  # all of them are killed
        if found:
            watch.notice(found[1])
        else:
            previous(args)

    others = psutil.Process().children(recursive=True)
    threading.excepthook = hook
    try:
        with watch.waking():
            yield watch
    except BaseException:
        threading.excepthook = _say_nothing
        end_children(others)
        _await_watchers()
        raise
    finally:
        threading.excepthook = previous


def _say_nothing(args: threading.ExceptHookArgs) -> None:
    """Hear of workers that were killed on purpose."""


def _await_watchers() -> None:
    # One that outlives this run would take its lost worker for one of the next run's.
    for thread in threading.enumerate():
        if thread.name == "run_worker":
            thread.join(_ENDING_SECONDS)


def end_children(spared: Collection[psutil.Process] = ()) -> None:
    """Kill what this process has started, and what that has."""
    for child in psutil.Process().children(recursive=True):
        if child not in spared:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


interruption.ending_children(end_children)
