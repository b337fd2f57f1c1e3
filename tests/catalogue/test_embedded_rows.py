"""Tests of Parquet files with audio as catalogues: rows, labels, parts, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.transforms.catalogue.listing import OutOfTimeError
from melmill.transforms.catalogue.meanings import TableKeys
from melmill.transforms.catalogue.parts import (
    catalogue_parts,
    list_part,
    open_catalogue,
    require_recordings,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store import embedded
from melmill.transforms.store.members import content_fingerprint
from melmill.transforms.store.objects import StoredObject
from tests.catalogue.manifests import faults, listed
from tests.store.test_embedded import AUDIO, parquet_of

CONTENT = {"a.flac": b"audio a", "b.wav": b"audio bb", "c": b"audio ccc"}
LABELS = {"text": ["x", "y", "z"], "speaker": [1, 2, 3], "split": ["train", "train", "test"]}


def write(path: Path, content: object = CONTENT, labels: object = LABELS) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(parquet_of(content, labels))  # type: ignore[arg-type]  # as given
    return path


def test_each_row_is_a_recording_with_the_other_columns_as_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "songs.parquet")
    catalogue = open_catalogue(str(path))
    assert [(c.name, c.type) for c in catalogue.label_columns] == [
        ("text", "string"),
        ("speaker", "int64"),
    ]
    rows = listed(path)
    assert [row.uri for row in rows] == [f"{path}#{name}" for name in CONTENT]
    assert [row.relative_uri for row in rows] == [f"songs.parquet#{name}" for name in CONTENT]
    assert [dict(row.labels) for row in rows] == [
        {"text": t, "speaker": s} for t, s in zip("xyz", (1, 2, 3), strict=True)
    ]
    assert [row.split for row in rows] == LABELS["split"]
    assert [row.origin for row in rows][:2] == ["songs.parquet row 1", "songs.parquet row 2"]
    for row, data in zip(rows, CONTENT.values(), strict=True):
        assert (row.size_bytes, row.fingerprint) == (len(data), content_fingerprint(data))
        for place in (row.place, ""):  # with the place from the listing, or looked up by name
            source = StoredObject(row.uri, row.size_bytes, place=place, fingerprint=row.fingerprint)
            with source.open() as file:
                assert file.read() == data
            assert source.stat() == (len(data), row.fingerprint)


def test_what_datasets_writes_is_read(tmp_path: Path) -> None:
    rows = [{"path": f"{n}.wav", "bytes": bytes([n]) * 9} for n in range(5)]
    songs = datasets.Dataset.from_dict({"audio": rows, "label": [0, 1, 0, 1, 0]})
    songs = songs.cast_column("audio", datasets.Audio(decode=False))
    songs = songs.cast_column("label", datasets.ClassLabel(names=["rock", "jazz"]))
    songs.to_parquet(tmp_path / "train.parquet")
    read = listed(tmp_path / "train.parquet")
    assert [r.relative_uri for r in read] == [f"train.parquet#{n}.wav" for n in range(5)]
    assert [dict(r.labels)["label"] for r in read] == [0, 1, 0, 1, 0]


def test_a_glob_of_files_has_a_part_for_each(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "data" / f"train-{number}.parquet")
    catalogue = open_catalogue(f"{tmp_path}/data/*.parquet")
    parts = list(catalogue_parts(catalogue))
    assert len(parts) == 3
    uris = {row.relative_uri for part in parts for row in list_part(catalogue, part)}
    assert uris == {f"train-{n}.parquet#{name}" for n in range(3) for name in CONTENT}


def test_a_file_on_a_store_is_listed_in_place() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/embedded/songs.parquet", parquet_of(CONTENT))
    rows = listed("memory://embedded/songs.parquet")
    assert [row.relative_uri.partition("#")[2] for row in rows] == list(CONTENT)
    with StoredObject(rows[1].uri, place=rows[1].place).open() as file:
        assert file.read() == CONTENT["b.wav"]


def test_to_open_a_catalogue_computes_no_fingerprints(tmp_path: Path) -> None:
    assert not require_recordings(open_catalogue(str(write(tmp_path / "a.parquet")))).fingerprint


def test_a_row_without_audio_fails_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"a.wav": None, "b.wav": b"b"}, {"text": ["x", "y"]})
    (fault,) = faults(listed(path))
    assert "a.parquet row 1 has no bytes of audio; embed the files" in fault
    assert [row.relative_uri for row in listed(path) if not row.fault] == ["a.parquet#b.wav"]


def test_a_label_of_another_type_in_another_file_is_its_rows_fault(tmp_path: Path) -> None:
    write(tmp_path / "data" / "1.parquet", CONTENT, {"speaker": [1, 2, 3]})
    write(tmp_path / "data" / "2.parquet", CONTENT, {"speaker": ["1", "two", "3"]})
    (fault,) = faults(listed(f"{tmp_path}/data/*.parquet"))
    assert "2.parquet row 2, column 'speaker': 'two' is not int64" in fault


def test_columns_that_the_first_file_lacks_are_named(tmp_path: Path) -> None:
    write(tmp_path / "data" / "1.parquet", CONTENT, {})
    write(tmp_path / "data" / "2.parquet")
    with pytest.raises(CatalogueError, match=r"2\.parquet has columns .*'speaker', 'text'"):
        listed(f"{tmp_path}/data/*.parquet")


@pytest.mark.parametrize("pattern", ["*.parquet", "b*.parquet"])
def test_a_glob_of_tables_that_name_files_is_refused(tmp_path: Path, pattern: str) -> None:
    for name in ("b1", "b2"):
        pq.write_table(pa.table({"uri": ["a.wav"]}), tmp_path / f"{name}.parquet")
    with pytest.raises(CatalogueError, match=r"no column of audio .* must be one file"):
        open_catalogue(f"{tmp_path}/{pattern}")
    with pytest.raises(CatalogueError, match="no file matches"):
        open_catalogue(f"{tmp_path}/c*.parquet")


def test_of_several_columns_the_user_names_one(tmp_path: Path) -> None:
    rows = {name: [{"bytes": name.encode(), "path": "a"}] for name in ("audio", "cover")}
    table = pa.table({name: pa.array(values, AUDIO) for name, values in rows.items()})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    with pytest.raises(CatalogueError, match=r"columns audio, cover; name one .*uri_column=audio"):
        open_catalogue(str(path))
    (row,) = listed(path, keys=TableKeys(uri_column="audio"))
    assert (row.relative_uri, row.labels) == ("a.parquet#audio/a", ())
    with StoredObject(row.uri).open() as file:
        assert file.read() == b"audio"


def test_a_column_that_the_user_names_is_the_catalogue(tmp_path: Path) -> None:
    cover = pa.array([{"bytes": b"png", "path": "c.png"}], AUDIO)
    pq.write_table(pa.table({"file_name": ["a.wav"], "cover": cover}), tmp_path / "a.parquet")
    keys = TableKeys(uri_column="file_name")
    with pytest.raises(CatalogueError, match="column 'cover' cannot be a label"):
        open_catalogue(str(tmp_path / "a.parquet"), keys=keys)


def test_a_first_row_without_audio_does_not_refuse_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_BATCH_BYTES", 1)
    path = write(tmp_path / "a.parquet", {"a.wav": None, "b.wav": b"b"}, {})
    assert require_recordings(open_catalogue(str(path))).relative_uri == "a.parquet#b.wav"


def test_faults_of_equal_files_in_two_folders_are_two_faults(tmp_path: Path) -> None:
    for folder in ("en", "fr"):
        write(tmp_path / folder / "train.parquet", {"a.wav": None, "b.wav": b"b"}, {})
    rows = listed(f"{tmp_path}/*/train.parquet")
    assert len({row.recording_id for row in rows}) == 4
    assert [message.partition(" has")[0] for message in faults(rows)] == [
        "en/train.parquet row 1",
        "fr/train.parquet row 1",
    ]


def test_a_key_that_names_a_missing_column_says_which_there_are(tmp_path: Path) -> None:
    keys = TableKeys(start_column="begin")
    with pytest.raises(CatalogueError, match=r"catalogue\.start_column: .* no column 'begin'"):
        open_catalogue(str(write(tmp_path / "a.parquet")), keys=keys)


def test_a_damaged_file_is_a_fault_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path / "data" / "1.parquet")
    damaged = write(tmp_path / "data" / "2.parquet")
    data = bytearray(damaged.read_bytes())
    data[4:40] = bytes(36)  # the first page of the audio
    damaged.write_bytes(data)
    rows = listed(f"{tmp_path}/data/*.parquet")
    assert len([row for row in rows if not row.fault]) == len(CONTENT)
    assert "2.parquet file has a damaged page at byte 4" in faults(rows)[0]


def test_a_deadline_ends_the_reading(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(write(tmp_path / "a.parquet")))
    (part,) = catalogue_parts(catalogue)
    with pytest.raises(OutOfTimeError):
        list(list_part(catalogue, part, None, time.monotonic() - 1))
