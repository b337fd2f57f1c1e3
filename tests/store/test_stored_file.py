"""Tests of stored files: reads inside and outside the file, and views made of pieces."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.store.stored_file import StoredFile

DATA = bytes(range(256)) * 700  # larger than the buffer


def stored(data: bytes = DATA) -> StoredFile:
    return StoredFile(io.BytesIO(data))


@pytest.mark.parametrize("offset", [-1, len(DATA), 2**31, 2**63 - 1, 2**63, 2**64, 2**70])
def test_nothing_lies_outside_a_file(offset):
    file = stored()
    assert file.read_at(5, 2) == b"\5\6"
    assert file.read_at(offset, 4) == b""


@pytest.mark.parametrize("size", [0, -1, -100])
def test_a_size_that_is_not_positive_reads_nothing(size):
    assert StoredFile(io.BytesIO(bytes(range(10)))).read_at(5, size) == b""


@pytest.mark.parametrize("offset", [-1, 2**63, 2**64])
def test_a_decoder_that_seeks_nowhere_stays(offset):
    file = stored()
    file.seek(7)
    assert file.seek(offset) == -1
    assert file.read(1) == b"\7"


positions = st.integers(0, len(DATA))
pieces = st.lists(
    st.one_of(
        st.binary(max_size=9), st.tuples(positions, positions).map(lambda p: (min(p), max(p)))
    ),
    max_size=5,
)


@given(
    pieces, st.lists(st.tuples(st.integers(0, 3 * len(DATA)), st.integers(0, 70_000)), max_size=5)
)
def test_a_view_reads_like_its_pieces_joined(pieces, reads):
    joined = b"".join(p if isinstance(p, bytes) else DATA[slice(*p)] for p in pieces)
    view = stored().splice(pieces)
    assert view.size_bytes == len(joined)
    assert view.lend_descriptor() is None
    for offset, size in reads:
        assert view.read_at(offset, size) == joined[offset : offset + size]
    view.seek(0)
    assert view.read() == joined


def test_an_error_below_a_view_is_raised_by_it(monkeypatch):
    class Broken(io.BytesIO):
        def readinto(self, buffer):
            raise OSError(5, "I/O error")

    monkeypatch.setattr("melmill.transforms.store.retries.RETRYING.sleep", lambda seconds: None)
    view = StoredFile(Broken(DATA)).splice([(0, 100)])
    assert view.read(10) == b""
    with pytest.raises(RecordingError) as raised:
        view.raise_kept()
    assert raised.value.cause == Cause.STORAGE_ERROR


def test_a_read_of_an_impossible_size_gives_what_there_is() -> None:
    """Reading must not allocate memory for the whole requested size first."""
    with StoredFile(io.BytesIO(b"abcdef")) as file:
        file.seek(2)
        assert file.read(1 << 60) == b"cdef"
        assert (file.read(1 << 60), file.read(), file.tell()) == (b"", b"", 6)
        file.raise_kept()
