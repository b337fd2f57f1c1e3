"""Tests of formats: a table is recognised by what it holds."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.meanings import KNOWN_URI_COLUMNS, TableKeys
from melmill.transforms.catalogue.table_formats import (
    TableFormat,
    _find_separator,
    recognise_format,
)
from melmill.transforms.catalogue.text_rows import read_text
from melmill.transforms.core.errors import CatalogueError
from tests.catalogue.manifests import faults, listed

JSON = b'{"uri": "a.wav", "genre": "folk"}\n{"uri": "b.wav", "genre": "jazz"}\n'


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def genres(path: Path, **keys: str) -> list[object]:
    return [dict(r.labels)["genre"] for r in listed(path, keys=TableKeys(**keys))]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.ndjson", "t.csv", "manifest", "t.txt"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_json_lines_are_recognised_whatever_their_name(
    tmp_path: Path, name: str, compress: type
) -> None:
    assert genres(write(tmp_path / name, compress(JSON))) == ["folk", "jazz"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header(tmp_path: Path, name: str, separator: str) -> None:
    text = f"genre{separator}uri\nfolk{separator}a.wav\njazz{separator}b.wav\n"
    assert genres(write(tmp_path / name, text)) == ["folk", "jazz"]


def test_parquet_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.wav"], "genre": ["folk"]}), tmp_path / "t.parquet")
    assert genres((tmp_path / "t.parquet").rename(tmp_path / "table")) == ["folk"]


def test_another_separator_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "uri~genre\na.wav~folk\n")
    assert genres(path, separator="~") == ["folk"]
    with pytest.raises(CatalogueError, match=r"has no column 'uri'; its columns are \['uri~genre"):
        listed(path)


def test_a_file_without_a_tables_name_is_text_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "songs.txt", "uri;genre\na.wav;folk\n")
    assert genres(path, separator=";") == ["folk"]
    with pytest.raises(CatalogueError, match=r"songs.txt is neither a table"):
        listed(path)


@pytest.mark.parametrize("content", ['[{"uri": "a.wav"}]', '{\n "uri": "a.wav"\n}\n'])
def test_a_json_document_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    with pytest.raises(CatalogueError, match=r"t.json is not JSON lines.*jq -c"):
        listed(write(tmp_path / "t.json", content))


def test_an_empty_json_file_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"has no column 'uri'; its columns are \[\]"):
        listed(write(tmp_path / "t.json", ""))


def test_quotes_in_tables_with_tabs_are_letters(tmp_path: Path) -> None:
    lines = ('"Yes", he said', '"A ""yes"" is a yes"', "5' 3\"")
    text = "uri\tgenre\n" + "".join(f"{i}.wav\t{line}\n" for i, line in enumerate(lines))
    expected = ['"Yes", he said', 'A "yes" is a yes', "5' 3\""]
    assert genres(write(tmp_path / "t.tsv", text)) == expected


def test_quotes_in_tables_with_tabs_are_quotes_if_the_names_are_quoted(tmp_path: Path) -> None:
    text = '"uri"\t"genre"\n"a.wav"\t"folk\tand\njazz"\n'
    assert genres(write(tmp_path / "t.tsv", text)) == ["folk\tand\njazz"]


def test_empty_quotes_in_tables_with_tabs_are_an_empty_value(tmp_path: Path) -> None:
    assert genres(write(tmp_path / "t.tsv", 'uri\tgenre\na.wav\t""\n')) == [None]


CUT_OFF = "has a value that begins with a quote and may go on in the next line; in this table a"
REST = "may be the rest of a value that begins with a quote in a line before; in this table a"
COUNT = "has {} values for 2 columns; in this table a value cannot hold a tab or a line break"


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        ('a.wav\t"two\nlines"\n', ["line 2 " + CUT_OFF, "line 3 " + REST]),
        ('a.wav\t"two\r\nlines"\r\n', ["line 2 " + CUT_OFF, "line 3 " + REST]),
        ('a.wav\t"two\n\nlines"\n', ["line 2 " + CUT_OFF, "line 4 " + REST]),
        ('a.wav\t"two\nmore\tlines"\n', ["line 2 " + CUT_OFF, "line 3 " + REST]),
        ('a.wav\t"a ""b""\nc"\n', ["line 2 " + CUT_OFF, "line 3 " + REST]),
        (
            'a.wav\t"1\n2\n3"\n',
            ["line 2 " + CUT_OFF, "line 3 " + COUNT.format(1), "line 4 " + REST],
        ),
        ('"a\tb.wav"\tx\n', ["line 2 " + COUNT.format(3)]),
        ('"a\tb\nc.wav"\tx\n', ["line 2 " + CUT_OFF, "line 3 " + REST]),
    ],
)
def test_a_quoted_tab_or_line_break_is_a_fault_of_tables_with_tabs(
    tmp_path: Path, rows: str, messages: list[str]
) -> None:
    recordings = listed(write(tmp_path / "t.tsv", f"uri\tgenre\n{rows}z.wav\tfolk\n"))
    for fault, message in zip(faults(recordings), messages, strict=True):
        assert fault.startswith(f"t.tsv {message}")
        assert fault.endswith("or write the table with all names and values in quotes")
    assert dict(recordings[-1].labels) == {"genre": "folk"}


def test_a_single_quote_before_a_full_row_is_a_letter(tmp_path: Path) -> None:
    text = 'uri\tgenre\na.wav\t"Yes, he\nb.wav\the said "no"\nc.wav\t"I\n'
    assert genres(write(tmp_path / "t.tsv", text)) == ['"Yes, he', 'he said "no"', '"I']


@given(
    st.lists(st.tuples(st.text('ab"\n') | st.text('ab"\t'), st.text('a"', max_size=3)), max_size=4)
)
def test_a_table_with_tabs_of_a_program_gives_its_texts_or_faults(
    rows: list[tuple[str, str]],
) -> None:
    file = io.StringIO(newline="")
    file.write("text\turi\n")
    csv.writer(file, delimiter="\t", lineterminator="\n").writerows((a, b + "z") for a, b in rows)
    form = TableFormat("csv", "\t", quoted=False)
    _, read = read_text(io.BytesIO(file.getvalue().encode()), "t.tsv", form)
    written = [{"text": text, "uri": uri + "z"} for text, uri in rows]
    assert all(row in written for _, row in read if isinstance(row, dict))


def test_a_row_with_too_many_cells_names_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "uri;genre\na.wav;x;y\nb.wav;z\n")
    assert faults(listed(path)) == [
        "t.csv line 2 has 3 values for 2 columns; a value that holds a semicolon or a quote must "
        "be in quotes"
    ]


def test_the_first_bytes_alone_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(JSON)
        file.truncate(2**40)  # a sparse file of a terabyte
    assert recognise_format(str(path), ()) == TableFormat("json")


@given(st.sampled_from(",;\t|"), st.sampled_from(KNOWN_URI_COLUMNS), st.lists(st.text("ab ._")))
def test_a_header_with_a_known_name_tells_its_separator(
    separator: str, name: str, others: list[str]
) -> None:
    header = separator.join([name, *others, "x"])
    assert _find_separator(header, KNOWN_URI_COLUMNS, ",") == separator
