"""A child process that decodes, so that no file can take its worker down.

The worker sends a function and its arguments, the child sends back what came of it. A
decoder that aborts, hangs or eats memory ends the child, costs the one recording that was
being read, and the next call starts a new child. A child that dies is replaced once before
that: others may have killed it (a machine short of memory does), and a recording is not
to be lost by that. On a healthy catalogue nothing is started twice and only small values
cross the pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any, ParamSpec, TypeVar, cast

from melmill.transforms.core.errors import Cause, RecordingError, Stage, UserError

P = ParamSpec("P")
T = TypeVar("T")

#: What is freed is kept for the next block: asking the kernel again for the same pages
#: costs a fiftieth of decoding. Both numbers in bytes.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": f"{64 << 20}", "MALLOC_MMAP_THRESHOLD_": f"{16 << 20}"}
#: What Python warns of while it imports must not pass for a decoder's last words.
_NO_WARNINGS = {"PYTHONWARNINGS": "ignore"}
#: One thread a process: many workers share a machine, and each has all its work to do.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_START_SECONDS = 120.0
_END_SECONDS = 1.0
_PROGRAM_ERROR = 70  # os.EX_SOFTWARE


class _DecoderEndedError(Exception):
    """The child ended in mid-call."""

    def __init__(self, message: str, *, was_killed: bool) -> None:
        super().__init__(message)
        self.was_killed = was_killed


class DecoderProcess:
    """Calls functions in a child process, under a limit of time and of memory.

    Parameters
    ----------
    memory_bytes
        What the child may allocate (``RLIMIT_DATA``); more is the recording's failure.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def call(
        self, timeout_s: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a module-level function in the child and return what it returns.

        If the child dies of the call, it is made once more in a new one.

        Parameters
        ----------
        timeout_s
            Wall-clock seconds after which the child is killed.
        function, args, kwargs
            Anything that pickles.

        Raises
        ------
        RecordingError
            What the function raised, or ``timeout``, ``out_of_memory`` (also where the child
            was killed twice, as a machine short of memory does it), ``decoder_crash``.
        RuntimeError
            Any other exception in the child: an error in the program, with its traceback.
            Or the child did not start.
        """
        request = pickle.dumps((function, args, kwargs))
        try:
            return cast(T, self._call(timeout_s, request))
        except _DecoderEndedError:
            pass
        try:
            return cast(T, self._call(timeout_s, request))
        except _DecoderEndedError as error:
            cause = Cause.OUT_OF_MEMORY if error.was_killed else Cause.DECODER_CRASH
            raise RecordingError(Stage.DECODE, cause, str(error)) from None

    def _call(self, timeout_s: float, request: bytes) -> Any:
        child = self._running()
        self._forget_stderr()
        try:
            outcome, value = self._exchange(child, request, timeout_s)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise self._crashed(child) from None
        except TimeoutError:
            self.close()
            message = f"not read within {timeout_s:g} s"
            raise RecordingError(Stage.DECODE, Cause.TIMEOUT, message) from None
        if outcome == "returned":
            return value
        if outcome == "failed":
            raise value
        raise RuntimeError(f"in the decoder process:\n{value}")

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self._stderr is not None:
            self._stderr.close()
        self._child = self._stderr = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = self._start()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        boot = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as m; m.serve()"
        try:
            self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the child
            child = subprocess.Popen(
                [sys.executable, "-c", boot, str(self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **_KEEP_MEMORY, **_NO_WARNINGS, **ONE_THREAD},
            )
        except OSError as error:  # else it would pass for one of the dataset's
            raise RuntimeError(f"the decoder process did not start: {error}") from error
        self._child = child
        try:
            self._receive(child, _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            said = self._last_words()
            self.close()
            raise RuntimeError(f"the decoder process did not start: {said}") from error
        return child

    def _exchange(
        self, child: subprocess.Popen[bytes], request: bytes, timeout_s: float
    ) -> tuple[str, Any]:
        stdin = cast(IO[bytes], child.stdin)
        stdin.write(request)
        stdin.flush()
        return self._receive(child, timeout_s)

    def _receive(self, child: subprocess.Popen[bytes], timeout_s: float) -> tuple[str, Any]:
        stdout = cast(IO[bytes], child.stdout)
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            raise TimeoutError
        return cast(tuple[str, Any], pickle.load(stdout))

    def _crashed(self, child: subprocess.Popen[bytes]) -> _DecoderEndedError:
        # Its last reply made no sense: it may be alive.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
        ended = child.poll() is not None
        child.kill()
        code = child.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        said = self._last_words()
        self.close()
        if code == _PROGRAM_ERROR:
            raise RuntimeError(f"the decoder process could not read a call: {said}")
        message = f"the decoder process ended with {how}" + (f": {said}" if said else "")
        return _DecoderEndedError(message, was_killed=ended and code == -signal.SIGKILL)

    def _forget_stderr(self) -> None:
        # What was said of other recordings: some decoders print a line for every odd frame.
        if self._stderr is not None:
            self._stderr.truncate(0)

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - 500))
        return " ".join(self._stderr.read().decode(errors="replace").split())


def serve() -> None:
    """Answer calls from standard input until it ends; the child's whole life."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not come between the replies
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.SimpleQueue[tuple[Any, Any, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    _reply(replies, pickle.dumps(("ready", None)))
    while True:
        _reply(replies, _outcome(*requests.get()))


def _listen(requests: queue.SimpleQueue[Any]) -> None:
    # A thread of its own, so that a child whose worker was killed dies in mid-decode.
    while True:
        try:
            requests.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            os._exit(0)
        except Exception:  # noqa: BLE001 - told to the worker, which raises it
            traceback.print_exc()
            os._exit(_PROGRAM_ERROR)


def _outcome(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    try:
        return pickle.dumps(("returned", function(*args, **kwargs)))
    except (RecordingError, UserError) as error:
        return pickle.dumps(("failed", error))
    except MemoryError:
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0] // 2**20
        message = f"needs more than the {limit} MiB that one recording may take"
        return pickle.dumps(("failed", RecordingError(Stage.DECODE, Cause.OUT_OF_MEMORY, message)))
    except BaseException:  # noqa: BLE001 - told to the worker, which raises it
        return pickle.dumps(("raised", traceback.format_exc()))


def _reply(replies: IO[bytes], reply: bytes) -> None:
    replies.write(reply)
    replies.flush()
