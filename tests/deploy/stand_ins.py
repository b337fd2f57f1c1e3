"""Stands in for the command: notes what it was told, and ends as it is asked to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


class StandIn:
    """An executable in a folder of its own; its first run ends with the first status, and so on."""

    def __init__(self, folder: Path, name: str = "melmill", before: str = "") -> None:
        self.bin, self._runs = folder / "bin", folder / f"{name}.runs"
        self._statuses = folder / f"{name}.statuses"
        self.end_with(0)
        add_program(self.bin, name, f"{before}\n{self._script()}")

    def _script(self) -> str:
        runs, statuses = shlex.quote(str(self._runs)), shlex.quote(str(self._statuses))
        # Arguments are kept apart by a character that none of them holds.
        return (
            f"""{{ printf '%s\\037' "$@"; echo; }} >>{runs}\n"""
            f"""exit "$(sed -n "$(wc -l <{runs})p" {statuses})"\n"""
        )

    def end_with(self, *statuses: int) -> None:
        """Forget what was; from now on end with these, one a run."""
        self._runs.unlink(missing_ok=True)
        self._statuses.write_text("".join(f"{status}\n" for status in statuses))

    def runs(self) -> list[Sequence[str]]:
        """What each run was told."""
        text = self._runs.read_text() if self._runs.exists() else ""
        return [line.split("\037")[:-1] for line in text.splitlines()]


def add_program(folder: Path, name: str, script: str) -> Path:
    """Put an executable shell script into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path
