"""Tests of reading ahead: right bytes, few requests for reads in a row, few bytes after a jump."""

from __future__ import annotations

import io
import random
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.store.read_ahead import (
    LARGEST_BYTES,
    SMALLEST_BYTES,
    Prefetched,
    ReadAheadFile,
)

SIZE = 40 * 2**20
CONTENT = random.Random(0).randbytes(SIZE)


class Store:
    """A store of some bytes; it records the ranges that are requested."""

    def __init__(self, content: bytes = CONTENT, failures: int = 0) -> None:
        self.content, self.failures = content, failures
        self.ranges: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.content)
        self.ranges.append((start, stop))
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError
        return self.content[start:stop]

    @property
    def bytes(self) -> int:
        return sum(stop - start for start, stop in self.ranges)


def read_fully(file: ReadAheadFile, size: int) -> bytes:
    """Read like a buffered reader: repeat until there is enough, or nothing more."""
    parts = []
    while size and (part := file.read(min(size, 2**16))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@given(
    st.lists(st.tuples(st.integers(0, SIZE + 9), st.integers(0, 3 * 2**20)), max_size=8),
    st.integers(0, SIZE),
)
def test_any_reads_give_what_a_plain_file_gives(reads, expected):
    store, plain = Store(), io.BytesIO(CONTENT)
    file = ReadAheadFile(store.read, SIZE, expected)
    for position, size in reads:
        assert file.seek(position) == plain.seek(position)
        assert read_fully(file, size) == plain.read(size)
        assert file.seek(0, io.SEEK_CUR) == plain.tell()
    assert file.seek(-1, io.SEEK_END) == SIZE - 1
    assert all(stop - start <= LARGEST_BYTES for start, stop in store.ranges)


def test_windows_of_reads_in_a_row_double_and_cover_everything_once():
    store = Store()
    assert read_fully(ReadAheadFile(store.read, SIZE, SIZE), SIZE) == CONTENT
    sizes = [stop - start for start, stop in sorted(store.ranges)]
    assert sizes[:6] == [2**18, 2**18, 2**19, 2**20, 2**21, 2**22]
    assert store.bytes == SIZE
    assert len(sizes) == 14


def test_jumps_cost_a_small_window_each():
    store = Store()
    file = ReadAheadFile(store.read, SIZE, SIZE)
    for position in (0, 30 * 2**20, 10 * 2**20, 20 * 2**20):
        file.seek(position)
        assert file.read(4096)
    assert store.bytes == 4 * SMALLEST_BYTES


def test_after_the_expected_end_nothing_is_fetched_ahead():
    store = Store()
    stop = 10 * 2**20
    file = ReadAheadFile(store.read, SIZE, stop)
    read_fully(file, stop)
    assert store.bytes == stop
    assert read_fully(file, 2**20) == CONTENT[stop : stop + 2**20]


def test_a_failure_is_raised_once_and_leaves_out_nothing():
    store = Store(failures=3)
    file = ReadAheadFile(store.read, SIZE, SIZE)
    parts, errors = [], 0
    while sum(map(len, parts)) < SIZE:
        try:
            parts.append(file.read(2**20))
        except ConnectionResetError:
            errors += 1
    assert b"".join(parts) == CONTENT
    assert errors == 3


def test_a_whole_object_is_one_request_and_the_next_try_is_by_windows():
    store = Store(CONTENT[: 2**20], failures=1)
    file = ReadAheadFile(store.read, 2**20, 2**20, lambda: store.read(0, 2**20))
    with pytest.raises(ConnectionResetError):
        file.read(1)
    assert read_fully(file, 2**20) == CONTENT[: 2**20]
    second_store = Store(CONTENT[: 2**20])
    file = ReadAheadFile(second_store.read, 2**20, 2**20, lambda: second_store.read(0, 2**20))
    assert read_fully(file, 2**20) == CONTENT[: 2**20]
    assert second_store.ranges == [(0, 2**20)]


def test_a_first_window_serves_what_it_holds_and_no_more():
    store = Store()
    file = ReadAheadFile(store.read, SIZE, SIZE, lambda: CONTENT[:SMALLEST_BYTES])
    file.seek(2 * SMALLEST_BYTES)
    assert file.read(10) == CONTENT[2 * SMALLEST_BYTES :][:10]
    file = ReadAheadFile(store.read, SIZE, SIZE, lambda: CONTENT[:SMALLEST_BYTES])
    assert read_fully(file, 2**20) == CONTENT[: 2**20]
    assert (0, SMALLEST_BYTES) not in store.ranges


def test_what_is_fetched_before_it_is_opened_is_fetched_once_and_bounded():
    store, prefetched = Store(), Prefetched(most=2)
    for name in ("a", "a", "b", "c"):
        prefetched.fetch((name, "v1"), store.read, 10)
    assert prefetched.take(("a", "v1")) is None  # dropped, since only two fit
    future = prefetched.take(("c", "v1"))
    assert isinstance(future, Future)
    assert future.result() == CONTENT[:10]
    assert prefetched.take(("c", "v1")) is None
    assert len(store.ranges) == 3
