"""Added columns: committed whole or not at all, kept by refreshes, erased by takedowns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

import melmill.pipelines.add_columns
from melmill.pipelines.add_columns import add_columns, drop_columns
from melmill.pipelines.cli.column_texts import result_text
from melmill.pipelines.cli.pipeline_texts import extraction_text
from melmill.pipelines.cli.snapshot_texts import inspection_json, inspection_text, refresh_text
from melmill.pipelines.compact import compact
from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.run_records import result_json
from melmill.pipelines.snapshots.additions import Addition
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.history import checkout, history, rollback
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import CatalogueError, ConflictError, DatasetError
from melmill.transforms.core.naming import recording_id
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    files_of,
    rows_of,
    write_song,
    write_songs,
    write_table,
)
from tests.refresh.machine import killed_at

FEW = (*SMALL, "output.min_shards=2", "split.fractions={train: 1.0}")
NOW = RetentionConfig(keep_snapshots=1, grace_hours=0)
#: Text that no other file of a dataset holds.
SECRET = "the singer's real name is Q7X9"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("columns")
    extract_here(write_songs(folder / "songs", 4), folder / "set", *FEW)
    return folder


@pytest.fixture
def songs(original: Path) -> Path:
    return original / "songs"


@pytest.fixture
def own_songs(original: Path, tmp_path: Path) -> Path:
    """Return the catalogue in another place, where the test may change it."""
    shutil.copytree(original / "songs", tmp_path / "songs", copy_function=shutil.copy2)
    return tmp_path / "songs"


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "set", tmp_path / "set"))


@pytest.fixture
def store(dataset: Path) -> Store:
    return Store(str(dataset))


def add(store: Store, values: Mapping[str, Any], name: str = "verdict", **how: Any) -> Any:
    """Add a column of values by the recording's file name."""
    rows = [{"recording_id": recording_id(key), name: value} for key, value in values.items()]
    path = write_table(Path(store.root).parent / "values.jsonl", rows)
    return add_columns(store, Addition(str(path), **how))


def values_of(dataset: Path, name: str = "verdict", version: int | None = None) -> dict[str, Any]:
    table = Dataset(dataset, version=version).recordings(["uri", name]).to_pylist()
    return {Path(row["uri"]).name: row[name] for row in table}


def is_whole(store: Store) -> bool:
    return validate(store, 1, lambda number: None) == []


def files_with(dataset: Path, text: str) -> list[str]:
    """Return all files of a dataset, also its log, that hold a text."""
    paths = []
    for path in sorted(dataset.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.ParquetFile(path).read()
                names = [name for name in table.column_names if name != "mel"]
                content += repr(table.select(names).to_pydict()).encode()
            paths += [str(path.relative_to(dataset))] if text.encode() in content else []
    return paths


# A commit


def test_a_commit_adds_columns_and_changes_no_row(store: Store, dataset: Path) -> None:
    before, files = rows_of(dataset), files_of(dataset)
    result = add(store, {"0.wav": "ok", "2.wav": "reject"})
    assert (result.committed, result.snapshot.version, result.snapshot.operation) == (
        True,
        1,
        "add-columns",
    )
    (counted,) = result.coverage
    assert (counted.recordings, counted.lacking) == (4, 2)
    assert rows_of(dataset) == before
    assert rows_of(dataset, 0) == before
    (added,) = files_of(dataset) - files
    assert added.startswith("columns/")
    assert values_of(dataset) == {"0.wav": "ok", "1.wav": None, "2.wav": "reject", "3.wav": None}
    assert is_whole(store)
    assert "verdict" not in Dataset(dataset, version=0).columns


def test_the_dataset_says_which_columns_were_added(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    card = (dataset / "README.md").read_text()
    (table,) = require_snapshot(store).side_tables
    assert f"| `verdict` | string | `recording_id` | `columns/{table.name}/` |" in card
    opened = OpenSnapshot.current(store)
    files = f"columns/{table.name}/"
    assert inspection_json("set", opened)["added_columns"] == {
        "verdict": {"type": "string", "key": ["recording_id"], "files": files}
    }
    assert f"added by recording_id, in {files}: verdict string" in inspection_text("set", opened)
    assert [entry["operation"] for entry in history(store)] == ["add-columns", "extract"]
    assert Dataset(dataset).columns["verdict"] == "string"


def test_columns_are_dropped_and_stay_in_earlier_versions(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    add(store, {"0.wav": 0.5}, "score")
    result = drop_columns(store, ["verdict"])
    assert result.dropped == ("verdict",)
    assert "verdict" not in Dataset(dataset).columns
    assert values_of(dataset, "score")["0.wav"] == 0.5
    assert values_of(dataset, version=1)["0.wav"] == "ok"
    assert "verdict" not in (dataset / "README.md").read_text()
    assert is_whole(store)
    with pytest.raises(DatasetError, match="no added column of this name; it has: score"):
        drop_columns(store, ["verdict"])


def test_replaced_and_updated_values(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok", "1.wav": "ok"})
    with pytest.raises(DatasetError, match="'verdict' already; --replace replaces its values"):
        add(store, {"0.wav": "reject"})
    assert values_of(dataset)["0.wav"] == "ok"
    add(store, {"1.wav": "reject", "2.wav": "reject"}, mode="update")
    expected = {"0.wav": "ok", "1.wav": "reject", "2.wav": "reject", "3.wav": None}
    assert values_of(dataset) == expected
    add(store, {"3.wav": "ok"}, mode="replace")
    assert values_of(dataset) == {**dict.fromkeys(expected), "3.wav": "ok"}
    result = add(store, {"3.wav": "ok"}, mode="replace")
    assert (result.committed, result.snapshot.version) == (False, 3)
    assert len(require_snapshot(store).side_tables) == 1
    assert is_whole(store)


def test_values_of_another_type_or_key_are_not_updated(store: Store) -> None:
    add(store, {"0.wav": "ok"})
    with pytest.raises(DatasetError, match="'verdict' is string in the dataset, and int64 in"):
        add(store, {"0.wav": 1}, mode="update")
    name = recording_id("0.wav")
    path = write_table(
        Path(store.root).parent / "rows.jsonl",
        [{"recording_id": name, "chunk_index": 0, "verdict": "ok"}],
    )
    with pytest.raises(DatasetError, match="its values were added by recording_id"):
        add_columns(store, Addition(str(path), on="row", mode="update"))
    add(store, {"0.wav": 1}, "score")
    path = write_table(path, [{"recording_id": name, "verdict": "ok", "score": 1}])
    with pytest.raises(DatasetError, match="verdict, score were not added together"):
        add_columns(store, Addition(str(path), mode="update"))
    add_columns(store, Addition(str(path), mode="replace"))
    (table,) = require_snapshot(store).side_tables
    assert list(table.columns) == ["verdict", "score"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mel", "has a column 'mel' of its own; rename"),
        ("Peak_dBFS", "has a column 'Peak_dBFS' of its own"),
        ("split", "has a column 'split' of its own"),
        ("status", "has a column 'status' of its own"),
        ("Verdict", "has an added column 'verdict' already"),
    ],
)
def test_a_name_that_is_taken_is_refused(store: Store, name: str, message: str) -> None:
    add(store, {"0.wav": "ok"})
    before = files_of(Path(store.root))
    with pytest.raises(DatasetError, match=message):
        add(store, {"0.wav": "x"}, name, mode="replace")
    assert files_of(Path(store.root)) == before


def test_a_label_of_the_catalogue_is_taken(tmp_path: Path, songs: Path) -> None:
    table = write_table(tmp_path / "songs.jsonl", [{"uri": f"{songs}/0.wav", "genre": "rock"}])
    extract_here(table, tmp_path / "set", *FEW)
    store = Store(str(tmp_path / "set"))
    path = write_table(tmp_path / "v.jsonl", [{"uri": f"{songs}/0.wav", "genre": "jazz"}])
    with pytest.raises(DatasetError, match="has a column 'genre' of its own"):
        add_columns(store, Addition(str(path), on="uri"))


@pytest.mark.parametrize("layout", ["root", "clips"])
def test_relative_uris_start_where_those_of_the_catalogue_do(
    tmp_path: Path, songs: Path, layout: str
) -> None:
    (tmp_path / "tables").mkdir()
    if layout == "root":
        rows = [{"uri": "0.wav", "start": 0.0, "end": 0.5}]
        table, settings = write_table(tmp_path / "tables" / "songs.jsonl", rows), [f"root={songs}"]
    else:
        shutil.copytree(songs, tmp_path / "tables" / "clips")
        cells = ["client_id\tpath\tsentence", "a\t0.wav\tla"]
        table, settings = tmp_path / "tables" / "train.tsv", []
        table.write_text("\n".join(cells) + "\n", encoding="utf-8")
    extract_here(table, tmp_path / "set", *FEW, *(f"catalogue.{setting}" for setting in settings))
    path = write_table(tmp_path / "v.jsonl", [{"uri": "0.wav", "mood": "calm"}])
    add_columns(Store(str(tmp_path / "set")), Addition(str(path), on="uri"))
    assert Dataset(tmp_path / "set").recordings(["mood"]).to_pylist() == [{"mood": "calm"}]


def test_nothing_is_written_for_a_wrong_table(store: Store, dataset: Path) -> None:
    before = files_of(dataset)
    with pytest.raises(CatalogueError, match="1 row belongs to nothing in the dataset: line 2 "):
        add(store, {"0.wav": "ok", "no.wav": "ok"})
    with pytest.raises(DatasetError, match="holds no dataset"):
        add_columns(Store(str(dataset / "no")), Addition("values.csv"))
    assert files_of(dataset) == before
    result = add(store, {"0.wav": "ok", "no.wav": "ok"}, ignore_unknown=True)
    assert result.ignored == 1
    assert values_of(dataset)["0.wav"] == "ok"


def test_a_dataset_without_rows_takes_values_of_recordings(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *FEW, "select=level.peak > 99")
    store = Store(str(tmp_path / "set"))
    result = add(store, {"0.wav": "ok"})
    assert result_text("set", result, "t").endswith("verdict: no recording of the dataset has rows")
    assert values_of(tmp_path / "set")["0.wav"] == "ok"
    table = Dataset(tmp_path / "set").as_arrow().to_table()
    assert (table.num_rows, table.column_names[-1]) == (0, "verdict")
    assert is_whole(store)


# Rows


def row_values(dataset: Path, *, without: str = "") -> list[dict[str, Any]]:
    rows = DeltaTable(dataset).to_pyarrow_dataset().to_table().to_pylist()
    key = ("recording_id", "chunk_index", "channel")
    return [
        {**{name: row[name] for name in key if name in row}, "score": row["start_sample"] / 7}
        for row in rows
        if not (without and row["uri"].endswith(without) and row["chunk_index"] == 0)
    ]


@pytest.mark.parametrize("channels", ["mono", "each"])
def test_each_row_has_its_value(channels: str, songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *FEW, f"audio.channels={channels}")
    store = Store(str(tmp_path / "set"))
    values = row_values(tmp_path / "set", without="/2.wav")
    path = write_table(tmp_path / "scores.jsonl", values)
    (counted,) = add_columns(store, Addition(str(path), on="row")).coverage
    assert (counted.recordings, counted.lacking) == (4, 1)
    assert counted.examples == (str(songs / "2.wav"),)
    rows = Dataset(tmp_path / "set").as_arrow().to_table().to_pylist()
    for row in rows:
        lacks = row["uri"].endswith("/2.wav") and row["chunk_index"] == 0
        assert row["score"] == (None if lacks else row["start_sample"] / 7)
    assert len(rows) == len(values) + 1
    assert is_whole(store)


# Refresh, rollback, compaction


def test_a_refresh_keeps_columns_and_says_what_lacks_them(
    own_songs: Path, dataset: Path, store: Store
) -> None:
    add(store, {"0.wav": "ok", "1.wav": "ok", "3.wav": "reject"})
    write_song(own_songs / "new.wav", 50)
    write_song(own_songs / "1.wav", 51)
    (own_songs / "3.wav").unlink()
    result = refresh_here(own_songs, dataset)
    (counted,) = result.columns.coverage
    assert (counted.recordings, counted.lacking, counted.new) == (4, 2, 1)
    uris = (str(own_songs / "new.wav"), str(own_songs / "2.wav"))
    assert counted.examples == uris
    expected = "added column verdict: 2 of 4 recordings have values; missing in 2 (1 new): "
    assert expected + ", ".join(uris) in refresh_text("set", result)
    assert result_json(result)["added_columns"]["verdict"]["new"] == 1
    assert values_of(dataset) == {"0.wav": "ok", "1.wav": "ok", "2.wav": None, "new.wav": None}
    # The values of a recording that comes back are still there.
    write_song(own_songs / "3.wav", 52)
    refresh_here(own_songs, dataset)
    assert values_of(dataset)["3.wav"] == "reject"
    assert is_whole(store)
    before = values_of(dataset)
    assert compact(store, here()).committed
    assert values_of(dataset) == before


def test_a_refresh_to_other_chunks_drops_the_values_of_rows(
    own_songs: Path, dataset: Path, store: Store, tmp_path: Path
) -> None:
    add(store, {"0.wav": "ok"})
    path = write_table(tmp_path / "scores.jsonl", row_values(dataset))
    add_columns(store, Addition(str(path), on="row"))
    result = refresh_here(own_songs, dataset, "mel.n_mels=5")
    assert result.columns.dropped == ()
    assert result.columns.coverage[1].lacking == 0
    result = refresh_here(own_songs, dataset, "chunk.seconds=0.25")
    assert result.columns.dropped == ("score",)
    assert "added column score: not kept, because rows are other chunks now" in refresh_text(
        "set", result
    )
    assert list(Dataset(dataset).columns)[-1] == "verdict"
    rollback(store, 2)
    assert {row["score"] for row in Dataset(dataset).as_arrow().to_table().to_pylist()} != {None}


def test_a_new_label_with_the_name_of_an_added_column_is_refused(
    tmp_path: Path, songs: Path
) -> None:
    rows = [{"uri": f"{songs}/{number}.wav"} for number in range(2)]
    table = write_table(tmp_path / "songs.jsonl", rows)
    dataset = tmp_path / "set"
    extract_here(table, dataset, *FEW)
    path = write_table(tmp_path / "v.jsonl", [{**rows[0], "genre": "rock"}])
    store = Store(str(dataset))
    add_columns(store, Addition(str(path), on="uri"))
    write_table(table, [{**row, "genre": "jazz"} for row in rows])
    message = "'genre' is an added column, .* melmill add-columns .* --drop genre"
    with pytest.raises(DatasetError, match=message):
        refresh_here(table, dataset)
    drop_columns(store, ["genre"])
    refresh_here(table, dataset)
    assert Dataset(dataset).columns["genre"] == "string"


def test_a_replaced_dataset_has_no_added_columns(songs: Path, store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    result = extract_here(songs, dataset, *FEW, "split.seed=9", overwrite=True)
    assert result.columns.dropped == ("verdict",)
    assert "added column verdict: not kept, because" in extraction_text("set", result)
    assert require_snapshot(store).side_tables == ()


def test_a_rollback_restores_the_columns_of_a_version(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    add(store, {"0.wav": "reject"}, mode="replace")
    rollback(store, 1)
    assert values_of(dataset)["0.wav"] == "ok"
    rollback(store, 0)
    assert "verdict" not in Dataset(dataset).columns
    rollback(store, 2)
    assert values_of(dataset)["0.wav"] == "reject"
    assert require_snapshot(store).version == 5
    assert is_whole(store)


def test_a_checkout_lists_the_files_of_the_columns(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    checkout(store, 1, dataset.parent / "view")
    files = json.loads((dataset.parent / "view" / "files.json").read_text())
    (path,) = files["columns"]["verdict"]
    assert pq.read_table(path)["verdict"].to_pylist() == ["ok"]
    assert "## Added columns" in (dataset.parent / "view" / "README.md").read_text()


# Garbage and damage


def test_gc_removes_the_values_that_no_kept_version_needs(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": SECRET})
    add(store, {"0.wav": "new"}, mode="replace")
    collect(store, RetentionConfig(keep_snapshots=2, grace_hours=0))
    assert len(files_with(dataset, SECRET)) == 1
    collect(store, NOW)
    assert files_with(dataset, SECRET) == []
    assert values_of(dataset)["0.wav"] == "new"
    assert is_whole(store)


def test_gc_leaves_files_of_others_in_the_folder(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    (own,) = dataset.glob("columns/*/*")
    mine = [dataset / "columns" / "mine.csv", dataset / "columns" / f"{'a' * 32}" / "x.parquet"]
    foreign = f"columns/{'b' * 32}/part-00000-{'c' * 32}.parquet"
    for path in (*mine, dataset / foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    drop_columns(store, ["verdict"])
    collect(store, NOW)
    assert all(path.exists() for path in (*mine, dataset / foreign))
    assert not own.exists()


def test_validate_names_a_damaged_file(store: Store, dataset: Path) -> None:
    add(store, {"0.wav": "ok"})
    (path,) = dataset.glob("columns/*/*")
    path.write_bytes(path.read_bytes()[:-1])
    assert validate(store, 1, lambda number: None) == [
        f"{path.relative_to(dataset)}: is damaged: its content does not match its name"
    ]
    with pytest.raises(DatasetError, match="is damaged"):
        values_of(dataset)
    path.unlink()
    with pytest.raises(DatasetError, match=r"is missing, which holds values of .* verdict"):
        Dataset(dataset).as_arrow().to_table()
    assert Dataset(dataset).as_arrow().to_table(columns=["uri"]).num_rows
    drop_columns(store, ["verdict"])
    assert is_whole(store)


# Conflicts and kills


def overtake(monkeypatch: pytest.MonkeyPatch, rival: Callable[[], object]) -> None:
    """Let another run commit just before columns would be committed."""
    real = melmill.pipelines.add_columns.commit

    def commit(*arguments: Any) -> Any:
        monkeypatch.undo()
        rival()
        return real(*arguments)

    monkeypatch.setattr(melmill.pipelines.add_columns, "commit", commit)


@pytest.mark.parametrize("same", [True, False])
def test_an_overtaken_run_leaves_nothing(
    store: Store, dataset: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    values = {"0.wav": "ok"}
    overtake(monkeypatch, lambda: add(store, values if same else {"1.wav": "other"}))
    with pytest.raises(ConflictError, match="another run committed version 1"):
        add(store, values)
    assert require_snapshot(store).version == 1
    assert len([name for name in files_of(dataset) if name.startswith("columns/")]) == 1
    assert not any(name.startswith("staging") for name in files_of(dataset))
    assert values_of(dataset)["1.wav"] == (None if same else "other")
    assert is_whole(store)


@pytest.mark.slow
def test_an_overtaken_refresh_keeps_what_was_added_meanwhile(
    own_songs: Path, dataset: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.extract

    write_song(own_songs / "new.wav", 50)
    real = melmill.pipelines.extract.require_outcome

    def require_outcome(job: Any) -> Any:
        monkeypatch.undo()
        add(store, {"0.wav": "ok"})
        return real(job)

    monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", require_outcome)
    with pytest.raises(ConflictError):
        refresh_here(own_songs, dataset)
    assert values_of(dataset)["0.wav"] == "ok"
    assert refresh_here(own_songs, dataset).columns.coverage[0].new == 1


#: A commit writes about five files; the default tests use two moments.
WRITES = [
    pytest.param(write, marks=[] if write in (3, 4) else pytest.mark.slow) for write in range(8)
]


@pytest.mark.parametrize("write", WRITES)
def test_a_killed_run_is_not_visible(store: Store, dataset: Path, write: int) -> None:
    before = rows_of(dataset)
    with killed_at(write):
        add(store, {"0.wav": SECRET})
    version = require_snapshot(store).version
    assert ("verdict" in Dataset(dataset).columns) == (version == 1)
    assert rows_of(dataset) == before
    if version == 0 and write % 2:
        # Nobody runs the command again: gc removes what it left.
        collect(store, NOW)
        assert files_with(dataset, SECRET) == []
        return
    result = add(store, {"0.wav": SECRET}, mode="replace")
    assert result.committed == (version == 0)
    assert values_of(dataset)["0.wav"] == SECRET
    collect(store, NOW)
    assert not any(name.startswith("staging") for name in files_of(dataset))
    assert is_whole(store)


def test_the_same_command_writes_the_card_that_a_kill_left_out(store: Store, dataset: Path) -> None:
    with killed_at(0, "README.md"):
        add(store, {"0.wav": "ok"})
    assert require_snapshot(store).version == 1
    (fault,) = validate(store, 1, lambda number: None)
    assert fault.startswith("README.md: is missing, or does not describe version 1")
    assert not add(store, {"0.wav": "ok"}, mode="replace").committed
    assert "| `verdict` |" in (dataset / "README.md").read_text()
    assert is_whole(store)


# Taking down


def test_a_takedown_erases_values_from_all_versions(
    store: Store, dataset: Path, songs: Path
) -> None:
    add(store, {"0.wav": SECRET, "1.wav": "keep"})
    add(store, {"1.wav": "other"}, mode="replace")
    add(store, {"0.wav": [7], "1.wav": [8]}, "tokens")
    assert len(files_with(dataset, SECRET)) == 1
    result = takedown(store, [str(songs / "0.wav")])
    assert files_with(dataset, SECRET) == []
    assert files_with(dataset, recording_id("0.wav")) == [require_snapshot(store).taken_down]
    assert result.versions == [0, 1, 2, 3]
    assert values_of(dataset) == {"1.wav": "other", "2.wav": None, "3.wav": None}
    assert values_of(dataset, "tokens")["1.wav"] == [8]
    assert values_of(dataset, version=1)["1.wav"] == "keep"
    assert "0.wav" not in values_of(dataset, version=1)
    assert is_whole(store)
    # A second takedown has nothing to do.
    assert takedown(store, [str(songs / "0.wav")]).files == []
    with pytest.raises(CatalogueError, match="1 row belongs to nothing"):
        add(store, {"0.wav": "back"}, "again")
    rollback(store, 1)
    assert files_with(dataset, SECRET) == []


def test_values_of_a_recording_that_left_the_dataset_are_erased(
    own_songs: Path, songs: Path, dataset: Path, store: Store
) -> None:
    add(store, {"0.wav": SECRET, "1.wav": "keep"})
    (own_songs / "0.wav").unlink()
    refresh_here(own_songs, dataset)
    collect(store, NOW)
    # No index of a kept version names the recording, but the side table does.
    assert len(files_with(dataset, SECRET)) == 1
    result = takedown(store, ["0.wav"])
    assert [taken.uri for taken in result.erased] == [str(songs / "0.wav")]
    assert result.rows == 0
    assert files_with(dataset, SECRET) == []
    assert values_of(dataset) == {"1.wav": "keep", "2.wav": None, "3.wav": None}
    write_song(own_songs / "0.wav", 9)
    refresh_here(own_songs, dataset)
    assert "0.wav" not in values_of(dataset)


def test_values_that_a_killed_run_left_are_erased(store: Store, dataset: Path, songs: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the machine went down")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(melmill.pipelines.add_columns, "commit", fail)
        with pytest.raises(RuntimeError):
            add(store, {"0.wav": SECRET})
    assert len(files_with(dataset, SECRET)) == 1
    takedown(store, [str(songs / "0.wav")])
    assert files_with(dataset, SECRET) == []


def test_a_copy_that_no_record_names_is_erased(store: Store, dataset: Path, songs: Path) -> None:
    add(store, {"0.wav": SECRET, "1.wav": "keep"})
    add(store, {"1.wav": "keep"}, "other")
    first, second = (table.name for table in require_snapshot(store).side_tables)
    for name, digit in ((first, "a"), (second, "b")):
        shutil.copytree(dataset / "columns" / name, dataset / "columns" / (digit * 32))
    takedown(store, [str(songs / "0.wav")])
    assert files_with(dataset, SECRET) == []
    assert not (dataset / "columns" / ("a" * 32)).exists()
    # A user's file that does not hold the recording stays.
    assert (dataset / "columns" / ("b" * 32)).exists()


MORE = [pytest.param(write, marks=pytest.mark.slow) for write in range(16) if write not in (3, 7)]


@pytest.mark.parametrize("write", [3, 7, *MORE])
def test_a_killed_takedown_is_finished_by_the_same_command(
    store: Store, dataset: Path, songs: Path, write: int
) -> None:
    add(store, {"0.wav": SECRET, "1.wav": "keep"})
    with killed_at(write):
        takedown(store, [str(songs / "0.wav")])
    takedown(store, [str(songs / "0.wav")])
    assert files_with(dataset, SECRET) == []
    assert values_of(dataset)["1.wav"] == "keep"
    assert is_whole(store)
