"""Control-C and SIGTERM at several moments: one line, the right status, no process left."""

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

SETTINGS = [f"--set={one}" for one in SMALL]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``songs``, of which the dataset ``set`` lacks one; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    extract_here(write_songs(folder / "songs", 8), folder / "set", *SMALL)
    write_song(folder / "songs" / "new.wav", 99)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


COMMANDS = {
    "extract": ["extract", "songs", "new", *SETTINGS, "--workers=2"],
    "refresh": ["refresh", "songs", "set", "--workers=2"],
    "plan": ["plan", "songs", *SETTINGS, "--workers=2"],
    "validate": ["validate", "set", "--workers=2"],
    "export": ["export", "set", "view", "--format=numpy", "--workers=2"],
    "compact": ["compact", "set", "--workers=2"],
    "takedown": ["takedown", "set", "songs/0.wav", "--yes"],
    "gc": ["gc", "set", "--keep=1", "--grace-hours=0"],
}


def command_of(name: str, folder: Path) -> list[str]:
    """The command line; catalogues' URIs are absolute."""
    words = [str(folder / w) if w.startswith("songs/") else w for w in COMMANDS[name]]
    return [sys.executable, "-m", "melmill", *words]


@contextmanager
def started(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own, as a terminal starts it."""
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


def hears(process: subprocess.Popen[str]) -> bool:
    """Whether it has its own answer to SIGTERM: Python's start-up is not ours."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def has_worker(process: subprocess.Popen[str]) -> bool:
    """Whether a Python process works for it, behind a shell or without."""
    with suppress(psutil.NoSuchProcess):
        return any("python" in one.name() for one in children(process))
    return False


#: Moments that every command comes to; the last are for those that have workers.
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
        wait_until(process, lambda: hears(process))
        wait_until(process, lambda: MOMENTS[moment](process))
        everyone = children(process)
        for _ in range(times):
            (os.killpg if group else os.kill)(process.pid, number)
            time.sleep(0.05)
        said, complained = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(everyone, timeout=30)
    assert process.returncode == 128 + number, complained
    assert said == ""
    lines = [line for line in complained.splitlines() if not line.startswith(f"{name}: ")]
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
]
ALL = [
    (name, moment, number, group)
    for name in COMMANDS
    for moment in MOMENTS
    if name in HAVE_WORKERS or moment in ("the first", "imports")
    for number in WORDS
    for group in (True, False)
]


@pytest.mark.parametrize(
    ("name", "moment", "number", "group"),
    [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in ALL if one not in QUICK)],
)
def test_a_signal_ends_the_command_in_one_line(
    name: str, moment: str, number: signal.Signals, group: bool, folder: Path
) -> None:
    check_end(name, folder, moment, number, group=group)


def test_a_second_signal_changes_nothing_but_the_time(folder: Path) -> None:
    check_end("extract", folder, "working", signal.SIGINT, group=True, times=3)


def test_the_same_command_goes_on(folder: Path) -> None:
    check_end("refresh", folder, "working", signal.SIGINT, group=True)
    check_end("takedown", folder, "later imports", signal.SIGTERM, group=False)
    # What the message says to do.
    for name in ("refresh", "takedown"):
        done = melmill(*command_of(name, folder)[3:], cwd=folder, env=_environment())
        assert done.returncode == 0, done.stderr
    assert str(folder / "songs" / "new.wav") in statuses_of(folder / "set")
    assert str(folder / "songs" / "0.wav") not in statuses_of(folder / "set")
    assert rows_of(folder / "set")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path.cwd())}


def test_a_command_in_the_background_goes_on_ignoring_control_c(folder: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with started("gc", folder) as process:
            wait_until(process, lambda: hears(process))
            os.kill(process.pid, signal.SIGINT)
            said, complained = process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 0, complained
    assert "kept" in said
