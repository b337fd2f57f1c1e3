"""Tests of Control-C and SIGTERM at any moment: one line, the right status, no process left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.pipeline_runs import extract_here, melmill
from tests.refresh.catalogues import SMALL, rows_of, statuses_of, write_song, write_songs

SETTINGS = [f"--set={setting}" for setting in SMALL]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.fixture(scope="module")
def original_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: ``songs``, and a dataset ``set`` without one song. Do not change it."""
    folder = tmp_path_factory.mktemp("made")
    extract_here(write_songs(folder / "songs", 8), folder / "set", *SMALL)
    write_song(folder / "songs" / "new.wav", 99)
    return folder


@pytest.fixture
def folder(original_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original_folder, tmp_path / "copy"))


COMMANDS = {
    "extract": ["extract", "songs", "new", *SETTINGS, "--workers=2"],
    "refresh": ["refresh", "songs", "set", "--workers=2"],
    "plan": ["plan", "songs", *SETTINGS, "--workers=2"],
    "validate": ["validate", "set", "--workers=2"],
    "export": ["export", "set", "view", "--format=numpy", "--workers=2"],
    "compact": ["compact", "set", "--workers=2"],
    "takedown": ["takedown", "set", "songs/0.wav", "--yes"],
    "gc": ["gc", "set", "--keep=1", "--grace-hours=0"],
    # These run in the launcher; their first child process is a decoder.
    "extract alone": ["extract", "songs", "new", *SETTINGS],
    "refresh alone": ["refresh", "songs", "set"],
}


def command_of(name: str, folder: Path) -> list[str]:
    """Return the command line; the URIs of recordings are absolute."""
    words = [str(folder / w) if w.startswith("songs/") else w for w in COMMANDS[name]]
    return [sys.executable, "-m", "melmill", *words]


@contextmanager
def started(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command in its own session, like a terminal does; kill it at the end."""
    process = subprocess.Popen(
        command_of(name, folder),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def handles_sigterm(process: subprocess.Popen[str]) -> bool:
    """Return whether our handler for SIGTERM is installed; until then, Python is starting."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught_signals = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught_signals >> (signal.SIGTERM - 1) & 1)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def has_worker(process: subprocess.Popen[str]) -> bool:
    """Return whether the command has started a Python process: a worker, or a decoder."""
    with suppress(psutil.NoSuchProcess):
        return any("python" in child.name() for child in children(process))
    return False


#: Moments in the run of a command; the last two are only for commands that have workers.
MOMENTS: dict[str, Callable[[subprocess.Popen[str]], object]] = {
    "the first": lambda process: True,
    "imports": lambda process: time.sleep(0.1) or True,
    "later imports": lambda process: time.sleep(0.5) or True,
    "first worker": has_worker,
    "working": lambda process: has_worker(process) and (time.sleep(1.2) or True),
}
HAVE_WORKERS = ("extract", "refresh", "plan", "validate", "export", "compact")


def check_end(
    name: str, folder: Path, moment: str, number: signal.Signals, *, group: bool, times: int = 1
) -> None:
    with started(name, folder) as process:
        wait_until(process, lambda: handles_sigterm(process))
        wait_until(process, lambda: MOMENTS[moment](process))
        processes = children(process)
        for _ in range(times):
            (os.killpg if group else os.kill)(process.pid, number)
            time.sleep(0.05)
        output, errors = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(processes, timeout=30)
    assert process.returncode == 128 + number, errors
    assert output == ""
    lines = [line for line in errors.splitlines() if not line.startswith(f"{name.split()[0]}: ")]
    assert lines == [
        f"melmill: {WORDS[number]}; finished work is kept, run the same command again to continue"
    ]
    assert alive == []


QUICK = [
    ("extract", "the first", signal.SIGINT, True),
    ("extract", "imports", signal.SIGTERM, False),
    ("extract", "first worker", signal.SIGINT, True),
    ("extract", "working", signal.SIGTERM, True),
    ("refresh", "working", signal.SIGINT, True),
    ("refresh", "first worker", signal.SIGTERM, False),
    ("plan", "working", signal.SIGINT, False),
    ("validate", "first worker", signal.SIGINT, True),
    ("export", "working", signal.SIGTERM, True),
    ("compact", "first worker", signal.SIGTERM, False),
    ("takedown", "later imports", signal.SIGINT, True),
    ("gc", "imports", signal.SIGTERM, True),
    ("extract alone", "first worker", signal.SIGINT, True),
    ("refresh alone", "first worker", signal.SIGTERM, False),
]
ALONE = ("extract alone", "refresh alone")
ALL = [
    (name, moment, number, group)
    for name in COMMANDS
    for moment in MOMENTS
    if name in HAVE_WORKERS
    or moment in ("the first", "imports")
    or (name in ALONE and moment == "first worker")
    for number in WORDS
    for group in (True, False)
]


@pytest.mark.parametrize(
    ("name", "moment", "number", "group"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in QUICK)],
)
def test_a_signal_ends_the_command_in_one_line(
    name: str, moment: str, number: signal.Signals, group: bool, folder: Path
) -> None:
    check_end(name, folder, moment, number, group=group)


def test_an_interrupted_refresh_leaves_no_record_of_a_failure(folder: Path) -> None:
    check_end("refresh alone", folder, "first worker", signal.SIGTERM, group=False)
    assert not (folder / "set" / "runs").exists()


def test_a_second_signal_changes_nothing_but_the_time(folder: Path) -> None:
    check_end("extract", folder, "working", signal.SIGINT, group=True, times=3)


def test_the_same_command_goes_on(folder: Path) -> None:
    check_end("refresh", folder, "working", signal.SIGINT, group=True)
    check_end("takedown", folder, "later imports", signal.SIGTERM, group=False)
    # Do what the message says.
    for name in ("refresh", "takedown"):
        process = melmill(*command_of(name, folder)[3:], cwd=folder, env=_environment())
        assert process.returncode == 0, process.stderr
    assert str(folder / "songs" / "new.wav") in statuses_of(folder / "set")
    assert str(folder / "songs" / "0.wav") not in statuses_of(folder / "set")
    assert rows_of(folder / "set")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path.cwd())}


def test_a_command_in_the_background_goes_on_ignoring_control_c(folder: Path) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with started("gc", folder) as process:
            wait_until(process, lambda: handles_sigterm(process))
            os.kill(process.pid, signal.SIGINT)
            output, errors = process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert process.returncode == 0, errors
    assert "kept" in output
