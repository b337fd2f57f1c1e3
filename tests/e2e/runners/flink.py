"""A real Flink cluster, and the command beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/flink-cluster"
RECIPE = ROOT / "configs/runners/flink-local.yaml"
RUN_SECONDS = 300


@cache
def has_namespaces() -> bool:
    """Whether loopback can be had for the cluster alone; some containers do not allow it."""
    asked = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net"]
    return subprocess.run([*asked, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Flink:
    """What ``scripts/flink-cluster`` brought up."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        # Workers get this interpreter, wherever it is installed.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        exposed = {} if has_namespaces() else {"MELMILL_FLINK_EXPOSED": "1"}
        return {**os.environ, **exposed, "MELMILL_FLINK_RUN": str(self.folder), "PATH": path}

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        command = [str(SCRIPT), *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``melmill`` beside the cluster."""
        return [str(SCRIPT), "run", sys.executable, "-m", "melmill", *arguments]

    def melmill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the real command."""
        command = self.command(*arguments)
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )

    def ask(self, path: str) -> Any:
        """Ask Flink's REST API."""
        told = self.script("run", "curl", "-s", f"http://127.0.0.1:8081/{path}")
        return json.loads(told.stdout)

    def pid(self, name: str) -> int:
        """Process of a part of the cluster."""
        return int((self.folder / f"{name}.pid").read_text().split()[0])

    def python_workers(self) -> list[psutil.Process]:
        """Beam's Python processes on all TaskManagers."""
        found = []
        for file in self.folder.glob("taskmanager-*.pid"):
            manager = psutil.Process(self.pid(file.stem))
            for process in manager.children(recursive=True):
                if process.cmdline()[-1:] == ["apache_beam.runners.worker.sdk_worker_main"]:
                    found.append(process)
        return found

    def logs(self) -> str:
        """The last of every log."""
        logs = sorted(self.folder.glob("log/*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)


@contextmanager
def flink_cluster(folder: Path) -> Iterator[Flink]:
    """Bring a cluster of two TaskManagers up, and down again."""
    flink = Flink(folder)
    started = flink.script("start", "2")
    try:
        assert started.returncode == 0, started.stderr + flink.logs()
        yield flink
    finally:
        flink.script("stop")


def kill_hard(pid: int) -> None:
    """What the kernel does to a process when memory runs out."""
    os.kill(pid, signal.SIGKILL)


def said_json(done: subprocess.CompletedProcess[str], allowed: Sequence[int] = (0,)) -> Any:
    """What a command printed with ``--json``."""
    assert done.returncode in allowed, done.stderr
    return json.loads(done.stdout)
