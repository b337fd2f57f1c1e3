"""Compare the datasets of two runs."""

from __future__ import annotations

import json
from pathlib import Path

from deltalake import DeltaTable


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a dataset except the log and the runs' records, which contain times."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = ((path.relative_to(folder), path) for path in files)
    skipped = ("_delta_log", "runs")
    return {str(name): path.read_bytes() for name, path in named if name.parts[0] not in skipped}


def add_actions(folder: Path) -> list[str]:
    """Return the ``add`` actions of the log's commits, sorted."""
    commits = sorted((folder / "_delta_log").glob("*.json"))
    entries = [json.loads(line) for file in commits for line in file.read_text().splitlines()]
    return sorted(json.dumps(entry["add"], sort_keys=True) for entry in entries if "add" in entry)


def assert_same_dataset(folder: Path, undisturbed: Path) -> None:
    actual, expected = contents(folder), contents(undisturbed)
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []
    assert add_actions(folder) == add_actions(undisturbed)
    assert DeltaTable(folder).version() == 0
    assert not (folder / "staging").exists()
