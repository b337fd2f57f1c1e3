"""A commit holds exactly the planned rows, or it is refused. Later runs repair stale files."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from melmill.pipelines.cli.exit_status import Exit
from melmill.pipelines.compact import compact
from melmill.pipelines.extract import extract
from melmill.pipelines.snapshots.history import rollback
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import read_shards
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot.card import stale_files
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Snapshot, require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, melmill, refresh_here
from tests.plans import lay_down, summary
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

TWINS = "output.formats=[parquet,tfrecord]"


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    return write_songs(tmp_path / "songs", 4)


def faults(dataset: Path) -> list[str]:
    return validate(Store(str(dataset)), 1, lambda number: None)


# Runs that are repeated


@pytest.mark.parametrize("rerun", [extract_here, refresh_here])
def test_a_recording_that_failed_for_a_while_comes_back_whole(
    songs: Path, tmp_path: Path, rerun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, its shard overwrote the live file, or only a third of its rows came back."""
    from melmill.transforms.shards import extracting as shards

    write_song(songs / "long.wav", 9, 6.0)
    dataset, real = tmp_path / "set", shards.extract_and_measure

    class Decoder:
        """A decoder process that times out over one span of one recording."""

        def call(self, _: float, function: Any, target: Any, *arguments: Any) -> Any:
            if function is real and (span := target[0]).first_chunk:
                assert span.probed.recording.uri.endswith("long.wav")
                raise shards.RecordingError("decode", "timeout", "not read within 1 s")
            return function(target, *arguments)

    monkeypatch.setattr("melmill.transforms.beam.do_fns.borrow_decoder", lambda _: Decoder())
    monkeypatch.setattr("melmill.transforms.beam.do_fns.return_decoder", lambda *_: None)
    extract_here(songs, dataset, *SMALL, TWINS)
    assert real is shards.extract_and_measure
    assert statuses_of(dataset)[str(songs / "long.wav")] == ("failed", 0)
    before = {name: (dataset / name).read_bytes() for name in files_of(dataset) if "part-" in name}
    monkeypatch.undo()
    assert rerun(songs, dataset, *SMALL, TWINS).committed
    assert {name: (dataset / name).read_bytes() for name in before} == before
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, TWINS)
    assert DeltaTable(dataset, version=0).to_pyarrow_table().num_rows
    assert faults(dataset) == []


def test_the_advice_in_the_message_of_a_partial_run_works(songs: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.wav"
    table = tmp_path / "songs.csv"
    table.write_text("uri\n" + "".join(f"songs/{i}.wav\n" for i in range(4)))
    (songs / "2.wav").rename(away)
    settings = [f"--set={setting}" for setting in SMALL]
    first = melmill("extract", table, tmp_path / "set", *settings, "--quiet")
    assert first.returncode == Exit.PARTIAL, first.stderr
    away.rename(songs / "2.wav")
    second = melmill("extract", table, tmp_path / "set", *settings, "--quiet")
    assert second.returncode == Exit.SUCCESS, second.stderr
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *SMALL)


def test_an_overwriting_run_reuses_no_name(songs: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    before = {name: (dataset / name).read_bytes() for name in files_of(dataset) if "part-" in name}
    extract_here(songs, dataset, *SMALL, "split.seed=4", overwrite=True)
    assert {name: (dataset / name).read_bytes() for name in before} == before
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, "split.seed=4")
    assert len(rows_of(dataset, 0)) == len(rows_of(dataset))


def test_overwriting_with_the_same_rows_is_nothing_to_do(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *SMALL)
    assert not extract_here(songs, tmp_path / "set", *SMALL, overwrite=True).committed


# Guards


SCHEMA = pa.schema({"mel": pa.float32(), "split": pa.string()})


def snapshot(index: str = "x", version: int = -1) -> Snapshot:
    return Snapshot(version, index, {}, "/songs", "{}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "set"))


def test_a_commit_of_fewer_rows_than_recordings_have_is_refused(store: Store) -> None:
    first_shard = summary("one", rows=4)
    lay_down(store, "x", first_shard, summary("two", rows=3))
    lay_down(store, "y", first_shard)
    # The index has the recordings of both shards, but lists only the first shard.
    (Path(store.root) / "index/x/shards-00000.parquet").write_bytes(
        store.read("index/y/shards-00000.parquet")
    )
    with pytest.raises(DatasetError, match=r"the index says 7 rows, the shards hold 4"):
        commit(store, snapshot(), SCHEMA)
    assert not (Path(store.root) / "_delta_log").exists()


@pytest.mark.parametrize("size", [999, None])
def test_a_file_of_another_size_than_the_index_says_is_not_committed(
    store: Store, size: int | None
) -> None:
    shard = summary("one")
    lay_down(store, "x", shard)
    assert shard.parquet is not None
    path = Path(store.root) / shard.parquet.name
    path.unlink()
    if size is not None:
        path.write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=r"bytes, but index/x/ describes 1,000"):
        commit(store, snapshot(), SCHEMA)


@pytest.mark.parametrize("change", [{"rows": 3}, {"size_bytes": 999}])
def test_a_file_that_differs_from_the_log_is_not_committed(
    store: Store, change: dict[str, int]
) -> None:
    first, second = summary("one"), summary("two")
    lay_down(store, "x", first, second)
    commit(store, snapshot(), SCHEMA)
    lay_down(store, "y", second, _changed(first, **change))
    with pytest.raises(DatasetError, match="nothing was committed"):
        commit(store, snapshot("y", 0), SCHEMA)
    assert require_snapshot(store).index == "x"


def _changed(shard: ShardSummary, **change: int) -> ShardSummary:
    if "rows" in change:
        recordings = tuple(replace(entry, rows=change["rows"]) for entry in shard.recordings)
        return replace(shard, rows=change["rows"], recordings=recordings)
    assert shard.parquet is not None
    return replace(shard, parquet=replace(shard.parquet, **change))


def test_validate_counts_the_rows_of_each_recording(songs: Path, tmp_path: Path) -> None:
    from melmill.transforms.index.tables import shard_row, write_part

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "split.fractions={train: 1.0}", "output.min_shards=1")
    store = Store(str(dataset))
    index = require_snapshot(store).index
    (shard,) = read_shards(store, index)
    first, second, *other_recordings = shard.recordings
    # The total number of rows stays; a row moves from one recording to another.
    swapped = (replace(first, rows=first.rows - 1), replace(second, rows=second.rows + 1))
    changed = replace(shard, recordings=(*swapped, *other_recordings))
    write_part(store, index, "shards", 0, [shard_row(changed)])
    text = "\n".join(faults(dataset))
    assert f"recording {first.recording_id}" in text
    assert f"recording {second.recording_id}" in text


# Columns


def comment(dataset: Path) -> None:
    """Describe a column, as Spark's COMMENT does."""
    DeltaTable(dataset).alter.set_column_metadata("uri", {"comment": "where it was"})


def test_a_foreign_comment_costs_no_row(songs: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "output.min_shards=6")
    comment(dataset)
    expected = {key: row for key, row in rows_of(dataset).items() if "0.wav" not in str(row)}
    takedown(Store(str(dataset)), [str(songs / "0.wav")])
    assert rows_of(dataset) == expected
    comment(dataset)
    assert compact(Store(str(dataset)), here()).committed
    assert rows_of(dataset) == expected
    comment(dataset)
    rollback(Store(str(dataset)), 2)
    assert rows_of(dataset) == expected
    assert faults(dataset) == []
    comment(dataset)
    assert not refresh_here(songs, dataset).committed


def test_a_column_that_another_tool_added_costs_no_row(songs: Path, tmp_path: Path) -> None:
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "output.min_shards=6")
    DeltaTable(dataset).alter.add_columns([Field("mine", PrimitiveType("string"))])
    expected_keys = {key for key, row in rows_of(dataset).items() if "0.wav" not in str(row)}
    takedown(Store(str(dataset)), [str(songs / "0.wav")])
    assert rows_of(dataset).keys() == expected_keys
    assert faults(dataset) == []


def test_other_columns_keep_the_log_of_old_snapshots(songs: Path, tmp_path: Path) -> None:
    """Delta drops commits after a month unless the table says otherwise."""
    table = tmp_path / "songs.jsonl"
    rows = [{"uri": f"songs/{i}.wav"} for i in range(3)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract_here(table, tmp_path / "set", *SMALL)
    table.write_text("".join(json.dumps({**row, "genre": "rock"}) + "\n" for row in rows))
    assert refresh_here(table, tmp_path / "set").new_schema
    configuration = DeltaTable(tmp_path / "set").metadata().configuration
    assert configuration["delta.enableExpiredLogCleanup"] == "false"


# Side files


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of songs, and their dataset with TFRecord twins."""
    folder = tmp_path_factory.mktemp("twins")
    extract_here(write_songs(folder / "songs", 4), folder / "set", *SMALL, TWINS)
    return folder / "songs", folder / "set"


SIDE_FILES = ("README.md", "statistics.json", "tfrecord/files.json", "tfrecord/features.json")


FAULTS = ("missing", "of another version", "half")
#: Each file and each fault is in a quick test.
QUICK_FAULTS = (*zip(SIDE_FILES, FAULTS, strict=False), (SIDE_FILES[3], FAULTS[1]))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(*case, marks=[] if case in QUICK_FAULTS else pytest.mark.slow)
        for case in itertools.product(SIDE_FILES, FAULTS)
    ],
)
def test_a_stale_side_file_is_found_and_repaired(
    twins: tuple[Path, Path], tmp_path: Path, name: str, fault: str
) -> None:
    songs, dataset = twins[0], shutil.copytree(twins[1], tmp_path / "set")
    intact, path = (dataset / name).read_bytes(), dataset / name
    if fault == "missing":
        path.unlink()
    elif fault == "half":
        path.write_bytes(intact[: len(intact) // 3])
    else:
        index = require_snapshot(Store(str(dataset))).index.encode()
        text = intact.replace(index, b"0" * 32)
        path.write_bytes(text if text != intact else intact.replace(b"peak_dbfs", b"peak_dbfz"))
    assert [message.split(":")[0] for message in faults(dataset)] == [name]
    assert not refresh_here(songs, dataset).committed
    assert path.read_bytes() == intact
    assert faults(dataset) == []


def test_a_run_killed_amid_its_side_files_leaves_them_to_the_next_run(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, TWINS)
    real, written = Store.put, []

    class KilledError(BaseException):
        pass

    def put(store: Store, name: str, content: bytes) -> None:
        if name in SIDE_FILES:
            if len(written) == 2:
                raise KilledError
            written.append(name)
        real(store, name, content)

    write_song(songs / "new.wav", 50)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", put)
        with pytest.raises(KilledError):
            refresh_here(songs, dataset)
    # The card is written last, because other tools find the files by it.
    assert "README.md" not in written
    store = Store(str(dataset))
    assert stale_files(store, require_snapshot(store), _schema(store))
    assert not refresh_here(songs, dataset).committed
    assert faults(dataset) == []


def _schema(store: Store) -> RowSchema:
    from melmill.pipelines.snapshots.open import OpenSnapshot

    return OpenSnapshot.current(store).schema


# Foreign folders


@pytest.mark.parametrize("name", ["README.md", "runs", "staging", "index", "split=train", ".git"])
def test_a_folder_that_we_did_not_make_is_refused(songs: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "set" / name
    if "." in name:
        mine.parent.mkdir()
    else:
        mine.mkdir(parents=True)
        mine /= "mine.txt"
    mine.write_text("mine")
    with pytest.raises(DatasetError, match="holds something else"):
        extract_here(songs, tmp_path / "set", *SMALL)
    assert files_of(tmp_path / "set") | {str(mine.relative_to(tmp_path / "set"))} == {
        str(mine.relative_to(tmp_path / "set"))
    }
    assert mine.read_text() == "mine"


def test_an_interrupted_first_run_is_continued(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", fail)
        with pytest.raises(RuntimeError):
            extract_here(songs, tmp_path / "set", *SMALL)
    result = extract_here(songs, tmp_path / "set", *SMALL)
    assert result.committed
    assert "shards_written" not in result.metrics.counters
    assert files_of(tmp_path / "set") == needed_files(tmp_path / "set")


# Two runs at once


def test_nothing_to_do_leaves_a_rivals_work_alone(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival with the same command works on a recording that is now missing."""
    import melmill.pipelines.extract

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    write_song(songs / "new.wav", 50)
    real = melmill.pipelines.extract.require_outcome

    def require_outcome(job: Any) -> Any:
        monkeypatch.undo()
        (songs / "new.wav").rename(tmp_path / "away.wav")
        assert not refresh_here(songs, dataset).committed
        (tmp_path / "away.wav").rename(songs / "new.wav")
        return real(job)

    monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", require_outcome)
    assert refresh_here(songs, dataset).committed
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


def test_a_winner_is_not_disturbed_by_the_tidying_of_the_loser(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.commit

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    before = files_of(dataset)
    write_song(songs / "new.wav", 50)
    real = melmill.pipelines.snapshots.open.write_card

    def write_card(store: Store, *arguments: Any) -> None:
        # The loser has seen the commit, and removes the folder in which both runs work.
        store.remove("staging")
        real(store, *arguments)

    monkeypatch.setattr(melmill.pipelines.snapshots.open, "write_card", write_card)
    assert refresh_here(songs, dataset).committed
    assert faults(dataset) == []
    assert files_of(dataset) == before | needed_files(dataset)


def test_an_overtaken_extraction_leaves_nothing(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.extract

    dataset, other_songs = tmp_path / "set", write_songs(tmp_path / "other", 3)
    real = melmill.pipelines.extract.require_outcome

    def require_outcome(job: Any) -> Any:
        monkeypatch.undo()
        extract_here(other_songs, dataset, *SMALL)
        return real(job)

    monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", require_outcome)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        extract_here(songs, dataset, *SMALL)
    assert files_of(dataset) == needed_files(dataset)
    assert_as_fresh(other_songs, dataset, tmp_path / "fresh", *SMALL)


def test_the_function_continues_with_an_existing_dataset(songs: Path, tmp_path: Path) -> None:
    from tests.pipeline_runs import make_test_job

    job = make_test_job(songs, tmp_path / "set", *SMALL)
    recipe: dict[str, Any] = {"split": {}, "output": {}, "limits": {}, "quality": "basic"}
    first = extract(job, recipe, here())
    assert first.difference["new"] == 4
    second = extract(job, recipe, here())
    assert (second.committed, second.difference["unchanged"]) == (False, 4)


# Digests


def test_rows_that_were_changed_and_signed_again_are_found(songs: Path, tmp_path: Path) -> None:
    from tests.refresh.resigning import change_a_row

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    recording_id = change_a_row(Store(str(dataset)))
    # The change also shows in the file size in the Delta log, which is ignored here.
    messages = [message for message in faults(dataset) if "Delta log" not in message]
    assert len(messages) == 1
    assert f"of recording {recording_id}" in messages[0]


def test_rows_that_change_while_they_are_carried_over_are_not_committed(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from melmill.transforms.shards import rewriting

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "split.fractions={train: 1.0}", "output.min_shards=1")
    before, real = rows_of(dataset), rewriting.read_shard

    def read_shard(*arguments: Any) -> Any:
        for batch in real(*arguments):
            yield replace(batch, features={"mel": batch.features["mel"] + 1})

    monkeypatch.setattr(rewriting, "read_shard", read_shard)
    (songs / "0.wav").unlink()
    with pytest.raises(RuntimeError, match="the rows that it was written from are wrong"):
        refresh_here(songs, dataset)
    assert rows_of(dataset) == before
