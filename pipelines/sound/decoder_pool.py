"""Decoder processes for a server: results come one by one, and a recording stays open in between.

A hostile file must not take the server down, so each recording is decoded in a child process (see
:mod:`~melmill.transforms.decode.isolation`). A child answers one call at a time. So a generator
runs in the child and keeps its state there, and each call fetches its next results.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from melmill.pipelines.config import LimitsConfig
from melmill.transforms.core.errors import RecordingError, UnavailableError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import AudioReader, open_audio
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.store.objects import StoredObject

P = ParamSpec("P")
T = TypeVar("T")

#: Number of decoder processes: two recordings that sound, and pictures of both.
PROCESSES = 4
#: Seconds that a call waits for a process.
_WAIT_SECONDS = 20.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A generator in a child: its number, and how many of its results were fetched."""

    number: int
    fetched: int


@dataclass(slots=True, eq=False)
class _Child:
    """A decoder process, and the key of the last call."""

    process: DecoderProcess
    key: str = ""
    last_used_s: float = field(default_factory=time.monotonic)


class DecoderPool:
    """Decoder processes that several threads share.

    Parameters
    ----------
    processes
        Largest number of processes. Each is started when it is needed.
    memory_bytes
        Limit for the memory of a process; by default that of a recipe.
    timeout_s
        Seconds after which a call fails; by default those of a recipe.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        memory_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        limits = LimitsConfig().spec()
        self._memory_bytes = memory_bytes or limits.memory_bytes
        self._timeout_s = timeout_s or limits.timeout_s
        self._processes = processes
        self._free = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._running = 0
        self._is_closed = False

    def call(self, key: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of a module-level function that is called in a process.

        Parameters
        ----------
        key
            Name of the work. If a process is idle that worked for this key, it is taken: there,
            :func:`keep_open` finds the recording open.
        function, args, kwargs
            Function and arguments; they must be picklable.

        Raises
        ------
        RecordingError
            See :meth:`DecoderProcess.call`.
        UnavailableError
            All processes are busy, or the pool is closed.
        """
        with self._borrow(key) as child:
            return child.process.call(self._timeout_s, function, *args, **kwargs)

    def stream(
        self, key: str, function: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        """Yield the results of a generator that runs in a process.

        If the process dies, the generator is started once more in a new process, and the results
        that were yielded before are skipped. The errors are those of :meth:`call`; what the
        generator yielded before an error is yielded first.
        """
        ticket, done = _Ticket(next(_numbers), 0), False
        with self._borrow(key) as child:
            while not done:
                results, done = child.process.call(
                    self._timeout_s, _next_results, ticket, function, args, kwargs
                )
                ticket = _Ticket(ticket.number, ticket.fetched + len(results))
                yield from cast(list[T], results)

    def close(self) -> None:
        """End all processes; those at work end after their call."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().process.close()

    @contextmanager
    def _borrow(self, key: str) -> Iterator[_Child]:
        if not self._free.acquire(timeout=_WAIT_SECONDS):
            raise UnavailableError(
                f"all {self._processes} decoder processes are busy: close other pages that draw or "
                "play recordings, or try again"
            )
        try:
            child = self._choose(key)
            try:
                yield child
            finally:
                self._give_back(child)
        finally:
            self._free.release()

    def _choose(self, key: str) -> _Child:
        """Return an idle process that knows the key, else a new one, else the longest idle one."""
        with self._lock:
            if self._is_closed:
                raise UnavailableError("the decoder processes have ended: melmill is ending")
            known = [child for child in self._idle if child.key == key]
            if not known and self._running < self._processes:
                self._running += 1
                return _Child(DecoderProcess(self._memory_bytes), key)
            child = min(known or self._idle, key=lambda child: child.last_used_s)
            self._idle.remove(child)
            child.key = key
            return child

    def _give_back(self, child: _Child) -> None:
        child.last_used_s = time.monotonic()
        with self._lock:
            if self._is_closed:
                child.process.close()
            else:
                self._idle.append(child)


# What follows runs in the child.


@dataclass(slots=True, eq=False)
class _Running:
    """The generator that runs in this process, and the error that it raised after its results."""

    ticket: _Ticket
    results: Iterator[object]
    error: RecordingError | None = None


@dataclass(slots=True, eq=False)
class _KeptReader:
    """A recording that is open in this process."""

    source: StoredObject
    audio: AudioInfo
    reader: AudioReader
    resources: ExitStack


_running: _Running | None = None
_kept: _KeptReader | None = None
#: Seconds for which results are collected before they are sent: a call costs a millisecond.
_COLLECT_SECONDS = 0.02
#: Number of frames in a block before a damage.
_SMALL_BLOCK = 1024


def _next_results(
    ticket: _Ticket,
    function: Callable[..., Iterator[object]],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> tuple[list[object], bool]:
    """Return the next results of a generator, and whether there are no more."""
    global _running
    if _running is None or _running.ticket != ticket:
        results = function(*args, **kwargs)
        for _ in range(ticket.fetched):
            next(results)
        _running = _Running(ticket, results)
    running = _running
    fetched = list(_collect(running))
    running.ticket = _Ticket(ticket.number, ticket.fetched + len(fetched))
    if running.error is not None and not fetched:
        _running = None
        raise running.error
    return fetched, not fetched


def _collect(running: _Running) -> Iterator[object]:
    until = time.monotonic() + _COLLECT_SECONDS
    try:
        for result in running.results:
            yield result
            if time.monotonic() >= until:
                return
    except RecordingError as error:
        running.error = error


@contextmanager
def keep_open(source: StoredObject, audio: AudioInfo, start: int) -> Iterator[AudioReader]:
    """Open a recording, NaN and all, or continue with the reader that this process has open.

    Codecs that cannot seek exactly are decoded from the start. A reader that is kept open continues
    where it stopped, so a recording that is played on is not decoded from the start each time.

    Parameters
    ----------
    source, audio
        Recording, and the result of its probe.
    start
        First frame that will be read.

    Raises
    ------
    RecordingError
        The recording cannot be opened or read.
    """
    global _kept
    if _kept is None or (_kept.source, _kept.audio) != (source, audio):
        _close_kept()
        resources = ExitStack()
        opened = open_audio(source, audio, start, must_be_finite=False)
        _kept = _KeptReader(source, audio, resources.enter_context(opened), resources)
    try:
        yield _kept.reader
    except Exception:
        _close_kept()
        raise


def intact_blocks(
    source: StoredObject, reader: AudioReader, start: int, stop: int, block_frames: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the frames from `start` up to `stop`, or up to a damage and then its error.

    A reader loses the block in which it finds a damage; the frames before the damage are read again
    in small blocks.
    """
    position = start
    try:
        for block in reader.blocks(start, stop, block_frames):
            position += len(block)
            yield block
    except RecordingError as error:
        if error.audio is not None and position < error.audio.frames:
            end = min(stop, error.audio.frames)
            with open_audio(source, error.audio, position, must_be_finite=False) as intact:
                yield from intact.blocks(position, end, _SMALL_BLOCK)
        raise


def _close_kept() -> None:
    global _kept
    if _kept is not None:
        kept, _kept = _kept, None
        kept.resources.close()
