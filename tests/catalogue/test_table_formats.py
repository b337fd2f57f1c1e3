"""Tests of formats: a table is recognised by what it holds."""

from __future__ import annotations

import gzip
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
