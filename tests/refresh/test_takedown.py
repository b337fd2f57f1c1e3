"""A recording that is taken down is in no file of the dataset, and never comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import melmill.pipelines.extract
from melmill.pipelines.cli.snapshot_texts import (
    inspection_json,
    inspection_text,
    takedown_json,
    takedown_text,
)
from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.history import history, rollback
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import Takedown, takedown
from melmill.transforms.catalogue.left_out import LeftOut, names_of_uri, read_left_out
from melmill.transforms.catalogue.taken_down_list import (
    TakenDown,
    read_taken_down,
    write_taken_down,
)
from melmill.transforms.core.errors import ConflictError, DatasetError, Stage
from melmill.transforms.core.naming import recording_id
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from melmill.transforms.views.written_exports import read_export_records
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    files_of,
    mentions_of,
    needed_files,
    rows_of,
    statuses_of,
    write_song,
    write_table,
)
from tests.refresh.machine import failing_for_a_while, killed_at, killed_at_removal
from tests.refresh.test_conflicts import overtake

FEW = (*SMALL, "output.min_shards=2", "split.fractions={train: 1.0}")
TWINS = "output.formats=[parquet,tfrecord]"
NOW = RetentionConfig(keep_snapshots=1, grace_hours=0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs and a dataset with content hashes.

    The first version has three songs; the second version also has a copy of the first song.
    """
    folder = tmp_path_factory.mktemp("takedown")
    songs = folder / "music" / "songs"
    for number in range(3):
        write_song(songs / f"{number}.wav", number, 0.4 + 0.2 * number)
    extract_here(songs, folder / "set", *FEW, TWINS, "catalogue.content_hashes=true")
    shutil.copyfile(songs / "0.wav", songs / "copy.wav")
    refresh_here(songs, folder / "set")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original / "set", tmp_path / "set")
    shutil.copytree(original / "music", tmp_path / "music", copy_function=shutil.copy2)
    return tmp_path


@pytest.fixture
def dataset(folder: Path) -> Path:
    return folder / "set"


@pytest.fixture
def store(dataset: Path) -> Store:
    return Store(str(dataset))


@pytest.fixture
def songs(original: Path) -> Path:
    """Return the folder in which the dataset's index finds the songs."""
    return original / "music" / "songs"


def uris_of(dataset: Path) -> set[str]:
    return {Path(uri).name for uri in statuses_of(dataset)}


def is_whole(store: Store) -> bool:
    return validate(store, 1, lambda number: None) == []


# A recording never comes back


@pytest.mark.parametrize(
    ("listed", "matches"),
    [
        ("/music/songs/0.wav", True),
        ("file:///music/songs/0.wav", True),
        ("FILE:///music/./other/../songs//0.wav", True),
        ("local:///music/songs/0.wav", True),
        ("file:/music/songs/0.wav", True),
        ("/music/songs/0.wav/", True),
        ("/music/songs/0.WAV", False),
        ("/music/songs/10.wav", False),
        ("s3://music/songs/0.wav", False),
        ("/music/so\0ngs/0.wav", False),
        ("/music/so\udcffngs/0.wav", False),
    ],
)
def test_a_uri_is_the_same_however_it_is_written(listed: str, matches: bool) -> None:
    assert names_of_uri(listed).isdisjoint(names_of_uri("/music/songs/0.wav")) != matches


def test_a_linked_folder_leads_to_the_same_recording(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "music")
    (folder / "0.wav").symlink_to(folder / "link" / "songs" / "0.wav")
    real = str(folder / "music" / "songs" / "0.wav")
    for name in ("link/songs/0.wav", "0.wav"):
        assert real in names_of_uri(str(folder / name))


def test_other_segments_tables_and_folders_do_not_bring_a_recording_back(
    store: Store, dataset: Path, songs: Path, folder: Path
) -> None:
    takedown(store, [str(songs / "1.wav")])
    rows = [
        {"uri": str(songs / "1.wav"), "start": 0.0, "end": 0.25},
        {"uri": f"file://{songs}/1.wav", "start": 0.25, "end": 0.5},
        {"uri": str(songs / "2.wav"), "start": 0.0, "end": 0.25},
    ]
    table = write_table(folder / "other.jsonl", rows)
    # Without content hashes, the names alone must identify the recording.
    result = refresh_here(table, dataset, "catalogue.content_hashes=false")
    assert result.difference["taken_down"] == 2
    assert uris_of(dataset) == {"2.wav"}
    refresh_here(songs.parent, dataset)
    assert uris_of(dataset) == {"0.wav", "2.wav", "copy.wav"}
    assert not refresh_here(songs.parent, dataset).committed


def test_a_catalogue_that_moved_does_not_bring_a_recording_back(
    store: Store, dataset: Path, songs: Path, folder: Path
) -> None:
    takedown(store, [str(songs / "1.wav")])
    refresh_here(folder / "music" / "songs", dataset)
    assert uris_of(dataset) == {"0.wav", "2.wav", "copy.wav"}


def test_a_copy_goes_too_and_no_other_copy_comes(
    store: Store, dataset: Path, songs: Path, folder: Path
) -> None:
    taken_down = takedown(store, [str(songs / "0.wav")])
    assert {Path(record.uri).name for record in taken_down.erased} == {"0.wav", "copy.wav"}
    catalogue = folder / "music" / "songs"
    shutil.copyfile(catalogue / "0.wav", catalogue / "again.wav")
    write_song(catalogue / "2.wav", 77)
    refreshed = refresh_here(catalogue, dataset)
    assert refreshed.difference["taken_down"] == 3
    assert (refreshed.difference["new"], refreshed.totals.recordings["failed"]) == (0, 0)
    assert uris_of(dataset) == {"1.wav", "2.wav"}
    assert not refresh_here(catalogue, dataset).committed


def test_the_list_outlives_overwriting_and_rollback(
    store: Store, dataset: Path, songs: Path
) -> None:
    takedown(store, [str(songs / "1.wav")])
    extract_here(songs, dataset, *FEW, "mel.n_mels=5", overwrite=True)
    assert uris_of(dataset) == {"0.wav", "2.wav", "copy.wav"}
    rollback(store, 0)
    assert uris_of(dataset) == {"0.wav", "2.wav"}
    refresh_here(songs, dataset)
    assert uris_of(dataset) == {"0.wav", "2.wav", "copy.wav"}
    (record,) = read_taken_down(store, require_snapshot(store).taken_down)
    assert (record.uri, len(record.content)) == (str(songs / "1.wav"), 64)


def test_a_list_that_is_missing_or_damaged_stops_everything(
    store: Store, dataset: Path, songs: Path
) -> None:
    takedown(store, [str(songs / "1.wav")])
    path = dataset / require_snapshot(store).taken_down
    intact = path.read_bytes()
    for content in (None, b"", intact[:-10], intact.replace(b"1.wav", b"2.wav")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DatasetError, match="restore the file from a backup"):
            read_left_out(store, require_snapshot(store).taken_down)
    faults = validate(store, 1, lambda number: None)
    assert any("restore the file from a backup" in fault for fault in faults)


def test_a_list_of_an_older_format_is_read(store: Store) -> None:
    text = json.dumps([{"recording_id": "5f", "uri": "/a.wav", "time": "2026"}])
    assert read_left_out(store, text) == LeftOut(frozenset({"5f", "/a.wav"}))


def test_a_long_list_leaves_commits_small(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    erased = [TakenDown(recording_id(f"{i}"), f"/songs/{i}.wav", "2026") for i in range(10_000)]
    name = write_taken_down(store, erased)
    assert len(name) < 60
    assert len(read_left_out(store, name).taken_down) == 20_000


# A recording is in no file


def test_nothing_of_a_recording_is_left_anywhere(store: Store, dataset: Path, songs: Path) -> None:
    record = dataset / "runs" / "20260101T000000.000Z-refresh.json"
    record.parent.mkdir()
    uri = str(songs / "1.wav")
    record.write_text(json.dumps({"difference": {"examples": {"new": [uri]}}, "message": uri}))
    assert mentions_of(dataset, uri)
    takedown(store, [uri])
    assert mentions_of(dataset, uri, recording_id("1.wav")) == []
    assert json.loads(record.read_text())["message"] == "(taken down)"


def test_a_failure_of_the_past_does_not_keep_the_uri(tmp_path: Path) -> None:
    for number in range(2):
        write_song(tmp_path / "songs" / f"{number}.wav", number, 1.3)
    dataset = tmp_path / "dataset"
    with failing_for_a_while("0.wav", Stage.DECODE):
        extract_here(tmp_path / "songs", dataset, *FEW, "limits.max_failure_ratio=1")
    assert mentions_of(dataset, str(tmp_path / "songs/0.wav"))
    assert refresh_here(tmp_path / "songs", dataset).committed
    takedown(Store(str(dataset)), [str(tmp_path / "songs/0.wav")])
    assert mentions_of(dataset, str(tmp_path / "songs/0.wav")) == []


def test_a_lone_twin_is_found_by_its_own_records(store: Store, dataset: Path, songs: Path) -> None:
    for path in sorted((dataset / "tfrecord" / "train").glob("*.tfrecord")):
        shutil.copyfile(path, path.with_name(f"part-{path.stem[5:][::-1]}.tfrecord"))
    uri = str(songs / "1.wav")
    takedown(store, [uri])
    assert mentions_of(dataset, uri) == []
    # Orphans of other recordings are left to gc, which removes those that a record names.
    assert mentions_of(dataset, str(songs / "2.wav")) != []


def test_a_lone_table_of_failures_is_read(store: Store, dataset: Path, songs: Path) -> None:
    """A killed gc may leave only the failures of an index, which name a recording."""
    (songs / "1.wav").write_bytes(b"no audio")
    refresh_here(songs, dataset)
    index = require_snapshot(store).index
    for path in (dataset / "index" / index).glob("failures-*"):
        orphan = dataset / "index" / index[::-1] / path.name
        orphan.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, orphan)
    uri = str(songs / "1.wav")
    takedown(store, [uri])
    assert mentions_of(dataset, uri) == []


@pytest.mark.parametrize("write", [12, 16, 40])
def test_what_an_interrupted_overwriting_left_is_erased(
    store: Store, dataset: Path, songs: Path, folder: Path, write: int
) -> None:
    other_songs = folder / "other"
    write_song(other_songs / "only-there.wav", 9)
    write_song(other_songs / "5.wav", 10)
    with killed_at(write):
        extract_here(other_songs, dataset, *FEW, TWINS, overwrite=True)
    uri = str(other_songs / "only-there.wav")
    version = require_snapshot(store).version
    if mentions_of(dataset, uri):
        takedown(store, [uri])
        assert require_snapshot(store).version == version + 1
    assert mentions_of(dataset, uri) == []
    extract_here(other_songs, dataset, *FEW, overwrite=True)
    assert uris_of(dataset) == {"5.wav"} | ({"only-there.wav"} - uris_of_list(store))


def uris_of_list(store: Store) -> set[str]:
    records = read_taken_down(store, require_snapshot(store).taken_down)
    return {Path(record.uri).name for record in records}


def test_a_run_that_is_overtaken_by_a_takedown_leaves_nothing(
    store: Store, dataset: Path, songs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = folder / "music" / "songs"
    write_song(catalogue / "1.wav", 50)
    uri = str(catalogue / "1.wav")

    def rival() -> None:
        takedown(store, [str(songs / "1.wav")])

    overtake(melmill.pipelines.extract, monkeypatch, rival)
    with pytest.raises(ConflictError):
        refresh_here(catalogue, dataset, "catalogue.content_hashes=false")
    assert mentions_of(dataset, uri, str(songs / "1.wav")) == []
    assert not (dataset / "staging").exists()
    refresh_here(catalogue, dataset)
    assert "1.wav" not in uris_of(dataset)


def assert_gone(store: Store, dataset: Path, uri: str) -> None:
    """Assert that a repeated takedown leaves no mention of `uri`, and gc only needed files."""
    takedown(store, [uri])
    assert mentions_of(dataset, uri) == []
    collect(store, NOW)
    side_files = {".melmill", "tfrecord/files.json", "tfrecord/features.json"}
    assert files_of(dataset) == needed_files(dataset) | side_files
    assert not (dataset / "staging").exists()
    assert is_whole(store)


WRITES = [pytest.param(n, marks=pytest.mark.slow) for n in range(40) if n not in (3, 9, 15, 22)]


@pytest.mark.parametrize("write", [3, 9, 15, 22, *WRITES])
def test_killed_at_a_write(store: Store, dataset: Path, songs: Path, write: int) -> None:
    uri = str(songs / "1.wav")
    with killed_at(write):
        takedown(store, [uri])
    assert_gone(store, dataset, uri)


REMOVALS = [pytest.param(n, marks=pytest.mark.slow) for n in range(40) if n not in (0, 5, 14)]


@pytest.mark.parametrize("removal", [0, 5, 14, *REMOVALS])
def test_killed_at_a_removal(store: Store, dataset: Path, songs: Path, removal: int) -> None:
    uri = str(songs / "1.wav")
    with killed_at_removal(removal):
        takedown(store, [uri])
    assert_gone(store, dataset, uri)


@pytest.mark.parametrize("removal", [0, 1, 4, *REMOVALS[4:]])
def test_gc_killed_at_a_removal(store: Store, dataset: Path, songs: Path, removal: int) -> None:
    with killed_at_removal(removal):
        collect(store, NOW)
    for entry in history(store):
        if entry["kept"]:
            rows_of(dataset, entry["version"])
    assert_gone(store, dataset, str(songs / "1.wav"))


@pytest.fixture
def rewritten(store: Store, dataset: Path, songs: Path) -> Store:
    """Return a store in which a takedown has rewritten shards that only an earlier version has."""
    for name in ("0.wav", "2.wav", "copy.wav"):
        write_song(songs / name, 77, 1.1)
    refresh_here(songs, dataset)
    takedown(store, [str(songs / "1.wav")])
    return store


def assert_only_what_is_needed(store: Store, dataset: Path) -> None:
    collect(store, NOW)
    side_files = {".melmill", "tfrecord/files.json", "tfrecord/features.json"}
    assert files_of(dataset) <= needed_files(dataset) | side_files


def test_gc_removes_what_a_takedown_wrote_for_an_earlier_version(
    rewritten: Store, dataset: Path
) -> None:
    assert_only_what_is_needed(rewritten, dataset)


@pytest.mark.parametrize(
    "removal", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 6, 9))]
)
def test_gc_that_was_killed_removes_those_shards_when_it_is_run_again(
    rewritten: Store, dataset: Path, removal: int
) -> None:
    with killed_at_removal(removal):
        collect(rewritten, NOW)
    assert_only_what_is_needed(rewritten, dataset)


# All recordings


def test_an_empty_dataset_is_a_dataset(store: Store, dataset: Path, songs: Path) -> None:
    columns, shape = Dataset(dataset).columns, Dataset(dataset).shape
    taken_down = takedown(store, [str(songs / f"{number}.wav") for number in range(3)])
    assert (len(taken_down.erased), taken_down.versions, rows_of(dataset)) == (4, [0, 1], {})
    assert is_whole(store)
    assert [entry["rows"] for entry in history(store)] == [0, 0, 0]
    empty = Dataset(dataset)
    assert (empty.columns, empty.shape, empty.rows) == (columns, shape, {})
    assert empty.as_arrow().count_rows() == 0
    assert "0 recordings" in inspection_text("set", OpenSnapshot.current(store))
    assert inspection_json("set", OpenSnapshot.current(store))["rows"] == 0
    job = ExportJob(store, "", Store(str(dataset.parent / "view")), "hf", "songs")
    with pytest.raises(DatasetError, match="nothing to export"):
        export(job, here())
    collect(store, NOW)
    assert not refresh_here(songs, dataset).committed
    rollback(store, 2)


def test_an_empty_dataset_is_filled_again(store: Store, dataset: Path, songs: Path) -> None:
    takedown(store, [str(songs / f"{number}.wav") for number in range(3)])
    new = dataset.parent / "new"
    write_song(new / "other.wav", 20)
    refresh_here(new, dataset)
    assert uris_of(dataset) == {"other.wav"}
    assert is_whole(store)


# Names of a recording


@pytest.mark.parametrize("form", ["absolute", "url", "relative", "id", "dotted"])
def test_a_recording_may_be_named_in_several_ways(store: Store, songs: Path, form: str) -> None:
    name = {
        "absolute": str(songs / "1.wav"),
        "url": f"file://{songs}/1.wav",
        "relative": "1.wav",
        "id": recording_id("1.wav"),
        "dotted": f"{songs}/../songs/1.wav",
    }[form]
    assert erased_by(takedown(store, [name])) == {"1.wav"}


def erased_by(taken_down: Takedown) -> set[str]:
    return {Path(record.uri).name for record in taken_down.erased}


def test_a_name_that_is_not_known_is_refused_with_close_ones(store: Store, dataset: Path) -> None:
    before = files_of(dataset)
    with pytest.raises(DatasetError, match=r"has copi\.wav \(did you mean [^,]*/songs/copy\.wav"):
        takedown(store, ["1.wav", "copi.wav"])
    with pytest.raises(DatasetError, match=r"did you mean .*/songs/1\.wav"):
        takedown(store, ["/elsewhere/1.wav"])
    assert files_of(dataset) == before


# Exports and other edge cases


def test_exports_that_hold_a_recording_are_named(store: Store, dataset: Path, songs: Path) -> None:
    output = dataset.parent / "view"
    job = ExportJob(store, "", Store(str(output)), "numpy", "songs")
    export(job, here())
    shutil.rmtree(output)
    export(job, here())
    assert len(list(read_export_records(store))) == 1
    taken_down = takedown(store, ["1.wav"])
    assert f"  {output} (numpy, version 1)" in takedown_text("set", taken_down).splitlines()
    assert takedown_json("set", taken_down)["exports"][0]["output"] == str(output)
    assert [(record.output, record.format, record.version) for record in taken_down.exports] == [
        (str(output), "numpy", 1)
    ]
    # A repeated takedown names the export again.
    assert len(takedown(store, ["1.wav"]).exports) == 1
    write_song(songs / "late.wav", 60)
    refresh_here(songs, dataset)
    (songs / "late.wav").unlink()
    export(ExportJob(store, "", Store(str(output) + "2"), "numpy", "songs"), here())
    assert {record.output for record in takedown(store, ["late.wav"]).exports} >= {f"{output}2"}


def test_an_export_that_cannot_be_recorded_warns(
    store: Store, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (dataset / "runs").write_text("not a folder")
    export(ExportJob(store, "", Store(str(dataset.parent / "view")), "numpy", "songs"), here())
    assert "this export cannot be recorded, so no takedown will list it" in caplog.text
    assert takedown(store, ["1.wav"]).exports == ()


def test_a_list_has_one_name_however_it_is_ordered(store: Store) -> None:
    """Once, a list was announced under one name and written under another name."""
    from melmill.transforms.catalogue.taken_down_list import (
        TakenDown,
        taken_down_name,
        write_taken_down,
    )

    records = [TakenDown(f"{i}", f"/songs/{9 - i}.wav", "2026-11-25T00:00:00") for i in range(3)]
    assert taken_down_name(records) == taken_down_name(records[::-1])
    assert write_taken_down(store, records) == taken_down_name(records[::-1])


def test_nothing_to_read_is_no_reason_to_fail(store: Store, dataset: Path, songs: Path) -> None:
    """The closing text of an extraction shows how to read a split, but here is no split."""
    from melmill.pipelines.cli.pipeline_texts import extraction_text

    takedown(store, sorted(uris_of(dataset)))
    result = extract_here(songs, dataset, *FEW, TWINS, "catalogue.content_hashes=true")
    assert not result.totals.rows
    assert "Nothing to do" in extraction_text(str(dataset), result)
