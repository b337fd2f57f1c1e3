"""Tests of what a decoder may do to its process, and of how its worker handles it."""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause, RecordingError, Stage, UserError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.store.objects import StoredObject

MEMORY_BYTES = 512 * 2**20


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    """Yield one decoder for all tests: after any call, the next call must find it working."""
    process = DecoderProcess(MEMORY_BYTES)
    yield process
    process.close()


def failure(decoder: DecoderProcess, seconds: float, *call: Any) -> RecordingError:
    with pytest.raises(RecordingError) as raised:
        decoder.call(seconds, *call)
    assert decoder.call(20, operator.add, 1, 2) == 3  # the next recording is read
    return raised.value


def test_a_call_gives_what_its_function_returns(decoder: DecoderProcess) -> None:
    assert decoder.call(20, divmod, 17, 5) == (3, 2)
    assert decoder.call(20, int, "ff", base=16) == 255


def test_a_healthy_decoder_is_started_once(decoder: DecoderProcess) -> None:
    assert decoder.call(20, os.getpid) == decoder.call(20, os.getpid) != os.getpid()


def test_large_arguments_and_results_pass(decoder: DecoderProcess) -> None:
    data = np.random.default_rng(0).bytes(5_000_000)
    assert decoder.call(20, bytes.swapcase, data) == data.swapcase()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((os.abort,), "SIGABRT"),
        ((ctypes.string_at, 0), "SIGSEGV"),
        ((signal.raise_signal, signal.SIGBUS), "SIGBUS"),
        ((os._exit, 5), "exit status 5"),
    ],
)
def test_a_crash_is_the_recordings_failure(
    call: tuple[Any, ...], text: str, decoder: DecoderProcess
) -> None:
    error = failure(decoder, 20, *call)
    assert (error.stage, error.cause) == (Stage.DECODE, Cause.DECODER_CRASH)
    assert text in error.message
    assert error.cause not in TRANSIENT_CAUSES  # the decoder would crash again with the same file


def test_a_process_that_is_killed_twice_lacked_memory(decoder: DecoderProcess) -> None:
    """No decoder kills itself. The kernel killed the process, and may not do so the next time."""
    error = failure(decoder, 20, signal.raise_signal, signal.SIGKILL)
    assert error.cause is Cause.OUT_OF_MEMORY
    assert error.cause in TRANSIENT_CAUSES
    assert "SIGKILL" in error.message


def test_a_crash_repeats_the_decoders_last_words(decoder: DecoderProcess) -> None:
    code = "import os; os.write(2, b'libfoo: assertion\\nfailed at frame 7\\n'); os.abort()"
    assert "libfoo: assertion failed at frame 7" in failure(decoder, 20, exec, code).message


def test_a_crash_repeats_neither_warnings_nor_what_was_said_before(decoder: DecoderProcess) -> None:
    decoder.call(20, os.write, 2, b"of another recording\n")
    code = "import os, warnings; warnings.warn('old module'); os.write(2, b'bad'); os.abort()"
    message = failure(decoder, 20, exec, code).message
    assert message == "the decoder process ended with signal SIGABRT: bad"


def test_a_decoder_that_cannot_start_is_no_fault_of_the_datasets(monkeypatch) -> None:
    decoder = DecoderProcess(MEMORY_BYTES)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(RuntimeError, match=r"did not start.*No such file"):
        decoder.call(20, os.getpid)
    decoder.close()


def test_a_failure_keeps_what_can_be_read(decoder: DecoderProcess) -> None:
    audio = AudioInfo("flac", "flac", "libsndfile+partial", 44100, 2, 4096)
    error = failure(decoder, 20, _fail, RecordingError(Stage.DECODE, Cause.CORRUPT, "", audio))
    assert (error.frames, error.audio) == (4096, audio)


def _fail(error: RecordingError) -> None:
    raise error


def test_a_process_that_is_killed_once_costs_nothing(
    decoder: DecoderProcess, tmp_path: Path
) -> None:
    """The kernel may kill a process when memory runs out, through no fault of the recording."""
    marker = tmp_path / "seen"
    code = f"import os; os.path.exists({str(marker)!r}) or os.mkdir({str(marker)!r}) or os.abort()"
    assert decoder.call(20, exec, code) is None
    assert marker.exists()


@pytest.mark.alone
def test_a_hang_is_a_timeout_and_ends_the_process(decoder: DecoderProcess) -> None:
    child = decoder.call(20, os.getpid)
    started = time.monotonic()
    error = failure(decoder, 0.3, time.sleep, 600)
    assert error.cause == Cause.TIMEOUT
    assert error.message == "decoding did not finish within 0.3 s"
    assert time.monotonic() - started < 20
    assert not psutil.pid_exists(child)


def test_a_reply_that_came_too_late_is_not_the_next_calls(decoder: DecoderProcess) -> None:
    with pytest.raises(RecordingError):
        decoder.call(0.3, time.sleep, 0.5)
    time.sleep(0.4)
    assert decoder.call(20, operator.add, 1, 2) == 3


def test_too_much_memory_is_the_recordings_failure(decoder: DecoderProcess) -> None:
    error = failure(decoder, 20, bytes, 2 * MEMORY_BYTES)
    assert error.cause is Cause.OUT_OF_MEMORY
    assert "512 MiB" in error.message


def test_memory_that_a_library_takes_counts_too(decoder: DecoderProcess) -> None:
    assert failure(decoder, 20, np.ones, 2 * MEMORY_BYTES // 8).cause is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize("stream", [1, 2])
def test_megabytes_of_chatter_do_no_harm(stream: int, decoder: DecoderProcess) -> None:
    for _ in range(3):
        assert decoder.call(20, os.write, stream, b"odd frame\n" * 300_000) == 3_000_000
    assert decoder.call(20, operator.add, 1, 2) == 3


def test_a_recordings_failure_passes_unchanged(decoder: DecoderProcess) -> None:
    error = failure(decoder, 20, StoredObject.stat, StoredObject("/no/such/recording.wav"))
    assert (error.stage, error.cause) == (Stage.READ, Cause.NOT_FOUND)


def test_a_users_error_passes_unchanged(decoder: DecoderProcess) -> None:
    with pytest.raises(UserError, match="nosuch"):
        decoder.call(20, StoredObject.open, StoredObject("nosuch://a/b.wav"))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((operator.truediv, 1, 0), "ZeroDivisionError: division by zero"),
        ((int, "seven"), "ValueError: invalid literal"),
        ((open, "/no/such/file"), "FileNotFoundError"),
        ((threading.Lock,), "cannot pickle"),
        ((sys.exit, 6), "SystemExit: 6"),
        ((np.zeros, -1), "negative dimensions"),
    ],
)
def test_an_error_in_the_program_is_raised_with_its_traceback(
    call: tuple[Any, ...], text: str, decoder: DecoderProcess
) -> None:
    with pytest.raises(RuntimeError, match="Traceback") as raised:
        decoder.call(20, *call)
    assert text in str(raised.value)
    assert decoder.call(20, operator.add, 1, 2) == 3


def test_a_call_that_cannot_travel_is_an_error_in_the_program(decoder: DecoderProcess) -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match="local object"):
        decoder.call(20, lambda: 1)
    assert decoder.call(20, operator.add, 1, 2) == 3


class _Unreadable:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return operator.truediv, (1, 0)


def test_a_call_that_cannot_be_read_is_an_error_in_the_program(decoder: DecoderProcess) -> None:
    with pytest.raises(RuntimeError, match=r"could not read a call.*ZeroDivisionError"):
        decoder.call(20, repr, _Unreadable())
    assert decoder.call(20, operator.add, 1, 2) == 3


@pytest.mark.alone
@pytest.mark.parametrize("call", [(os.closerange, 3, 64), (os.write, 3, b"no reply\n")])
def test_a_decoder_that_spoils_its_replies_does_not_stall_its_worker(
    call: tuple[Any, ...], decoder: DecoderProcess
) -> None:
    started = time.monotonic()
    with pytest.raises(RecordingError, match="decoder_crash"):
        decoder.call(20, *call)
    assert time.monotonic() - started < 15
    assert decoder.call(20, operator.add, 1, 2) == 3


def test_a_decoder_that_died_between_two_calls_is_started_again(decoder: DecoderProcess) -> None:
    child = decoder.call(20, os.getpid)
    os.kill(child, signal.SIGKILL)
    time.sleep(0.1)
    assert decoder.call(20, os.getpid) != child


def test_a_closed_decoder_leaves_no_process() -> None:
    decoder = DecoderProcess(MEMORY_BYTES)
    child = decoder.call(20, os.getpid)
    decoder.close()
    assert not psutil.pid_exists(child)
    decoder.close()


_WORKER = f"""
import os, time
from melmill.transforms.decode.isolation import DecoderProcess
decoder = DecoderProcess({MEMORY_BYTES})
print(decoder.call(60, os.getpid), flush=True)
decoder.call(600, time.sleep, 600)
"""


def test_a_decoder_dies_with_its_worker() -> None:
    command = [sys.executable, "-c", _WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        time.sleep(0.2)  # until the second call is running
        worker.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(10)
    assert not child.is_running()
