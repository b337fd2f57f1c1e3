"""A real Flink cluster, and the melmill command beside it."""

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
    """Return whether the cluster can have its own loopback interface; some containers forbid it."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net"]
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Flink:
    """A cluster that ``scripts/flink-cluster`` started."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        # Workers use this interpreter, wherever it is installed.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        exposed = {} if has_namespaces() else {"MELMILL_FLINK_EXPOSED": "1"}
        return {**os.environ, **exposed, "MELMILL_FLINK_RUN": str(self.folder), "PATH": path}

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the cluster's script."""
        command = [str(SCRIPT), *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of ``melmill`` beside the cluster."""
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
        """Return the answer of Flink's REST API."""
        result = self.script("run", "curl", "-s", f"http://127.0.0.1:8081/{path}")
        return json.loads(result.stdout)

    def pid(self, name: str) -> int:
        """Return the process ID of a part of the cluster."""
        return int((self.folder / f"{name}.pid").read_text().split()[0])

    def python_workers(self) -> list[psutil.Process]:
        """Return Beam's Python processes on all TaskManagers."""
        workers = []
        for file in self.folder.glob("taskmanager-*.pid"):
            manager = psutil.Process(self.pid(file.stem))
            for process in manager.children(recursive=True):
                if process.cmdline()[-1:] == ["apache_beam.runners.worker.sdk_worker_main"]:
                    workers.append(process)
        return workers

    def logs(self) -> str:
        """Return the end of every log."""
        logs = sorted(self.folder.glob("log/*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)


@contextmanager
def flink_cluster(folder: Path) -> Iterator[Flink]:
    """Start a cluster of two TaskManagers, and stop it at the end."""
    flink = Flink(folder)
    result = flink.script("start", "2")
    try:
        assert result.returncode == 0, result.stderr + flink.logs()
        yield flink
    finally:
        flink.script("stop")


def kill_hard(pid: int) -> None:
    """Kill a process as the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


def printed_json(result: subprocess.CompletedProcess[str], allowed: Sequence[int] = (0,)) -> Any:
    """Return what a command printed with ``--json``."""
    assert result.returncode in allowed, result.stderr
    return json.loads(result.stdout)
