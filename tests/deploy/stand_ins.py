"""A stand-in for the command: it records its arguments and exits with a given status."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


class StandIn:
    """An executable in its own folder; run number n exits with status number n."""

    def __init__(self, folder: Path, name: str = "melmill", before: str = "") -> None:
        self.bin, self._runs = folder / "bin", folder / f"{name}.runs"
        self._statuses = folder / f"{name}.statuses"
        self.end_with(0)
        add_program(self.bin, name, f"{before}\n{self._script()}")

    def _script(self) -> str:
        runs, statuses = shlex.quote(str(self._runs)), shlex.quote(str(self._statuses))
        # No argument contains the character that separates the arguments.
        return (
            f"""{{ printf '%s\\037' "$@"; echo; }} >>{runs}\n"""
            f"""exit "$(sed -n "$(wc -l <{runs})p" {statuses})"\n"""
        )

    def end_with(self, *statuses: int) -> None:
        """Forget the recorded runs, and set the statuses of the next runs."""
        self._runs.unlink(missing_ok=True)
        self._statuses.write_text("".join(f"{status}\n" for status in statuses))

    def runs(self) -> list[Sequence[str]]:
        """Return the arguments of each run."""
        text = self._runs.read_text() if self._runs.exists() else ""
        return [line.split("\037")[:-1] for line in text.splitlines()]


def add_program(folder: Path, name: str, script: str) -> Path:
    """Put an executable shell script into a folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path
