"""Measures whole programs: CPU time and peak memory of a process tree, medians of rounds.

If a child outlives its parent, its CPU time is not counted for the parent. So this process
adopts orphans (``PR_SET_CHILD_SUBREAPER``, Linux only) and waits for them itself. Then
``RUSAGE_CHILDREN`` includes all processes that a command started, at any depth.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import psutil

T = TypeVar("T")

AUDIO_SUFFIXES = frozenset({".flac", ".mp3", ".ogg", ".wav"})
MIB = 2**20

_PR_SET_CHILD_SUBREAPER = 36
_ORPHANS_MAY_TAKE_S = 30.0
#: Role of a process, by a word in its command line.
_ROLES = {
    **{"local_beam": "worker", "sdk_worker": "worker"},
    **{"isolation": "decoder", "resource_tracker": "tracker"},
}


@dataclass(frozen=True, slots=True)
class ProcessPeak:
    """Peak memory and CPU time of a process, when it was last seen.

    Attributes
    ----------
    role
        Role of the process: ``launcher``, ``worker``, ``decoder``, ``tracker`` or ``child``.
    rss_mib
        Peak resident memory, as recorded by the kernel.
    pss_mib
        Highest memory seen, with shared pages divided among the processes that share them.
    cpu_s
        User and system time, without the process's children.
    """

    role: str
    rss_mib: float
    pss_mib: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a command.

    Attributes
    ----------
    wall_s, cpu_s
        Wall time, and user and system time of the whole process tree.
    processes
        Peak of each process that was seen alive; empty if memory was not watched.
    tree_mib
        Highest memory of the tree at one moment; shared pages are counted once.
    output
        Standard output of the command.
    """

    wall_s: float
    cpu_s: float
    processes: tuple[ProcessPeak, ...]
    tree_mib: float
    output: str

    def peaks(self) -> dict[str, float]:
        """Return the largest resident peak of each role, in MiB."""
        largest: dict[str, float] = {}
        for process in self.processes:
            largest[process.role] = max(process.rss_mib, largest.get(process.role, 0.0))
        return largest


@dataclass(slots=True)
class _Watch:
    root_pid: int
    peaks: dict[tuple[int, float], ProcessPeak] = field(default_factory=dict)
    tree_mib: float = 0.0

    def look(self) -> None:
        total = 0.0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                total += self._note(process)
        self.tree_mib = max(self.tree_mib, total)

    def _note(self, process: psutil.Process) -> float:
        role = "launcher" if process.pid == self.root_pid else _role(process.cmdline())
        rss = _kib(f"/proc/{process.pid}/status", "VmHWM:")
        pss = _kib(f"/proc/{process.pid}/smaps_rollup", "Pss:")
        key = process.pid, process.create_time()
        previous = self.peaks.get(key)
        cpu_s = sum(process.cpu_times()[:2])
        # A child has its parent's command line until it runs its own program, so the last look
        # decides the role.
        peak_pss = max(pss, previous.pss_mib) if previous else pss
        self.peaks[key] = ProcessPeak(role, rss, peak_pss, cpu_s)
        return pss


def _role(command: Sequence[str]) -> str:
    line = " ".join(command)
    return next((role for word, role in _ROLES.items() if word in line), "child")


def _kib(path: str, name: str) -> float:
    for line in Path(path).read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(f"{path} has no {name}")


def run(
    command: Sequence[str],
    *,
    watch_s: float | None = None,
    allowed: Iterable[int] = (0,),
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """Run a command, wait for all processes that it started, and return their cost.

    Parameters
    ----------
    command
        Program and arguments.
    watch_s
        Seconds between two measurements of the memory; ``None`` to measure no memory.
    allowed
        Exit statuses that do not count as a failure.
    environment
        Environment variables to set in addition to the current ones.
    """
    with _adopting_orphans(), tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before, others, started = _children_cpu_s(), _children(), time.monotonic()
        child = subprocess.Popen(
            command, stdout=out, stderr=err, env=_environment(environment or {})
        )
        watch = _Watch(child.pid)
        _wait(child, watch, watch_s)
        wall_s = time.monotonic() - started
        _reap_orphans(others)
        if child.returncode not in allowed:
            raise RuntimeError(f"{command} ended with status {child.returncode}:\n{_tail(err)}")
        out.seek(0)
        output = out.read().decode(errors="replace")
    cpu_s = _children_cpu_s() - before
    return Cost(wall_s, cpu_s, tuple(watch.peaks.values()), watch.tree_mib, output)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment; programs may write bytecode, as they normally do."""
    current = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**current, **more}


def _wait(child: subprocess.Popen[bytes], watch: _Watch, watch_s: float | None) -> None:
    while True:
        try:
            child.wait(watch_s)
        except subprocess.TimeoutExpired:
            watch.look()
        else:
            return


def _tail(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")[-4000:]


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    prctl = ctypes.CDLL(None).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("this kernel does not allow a process to adopt orphans; use Linux")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _reap_orphans(others: set[int]) -> None:
    """Wait for processes that outlived their parents; kill them after a time limit."""
    deadline = time.monotonic() + _ORPHANS_MAY_TAKE_S
    while orphans := _children() - others:
        for pid in orphans:
            if os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() > deadline:
                print(f"killed process {pid}, which did not end", file=sys.stderr)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_of(function: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU seconds of a function call in this process, and the function's result."""
    started = time.process_time()
    value = function()
    return time.process_time() - started, value


def interleave(rounds: int, contestants: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Return the results of each contestant, which runs once per round.

    Every second round runs in the opposite order. Other load on the machine changes slowly, so
    all contestants of a round have about the same load.
    """
    measured: dict[str, list[T]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            measured[name].append(contestants[name]())
    return measured


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Return the median as text, followed by the minimum and the maximum.

    >>> spread([3.0, 1.0, 2.0], digits=1)
    '2.0 (1.0–3.0)'
    """
    ordered = sorted(values)
    middle = f"{median(ordered):,.{digits}f}"
    if len(ordered) == 1:
        return middle
    return f"{middle} ({ordered[0]:,.{digits}f}–{ordered[-1]:,.{digits}f})"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


COST_HEADER = (
    "catalogue",
    "wall s",
    "CPU s",
    "launcher, MiB",
    "worker, MiB",
    "decoder, MiB",
    "all at once, MiB",
)


def cost_row(name: str, cost: Cost) -> tuple[str, ...]:
    """Return the table row with the cost of a catalogue, for :data:`COST_HEADER`."""
    peaks = cost.peaks()
    role_peaks = (peaks.get(role, 0.0) for role in ("launcher", "worker", "decoder"))
    times = f"{cost.wall_s:.1f}", f"{cost.cpu_s:.1f}"
    return name, *times, *(f"{peak:,.0f}" for peak in role_peaks), f"{cost.tree_mib:,.0f}"


def describe_machine() -> str:
    """Return a description of the machine and its current load."""
    name = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    gib = psutil.virtual_memory().total / 2**30
    busy = psutil.getloadavg()[0]
    return f"{os.cpu_count()} × {name}, {gib:.0f} GiB; load {busy:.1f} at the start"


def melmill(*arguments: object) -> list[str]:
    """Return the command line of melmill in this Python's environment."""
    return [str(Path(sys.executable).with_name("melmill")), *map(str, arguments)]


def script(name: str, *arguments: object) -> list[str]:
    """Return the command line of another script in this folder."""
    return [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]


def audio_files(catalogue: str | Path) -> list[Path]:
    """Return the sorted audio files of a folder, or the files in a table's column ``uri``."""
    catalogue = Path(catalogue)
    if catalogue.suffix == ".csv":
        with catalogue.open(newline="", encoding="utf-8") as file:
            return [Path(row["uri"]) for row in csv.DictReader(file)]
    paths = catalogue.resolve().rglob("*")
    return sorted(path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES)


def write_catalogue(path: Path, files: Iterable[Path]) -> Path:
    """Write a table of files for melmill and the baselines, and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uri"])
        writer.writerows([str(name)] for name in files)
    return path


def link_copies(files: list[Path], copies: int, folder: Path) -> list[Path]:
    """Return several links to each file, because a catalogue may list a path only once."""
    links = []
    for path in files:
        for number in range(copies):
            links.append(folder / f"{path.stem}-{number}{path.suffix}")
            links[-1].symlink_to(path)
    return links


def audio_seconds(files: Iterable[Path]) -> float:
    """Return the total duration of files, from their headers."""
    import soundfile

    return sum(soundfile.info(str(path)).duration for path in files)
