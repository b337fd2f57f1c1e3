"""Tests of the headers of Parquet pages, on files of Arrow's own writer, and damaged ones."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.store.archives import BadArchiveError
from melmill.transforms.store.page_headers import PageData, read_pages


def column_of(rows: int, **options: object) -> tuple[io.BytesIO, int, int]:
    """Return a file with a column of numbers, and where the column is."""
    file = io.BytesIO()
    pq.write_table(pa.table({"n": range(rows)}), file, **options)
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return file, start, start + chunk.total_compressed_size


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_the_pages_fill_the_column(version: str, dictionary: bool) -> None:
    options = {"data_page_version": version, "use_dictionary": dictionary}
    file, start, stop = column_of(5_000, **options, data_page_size=4_000, compression="none")
    pages = list(read_pages(file, start, stop))
    assert len(pages) > 2
    assert pages[-1].start + pages[-1].stored_bytes == stop
    assert all(page.stored_bytes == page.unpacked_bytes > 0 for page in pages)
    assert sorted(page.start for page in pages) == [page.start for page in pages]


def test_statistics_may_be_long() -> None:
    file = io.BytesIO()
    names = pa.table({"name": [letter * 4_000 for letter in "ab"]})
    pq.write_table(names, file, use_dictionary=False, compression="none")
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(0)
    start = chunk.data_page_offset
    (page,) = read_pages(file, start, start + chunk.total_compressed_size)
    assert page.start - start > 8_000
    assert page.unpacked_bytes > 8_000


def test_a_page_that_leads_out_of_the_column_is_damage() -> None:
    file, start, stop = column_of(100, compression="none")
    with pytest.raises(BadArchiveError, match="lead out"):
        list(read_pages(file, start, stop - 1))
    with pytest.raises(BadArchiveError, match="ends within"):
        list(read_pages(io.BytesIO(file.getvalue()[: start + 3]), start, stop))


@given(st.binary(max_size=200))
def test_any_bytes_are_pages_or_damage(data: bytes) -> None:
    try:
        pages = list(read_pages(io.BytesIO(data), 0, len(data)))
    except BadArchiveError:
        return
    assert all(isinstance(page, PageData) and page.start <= len(data) for page in pages)
