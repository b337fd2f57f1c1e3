"""What a commit refuses: less, more, or other rows than were planned; and what it does not need."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from melmill.pipelines.cli.app import Exit
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


# Again


@pytest.mark.parametrize("again", [extract_here, refresh_here])
def test_a_recording_that_failed_for_a_while_comes_back_whole(
    songs: Path, tmp_path: Path, again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard was written over the live file, or it came back with a third of its rows."""
    from melmill.transforms.shards import writing as shards

    write_song(songs / "long.wav", 9, 6.0)
    dataset, real = tmp_path / "set", shards.extract_span

    class Decoder:
        """A decoder process that times out over one span of one recording."""

        def call(self, _: float, function: Any, span: Any, *arguments: Any) -> Any:
            if function is real and span.first_chunk:
                assert span.probed.recording.uri.endswith("long.wav")
                raise shards.RecordingError("decode", "timeout", "not read within 1 s")
            return function(span, *arguments)

    monkeypatch.setattr("melmill.transforms.beam.do_fns.borrow_decoder", lambda _: Decoder())
    monkeypatch.setattr("melmill.transforms.beam.do_fns.return_decoder", lambda *_: None)
    extract_here(songs, dataset, *SMALL, TWINS)
    assert real is shards.extract_span
    assert statuses_of(dataset)[str(songs / "long.wav")] == ("failed", 0)
    before = {name: (dataset / name).read_bytes() for name in files_of(dataset) if "part-" in name}
    monkeypatch.undo()
    assert again(songs, dataset, *SMALL, TWINS).committed
    assert {name: (dataset / name).read_bytes() for name in before} == before
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, TWINS)
    assert DeltaTable(dataset, version=0).to_pyarrow_table().num_rows
    assert faults(dataset) == []


def test_what_the_message_of_a_partial_run_suggests_is_done(songs: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.wav"
    table = tmp_path / "songs.csv"
    table.write_text("uri\n" + "".join(f"songs/{i}.wav\n" for i in range(4)))
    (songs / "2.wav").rename(away)
    settings = [f"--set={one}" for one in SMALL]
    first = melmill("extract", table, tmp_path / "set", *settings, "--quiet", "--workers=1")
    assert first.returncode == Exit.PARTIAL, first.stderr
    away.rename(songs / "2.wav")
    again = melmill("extract", table, tmp_path / "set", *settings, "--quiet", "--workers=1")
    assert again.returncode == Exit.SUCCESS, again.stderr
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *SMALL)


def test_an_overwriting_run_reuses_no_name(songs: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    before = {name: (dataset / name).read_bytes() for name in files_of(dataset) if "part-" in name}
    extract_here(songs, dataset, *SMALL, "split.seed=4", overwrite=True)
    assert {name: (dataset / name).read_bytes() for name in before} == before
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, "split.seed=4")
    assert len(rows_of(dataset, 0)) == len(rows_of(dataset))


def test_overwriting_with_the_same_is_nothing_to_do(songs: Path, tmp_path: Path) -> None:
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
    one = summary("one", rows=4)
    lay_down(store, "x", one, summary("two", rows=3))
    lay_down(store, "y", one)
    # The index of both recordings' rows, and one shard alone.
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
    one = summary("one")
    lay_down(store, "x", one)
    assert one.parquet is not None
    path = Path(store.root) / one.parquet.name
    path.unlink()
    if size is not None:
        path.write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=r"bytes, but index/x/ describes 1,000"):
        commit(store, snapshot(), SCHEMA)


@pytest.mark.parametrize("change", [{"rows": 3}, {"size_bytes": 999}])
def test_a_file_that_is_in_the_log_otherwise_is_not_committed(
    store: Store, change: dict[str, int]
) -> None:
    one, two = summary("one"), summary("two")
    lay_down(store, "x", one, two)
    commit(store, snapshot(), SCHEMA)
    lay_down(store, "y", two, _changed(one, **change))
    with pytest.raises(DatasetError, match="nothing was committed"):
        commit(store, snapshot("y", 0), SCHEMA)
    assert require_snapshot(store).index == "x"


def _changed(shard: ShardSummary, **change: int) -> ShardSummary:
    if "rows" in change:
        held = tuple(replace(entry, rows=change["rows"]) for entry in shard.recordings)
        return replace(shard, rows=change["rows"], recordings=held)
    assert shard.parquet is not None
    return replace(shard, parquet=replace(shard.parquet, **change))


def test_validate_counts_the_rows_of_each_recording(songs: Path, tmp_path: Path) -> None:
    from melmill.transforms.index.tables import shard_row, write_part

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "split.fractions={train: 1.0}", "output.min_shards=1")
    store = Store(str(dataset))
    index = require_snapshot(store).index
    (shard,) = read_shards(store, index)
    first, second, *others = shard.recordings
    # As many rows in all, of other recordings.
    swapped = (replace(first, rows=first.rows - 1), replace(second, rows=second.rows + 1))
    changed = replace(shard, recordings=(*swapped, *others))
    write_part(store, index, "shards", 0, [shard_row(changed)])
    found = "\n".join(faults(dataset))
    assert f"recording {first.recording_id}" in found
    assert f"recording {second.recording_id}" in found


# Columns


def comment(dataset: Path) -> None:
    """Describe a column, as Spark's COMMENT does."""
    DeltaTable(dataset).alter.set_column_metadata("uri", {"comment": "where it was"})


def test_a_foreign_comment_costs_no_row(songs: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "output.min_shards=6")
    comment(dataset)
    wanted = {k: v for k, v in rows_of(dataset).items() if "0.wav" not in str(v)}
    takedown(Store(str(dataset)), [str(songs / "0.wav")])
    assert rows_of(dataset) == wanted
    comment(dataset)
    assert compact(Store(str(dataset)), here()).committed
    assert rows_of(dataset) == wanted
    comment(dataset)
    rollback(Store(str(dataset)), 2)
    assert rows_of(dataset) == wanted
    assert faults(dataset) == []
    comment(dataset)
    assert not refresh_here(songs, dataset).committed


def test_a_column_that_another_tool_added_costs_no_row(songs: Path, tmp_path: Path) -> None:
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "output.min_shards=6")
    DeltaTable(dataset).alter.add_columns([Field("mine", PrimitiveType("string"))])
    kept = {key for key, row in rows_of(dataset).items() if "0.wav" not in str(row)}
    takedown(Store(str(dataset)), [str(songs / "0.wav")])
    assert rows_of(dataset).keys() == kept
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
    """Songs, and a dataset of them with TFRecord twins."""
    folder = tmp_path_factory.mktemp("twins")
    extract_here(write_songs(folder / "songs", 4), folder / "set", *SMALL, TWINS)
    return folder / "songs", folder / "set"


SIDE_FILES = ("README.md", "statistics.json", "tfrecord/files.json", "tfrecord/features.json")


@pytest.mark.parametrize("name", SIDE_FILES)
@pytest.mark.parametrize("fault", ["missing", "of another version", "half"])
def test_a_stale_side_file_is_found_and_mended(
    twins: tuple[Path, Path], tmp_path: Path, name: str, fault: str
) -> None:
    songs, dataset = twins[0], shutil.copytree(twins[1], tmp_path / "set")
    wanted, path = (dataset / name).read_bytes(), dataset / name
    if fault == "missing":
        path.unlink()
    elif fault == "half":
        path.write_bytes(wanted[: len(wanted) // 3])
    else:
        index = require_snapshot(Store(str(dataset))).index.encode()
        text = wanted.replace(index, b"0" * 32)
        path.write_bytes(text if text != wanted else wanted.replace(b"peak_dbfs", b"peak_dbfz"))
    assert [said.split(":")[0] for said in faults(dataset)] == [name]
    assert not refresh_here(songs, dataset).committed
    assert path.read_bytes() == wanted
    assert faults(dataset) == []


def test_a_run_killed_amid_its_side_files_leaves_them_to_the_next(
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
    # The card, by which other tools find the files, comes last.
    assert "README.md" not in written
    store = Store(str(dataset))
    assert stale_files(store, require_snapshot(store), _schema(store))
    assert not refresh_here(songs, dataset).committed
    assert faults(dataset) == []


def _schema(store: Store) -> RowSchema:
    from melmill.pipelines.snapshots.open import OpenSnapshot

    return OpenSnapshot.current(store).schema


# Folders


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


def test_an_interrupted_first_run_is_gone_on_with(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", killed)
        with pytest.raises(RuntimeError):
            extract_here(songs, tmp_path / "set", *SMALL)
    made = extract_here(songs, tmp_path / "set", *SMALL)
    assert made.committed
    assert "shards_written" not in made.metrics.counters
    assert files_of(tmp_path / "set") == needed_files(tmp_path / "set")


# Two runs


def test_nothing_to_do_leaves_a_rivals_work_alone(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival with the same command is at work on what is not there any more."""
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
    write_song(songs / "new.wav", 50)
    real = melmill.pipelines.snapshots.open.write_card

    def write_card(store: Store, *arguments: Any) -> None:
        # The loser has seen the commit by now, and removes the folder that both work in.
        store.remove("staging")
        real(store, *arguments)

    monkeypatch.setattr(melmill.pipelines.snapshots.open, "write_card", write_card)
    assert refresh_here(songs, dataset).committed
    assert faults(dataset) == []
    assert files_of(dataset) == files_of(dataset)


def test_an_overtaken_extraction_leaves_nothing(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.extract

    dataset, other = tmp_path / "set", write_songs(tmp_path / "other", 3)
    real = melmill.pipelines.extract.require_outcome

    def require_outcome(job: Any) -> Any:
        monkeypatch.undo()
        extract_here(other, dataset, *SMALL)
        return real(job)

    monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", require_outcome)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        extract_here(songs, dataset, *SMALL)
    assert files_of(dataset) == needed_files(dataset)
    assert_as_fresh(other, dataset, tmp_path / "fresh", *SMALL)


def test_the_function_takes_a_dataset_up_where_it_is(songs: Path, tmp_path: Path) -> None:
    from tests.pipeline_runs import make_test_job

    job = make_test_job(songs, tmp_path / "set", *SMALL)
    recipe: dict[str, Any] = {"split": {}, "output": {}, "limits": {}}
    first = extract(job, recipe, here())
    assert first.difference["new"] == 4
    again = extract(job, recipe, here())
    assert (again.committed, again.difference["unchanged"]) == (False, 4)


# Digests


def test_rows_that_were_changed_and_signed_again_are_found(songs: Path, tmp_path: Path) -> None:
    from tests.refresh.resigning import change_a_row

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL)
    recording_id = change_a_row(Store(str(dataset)))
    # The log gives the size of the file; nothing else shows what was done.
    found = [said for said in faults(dataset) if "Delta log" not in said]
    assert len(found) == 1
    assert f"of recording {recording_id}" in found[0]


def test_rows_that_change_while_they_are_carried_over_are_not_committed(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from melmill.transforms.shards import rewriting

    dataset = tmp_path / "set"
    extract_here(songs, dataset, *SMALL, "split.fractions={train: 1.0}", "output.min_shards=1")
    before, real = rows_of(dataset), rewriting.read_shard

    def read_shard(*arguments: Any) -> Any:
        for batch in real(*arguments):
            yield replace(batch, mel=batch.mel + 1)

    monkeypatch.setattr(rewriting, "read_shard", read_shard)
    (songs / "0.wav").unlink()
    with pytest.raises(RuntimeError, match="the rows that it was written from are wrong"):
        refresh_here(songs, dataset)
    assert rows_of(dataset) == before
