"""Tests of columns with a meaning: those of known layouts, and those that the recipe names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.transforms.catalogue.meanings import TableKeys
from melmill.transforms.catalogue.parts import open_catalogue
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.naming import recording_id
from tests.catalogue.manifests import faults, listed, segments, write_lines


def labels(path: Path, **keys: str) -> list[dict[str, Any]]:
    return [dict(r.labels) for r in listed(path, keys=TableKeys(**keys))]


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


# Known layouts


def test_a_manifest_of_nemo_gives_segments_and_texts(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "a.wav", "offset": 1.1, "duration": 2.2, "text": "one"},
        {"audio_filepath": "b/c.wav", "duration": 5.0, "text": "two", "lang": "en"},
    ]
    path = write_lines(tmp_path / "train_manifest.json", rows)
    assert segments(listed(path)) == [("a.wav", 1.1, 3.3), ("b/c.wav", None, None)]
    assert labels(path) == [{"text": "one", "lang": None}, {"text": "two", "lang": "en"}]


def test_segments_by_duration_have_the_ids_of_segments_by_end(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "offset": 1.1, "duration": 2.2}]
    (recording,) = listed(write_lines(tmp_path / "t.json", rows))
    assert recording.recording_id == recording_id("a.wav", 1.1, 3.3)


def test_a_duration_counts_without_an_offset_if_the_recipe_names_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.json", [{"audio_filepath": "a.wav", "duration": 5.0}])
    named = listed(path, keys=TableKeys(duration_column="duration"))
    assert segments(named) == [("a.wav", None, 5.0)]


@pytest.mark.parametrize(
    ("offset", "duration", "message"),
    [
        (-1.0, 2.0, "column 'offset': -1.0 is not a position in seconds"),
        (2.0, -1.0, "column 'duration': the end, 1.0, does not come after the start, 2.0"),
        (2.0, 0.0, "column 'duration': the end, 2.0, does not come after the start, 2.0"),
        (0.0, 1e12, "column 'duration': 1e+12 is not below 1,000,000,000 seconds"),
    ],
)
def test_an_impossible_duration_is_its_rows_fault(
    tmp_path: Path, offset: float, duration: float, message: str
) -> None:
    row = {"audio_filepath": "a.wav", "offset": offset, "duration": duration}
    (recording,) = listed(write_lines(tmp_path / "t.json", [row]))
    assert recording.fault == (Cause.BAD_SEGMENT, f"t.json line 1, {message}")


def test_a_manifest_of_nemo_with_several_files_a_row_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.json", [{"audio_filepath": ["a.wav", "b.wav"]}])
    with pytest.raises(CatalogueError, match=r"'audio_filepath' has the type list<string>, but"):
        listed(path)


def test_an_empty_name_is_called_by_its_own_column(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.json", [{"audio_filepath": "a"}, {"audio_filepath": ""}])
    assert faults(listed(path)) == ["t.json line 2, column 'audio_filepath': it is empty"]


COMMON_VOICE = 'client_id\tpath\tsentence\nx1\ta.mp3\tHe said "no"\nx1\tb.mp3\tYes\n'


def test_a_table_of_common_voice_names_files_in_its_clips(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    recordings = listed(text(tmp_path / "train.tsv", COMMON_VOICE))
    assert [r.uri for r in recordings] == [f"{tmp_path}/clips/a.mp3", f"{tmp_path}/clips/b.mp3"]
    assert dict(recordings[0].labels) == {"client_id": "x1", "sentence": 'He said "no"'}


@pytest.mark.parametrize(
    "path", ["en/a.mp3", "clips/en/a.mp3", "./clips/en/a.mp3", "clips\\en/a.mp3"]
)
def test_a_path_of_common_voice_may_begin_with_clips(tmp_path: Path, path: str) -> None:
    table = text(tmp_path / "train.tsv", f"client_id\tpath\tsentence\nx\t{path}\tyes\n")
    (tmp_path / "clips").mkdir()
    (recording,) = listed(table)
    assert (recording.uri, recording.relative_uri) == (f"{tmp_path}/clips/en/a.mp3", "en/a.mp3")


def test_a_named_root_counts_as_it_is_for_common_voice(tmp_path: Path) -> None:
    table = text(tmp_path / "train.tsv", "client_id\tpath\tsentence\nx\tclips/a.mp3\tyes\n")
    (tmp_path / "clips").mkdir()
    (recording,) = listed(table, keys=TableKeys(root="/data"))
    assert recording.uri == "/data/clips/a.mp3"


def test_a_table_of_common_voice_without_clips_starts_where_it_is(tmp_path: Path) -> None:
    recordings = listed(text(tmp_path / "train.tsv", COMMON_VOICE))
    assert recordings[0].uri == f"{tmp_path}/a.mp3"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_an_audiofolder_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".csv":
        text(path, "file_name,genre\ntrain/a.wav,folk\n")
    else:
        write_lines(path, [{"file_name": "train/a.wav", "genre": "folk"}])
    (recording,) = listed(path)
    assert (recording.uri, recording.labels) == (
        f"{tmp_path}/train/a.wav",
        (("genre", "folk"),),
    )


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_folder_with_a_table_of_an_audiofolder_is_the_table(tmp_path: Path, name: str) -> None:
    row = {"file_name": "train/a.wav", "genre": "folk"}
    if name.endswith("csv"):
        text(tmp_path / name, "genre;file_name\nfolk;train/a.wav\n")
    elif name.endswith("jsonl"):
        write_lines(tmp_path / name, [row])
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    assert listed(tmp_path) == listed(tmp_path / name)
    assert labels(tmp_path) == [{"genre": "folk"}]


@pytest.mark.parametrize("content", ["LJ001-0001|file_name is here\n", "", "id,text\n", b"\xff,\n"])
def test_a_folder_with_other_metadata_is_a_folder_of_audio(
    tmp_path: Path, content: str | bytes
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "metadata.csv").write_bytes(data)
    (tmp_path / "metadata.jsonl").mkdir()
    (tmp_path / "a.wav").touch()
    assert [r.relative_uri for r in listed(tmp_path)] == ["a.wav"]


def test_a_plain_table_stays_plain_whatever_other_columns_it_has(tmp_path: Path) -> None:
    row = {"uri": "a.wav", "audio_filepath": "b.wav", "offset": 1.0, "duration": 2.0, "path": "x"}
    path = write_lines(tmp_path / "t.jsonl", [row])
    assert segments(listed(path)) == [("a.wav", None, None)]
    assert labels(path) == [{name: value for name, value in row.items() if name != "uri"}]


# What the recipe names


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", "wav,from,to,genre\na.wav,1,2.5,folk\n")
    keys = TableKeys(uri_column="wav", start_column="from", end_column="to")
    assert segments(listed(path, keys=keys)) == [("a.wav", 1.0, 2.5)]
    assert [column.name for column in open_catalogue(str(path), keys=keys).label_columns] == [
        "genre"
    ]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.0}, "audio_filepath"),
        ({"audio_filepath": "a.wav", "start": 0.5, "end": 1.5}, "audio_filepath"),
        ({"client_id": "x", "path": "a.wav", "sentence": "yes"}, "path"),
        ({"file_name": "a.wav", "start": 0.5, "end": 1.5}, "file_name"),
        ({"uri": "a.wav", "start": 0.5, "end": 1.5, "duration": 9.0}, "uri"),
    ],
)
def test_a_named_column_that_counts_anyway_changes_nothing(
    tmp_path: Path, columns: dict[str, Any], named: str
) -> None:
    (tmp_path / "clips").mkdir()
    path = write_lines(tmp_path / "t.json", [columns])
    (usual,) = listed(path)
    assert usual.start_seconds == columns.get("offset", columns.get("start"))
    assert listed(path, keys=TableKeys(uri_column=named)) == [usual]


def test_a_named_column_of_a_layout_brings_its_layout(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    row = {"audio_filepath": "x.wav", "duration": 1.0, "client_id": 1, "path": "a", "sentence": "b"}
    path = write_lines(tmp_path / "t.json", [row])
    assert segments(listed(path)) == [("x.wav", None, None)]
    assert listed(path, keys=TableKeys(uri_column="path"))[0].uri == f"{tmp_path}/clips/a"


SLICES = "slice_file_name,start,end,length\na.wav,0.5,2.5,2\n"


@pytest.mark.parametrize(
    ("keys", "segment", "names"),
    [
        ({}, (0.5, 2.5), ["length"]),
        ({"start_column": ""}, (None, None), ["start", "end", "length"]),
        ({"start_column": "", "end_column": ""}, (None, None), ["start", "end", "length"]),
        ({"start_column": "", "end_column": "end"}, (None, 2.5), ["start", "length"]),
        ({"start_column": "", "duration_column": "length"}, (None, 2.0), ["start", "end"]),
        ({"end_column": ""}, (0.5, None), ["end", "length"]),
        ({"end_column": "", "duration_column": "length"}, (0.5, 2.5), ["end"]),
    ],
)
def test_an_empty_name_makes_labels_of_a_segments_columns(
    tmp_path: Path, keys: dict[str, str], segment: tuple[float | None, ...], names: list[str]
) -> None:
    path = text(tmp_path / "t.csv", SLICES)
    named = TableKeys(uri_column="slice_file_name", **keys)
    assert segments(listed(path, keys=named)) == [("a.wav", *segment)]
    assert list(labels(path, uri_column="slice_file_name", **keys)[0]) == names


def test_an_empty_name_makes_a_label_of_a_duration(tmp_path: Path) -> None:
    row = {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.0}
    path = write_lines(tmp_path / "t.json", [row])
    assert segments(listed(path, keys=TableKeys(duration_column=""))) == [("a.wav", 0.5, None)]
    assert labels(path, start_column="") == [{"offset": 0.5, "duration": 1.0}]


def test_a_named_column_counts_before_those_of_a_layout(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "duration": 2.0, "clean": "b.wav"}]
    path = write_lines(tmp_path / "t.json", rows)
    assert segments(listed(path, keys=TableKeys(uri_column="clean"))) == [("b.wav", None, None)]
    assert labels(path, uri_column="clean") == [{"audio_filepath": "a.wav", "duration": 2.0}]


def test_a_duration_column_replaces_the_end(tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", "uri,start,length\na.wav,0.1,0.2\nb.wav,,3\nc.wav,1,\n")
    keys = TableKeys(duration_column="length")
    expected = [("a.wav", 0.1, 0.3), ("b.wav", None, 3.0), ("c.wav", 1.0, None)]
    assert segments(listed(path, keys=keys)) == expected


def test_a_root_can_be_named(tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", "uri\na.wav\n/data/songs/b.wav\n")
    recordings = listed(path, keys=TableKeys(root="/data/songs"))
    assert [r.uri for r in recordings] == ["/data/songs/a.wav", "/data/songs/b.wav"]
    assert [r.relative_uri for r in recordings] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("header", "likely"),
    [("path,genre", "path"), ("id,wav_file,x", "wav_file"), ("Path,x", "Path"), ("urls,x", "urls")],
)
def test_a_table_without_a_known_column_says_which_is_likely(
    tmp_path: Path, header: str, likely: str
) -> None:
    path = text(tmp_path / "t.csv", f"{header}\n")
    columns = re.escape(str(header.split(",")))
    advice = f"is the audio in '{likely}'\\? Then set catalogue.uri_column: {likely}$"
    with pytest.raises(
        CatalogueError, match=f"no column 'uri'; its columns are {columns}; {advice}"
    ):
        listed(path)


def test_a_table_in_which_nothing_is_likely_says_only_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"its columns are \['speaker', 'x'\]$"):
        listed(text(tmp_path / "t.csv", "speaker,x\n"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"uri_column": "wavs"},
            r"catalogue.uri_column: .*no column 'wavs'; its columns are .*wav",
        ),
        ({"uri_column": "wav", "start_column": "form"}, "catalogue.start_column: .*mean 'from'"),
        ({"uri_column": "wav", "end_column": "x"}, r"end_column: .* it has \['wav', 'from'\]$"),
        ({"uri_column": "wav", "duration_column": "x"}, "catalogue.duration_column: .*'x'"),
    ],
)
def test_a_named_column_that_is_missing_is_named(
    tmp_path: Path, keys: dict[str, str], message: str
) -> None:
    path = text(tmp_path / "t.csv", "wav,from\na.wav,1\n")
    with pytest.raises(CatalogueError, match=message):
        listed(path, keys=TableKeys(**keys))


def test_the_keys_of_tables_are_refused_for_a_directory(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"catalogue.uri_column is for tables, but .* not"):
        listed(tmp_path, keys=TableKeys(uri_column="path"))
    with pytest.raises(CatalogueError, match=r"catalogue.start_column is for tables, but .* not"):
        listed(tmp_path, keys=TableKeys(start_column=""))
