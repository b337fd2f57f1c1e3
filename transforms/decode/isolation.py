"""A child process that decodes, so that a bad file cannot crash its worker.

The worker sends a function and its arguments, and the child sends back the result. If a
decoder aborts, hangs or uses too much memory, only the child ends and only the current
recording fails. The next call starts a new child. If the child dies during a call, the call
is retried once in a new child: the child may have been killed for another reason, for
example because the machine was short of memory. On a healthy catalogue no child is started
twice, and only small values are sent through the pipe.
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
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar, cast

from melmill.transforms.core.errors import Cause, RecordingError, Stage, UserError

P = ParamSpec("P")
T = TypeVar("T")

#: Settings that make malloc keep freed memory for the next block; both values in bytes. Getting
#: the same pages from the kernel again costs a fiftieth of the decoding time.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": f"{64 << 20}", "MALLOC_MMAP_THRESHOLD_": f"{16 << 20}"}
#: No Python warnings: an import warning must not look like the message of a crashed decoder.
_NO_WARNINGS = {"PYTHONWARNINGS": "ignore"}
#: One thread per process: there is one worker process per core, and all of them are busy.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_START_SECONDS = 120.0
_END_SECONDS = 1.0
_PROGRAM_ERROR = 70  # os.EX_SOFTWARE


class _DecoderEndedError(Exception):
    """The child ended during a call."""

    def __init__(self, message: str, *, was_killed: bool) -> None:
        super().__init__(message)
        self.was_killed = was_killed


def _python_path() -> list[str]:
    """Return the folders to import from: not the user's current folder, as in workers.

    A file ``av.py`` there would be taken for the library. If melmill itself is imported from the
    current folder, the folder stays.
    """
    here = Path.cwd()
    if here == Path(__file__).parents[3]:
        return sys.path
    return [name for name in sys.path if name not in ("", str(here))]


class DecoderProcess:
    """Calls functions in a child process, with a time limit and a memory limit.

    Parameters
    ----------
    memory_bytes
        Memory limit of the child (``RLIMIT_DATA``). A recording that needs more fails.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def call(
        self, timeout_s: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return the result of a module-level function that is called in the child.

        If the child dies during the call, the call is retried once in a new child.

        Parameters
        ----------
        timeout_s
            Wall-clock seconds after which the child is killed.
        function, args, kwargs
            Function and arguments; they must be picklable.

        Raises
        ------
        RecordingError
            The error that the function raised, or ``timeout``, ``decoder_crash``, or
            ``out_of_memory`` (also if the child was killed twice, as happens on a machine that
            is short of memory).
        RuntimeError
            Any other exception in the child, which is an error in the program; the message
            contains its traceback. Also raised if the child did not start.
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
        child = self._running_child()
        self._clear_stderr()
        try:
            outcome, value = self._exchange(child, request, timeout_s)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise self._crash_error(child) from None
        except TimeoutError:
            self.close()
            message = f"decoding did not finish within {timeout_s:g} s"
            raise RecordingError(Stage.DECODE, Cause.TIMEOUT, message) from None
        if outcome == "returned":
            return value
        if outcome == "failed":
            raise value
        raise RuntimeError(f"error in the decoder process:\n{value}")

    def close(self) -> None:
        """Kill the child."""
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

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = self._start()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        boot = f"import sys; sys.path[:] = {_python_path()!r}; import {__name__} as m; m.serve()"
        try:
            self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed with the child
            child = subprocess.Popen(
                [sys.executable, "-c", boot, str(self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **_KEEP_MEMORY, **_NO_WARNINGS, **ONE_THREAD},
            )
        except OSError as error:  # an OSError would look like an error of the dataset
            raise RuntimeError(f"the decoder process did not start: {error}") from error
        self._child = child
        try:
            self._receive(child, _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            stderr_text = self._stderr_tail()
            self.close()
            raise RuntimeError(f"the decoder process did not start: {stderr_text}") from error
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

    def _crash_error(self, child: subprocess.Popen[bytes]) -> _DecoderEndedError:
        # After an invalid reply the child may still be alive.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
        had_ended = child.poll() is not None
        child.kill()
        code = child.wait()
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        stderr_text = self._stderr_tail()
        self.close()
        if code == _PROGRAM_ERROR:
            raise RuntimeError(f"the decoder process could not read a call: {stderr_text}")
        message = f"the decoder process ended with {reason}"
        message += f": {stderr_text}" if stderr_text else ""
        return _DecoderEndedError(message, was_killed=had_ended and code == -signal.SIGKILL)

    def _clear_stderr(self) -> None:
        # Drop output about earlier recordings: some decoders print a line per corrupt frame.
        if self._stderr is not None:
            self._stderr.truncate(0)

    def _stderr_tail(self) -> str:
        if self._stderr is None:
            return ""
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - 500))
        return " ".join(self._stderr.read().decode(errors="replace").split())


def serve() -> None:
    """Answer calls from standard input until it ends; the main function of the child."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of a decoder must not mix with the replies
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.SimpleQueue[tuple[Any, Any, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    _reply(replies, pickle.dumps(("ready", None)))
    while True:
        _reply(replies, _run_call(*requests.get()))


def _read_requests(requests: queue.SimpleQueue[Any]) -> None:
    # This runs in its own thread, so that the child exits during a decode if its worker is killed.
    while True:
        try:
            requests.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            os._exit(0)
        except Exception:  # noqa: BLE001 - reported to the worker, which raises it
            traceback.print_exc()
            os._exit(_PROGRAM_ERROR)


def _run_call(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    try:
        return pickle.dumps(("returned", function(*args, **kwargs)))
    except (RecordingError, UserError) as error:
        return pickle.dumps(("failed", error))
    except MemoryError:
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0] // 2**20
        message = f"decoding needs more memory than {limit} MiB, the limit for a recording"
        return pickle.dumps(("failed", RecordingError(Stage.DECODE, Cause.OUT_OF_MEMORY, message)))
    except BaseException:  # noqa: BLE001 - reported to the worker, which raises it
        return pickle.dumps(("raised", traceback.format_exc()))


def _reply(replies: IO[bytes], reply: bytes) -> None:
    replies.write(reply)
    replies.flush()
