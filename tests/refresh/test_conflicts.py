"""If two runs work at once, one commits. The loser reports a conflict and leaves no files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import melmill.pipelines.compact
import melmill.pipelines.extract
import melmill.transforms.write_shards
from melmill.pipelines.cli.exit_status import Exit
from melmill.pipelines.compact import compact
from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import ConflictError
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    files_of,
    needed_files,
    rows_of,
    write_song,
    write_songs,
)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    return write_songs(tmp_path / "songs", 4)


@pytest.fixture
def dataset(songs: Path, tmp_path: Path) -> Path:
    extract_here(songs, tmp_path / "set", *SMALL)
    return tmp_path / "set"


def overtake(module: object, monkeypatch: pytest.MonkeyPatch, rival: Callable[[], object]) -> None:
    """Let another run commit just before the next run of a module would commit."""
    real = module.require_outcome  # type: ignore[attr-defined]

    def require_outcome(job: object) -> object:
        monkeypatch.undo()
        rival()
        return real(job)

    monkeypatch.setattr(module, "require_outcome", require_outcome)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((), id="the same"),
        pytest.param(("split.seed=5",), id="something else", marks=pytest.mark.slow),
    ],
)
def test_the_overtaken_refresh_leaves_nothing(
    songs: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
) -> None:
    (songs / "0.wav").unlink()
    write_song(songs / "new.wav", 50)
    before = files_of(dataset)
    overtake(
        melmill.pipelines.extract, monkeypatch, lambda: refresh_here(songs, dataset, *settings)
    )
    with pytest.raises(ConflictError, match="another run committed version 1"):
        refresh_here(songs, dataset)
    assert DeltaTable(dataset).version() == 1
    assert files_of(dataset) == before | needed_files(dataset)
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, *settings)


def test_the_overtaken_compaction_leaves_nothing(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (songs / "0.wav").unlink()
    before = files_of(dataset)
    overtake(melmill.pipelines.compact, monkeypatch, lambda: refresh_here(songs, dataset))
    with pytest.raises(ConflictError):
        compact(Store(str(dataset)), here())
    assert files_of(dataset) == before | needed_files(dataset)


def test_a_refresh_that_a_takedown_overtook_brings_nothing_back(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_song(songs / "0.wav", 50)
    erased = str(songs / "0.wav")

    overtake(
        melmill.pipelines.extract, monkeypatch, lambda: takedown(Store(str(dataset)), [erased])
    )
    with pytest.raises(ConflictError):
        refresh_here(songs, dataset)
    refresh_here(songs, dataset)
    assert erased not in {dict(row[:-1])["uri"] for row in rows_of(dataset).values()}


@pytest.mark.slow
def test_two_commands_at_once(songs: Path, dataset: Path, tmp_path: Path) -> None:
    write_song(songs / "new.wav", 50)
    write_song(songs / "1.wav", 51)
    command = [sys.executable, "-m", "melmill", "refresh", str(songs), str(dataset), "--quiet"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    statuses = sorted(process.returncode for process in processes)
    # The second run may begin after the first run's commit.
    assert statuses in ([Exit.SUCCESS, Exit.CONFLICT], [Exit.SUCCESS, Exit.SUCCESS]), outputs
    assert DeltaTable(dataset).version() == 1
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)
    before = files_of(dataset)
    assert not any(name.startswith("staging") for name in before)
    collect(Store(str(dataset)), RetentionConfig(keep_snapshots=2, grace_hours=0))
    assert files_of(dataset) == before


def test_the_overtaken_run_leaves_what_an_earlier_snapshot_holds(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rival writes shards with the same names. Then it replaces all shards by other shards.
    write_song(songs / "new.wav", 50)
    committed_rows: dict[object, object] = {}
    real = melmill.transforms.write_shards.write_shard

    def write_shard(*arguments: object) -> object:
        monkeypatch.undo()
        refresh_here(songs, dataset)
        committed_rows.update(rows_of(dataset))
        refresh_here(songs, dataset, "output.compression_level=7")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(melmill.transforms.write_shards, "write_shard", write_shard)
    with pytest.raises(ConflictError):
        refresh_here(songs, dataset)
    assert rows_of(dataset, 1) == committed_rows


def test_files_that_a_rival_has_announced_are_left_to_the_rival(
    songs: Path, tmp_path: Path
) -> None:
    """When the winner tidies up, the loser has yet to write a file that it announced."""
    from melmill.pipelines.commit import begin, discard
    from melmill.pipelines.snapshots.open import in_its_staging
    from melmill.transforms.shards.receipts import announce_shard
    from tests.pipeline_runs import make_test_job

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    job = in_its_staging(make_test_job(songs, dataset, *SMALL))
    winner, loser = begin(job), begin(job)
    late = f"split=train/part-{'a' * 32}.parquet"
    announce_shard(loser, "a" * 32, [late])
    discard(winner)
    Store(str(dataset)).put(late, b"put when the winner had tidied up")
    discard(loser)
    assert files_of(dataset) == needed_files(dataset)


def test_side_files_of_a_later_commit_are_not_overwritten(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.commit

    write_song(songs / "new.wav", 50)
    real = melmill.pipelines.commit.commit

    def commit(store: Store, *arguments: object) -> int:
        monkeypatch.undo()
        version = real(store, *arguments)
        # The takedown comes between the commit and the card.
        takedown(store, [str(songs / "0.wav")])
        return version

    monkeypatch.setattr(melmill.pipelines.commit, "commit", commit)
    result = refresh_here(songs, dataset)
    assert (result.committed, result.snapshot.version) == (True, 1)
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    card = (dataset / "README.md").read_text()
    assert f"{len(rows_of(dataset)):,} rows" in card


def test_a_rollback_does_not_describe_a_later_commit(
    dataset: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, the next snapshot's card had the statistics of the earlier version."""
    from melmill.pipelines.snapshots import history

    write_song(songs / "second.wav", 60)
    refresh_here(songs, dataset)
    write_song(songs / "third.wav", 61)
    real = history.commit

    def commit(*arguments: Any) -> int:
        version = real(*arguments)
        refresh_here(songs, dataset)
        return version

    monkeypatch.setattr(history, "commit", commit)
    history.rollback(Store(str(dataset)), 0)
    statistics = json.loads((dataset / "statistics.json").read_text())
    rows = sum(split["rows"] for split in statistics["splits"].values())
    assert rows == len(rows_of(dataset))
