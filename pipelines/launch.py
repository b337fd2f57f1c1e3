"""Runs a pipeline from this process: live progress, lost workers, errors in plain words."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psutil

import transforms.errors
from pipelines.memory import tune_allocation
from pipelines.options import RUNNERS
from transforms.errors import UserError

_ATTEMPTS = 3
_LOST_WORKER = re.compile(r"Worker subprocess exited with return code (-?\d+)")
#: Control-C reaches the workers too; what is to be done then, this process does.
_INTERRUPTED = frozenset({"-2", "130"})
_ENDING_SECONDS = 10.0
_WAKING_SECONDS = 5.0
#: Not the one of Control-C: a command that a shell started in the background ignores that.
_LOST_SIGNAL = signal.SIGUSR1
_USER_ERROR = re.compile(r"transforms\.errors\.(\w+): (.*?)(?= \[while running|\n\n|\Z)", re.DOTALL)


class LostWorkerError(Exception):
    """A worker process of the direct runner ended in mid-run."""


def run_pipeline(build: Callable[[Any], object], options: Any) -> Any:
    """Run a pipeline to its end, again if a local worker process is lost.

    Every step may be repeated, and finished shards are found again, so another attempt
    costs only what was in the making.

    Parameters
    ----------
    build
        Applies the transforms to the pipeline that it is given.
    options
        Beam's.

    Raises
    ------
    UserError
        What a worker raised, in its own words.
    LostWorkerError
        Workers were lost in every attempt.
    """
    tune_allocation()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _run_once(build, options)
        except LostWorkerError as error:
            if attempt == _ATTEMPTS:
                raise
            logging.getLogger("melmill").warning("%s; starting again", error)
    raise AssertionError("unreachable")


def _run_once(build: Callable[[Any], object], options: Any) -> Any:
    import apache_beam as beam

    with _quiet_workers(options), _watching_workers() as lost:
        try:
            pipeline = beam.Pipeline(options=options)
            build(pipeline)
            result = pipeline.run()
            result.wait_until_finish()
        except KeyboardInterrupt:
            if lost:
                raise LostWorkerError(lost[0]) from None
            raise
        except RuntimeError as error:
            if lost:
                raise LostWorkerError(lost[0]) from error
            raise _plain(error) from error
    return result


def _plain(error: RuntimeError) -> Exception:
    """Find the user's error in what Beam makes of it."""
    if found := _USER_ERROR.findall(str(error)):
        name, message = found[-1]
        kind = getattr(transforms.errors, name, Exception)
        if issubclass(kind, UserError):
            return kind(message.strip())
    return error


@contextlib.contextmanager
def _quiet_workers(options: Any) -> Iterator[None]:
    """Keep what local workers log out of the terminal.

    They inherit this process's standard error, and say many lines about each other.
    """
    if options.get_all_options()["runner"] != RUNNERS["direct"]:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


@contextlib.contextmanager
def _watching_workers() -> Iterator[list[str]]:
    """Notice when a worker process is lost, which the direct runner waits for in vain."""
    lost: list[str] = []
    previous = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        found = _LOST_WORKER.search(str(args.exc_value))
        if not found:
            previous(args)
        elif not lost and found[1] not in _INTERRUPTED:
            lost.append(f"a worker process ended with status {found[1]}")
            _wake_main(heard)

    heard = threading.Event()
    others = psutil.Process().children(recursive=True)
    threading.excepthook = hook
    before = signal.signal(_LOST_SIGNAL, signal.default_int_handler)
    try:
        yield lost
    except BaseException:
        heard.set()
        threading.excepthook = _say_nothing
        end_children(others)
        _await_watchers()
        raise
    finally:
        heard.set()
        threading.excepthook = previous
        signal.signal(_LOST_SIGNAL, before)


def _wake_main(heard: threading.Event) -> None:
    # Not interrupt_main, which does not wake a thread that waits for a lock; and more than
    # once, because Beam's own cleaning up may wait for the lost worker too.
    while not heard.is_set():
        signal.pthread_kill(threading.main_thread().ident or 0, _LOST_SIGNAL)
        heard.wait(_WAKING_SECONDS)


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
