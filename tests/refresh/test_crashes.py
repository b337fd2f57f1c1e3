"""A refresh is killed at any moment: readers see nothing of it, and the next refresh finishes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    files_of,
    mentions_of,
    rows_of,
    write_song,
    write_songs,
)
from tests.refresh.machine import InThisProcess, killed_at


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    return write_songs(tmp_path / "songs", 5)


@pytest.fixture
def dataset(songs: Path, tmp_path: Path) -> Path:
    extract_here(songs, tmp_path / "set", *SMALL, "output.formats=[parquet,tfrecord]")
    write_song(songs / "new.wav", 50)
    write_song(songs / "1.wav", 51)
    (songs / "2.wav").unlink()
    return tmp_path / "set"


def assert_finished(songs: Path, dataset: Path, folder: Path) -> None:
    """Assert that the next run finishes the work, and that no file remains that is not needed."""
    refresh_here(songs, dataset)
    assert_as_fresh(songs, dataset, folder, *SMALL, "output.formats=[parquet,tfrecord]")
    store = Store(str(dataset))
    assert validate(store, 1, lambda number: None) == []
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    shards = {name.partition("part-")[2].partition(".")[0] for name in files_of(dataset)} - {""}
    twins = [name for name in files_of(dataset) if "part-" in name]
    assert len(twins) == 2 * len(shards)
    assert not any(name.startswith("staging") for name in files_of(dataset))
    indexes = {name.split("/")[1] for name in files_of(dataset) if name.startswith("index")}
    assert indexes == {require_snapshot(store).index}


MORE = [pytest.param(write, marks=pytest.mark.slow) for write in range(26) if write != 9]


@pytest.mark.parametrize("write", [9, *MORE])
def test_killed_at_a_write(songs: Path, dataset: Path, tmp_path: Path, write: int) -> None:
    before, version = rows_of(dataset), require_snapshot(Store(str(dataset))).version
    with killed_at(write):
        refresh_here(songs, dataset)
    if require_snapshot(Store(str(dataset))).version == version:
        assert rows_of(dataset) == before
    assert_finished(songs, dataset, tmp_path / "fresh")


#: A hundred moments; the default tests use one of them.
MOMENTS = [
    pytest.param(command, seed, marks=[] if (command, seed) == ("refresh", 0) else pytest.mark.slow)
    for command in ("extract", "refresh", "takedown", "gc")
    for seed in range(25)
]


@pytest.mark.parametrize(("command", "seed"), MOMENTS)
def test_killed_after_a_while(
    songs: Path, dataset: Path, tmp_path: Path, command: str, seed: int
) -> None:
    """Kill all processes of a command with SIGKILL; the same command then finishes the work.

    Half of the runs have workers.
    """
    formats = "output.formats=[parquet,tfrecord]"
    erased = str(songs / "3.wav")
    if command == "extract":
        dataset = tmp_path / "new"
    if command == "gc":
        refresh_here(songs, dataset)
    arguments = {
        "extract": [songs, dataset, *(f"--set={setting}" for setting in (*SMALL, formats))],
        "refresh": [songs, dataset],
        "takedown": [dataset, erased, "--yes"],
        "gc": [dataset, "--keep=1", "--grace-hours=0"],
    }[command]
    command_line = [sys.executable, "-m", "melmill", command, *map(str, arguments), "--quiet"]
    if workers := command in ("extract", "refresh") and seed % 2:
        command_line.append("--workers=2")
    before, version = current_rows(dataset)
    seconds = _SECONDS[command] * (2 if workers else 1)
    kill_after(np.random.default_rng(seed).uniform(0, seconds), command_line)
    if command == "gc" or current_rows(dataset)[1] == version:
        assert current_rows(dataset)[0] == before
    result = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    if command == "takedown":
        assert mentions_of(dataset, erased) == []
        Path(erased).unlink()
    assert_finished(songs, dataset, tmp_path / "fresh")


#: Approximate time that each command takes without workers.
_SECONDS = {"extract": 3.5, "refresh": 3.5, "takedown": 2, "gc": 2}


def current_rows(dataset: Path) -> tuple[object, int]:
    """Return the current snapshot's rows and version, or None and -1 if nothing is committed."""
    if not (dataset / "_delta_log").exists() or not any((dataset / "_delta_log").glob("*.json")):
        return None, -1
    return rows_of(dataset), require_snapshot(Store(str(dataset))).version


def kill_after(seconds: float, command_line: list[str]) -> None:
    null = subprocess.DEVNULL
    with subprocess.Popen(
        command_line, stdout=null, stderr=null, start_new_session=True
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_finished_shards_are_not_written_again(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The index is written first, when all shards are finished.
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", fail)
        with pytest.raises(RuntimeError):
            refresh_here(songs, dataset)
    result = refresh_here(songs, dataset)
    assert result.committed
    assert "shards_written" not in result.metrics.counters
    assert result.metrics.counters["shards_reused"] > 0


def test_a_file_that_changes_while_it_is_read_is_read_again(
    songs: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from melmill.transforms.features import spans

    real, changed = spans.read_chunks, []

    def change(span: object, features: object, source: object, *more: object) -> object:
        if not changed and str(songs / "new.wav") == source.uri:  # type: ignore[attr-defined]
            changed.append(source)
            write_song(songs / "new.wav", 52)
        return real(span, features, source, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(spans, "read_chunks", change)
    monkeypatch.setattr("melmill.transforms.beam.do_fns.borrow_decoder", lambda _: InThisProcess())
    monkeypatch.setattr("melmill.transforms.beam.do_fns.return_decoder", lambda *_: None)
    refresh_here(songs, dataset)
    assert changed
    monkeypatch.undo()
    assert_as_fresh(songs, dataset, tmp_path / "f", *SMALL, "output.formats=[parquet,tfrecord]")
