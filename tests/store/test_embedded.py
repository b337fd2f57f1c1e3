"""Tests of audio in Parquet files: each value is read in place, however it is stored."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.store import embedded
from melmill.transforms.store.archives import BadArchiveError, Member
from melmill.transforms.store.embedded import audio_columns, embedded_members, read_embedded
from melmill.transforms.store.members import content_fingerprint, member_fingerprint, open_place
from tests.signals import noise

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
#: Options of Arrow's writer that place values in different ways.
WRITERS: dict[str, dict[str, Any]] = {
    "default": {},
    "plain": {"compression": "none", "use_dictionary": False},
    "plain dictionary": {"compression": "none"},
    "content-defined chunks": {"use_content_defined_chunking": True, "write_page_index": True},
    "zstd, second version": {"compression": "zstd", "data_page_version": "2.0"},
    "second version, plain": {"compression": "none", "data_page_version": "2.0"},
    "gzip": {"compression": "gzip", "use_dictionary": False},
    "brotli": {"compression": "brotli"},
    "lz4": {"compression": "lz4", "use_dictionary": False, "data_page_size": 1_000},
    "lengths first": {
        "use_dictionary": False,
        "column_encoding": {"audio.bytes": "DELTA_LENGTH_BYTE_ARRAY"},
    },
    "many groups": {"row_group_size": 3, "write_batch_size": 1, "data_page_size": 10},
    "checksums": {"write_page_checksum": True},
}


def parquet_of(
    content: Mapping[str, bytes | None] | Sequence[bytes | None],
    labels: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> bytes:
    """Return a Parquet file with audio in its rows; audio in a list has no paths."""
    named = content.items() if isinstance(content, Mapping) else [(None, c) for c in content]
    rows = [{"bytes": data, "path": name} for name, data in named]
    table = pa.table({"audio": pa.array(rows, AUDIO), **(labels or {})})
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def members_of(data: bytes) -> list[Member]:
    return list(embedded_members(io.BytesIO(data), "v"))


def read(data: bytes, member: Member) -> bytes:
    with open_place(io.BytesIO(data), member.place) as file:
        content: bytes = file.read()
        file.seek(len(content) // 2)
        assert file.read() == content[len(content) // 2 :]
        return content


CONTENT = {f"songs/{n}.flac": noise(1, 600 * n, seed=n).tobytes() for n in range(1, 9)}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_each_value_is_read_at_its_place(writer: dict[str, Any]) -> None:
    data = parquet_of(CONTENT, **writer)
    members = members_of(data)
    assert [(member.name, member.fault) for member in members] == [(n, "") for n in CONTENT]
    assert {member.name: read(data, member) for member in members} == CONTENT
    for member in members:
        assert member_fingerprint(io.BytesIO(data), member.place) == content_fingerprint(
            CONTENT[member.name]
        )
    if writer.get("compression") == "none":
        # Only the value's own bytes are read.
        assert {m.place.stored_bytes for m in members} == set(map(len, CONTENT.values()))


@given(
    st.lists(st.none() | st.binary(max_size=200)),
    st.sampled_from(sorted(WRITERS)),
    st.integers(1, 40),
)
def test_any_values_are_found(values: list[bytes | None], writer: str, group: int) -> None:
    data = parquet_of(values, **{"row_group_size": group, **WRITERS[writer]})
    members = members_of(data)
    assert [member.name for member in members] == [f"row-{n}" for n in range(1, len(values) + 1)]
    for member, value in zip(members, values, strict=True):
        assert bool(member.fault) == (value is None)
        assert value is None or read(data, member) == value


def test_rows_come_with_all_columns_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_BATCH_BYTES", 20_000)
    data = parquet_of(CONTENT, {"text": list("abcdefgh")}, row_group_size=6)
    blocks = list(read_embedded(io.BytesIO(data), "v", "audio"))
    assert len(blocks) > 2
    assert [t for b in blocks for t in b.columns["text"].to_pylist()] == list("abcdefgh")
    assert [b.first_row for b in blocks[:2]] == [1, 1 + len(blocks[0].members)]
    assert all(value is not None and value.nbytes for b in blocks for value in b.values)


def test_large_binary_values_and_structs_without_paths_are_audio() -> None:
    kind = pa.struct([("bytes", pa.large_binary()), ("sampling_rate", pa.int32())])
    table = pa.table({"sound": pa.array([{"bytes": b"abc", "sampling_rate": 1}], kind)})
    assert audio_columns(table.schema) == ["sound"]
    file = io.BytesIO()
    pq.write_table(table, file)
    (member,) = members_of(file.getvalue())
    assert (member.name, read(file.getvalue(), member)) == ("row-1", b"abc")


def test_members_of_several_columns_have_the_names_of_their_columns() -> None:
    rows = {name: [{"bytes": name.encode(), "path": None}] for name in ("clean", "noisy")}
    table = pa.table({name: pa.array(values, AUDIO) for name, values in rows.items()})
    file = io.BytesIO()
    pq.write_table(table, file)
    contents = {m.name: read(file.getvalue(), m) for m in members_of(file.getvalue())}
    assert contents == {"clean/row-1": b"clean", "noisy/row-1": b"noisy"}
    with pytest.raises(BadArchiveError, match="no column 'other' of audio"):
        list(read_embedded(file, "v", "other"))


@pytest.mark.parametrize(
    ("paths", "name", "fault"),
    [
        (pa.array([b"\xe9.wav"], pa.binary()), "row-1", ""),
        (pa.array([7]), "row-1", ""),
        (pa.array(["./songs//a.wav"]), "songs/a.wav", ""),
        (pa.array(["https://host/a.wav"]), "https:/host/a.wav", ""),
        (pa.array([""]), "row-1", ""),
        (pa.array(["a\n.wav"]), "a\n.wav", "control characters"),
        (
            pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xe9.wav"], pa.binary()).buffers()),
            "\udce9.wav",
            "not in UTF-8",
        ),
    ],
    ids=["bytes", "number", "dots", "address", "empty", "control", "latin"],
)
def test_any_path_is_a_name_or_a_fault_of_its_row(paths: pa.Array, name: str, fault: str) -> None:
    rows = pa.StructArray.from_arrays([pa.array([b"abc"], pa.binary()), paths], ["bytes", "path"])
    file = io.BytesIO()
    pq.write_table(pa.table({"audio": rows}), file)
    (member,) = members_of(file.getvalue())
    assert member.name == name
    assert (fault in member.fault) if fault else not member.fault


def test_a_value_in_many_rows_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_MOST_BATCH_BYTES", 100_000)
    data = parquet_of([b"x" * 20_000] * 50)
    assert len(data) < 30_000
    blocks = list(read_embedded(io.BytesIO(data), "v", "audio"))
    assert max(block.columns.nbytes for block in blocks) < 150_000
    assert sum(len(block.members) for block in blocks) == 50


def test_values_that_share_their_bytes_are_a_fault_of_their_rows() -> None:
    data = parquet_of(
        {"a": b"same beginning, one", "b": b"same beginning, two"},
        use_dictionary=False,
        column_encoding={"audio.bytes": "DELTA_BYTE_ARRAY"},
    )
    assert ["in one piece" in member.fault for member in members_of(data)] == [False, True]


def test_a_page_that_is_too_large_is_a_fault_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = parquet_of(CONTENT)
    place = members_of(data)[0].place
    monkeypatch.setattr(embedded, "MOST_PAGE_BYTES", 1_000)
    assert all("fewer rows in a row group" in member.fault for member in members_of(data))
    with pytest.raises(BadArchiveError, match="fewer rows"):
        open_place(io.BytesIO(data), place)


@settings(max_examples=30)
@given(st.sampled_from(sorted(WRITERS)), st.data())
def test_a_damaged_file_is_an_error_and_never_other_bytes(writer: str, data: st.DataObject) -> None:
    content = {name: value[:400] for name, value in CONTENT.items()}
    intact = parquet_of(content, **WRITERS[writer])
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(intact) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.integers(0, len(intact)))
    for changed in (bytes(damaged), intact[:size]):
        try:
            members = members_of(changed)
        except BadArchiveError:
            continue
        for member in members:
            if not member.fault and member.place.size_bytes:
                # What is read is what Arrow reads.
                assert member_fingerprint(io.BytesIO(changed), member.place) in {
                    content_fingerprint(value.as_py())
                    for value in pq.read_table(io.BytesIO(changed))["audio"]
                    .combine_chunks()
                    .field("bytes")
                    if value.is_valid
                }
