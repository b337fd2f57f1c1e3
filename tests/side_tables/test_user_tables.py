"""A user's table is read with the types of labels; what is wrong in it is named by line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import digest
from melmill.transforms.side_tables.user_tables import open_user_table, read_values

ID = digest("a.wav")
KEY, ROW = ("recording_id",), ("recording_id", "chunk_index")


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(
    uri: str, key: tuple[str, ...] = KEY, types: Mapping[str, str] | None = None, *chosen: str
) -> pa.Table:
    return pa.concat_tables(read_values(open_user_table(uri, key, chosen, types)))


def test_a_table_of_verdicts_is_taken_as_it_is(tmp_path: Path) -> None:
    text = (
        "recording_id,uri,verdict,note,judged_at\n"
        f"{ID},/songs/a.wav,ok,,2025-03-01T10:00:00+00:00\n"
        f'{digest("b.wav")},/songs/b.wav,reject,"hum, from 3 s",2025-03-01T10:00:07+00:00\n'
    )
    table = open_user_table(write(tmp_path / "verdicts.csv", text), KEY)
    assert table.columns == dict.fromkeys(("verdict", "note", "judged_at"), "string")
    rows = pa.concat_tables(read_values(table)).to_pylist()
    assert [row["note"] for row in rows] == [None, "hum, from 3 s"]
    assert [row["_place"] for row in rows] == ["line 2", "line 3"]


def test_types_are_those_of_labels_in_each_format(tmp_path: Path) -> None:
    values = {"a": [1, None], "b": [0.5, 2.0], "c": [True, False], "d": ["x", None]}
    lists = {"tokens": [[1, 2], []]}
    pq.write_table(pa.table({"recording_id": [ID] * 2, **values, **lists}), tmp_path / "v.parquet")
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    lines = (
        json.dumps({"recording_id": ID, **row, "tokens": lists["tokens"][i]})
        for i, row in enumerate(rows)
    )
    write(tmp_path / "v.jsonl", "\n".join(lines))
    write(tmp_path / "v.csv", f"recording_id,a,b,c,d\n{ID},1,0.5,true,x\n{ID},,2,false,\n")
    types = {"a": "int64", "b": "double", "c": "bool", "d": "string", "tokens": "list<int64>"}
    for name in ("v.parquet", "v.jsonl", "v.csv"):
        table = open_user_table(str(tmp_path / name), KEY)
        assert table.columns == {n: types[n] for n in table.columns}
        stored = pa.concat_tables(read_values(table)).select([*table.columns]).to_pydict()
        assert stored == {name: {**values, **lists}[name] for name in table.columns}


def test_only_chosen_columns_are_added(tmp_path: Path) -> None:
    uri = write(tmp_path / "v.csv", f"recording_id,a,b\n{ID},1,2\n")
    assert read(uri, KEY, None, "b").column_names == ["_number", "_place", "recording_id", "b"]
    with pytest.raises(CatalogueError, match=r"has no column 'c'; its columns are"):
        read(uri, KEY, None, "c")
    with pytest.raises(CatalogueError, match="'recording_id' is part of a key"):
        read(uri, KEY, None, "recording_id")


def test_a_declared_type_takes_more_spellings(tmp_path: Path) -> None:
    uri = write(tmp_path / "v.csv", f"recording_id,code\n{ID},007\n{ID},12\n")
    assert read(uri)["code"].to_pylist() == ["007", "12"]
    assert read(uri, KEY, {"code": "int64"})["code"].to_pylist() == [7, 12]
    with pytest.raises(CatalogueError, match="cannot be added: its type is date, and allowed are"):
        read(uri, KEY, {"code": "date"})
    with pytest.raises(CatalogueError, match="has no column 'cod'"):
        read(uri, KEY, {"cod": "int64"})


MANY = "".join(f"{ID},{number}\n" for number in range(10_000))


@pytest.mark.parametrize(
    ("name", "text", "key", "message"),
    [
        ("v.txt", "", KEY, r"v.txt: is not a table; allowed: .csv,"),
        ("v.csv", "", KEY, "has no rows, so there is nothing to add"),
        ("v.csv", "recording_id,a\n", KEY, "has no rows, so there is nothing to add"),
        ("v.jsonl", "\n", KEY, "has no rows, so there is nothing to add"),
        ("v.csv", "a,b\n1,2\n", KEY, r"no column 'recording_id', .* its columns are \['a', 'b'\]$"),
        ("v.csv", "uri,b\n1,2\n", KEY, "it can be joined with --on uri$"),
        ("v.csv", f"recording_id,b\n{ID},2\n", ("uri",), "be joined with --on recording_id$"),
        ("v.csv", f"recording_id,b\n{ID},2\n", ROW, r"no column 'chunk_index', which says"),
        ("v.csv", f"recording_id,uri\n{ID},/a\n", KEY, r"no column besides .*'uri'\]; there is no"),
        ("v.csv", f"recording_id,a,A\n{ID},1,2\n", KEY, "more than one column 'A'"),
        ("v.csv", f"recording_id,,a\n{ID},1,2\n", KEY, r"column 2 has no name \(a saved index"),
        ("v.csv", f"recording_id,a\n{ID},1,2\n", KEY, "line 2 has 3 values for 2 columns"),
        ("v.csv", "recording_id,a\n,1\n", KEY, "v.csv line 2: 'recording_id' is empty; each row"),
        ("v.jsonl", '{"recording_id": 7, "a": 1}', KEY, "line 1, column 'recording_id': 7 is not"),
        ("v.jsonl", '{"recording_id": "x", "a": {"b": 1}}', KEY, "its type is struct<b: int64>"),
        ("v.jsonl", f'{{"recording_id": "{ID}", "a": 1}}\n{{', KEY, "line 2 is not JSON"),
        (
            "v.csv",
            f"recording_id,chunk_index,a\n{ID},1.5,1\n",
            ROW,
            "line 2, column 'chunk_index': '1.5' is not int64; correct the value$",
        ),
        (
            "v.csv",
            f"recording_id,a\n{MANY}{ID},many\n",
            KEY,
            "line 10002, column 'a': 'many' is not int64, the type of the first 10,000 rows; "
            "correct the value, or set --type a=string",
        ),
        (
            "v.jsonl",
            f'{{"recording_id": "{ID}", "a": 1}}\n' * 10_000 + '{"new": 1}',
            KEY,
            "line 10001 has a key 'new' that .* rows lack; set its type with --type new=string",
        ),
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    tmp_path: Path, name: str, text: str, key: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CatalogueError, match=message):
        read(write(tmp_path / name, text), key)


def test_a_wrong_value_of_parquet_is_named_by_row(tmp_path: Path) -> None:
    values: dict[str, Any] = {"recording_id": [ID] * 3, "a": ["1", "2", "x"]}
    pq.write_table(pa.table(values), tmp_path / "v.parquet")
    uri = str(tmp_path / "v.parquet")
    assert read(uri)["a"].to_pylist() == ["1", "2", "x"]
    with pytest.raises(CatalogueError, match="row 3, column 'a': 'x' is not int64; correct the"):
        read(uri, KEY, {"a": "int64"})


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no.csv does not exist"):
        read(str(tmp_path / "no.csv"))


def test_a_later_key_of_json_lines_needs_a_type(tmp_path: Path) -> None:
    first = f'{{"recording_id": "{ID}", "a": 1}}\n' * 10_000
    uri = write(tmp_path / "v.jsonl", first + f'{{"recording_id": "{ID}", "new": "x"}}')
    values = read(uri, KEY, {"new": "string"})["new"].to_pylist()
    assert values == [None] * 10_000 + ["x"]
