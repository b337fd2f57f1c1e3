"""Tests of tables: columns, labels, line numbers, and the faults of rows."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.transforms.catalogue import row_blocks
from melmill.transforms.catalogue.row_blocks import RowRange, row_ranges
from melmill.transforms.catalogue.tables import Table, duplicate_message, list_rows, open_table
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import RESERVED_COLUMNS

ROWS: list[dict[str, Any]] = [
    {"uri": "a.wav", "track": 1, "gain": 0.5, "live": True, "artist": "Björk"},
    {"uri": "b/c.wav", "track": None, "gain": None, "live": None, "artist": None},
    {"uri": "s3://bucket/d.wav", "track": -3, "gain": 2.0, "live": False, "artist": 'a,"b"\nc'},
]
TYPES = [("track", "int64"), ("gain", "double"), ("live", "bool"), ("artist", "string")]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the path's suffix names, and return the path."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({n: [row.get(n) for row in rows] for n in names}), path)
    elif path.suffix == ".csv":
        lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
        path.write_text("".join(",".join(line) + "\n" for line in lines), newline="")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _cell(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return "" if value is None else str(value).lower()


def text(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join(s.encode() if isinstance(s, str) else s for s in lines))
    return path


def opened(path: Path | str, **options: Any) -> Table:
    return open_table(str(path), str(path).rpartition("/")[0], **options)


def rows(path: Path | str, **options: Any) -> list[Recording]:
    table = opened(path, **options)
    parts = row_ranges(table.uri, table.storage_options)
    return [recording for part in parts for recording in list_rows(table, part)]


def assert_fault(
    pattern: str, path: Path | str, cause: Cause = Cause.BAD_ROW, **options: Any
) -> None:
    """Assert that exactly one row has a fault, with this cause and message."""
    recordings = rows(path, **options)
    (fault,) = [recording.fault for recording in recordings if recording.fault is not None]
    assert fault[0] == cause
    assert re.search(pattern, fault[1]), fault[1]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.ndjson", "t.parquet", "T.PARQUET.parquet"])
def test_every_format_gives_the_same_recordings(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    recordings = rows(path)
    assert [(c.name, c.type) for c in opened(path).label_columns] == TYPES
    assert [dict(r.labels) for r in recordings] == [
        {key: value for key, value in row.items() if key != "uri"} for row in ROWS
    ]
    assert [r.uri for r in recordings] == [
        f"{tmp_path}/a.wav",
        f"{tmp_path}/b/c.wav",
        "s3://bucket/d.wav",
    ]
    assert [r.relative_uri for r in recordings] == ["a.wav", "b/c.wav", "s3://bucket/d.wav"]
    assert {(r.size_bytes, r.fingerprint) for r in recordings} == {(-1, "")}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_segments_and_splits_are_no_labels(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name,
        [
            {"uri": "a.wav", "start": 0.0, "end": 2.5, "split": "train"},
            {"uri": "a.wav", "start": 2.5, "end": None, "split": None},
            {"uri": "a.wav", "start": None, "end": 1.0, "split": "test"},
        ],
    )
    recordings = rows(path)
    assert [(r.start_seconds, r.end_seconds, r.split) for r in recordings] == [
        (0.0, 2.5, "train"),
        (2.5, None, None),
        (None, 1.0, "test"),
    ]
    assert len({r.recording_id for r in recordings}) == 3
    assert {r.labels for r in recordings} == {()}


def test_an_empty_split_is_none(tmp_path: Path) -> None:
    (recording,) = rows(write(tmp_path / "t.jsonl", [{"uri": "a.wav", "split": ""}]))
    assert recording.split is None


def test_a_split_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"uri": "a.wav", "split": 1}])
    assert_fault(r"line 1, column 'split': 1 is not string$", path)


def test_whole_seconds_are_seconds(tmp_path: Path) -> None:
    recordings = rows(write(tmp_path / "t.jsonl", [{"uri": "a.wav", "start": 1, "end": 2}]))
    assert repr((recordings[0].start_seconds, recordings[0].end_seconds)) == "(1.0, 2.0)"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (-1.0, None, "'start': -1.0 is not a position"),
        (2.0, 2.0, "'end': 2.0 does not come after the start, 2.0"),
        (2.0, 1.0, "'end': 1.0 does not come after the start, 2.0"),
        (None, 0.0, "'end': 0.0 does not come after the start, 0"),
    ],
)
def test_impossible_segments_are_their_rows_faults(
    tmp_path: Path, name: str, start: float | None, end: float | None, message: str
) -> None:
    good = {"uri": "a.wav", "start": 0.0, "end": 1.0}
    path = write(tmp_path / name, [good, {"uri": "b.wav", "start": start, "end": end}])
    place = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[name[2:]]
    assert_fault(f"{name} {place}, column {message}", path, Cause.BAD_SEGMENT)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize("value", [1e9, 1e20, 1e308])
def test_seconds_that_no_recording_has_are_their_rows_faults(
    tmp_path: Path, name: str, column: str, value: float
) -> None:
    good: dict[str, Any] = {"uri": "a.wav", column: 999_999_999.0}
    path = write(tmp_path / name, [good, good | {"uri": "b.wav", column: value}])
    message = f"column '{column}': {value:g} is not below 1,000,000,000 seconds"
    assert_fault(re.escape(message), path, Cause.BAD_SEGMENT)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("uri", ["b\0.wav", "/b\0/c.wav", "s3://bucket/b\0", "\0"])
def test_a_uri_that_no_store_can_hold_is_named(tmp_path: Path, name: str, uri: str) -> None:
    path = write(tmp_path / name, [{"uri": "a.wav"}, {"uri": uri}])
    assert_fault(r"[23], column 'uri': '.*\\x00.*' holds a zero character", path)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_positions_that_are_no_numbers_are_their_rows_faults(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "t.parquet", [{"uri": "a.wav", "start": float(value)}])
    assert_fault(f"'start': {value} is not a position", path, Cause.BAD_SEGMENT)


def test_a_start_that_is_text_is_named(tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", "uri,start\na.wav,1\nb.wav,0:30\n")
    assert_fault(r"line 3, column 'start': '0:30' is not double$", path)


def test_a_file_means_the_same_however_it_is_addressed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"uri": "a.wav"}, {"uri": f"{tmp_path}/a.wav"}])
    relative, absolute = rows(path)
    assert relative.recording_id == absolute.recording_id
    message = duplicate_message(relative, absolute)
    assert message.startswith("t.csv line 2 and t.csv line 3 both name ")
    assert "remove one" in message


def test_a_repeated_segment_is_called_one(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"uri": "a.wav", "start": 1.0}] * 2)
    assert "(the same segment)" in duplicate_message(*rows(path))


def test_uris_are_relative_to_a_remote_table() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lists/t.csv", b"uri\na b%20#1.wav\n./x/b.wav\n")
    recordings = rows("memory://lists/t.csv")
    memory.rm("/lists", recursive=True)
    assert [r.uri for r in recordings] == [
        "memory://lists/a b%20#1.wav",
        "memory://lists/x/b.wav",
    ]


@pytest.mark.parametrize("line", ["", '""', ","])
def test_a_row_without_a_uri_is_named(tmp_path: Path, line: str) -> None:
    path = text(tmp_path / "t.csv", "uri,x\na.wav,1\n", line if "," in line else f"{line},2", "\n")
    assert_fault(r"t.csv line 3, column 'uri': it is empty", path)


@pytest.mark.parametrize("row", [{"uri": None}, {"uri": ""}, {"x": 1}])
def test_a_json_row_without_a_uri_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write(tmp_path / "t.jsonl", [{"uri": "a.wav", "x": 1}, row])
    assert_fault(r"t.jsonl line 2, column 'uri': it is empty", path)


def test_a_uri_that_climbs_out_of_its_bucket_is_named() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lists/t.csv", b"uri\na.wav\n../b.wav\n")
    try:
        assert_fault(r"t.csv line 3, column 'uri': .*points outside", "memory://lists/t.csv")
    finally:
        memory.rm("/lists", recursive=True)


def test_lines_are_right_after_quoted_newlines_and_empty_lines(tmp_path: Path) -> None:
    path = text(
        tmp_path / "t.csv",
        "\ufeff\r\nuri,note\r\n\r\n",
        'a.wav,"two\r\nlines"\r\n',
        "\r\n\r\n",
        "b.wav,x\r\n",
    )
    assert [r.origin for r in rows(path)] == ["t.csv line 4", "t.csv line 8"]


def test_lines_of_json_are_right_after_empty_lines(tmp_path: Path) -> None:
    path = text(tmp_path / "t.jsonl", '\ufeff{"uri": "a\u2028.wav"}\r\n\r\n \n{"uri": "b.wav"}')
    assert [r.origin for r in rows(path)] == ["t.jsonl line 1", "t.jsonl line 4"]
    # In JSON, a carriage return is white space and does not end a line.
    path = text(tmp_path / "t.jsonl", '{"uri":\r"a.wav"}\n')
    assert [r.origin for r in rows(path)] == ["t.jsonl line 1"]


def test_places_go_on_from_block_to_block_and_part_to_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(row_blocks, "_PART_ROWS", 30)
    table_rows = [{"uri": f"{i}.wav"} for i in range(1, 101)]
    pq.write_table(pa.Table.from_pylist(table_rows), tmp_path / "t.parquet", row_group_size=20)
    for name, unit, first in (("t.csv", "line", 2), ("t.jsonl", "line", 1)):
        recordings = rows(write(tmp_path / name, table_rows))
        assert [r.origin for r in recordings] == [f"{name} {unit} {i + first}" for i in range(100)]
    recordings = rows(tmp_path / "t.parquet")
    assert [r.origin for r in recordings] == [f"t.parquet row {i}" for i in range(1, 101)]
    assert [r.relative_uri for r in recordings] == [row["uri"] for row in table_rows]
    assert list(row_ranges(str(tmp_path / "t.parquet"), ())) == [
        RowRange(0, 2, 0),
        RowRange(2, 4, 40),
        RowRange(4, 5, 80),
    ]


def test_a_parquet_without_rows_has_no_recordings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "t.parquet")
    assert rows(tmp_path / "t.parquet") == []


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_compressed_text_is_read(tmp_path: Path, name: str) -> None:
    plain = write(tmp_path / name, ROWS)
    packed = text(tmp_path / f"{name}.gz", gzip.compress(plain.read_bytes()))
    assert [r.labels for r in rows(packed)] == [r.labels for r in rows(plain)]


@pytest.mark.parametrize("cut", [5, -5])
def test_damaged_compression_is_refused(tmp_path: Path, cut: int) -> None:
    path = text(tmp_path / "t.csv.gz", gzip.compress(b"uri\n" + b"a.wav\n" * 9)[:cut])
    with pytest.raises(CatalogueError, match=r"t.csv.gz cannot be read"):
        rows(path)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_later_contradiction_is_named_with_its_remedy(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "SAMPLE_ROWS", 2)
    path = write(tmp_path / name, [*[{"uri": "a", "id": 1}] * 5, {"uri": "b", "id": "A7"}])
    place = "line 7" if name == "t.csv" else "line 6"
    expected = f"{name} {place}, column 'id': 'A7' is not int64.*label_types: {{id: string}}"
    assert_fault(expected, path)
    ids = [dict(r.labels)["id"] for r in rows(path, label_types={"id": "string"})]
    assert ids == ["1"] * 5 + ["A7"]


def test_a_leading_zero_that_comes_late_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "SAMPLE_ROWS", 1)
    path = text(tmp_path / "t.csv", "uri,id\na,10\nb,007\n")
    assert_fault("'007' is not int64", path)
    assert [r.labels for r in rows(path, label_types={"id": "int64"})] == [
        (("id", 10),),
        (("id", 7),),
    ]


def test_a_declared_type_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"uri": "a", "id": "x"}])
    assert_fault(r"line 2, column 'id': 'x' is not int64$", path, label_types={"id": "int64"})


def test_a_key_that_comes_late_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_blocks, "SAMPLE_ROWS", 1)
    path = write(tmp_path / "t.jsonl", [{"uri": "a"}, {"uri": "b", "mood": "calm"}])
    with pytest.raises(CatalogueError, match=r"line 2 has a key 'mood'.*\{mood: string\}"):
        rows(path)
    recordings = rows(path, label_types={"mood": "string"})
    assert [r.labels for r in recordings] == [(("mood", None),), (("mood", "calm"),)]


def test_lists_travel_as_tuples(tmp_path: Path) -> None:
    tags: list[dict[str, Any]] = [
        {"uri": "a", "tags": ["x", "y"]},
        {"uri": "b", "tags": []},
        {"uri": "c"},
    ]
    for name in ("t.jsonl", "t.parquet"):
        path = write(tmp_path / name, tags)
        assert [(c.name, c.type) for c in opened(path).label_columns] == [("tags", "list<string>")]
        assert [r.labels[0][1] for r in rows(path)] == [("x", "y"), (), None]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("t.parquet", {"a": 1}, "struct<a: int64>"),
        ("t.parquet", b"x", "binary"),
        ("t.parquet", [[1]], "list<list<int64>>"),
        ("t.jsonl", {"a": 1}, "struct<a: int64>"),
    ],
)
def test_columns_that_cannot_be_labels_are_refused(
    tmp_path: Path, name: str, value: object, kind: str
) -> None:
    path = write(tmp_path / name, [{"uri": "a", "extra": value}])
    with pytest.raises(CatalogueError, match=f"column 'extra' cannot .* its type is {kind}, .*"):
        opened(path)


def test_mixed_json_is_refused_unless_its_type_is_declared(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"uri": "a", "x": 1}, {"uri": "b", "x": "y"}])
    with pytest.raises(CatalogueError, match=r"a mixture of kinds, .*set catalogue.label_types"):
        opened(path)
    assert [r.labels[0][1] for r in rows(path, label_types={"x": "string"})] == ["1", "y"]


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS - {"uri", "split"}))
def test_the_training_rows_own_columns_are_refused(tmp_path: Path, name: str) -> None:
    for spelling in (name, name.upper()):
        path = write(tmp_path / "t.csv", [{"uri": "a", spelling: 1}])
        with pytest.raises(CatalogueError, match=f"no label can be named '{spelling}'"):
            opened(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,x", r"has no column 'uri'; its columns are \['path', 'x'\]"),
        ("uri:x", r"its columns are \['uri:x'\]"),
        ("URI", "has no column 'uri'"),
        ("", r"its columns are \[\]"),
        (",uri", "column 1 has no name"),
        ("uri,x,x", "more than one column 'x'"),
        ("uri,x,X", "more than one column 'X'"),
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        opened(text(tmp_path / "t.csv", header, "\n"))


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_tables_without_uris_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogueError, match="has no column 'uri'"):
        opened(write(tmp_path / name, [{"path": "a.wav"}]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nosuch": "string"}, r"has no column 'nosuch'; it has \['uri', 'x'\]"),
        ({"uri": "string"}, "'uri' is not a label column"),
        ({"start": "double"}, "'start' is not a label column"),
        ({"x": "float99"}, "float99, but a label is one of string, int64, double, bool"),
        ({"x": "list<string>"}, "one of string, int64, double, bool;"),
    ],
)
def test_impossible_label_types_are_refused(
    tmp_path: Path, given: dict[str, str], message: str
) -> None:
    path = write(tmp_path / "t.csv", [{"uri": "a", "x": 1}])
    with pytest.raises(CatalogueError, match=message):
        opened(path, label_types=given)


def test_no_declared_key_of_json_takes_a_reserved_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"uri": "a"}])
    with pytest.raises(CatalogueError, match="'MEL' is not a label column"):
        opened(path, label_types={"MEL": "string"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", 'uri,x\na,1\nb,"open\n', "line 3 is not CSV: unexpected end of data"),
        ("t.csv", b"uri\na\nB\xf6rk.wav\n", "is not UTF-8 text"),
        ("t.parquet", "not a parquet file at all", "t.parquet cannot be read"),
        ("t.parquet", "", "t.parquet cannot be read"),
    ],
)
def test_damaged_tables_are_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(CatalogueError, match=message):
        rows(text(tmp_path / name, content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "uri,x\na,1\nb\nc,2\n", "line 3 has 1 values for 2 columns"),
        ("t.csv", "uri,x\nc,2\na,1,2\n", "line 3 has 3 values for 2 columns"),
        ("t.jsonl", '{"uri": "a"}\n{"uri"\n{"uri": "c"}\n', "line 2 is not JSON"),
        ("t.jsonl", '{"uri": "a"}\n["b"]\n', "line 2 is not a JSON object"),
        ("t.jsonl", '{"uri": "a"}\n{"uri": "\\udc00"}\n', "line 2, column 'uri': .*is not string"),
        ("t.jsonl", '{"uri": "a"}\n{"uri": "b", "start": NaN}\n', "line 2, column 'start': nan is"),
    ],
)
def test_a_damaged_row_is_that_rows_fault(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    cause = Cause.BAD_SEGMENT if "nan" in message else Cause.BAD_ROW
    assert_fault(message, text(tmp_path / name, content), cause)


def test_all_faults_of_a_table_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{"path": "a", "mel": 1, "x": [[1]], "start": b"1"}])
    with pytest.raises(CatalogueError) as raised:
        opened(path, label_types={"genre": "string"})
    head, *faults = str(raised.value).splitlines()
    assert head.endswith("t.parquet: 5 faults")
    for word, fault in zip(("'uri'", "'mel'", "genre", "'x'", "'start'"), faults, strict=True):
        assert word in fault


def test_many_faults_are_counted_and_some_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [{f"x{i}": b"" for i in range(30)}])
    with pytest.raises(CatalogueError, match=r"31 faults(\n.*){10}\n  and 21 more$"):
        opened(path)


def test_a_corrected_row_is_another_version(tmp_path: Path) -> None:
    path, first, types = tmp_path / "t.csv", {"uri": "a", "x": 1}, {"x": "int64"}
    before = rows(write(path, [first, {"uri": "b", "x": "?"}]), label_types=types)
    after = rows(write(path, [first, {"uri": "b", "x": 2}]), label_types=types)
    assert [r.recording_id for r in before] == [r.recording_id for r in after]
    assert before[0].fingerprint == after[0].fingerprint == after[1].fingerprint == ""
    assert before[1].fingerprint.startswith("fault:")


def test_a_table_that_has_gone_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ROWS)
    table = opened(path)
    path.unlink()
    with pytest.raises(CatalogueError, match=r"t.csv does not exist"):
        list(list_rows(table, RowRange()))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, name: str) -> None:
    def peak(n: int) -> int:
        path = write(tmp_path / name, [{"uri": f"{i}.wav", "artist": "x" * 100} for i in range(n)])
        table = opened(path)
        part = RowRange(0, 1) if name == "t.parquet" else RowRange()
        tracemalloc.start()
        count = sum(1 for _ in list_rows(table, part))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == n
        return peak_bytes

    # A table of two blocks shows the memory of a full block. Ten times the rows may need no more.
    assert peak(40_000) < 1.5 * peak(4_096)
