"""Snapshots over time: history, diff, rollback, checkout, gc, compact and takedown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.compact import compact
from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.snapshots.gc import _garbage, choose, collect
from melmill.pipelines.snapshots.history import (
    _aligned,
    _compare_parts,
    checkout,
    compare,
    count_changes,
    history,
    rollback,
)
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.catalogue.taken_down_list import read_taken_down
from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.index.tables import write_part
from melmill.transforms.shards.merging import ShardSize, plan_merges
from melmill.transforms.snapshot.delta import Past, Snapshot, require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, melmill, melmill_json, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    files_of,
    needed_files,
    rows_of,
    statuses_of,
    write_song,
    write_songs,
)

DAY_MS = 86_400_000
#: Files of a dataset with twins that no snapshot names.
SIDE_FILES = {"tfrecord/files.json", "tfrecord/features.json"}
TWINS = "output.formats=[parquet,tfrecord]"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs and a dataset of three versions.

    Version 0 has six songs. For version 1, a song is added, a song is removed and a song is
    changed. Version 2 has the songs of version 1 with five mel bands.
    """
    folder = tmp_path_factory.mktemp("versions")
    songs = write_songs(folder / "songs")
    extract_here(songs, folder / "set", *SMALL, TWINS)
    write_song(songs / "new.wav", 77)
    write_song(songs / "1.wav", 78)
    (songs / "2.wav").unlink()
    refresh_here(songs, folder / "set")
    refresh_here(songs, folder / "set", "mel.n_mels=5")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder. The index still has the URIs of the original songs."""
    shutil.copytree(original / "set", tmp_path / "set")
    shutil.copytree(original / "songs", tmp_path / "songs", copy_function=shutil.copy2)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(str(folder / "set"))


def is_whole(store: Store) -> bool:
    return validate(store, 1, lambda number: None) == []


# history, diff


def test_the_history_tells_what_was_done(store: Store) -> None:
    entries = [
        (entry["version"], entry["operation"], entry["recordings"]) for entry in history(store)
    ]
    assert entries == [(2, "refresh", 6), (1, "refresh", 6), (0, "extract", 6)]
    assert [entry["dataset_version"] for entry in history(store)] == [2, 1, 1]
    assert all(entry["kept"] for entry in history(store))


def test_the_difference_names_recordings_and_counts_rows(store: Store) -> None:
    changes = {Path(change.uri).name: change for change in compare(store, 0, 1)}
    assert {name: change.kind for name, change in changes.items()} == {
        "new.wav": "added",
        "1.wav": "changed",
        "2.wav": "removed",
    }
    assert (changes["2.wav"].rows_before, changes["2.wav"].rows_after) == (8, 0)
    counts = count_changes(compare(store, 0, 1))
    assert counts["recordings"] == {"added": 1, "changed": 1, "removed": 1}
    assert counts["rows"] == {"added": 8, "changed": 8, "removed": 8}
    assert count_changes(compare(store, 1, 0))["recordings"]["added"] == 1
    assert list(compare(store, 1, 1)) == []
    assert {change.kind for change in compare(store, 1, 2)} == {"changed"}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3)])
def test_indexes_that_are_divided_differently_are_compared(
    tmp_path: Path, before: int, after: int
) -> None:
    store = Store(str(tmp_path))
    all_ids = [digest(str(number)) for number in range(40)]
    for index, parts, ids in (("a", before, all_ids[:30]), ("b", after, all_ids[10:])):
        for part in range(parts):
            rows = [
                {"recording_id": recording_id, "uri": recording_id, "status": "ok", "rows": 1}
                for recording_id in ids
                if bucket(recording_id, parts) == part
            ]
            write_part(store, index, "recordings", part, rows)
    sides = [
        Snapshot(0, index, {}, "", "", parts=parts)
        for index, parts in (("a", before), ("b", after))
    ]
    changes = [
        (change.kind, change.uri)
        for old_part, new_part in _aligned(store, *sides)
        for change in _compare_parts(old_part, new_part)
    ]
    expected = [("removed", recording_id) for recording_id in all_ids[:10]] + [
        ("added", recording_id) for recording_id in all_ids[30:]
    ]
    assert sorted(changes) == sorted(expected)


def test_versions_that_are_missing_are_named(store: Store) -> None:
    for version in (3, 99):
        with pytest.raises(DatasetError, match=f"version {version} is not in its.*kept: 2, 1, 0"):
            list(compare(store, version, 0))


# rollback, checkout


@pytest.mark.parametrize("version", [0, 1])
def test_a_rollback_restores_the_rows_of_its_version(
    store: Store, folder: Path, version: int
) -> None:
    expected = rows_of(folder / "set", version)
    snapshot = rollback(store, version).snapshot
    assert (snapshot.version, snapshot.operation) == (3, "rollback")
    assert rows_of(folder / "set") == expected
    assert is_whole(store)


def test_a_rollback_to_the_current_version_does_nothing(store: Store) -> None:
    assert rollback(store, 2).snapshot.version == 2


def test_a_rollback_is_refreshed_again(store: Store, folder: Path) -> None:
    rollback(store, 0)
    refresh_here(folder / "songs", folder / "set")
    assert_as_fresh(folder / "songs", folder / "set", folder / "fresh", *SMALL)


def test_a_rollback_to_a_version_that_lacks_a_shard_is_refused(store: Store, folder: Path) -> None:
    old_files = {path for path, _ in _files(folder / "set", 0)} - {
        path for path, _ in _files(folder / "set", 2)
    }
    (folder / "set" / min(old_files)).unlink()
    with pytest.raises(DatasetError, match=f"shard {min(old_files)} is missing"):
        rollback(store, 0)
    assert DeltaTable(folder / "set").version() == 2


def _files(dataset: Path, version: int) -> list[tuple[str, int]]:
    actions = DeltaTable(dataset, version=version).get_add_actions(flatten=True)
    return list(
        zip(*(actions.column(name).to_pylist() for name in ("path", "size_bytes")), strict=True)
    )


def test_a_checkout_is_read_by_datasets(store: Store, folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    checkout(store, 0, folder / "old")
    loaded = datasets.load_dataset(str(folder / "old"), cache_dir=str(folder / "cache"))
    ids = {(row["recording_id"], row["chunk_index"]) for part in loaded.values() for row in part}
    assert ids == {key[:2] for key in rows_of(folder / "set", 0)}
    files = json.loads((folder / "old" / "files.json").read_text())
    assert all(
        Path(name).is_file()
        for splits in files.values()
        for names in splits.values()
        for name in names
    )
    with pytest.raises(DatasetError, match="is not empty"):
        checkout(store, 1, folder / "old")


# gc


def past(version: int, day: float) -> Past:
    snapshot = Snapshot(version, f"index-{version}", {}, "/songs", "{}")
    return Past(snapshot, round(day * DAY_MS), kept=True)


def test_the_latest_and_the_recently_current_versions_are_kept() -> None:
    entries = [past(3, 30), past(2, 29), past(1, 20), past(0, 0)]

    def kept_versions(**settings: float) -> list[int]:
        retention = RetentionConfig(**{"keep_snapshots": 1, "grace_hours": 0, **settings})  # type: ignore[arg-type]
        return [entry.snapshot.version for entry in choose(entries, retention, 31 * DAY_MS)]

    assert kept_versions() == [3]
    assert kept_versions(keep_snapshots=2) == [3, 2]
    # Version 1 was current until day 29, version 0 until day 20.
    assert kept_versions(keep_days=3) == [3, 2, 1]
    assert kept_versions(keep_days=12) == [3, 2, 1, 0]
    assert kept_versions(grace_hours=24 * 3) == [3, 2, 1]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_gc_keeps_what_it_is_told_to(store: Store, folder: Path, keep: int) -> None:
    before = {version: rows_of(folder / "set", version) for version in range(3)}
    collected = collect(store, RetentionConfig(keep_snapshots=keep, grace_hours=0))
    assert collected.kept == list(range(3 - keep, 3))
    for version in collected.kept:
        assert rows_of(folder / "set", version) == before[version]
    assert [entry["kept"] for entry in history(store)] == [True] * keep + [False] * (3 - keep)
    if keep < 3:
        with pytest.raises(DatasetError, match=r"version 0 is no longer kept; kept: 2"):
            rollback(store, 0)
    # Delta's own vacuum finds nothing more to remove.
    vacuum = DeltaTable(folder / "set").vacuum
    garbage = vacuum(0, enforce_retention_duration=False, keep_versions=collected.kept)
    assert [name for name in garbage if (folder / "set" / name).exists()] == []


def test_gc_removes_orphans_twins_indexes_and_staging(store: Store, folder: Path) -> None:
    shard, index, run = "a" * 32, "b" * 32, "c" * 16
    twins = [f"split=train/part-{shard}.parquet", f"tfrecord/train/part-{shard}.tfrecord"]
    leave_behind(folder / "set", *twins, f"index/{index}/recordings-00000.parquet")
    leave_behind(folder / "set", f"staging/{run}/started", f"staging/{run}/scratch/{'d' * 32}")
    for name, content in ((shard, {"shard": shard, "files": twins}), (index, {"index": index})):
        store.put(f"staging/{run}/made/{name}.json", json.dumps(content).encode())
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    assert files_of(folder / "set") - needed_files(folder / "set") == SIDE_FILES
    assert not (folder / "set" / "staging").exists()


def leave_behind(dataset: Path, *names: str) -> None:
    for name in names:
        (dataset / name).parent.mkdir(parents=True, exist_ok=True)
        (dataset / name).write_bytes(b"left behind")


def test_gc_and_takedown_leave_the_users_files(store: Store, folder: Path) -> None:
    mine = [
        *("mine.txt", "index/songs/a.wav", "index/recordings-00000.parquet", "staging/note.txt"),
        *("staging/0123456789abcdef/my.json", "split=train/b.wav", "tfrecord/train/c.tfrecord"),
        *(f"index/{require_snapshot(store).index}/d.wav", f"index/{'e' * 32}/f.wav"),
        *("runs/mine.json", "taken_down/mine.jsonl", "split=mine/part-1.parquet"),
        # These names look like the names of our files, but none of our records has them.
        *(f"index/{'0' * 32}/shards-00000.parquet", f"tfrecord/x/part-{'0' * 32}.tfrecord"),
    ]
    leave_behind(folder / "set", *mine)
    (folder / "set" / "index" / "empty").mkdir()
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    assert all((folder / "set" / name).exists() for name in mine)
    takedown(store, [min(statuses_of(folder / "set"))])
    assert all((folder / "set" / name).exists() for name in mine[:-2])
    assert (folder / "set" / "index" / "empty").is_dir()


def test_gc_leaves_young_files(store: Store, folder: Path) -> None:
    before = files_of(folder / "set")
    collected = collect(store, RetentionConfig(keep_snapshots=1, grace_hours=1))
    assert (collected.files, collected.kept) == ([], [0, 1, 2])
    assert files_of(folder / "set") == before


def test_a_clock_that_goes_backwards_keeps_more(store: Store, folder: Path) -> None:
    before = files_of(folder / "set")
    yesterday = time.time_ns() // 1_000_000 - DAY_MS
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0), now_ms=yesterday)
    assert files_of(folder / "set") == before


def test_gc_leaves_what_a_running_run_has_finished(store: Store, folder: Path) -> None:
    # A run was interrupted long ago, and has just begun again.
    (folder / "songs" / "7.wav").write_bytes((folder / "songs" / "3.wav").read_bytes())
    _interrupted_refresh(folder)
    before = files_of(folder / "set")
    soon = time.time_ns() // 1_000_000 + 3_600_000
    _age(folder / "set", 10)
    (staging,) = (folder / "set" / "staging").iterdir()
    next((staging / "attempts").iterdir()).touch()
    collect(store, RetentionConfig(keep_snapshots=3, grace_hours=24), now_ms=soon)
    assert files_of(folder / "set") == before
    _age(folder / "set", 10)
    collect(store, RetentionConfig(keep_snapshots=3, grace_hours=24), now_ms=soon)
    assert len(files_of(folder / "set")) < len(before)
    assert not (folder / "set" / "staging").exists()


def test_gc_stops_if_an_old_run_continues_meanwhile(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "songs" / "7.wav").write_bytes((folder / "songs" / "3.wav").read_bytes())
    _interrupted_refresh(folder)
    soon = time.time_ns() // 1_000_000 + 3_600_000
    _age(folder / "set", 10)
    real, retention = _garbage, RetentionConfig(keep_snapshots=3, grace_hours=24)

    def slow(*arguments: Any) -> dict[str, int]:
        garbage = real(*arguments)
        _interrupted_refresh(folder)
        return garbage

    monkeypatch.setattr("melmill.pipelines.snapshots.gc._garbage", slow)
    with pytest.raises(ConflictError, match="a run began just now; run gc again"):
        collect(store, retention, now_ms=soon)
    monkeypatch.undo()
    assert collect(store, retention, now_ms=soon).files == []
    result = refresh_here(folder / "songs", folder / "set")
    assert result.committed
    assert "shards_written" not in result.metrics.counters


def test_gc_is_not_stopped_by_what_a_running_run_writes(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted_refresh(folder)
    (staging,) = (folder / "set" / "staging").iterdir()
    real = _garbage

    def slow(*arguments: Any) -> dict[str, int]:
        garbage = real(*arguments)
        (staging / "shards" / f"{'0' * 32}.json").write_text("{}")
        return garbage

    monkeypatch.setattr("melmill.pipelines.snapshots.gc._garbage", slow)
    collect(store, RetentionConfig(keep_snapshots=3, grace_hours=24))


def _interrupted_refresh(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", _fail)
        with pytest.raises(RuntimeError):
            refresh_here(folder / "songs", folder / "set")


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("the machine went down")


def _age(folder: Path, days: float) -> None:
    modified = time.time() - 86_400 * days
    for path in folder.rglob("*"):
        os.utime(path, (modified, modified))


def test_a_dry_run_removes_nothing(store: Store, folder: Path) -> None:
    before = files_of(folder / "set")
    expected = collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0), dry_run=True)
    assert files_of(folder / "set") == before
    assert expected == collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))


# compact


def test_a_compaction_keeps_every_row(store: Store, folder: Path) -> None:
    refresh_here(folder / "songs", folder / "set")
    before = rows_of(folder / "set")
    result = compact(store, here())
    assert result.committed
    assert result.shards < result.merged
    assert rows_of(folder / "set") == before
    assert is_whole(store)
    assert count_changes(compare(store, 3, 4))["recordings"] == dict.fromkeys(
        ("added", "changed", "removed"), 0
    )
    assert not compact(store, here()).committed
    assert not refresh_here(folder / "songs", folder / "set").committed


def test_a_merged_shard_has_the_order_of_a_shard_that_was_written_whole(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 8)
    settings = ("split.fractions={train: 1.0}", "output.order_seed=3", "output.row_group_rows=128")
    extract_here(songs, tmp_path / "many", *SMALL, *settings, "output.min_shards=5")
    extract_here(songs, tmp_path / "whole", *SMALL, *settings, "output.min_shards=1")
    compact(Store(str(tmp_path / "many")), here())
    (merged_shard,), (whole_shard,) = _current(tmp_path / "many"), _current(tmp_path / "whole")
    assert _order(merged_shard) == _order(whole_shard)


def _current(dataset: Path) -> list[Path]:
    return [dataset / name for name, _ in _files(dataset, DeltaTable(dataset).version())]


def _order(path: Path) -> list[str]:
    names: list[str] = pq.ParquetFile(path).read(["recording_id"])["recording_id"].to_pylist()
    return list(dict.fromkeys(names))


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 120)), max_size=30),
    st.integers(50, 200),
    st.integers(1, 1000),
)
def test_merges_are_of_small_shards_and_not_larger_than_the_target(
    sizes: list[tuple[int, int]], target: int, open_rows: int
) -> None:
    shards = {f"{i}": ShardSize(f"{i}", "train", *size) for i, size in enumerate(sizes)}
    merges = list(plan_merges(list(shards.values()), target, open_rows))
    merged = [name for merge in merges for name in merge]
    assert len(merged) == len(set(merged))
    for merge in merges:
        assert len(merge) > 1
        assert sum(shards[name].parquet_bytes for name in merge) <= target
        assert all(2 * shards[name].parquet_bytes < target for name in merge)
        assert sum(shards[name].rows for name in merge[:-1]) < open_rows


# takedown


def test_a_takedown_erases_from_every_kept_snapshot(store: Store, folder: Path) -> None:
    uri = next(name for name in statuses_of(folder / "set") if name.endswith("/3.wav"))
    expected = {version: _without(rows_of(folder / "set", version), uri) for version in range(3)}
    result = takedown(store, [uri])
    assert (result.snapshot.version, result.versions) == (3, [0, 1, 2])
    assert rows_of(folder / "set") == expected[2]
    assert is_whole(store)
    assert _mentions(folder / "set", uri) == []
    entries = history(store)
    assert [entry["recordings"] for entry in entries] == [5, 5, 5, 5]
    for version in range(2):
        rollback(store, version)
        assert rows_of(folder / "set") == expected[version]
    (record,) = read_taken_down(store, require_snapshot(store).taken_down)
    assert record.uri == uri


def _without(rows: dict[tuple, tuple], uri: str) -> dict[tuple, tuple]:  # type: ignore[type-arg]
    return {key: row for key, row in rows.items() if ("uri", uri) not in row}


def _mentions(dataset: Path, uri: str) -> list[str]:
    """Return the names of Parquet and TFRecord files that mention the recording."""
    names = []
    for path in dataset.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            if "uri" in table.column_names and uri in table["uri"].to_pylist():
                names.append(path.name)
        elif path.suffix == ".tfrecord" and uri.encode() in path.read_bytes():
            names.append(path.name)
    return names


def test_what_was_taken_down_does_not_come_back(store: Store, folder: Path) -> None:
    uri = next(name for name in statuses_of(folder / "set") if name.endswith("/3.wav"))
    takedown(store, [uri])
    write_song(folder / "songs" / "3.wav", 99)
    for _ in range(2):
        refresh_here(folder / "songs", folder / "set")
        assert not any(name.endswith("/3.wav") for name in statuses_of(folder / "set"))
    extract_here(folder / "songs", folder / "set", *SMALL, overwrite=True)
    assert not any(name.endswith("/3.wav") for name in statuses_of(folder / "set"))


def test_an_interrupted_takedown_is_finished(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = next(name for name in statuses_of(folder / "set") if name.endswith("/3.wav"))
    with monkeypatch.context() as patch:
        patch.setattr("melmill.pipelines.takedown.erase_leftovers", _fail)
        with pytest.raises(RuntimeError):
            takedown(store, [uri])
    assert _mentions(folder / "set", uri) != []
    result = takedown(store, [uri])
    assert len(result.files) > 0
    assert _mentions(folder / "set", uri) == []


def test_a_takedown_of_nothing_known_erases_nothing(store: Store, folder: Path) -> None:
    before = files_of(folder / "set")
    with pytest.raises(DatasetError, match=r"no kept snapshot has /nowhere\.wav"):
        takedown(store, ["/nowhere.wav"])
    assert files_of(folder / "set") == before


def test_orphans_are_erased_too(store: Store, folder: Path) -> None:
    uri = next(name for name in statuses_of(folder / "set") if name.endswith("/3.wav"))
    for path, _ in _files(folder / "set", 0):
        orphan = (folder / "set" / path).with_name(f"part-{'1' * 31}{len(path) % 10}.parquet")
        orphan.write_bytes((folder / "set" / path).read_bytes())
    takedown(store, [uri])
    assert _mentions(folder / "set", uri) == []


def test_an_interrupted_takedown_is_finished_by_a_takedown_of_another_recording(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(statuses_of(folder / "set"))[:2]
    with monkeypatch.context() as patch:
        patch.setattr("melmill.pipelines.takedown.erase_leftovers", _fail)
        with pytest.raises(RuntimeError):
            takedown(store, [first])
    takedown(store, [first, second])
    assert _mentions(folder / "set", first) == _mentions(folder / "set", second) == []


def test_indexes_that_were_never_committed_are_erased_too(store: Store, folder: Path) -> None:
    uri = min(statuses_of(folder / "set"))
    index = require_snapshot(store).index
    shutil.copytree(folder / "set" / "index" / index, folder / "set" / "index" / ("1" * 32))
    takedown(store, [uri])
    assert _mentions(folder / "set", uri) == []


@pytest.mark.parametrize(
    "command", [compact, collect, takedown], ids=lambda command: command.__name__
)
def test_the_card_is_repaired_by_the_next_command(
    store: Store, folder: Path, command: object
) -> None:
    compact(store, here())
    card = (folder / "set" / "README.md").read_text()
    (folder / "set" / "README.md").write_text("of some snapshot before")
    if command is compact:
        compact(store, here())
    elif command is collect:
        collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    else:
        takedown(store, [min(statuses_of(folder / "set"))])
        card = card.partition("# Log-mel")[0][:10]
    assert (folder / "set" / "README.md").read_text().startswith(card)


def test_gc_says_what_it_cannot_remove(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "remove", lambda *_: None)
    with pytest.raises(DatasetError, match="cannot be removed"):
        collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))


# Commands


#: A program that runs commands one after another, because its start takes longer than they do.
RUN_EACH = """
import contextlib, io, json, sys
from melmill.__main__ import main
outputs = []
for command in json.loads(sys.argv[1]):
    sys.argv[1:], output = command, io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            main()
        except SystemExit as end:
            assert not end.code, command
    outputs.append(output.getvalue())
print(json.dumps(outputs))
"""


def run_each(*commands: tuple[str | Path, ...]) -> list[str]:
    """Run commands that succeed, in one new process; return what each prints."""
    arguments = json.dumps([[str(word) for word in command] for command in commands])
    program = [sys.executable, "-c", RUN_EACH, arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def test_the_commands_print_results(folder: Path) -> None:
    dataset = folder / "set"
    in_json, told, difference, listed, rolled_back, compacted, copied, dry_run, gc = run_each(
        ("history", dataset, "--json"),
        ("history", dataset),
        ("diff", dataset, "0", "1", "--json"),
        ("diff", dataset, "0", "1", "--list"),
        ("rollback", dataset, "0"),
        ("compact", dataset, "--json"),
        ("checkout", dataset, "0", folder / "old"),
        ("gc", dataset, "--keep", "1", "--grace-hours", "0", "--dry-run", "--json"),
        ("gc", dataset, "--keep=1", "--grace-hours=0"),
    )
    assert [snapshot["version"] for snapshot in json.loads(in_json)["snapshots"]] == [2, 1, 0]
    assert "refresh" in told
    assert json.loads(difference)["recordings"]["added"] == 1
    assert sorted(line[0] for line in listed.splitlines()) == ["+", "-", "~"]
    assert "holds what version 0 held" in rolled_back
    assert json.loads(compacted)["committed"]
    assert "load_dataset" in copied
    assert json.loads(dry_run)["expired"] == [0, 1, 2, 3]
    assert "kept: versions 4" in gc
    uri = min(statuses_of(dataset))
    assert melmill_json("takedown", dataset, uri, "--yes")["erased"][0]["uri"] == uri
    refused = melmill("rollback", dataset, "0")
    assert (refused.returncode, "is no longer kept" in refused.stderr) == (2, True)
