"""Runs a pipeline from this process: live progress, lost workers, errors in plain words."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil

import transforms.errors
from pipelines.options import RUNNERS
from transforms.errors import UserError

_ATTEMPTS = 3
_LOST_WORKER = re.compile(r"Worker subprocess exited with return code (\d+)")
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
        kind = getattr(transforms.errors, name)
        if issubclass(kind, UserError):
            return kind(message.strip())  # type: ignore[no-any-return]
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
        elif not lost:
            lost.append(f"a worker process ended with status {found[1]}")
            _thread.interrupt_main()

    threading.excepthook = hook
    try:
        yield lost
    finally:
        threading.excepthook = previous
        if lost:
            end_children()


def end_children() -> None:
    """Kill what this process has started."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
