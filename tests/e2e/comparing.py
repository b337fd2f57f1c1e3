"""Whether two runs made the same dataset."""

from __future__ import annotations

import json
from pathlib import Path

from deltalake import DeltaTable


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but the log and the runs' records, which tell the time of day."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = ((path.relative_to(folder), path) for path in files)
    times = ("_delta_log", "runs")
    return {str(name): path.read_bytes() for name, path in named if name.parts[0] not in times}


def added(folder: Path) -> list[str]:
    """What the log's commits add to the table, in any order."""
    commits = sorted((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for log in commits for line in log.read_text().splitlines()]
    return sorted(json.dumps(one["add"], sort_keys=True) for one in actions if "add" in one)


def assert_same_dataset(folder: Path, undisturbed: Path) -> None:
    found, wanted = contents(folder), contents(undisturbed)
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name]] == []
    assert added(folder) == added(undisturbed)
    assert DeltaTable(folder).version() == 0
    assert not (folder / "staging").exists()
