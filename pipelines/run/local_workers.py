"""Local worker processes: notice lost workers, end all workers, and keep their output in a log."""

from __future__ import annotations

import contextlib
import logging
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
#: Exit statuses after Control-C or SIGTERM, which also reach the workers: no worker is lost then.
_INTERRUPTED = frozenset({"-2", "130", "-15", "143"})
_SIGNAL_SECONDS = 2.0
_ENDING_SECONDS = 10.0
_WAKING_SECONDS = 5.0
#: Not SIGINT: a command that a shell started in the background ignores SIGINT.
_LOST_SIGNAL = signal.SIGUSR1

#: The number of the workers' last lines that are shown, the characters of each line, and the bytes
#: of the log that are kept.
_LAST_LINES, _LINE_LENGTH, _KEPT_BYTES = 20, 300, 10 << 20
#: Lines of Beam's and gRPC's own logs; Beam also logs the errors that it raises.
_NOISE = re.compile(
    r"[A-Z]+:apache_beam\.|[IWEF]\d{4} |WARNING: All log messages before|\s*[\^~]*$"
)

#: Beam's own logger of the workers' messages. In a notebook, its lines miss the redirection.
_WORKER_MESSAGES = logging.getLogger("apache_beam.runners.portability.local_job_service")


@contextlib.contextmanager
def quiet_workers(unnoted: tuple[type[Exception], ...] = (UserError,)) -> Iterator[None]:
    """Redirect the output of local workers to a log; add its last lines to an exception.

    Workers inherit this process's standard error, and write many lines about each other.

    Parameters
    ----------
    unnoted
        Exception classes whose messages need no lines of the log.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    level = _WORKER_MESSAGES.level
    _WORKER_MESSAGES.setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except Exception as error:
            if not isinstance(error, unnoted):
                _note_last_lines(error, log)
            raise
        finally:
            _WORKER_MESSAGES.setLevel(level)
            sys.stderr.flush()
            if not interruption.happened():
                os.dup2(terminal, 2)
            os.close(terminal)


def _note_last_lines(error: Exception, log: IO[bytes]) -> None:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_BYTES))
    message = str(error)
    lines = (line.decode(errors="replace").rstrip("\n") for line in log)
    last_lines = deque(
        (line[:_LINE_LENGTH] for line in lines if not _NOISE.match(line) and line not in message),
        maxlen=_LAST_LINES,
    )
    if not last_lines:
        return
    log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_BYTES))
    with tempfile.NamedTemporaryFile(
        prefix="melmill-workers-", suffix=".log", delete=False
    ) as copy:
        shutil.copyfileobj(log, copy)
    error.add_note(
        "\n  ".join([f"the last lines that workers wrote ({copy.name} has more):", *last_lines])
    )


class _Watch:
    """A run that ends when a worker is lost; the direct runner would wait for it forever."""

    def __init__(self) -> None:
        self.lost = ""
        self.ended = threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()
        self._outcomes: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` and return its result; raise ``LostWorkerError`` if a worker is lost."""
        try:
            return work() if self._in_main else self._run_in_thread(work)
        except (KeyboardInterrupt, RuntimeError) as error:
            if self.lost:
                raise LostWorkerError(self.lost) from error
            raise

    def _run_in_thread(self, work: Callable[[], T]) -> T:
        # A signal wakes only the main thread. Any other thread runs the work in a new thread, and
        # leaves that thread waiting if a worker is lost.
        def run() -> None:
            try:
                self._outcomes.put((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
                self._outcomes.put((None, error))

        threading.Thread(target=run, name="run-pipeline", daemon=True).start()
        result, error = self._outcomes.get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def notice(self, status: str) -> None:
        """Handle the exit status of a worker that has ended."""
        if self.lost or (status in _INTERRUPTED and self._is_ending()):
            return
        self.lost = f"a worker process ended with status {status}"
        if not self._in_main:
            self._outcomes.put((None, LostWorkerError(self.lost)))
            return
        # interrupt_main would not wake a thread that waits for a lock. Send the signal more than
        # once, because Beam's cleanup may also wait for the lost worker.
        while not self.ended.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, _LOST_SIGNAL)
            self.ended.wait(_WAKING_SECONDS)

    def _is_ending(self) -> bool:
        return self.ended.wait(_SIGNAL_SECONDS) or interruption.happened()

    @contextlib.contextmanager
    def waking(self) -> Iterator[None]:
        """Make the signal for a lost worker raise ``KeyboardInterrupt`` in the main thread."""
        before = signal.signal(_LOST_SIGNAL, signal.default_int_handler) if self._in_main else None
        try:
            yield
        finally:
            self.ended.set()
            if before is not None:
                signal.signal(_LOST_SIGNAL, before)


@contextlib.contextmanager
def watching_workers() -> Iterator[_Watch]:
    """Yield a watch that notices lost workers; end all workers if the block fails."""
    watch, previous = _Watch(), threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        match = _LOST_WORKER.search(str(args.exc_value))
        if interruption.happened():
            return  # all workers are being killed
        if match:
            watch.notice(match[1])
        else:
            previous(args)

    earlier_children = psutil.Process().children(recursive=True)
    threading.excepthook = hook
    try:
        with watch.waking():
            yield watch
    except BaseException:
        threading.excepthook = _ignore
        end_children(earlier_children)
        _await_watchers()
        raise
    finally:
        threading.excepthook = previous


def _ignore(args: threading.ExceptHookArgs) -> None:
    """Ignore the errors about workers that were killed on purpose."""


def _await_watchers() -> None:
    # A thread that outlives this run would report its lost worker to the next run.
    for thread in threading.enumerate():
        if thread.name == "run_worker":
            thread.join(_ENDING_SECONDS)


def end_children(spared: Collection[psutil.Process] = ()) -> None:
    """Kill all child processes of this process, and their children, except those in `spared`."""
    for child in psutil.Process().children(recursive=True):
        if child not in spared:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


interruption.ending_children(end_children)
