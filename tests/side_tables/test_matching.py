"""A user's values find their recordings, however the index and the spools are divided."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import bucket, recording_id
from melmill.transforms.side_tables.matching import Matched, Target, match_values
from melmill.transforms.side_tables.side_table import publish_parts, write_part_files
from melmill.transforms.side_tables.user_tables import open_user_table
from melmill.transforms.store.folders import Store
from tests.side_tables.indexes import make_job, recording, write_index

NAMES = [f"{number}.wav" for number in range(12)]
ON_RECORDING, ON_ROW = ("recording_id",), ("recording_id", "chunk_index")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "set"))


def write_values(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def match(
    path: Path,
    target: Target,
    buckets: int = 1,
    user_key: tuple[str, ...] | None = None,
    types: dict[str, str] | None = None,
) -> tuple[list[dict[str, Any]], Matched]:
    """Return the matched rows, part by part, and what does not match."""
    matched = Matched()
    table = open_user_table(str(path), user_key or target.key, types=types)
    with tempfile.TemporaryDirectory() as folder:
        parts = list(match_values(table, target, matched, buckets, Path(folder)))
    for number, part in enumerate(parts):
        ids = part["recording_id"].to_pylist()
        assert all(bucket(name, buckets) == number for name in ids)
        assert part.sort_by([(name, "ascending") for name in target.key]) == part
    return [row for part in parts for row in part.to_pylist()], matched


@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=20),
    known=st.sets(st.sampled_from(NAMES), min_size=1),
    parts=st.integers(1, 3),
    times=st.integers(1, 3),
    by_uri=st.booleans(),
)
def test_each_value_goes_to_its_recording(
    names: list[str], known: set[str], parts: int, times: int, by_uri: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/set")
        index = write_index(store, [recording(name) for name in sorted(known)], parts)
        rows: list[dict[str, Any]] = [{"value": number} for number in range(len(names))]
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            # The URI may be absolute, or relative to the catalogue.
            uri = name if number % 2 else f"/songs/{name}"
            row |= {"uri": uri} if by_uri else {"recording_id": recording_id(name)}
        path = write_values(Path(folder) / "values.jsonl", rows)
        target = Target(index, ON_RECORDING, roots=("/songs", "/"))
        user_key = ("uri",) if by_uri else ON_RECORDING
        matched_rows, matched = match(path, target, parts * times, user_key)
    expected: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in known:
            expected.setdefault(f"/songs/{name}", number)
    stored: dict[str, int] = {}
    for row in matched_rows:
        assert row["recording_id"] == recording_id(row["uri"].removeprefix("/songs/"))
        stored.setdefault(row["uri"], row["value"])  # the first row of a key comes first
    assert stored == expected
    assert matched.unknown.number == sum(name not in known for name in names)
    assert matched.doubled.number == len(matched_rows) - len(expected)


def test_the_first_faults_of_the_table_are_named_in_order(store: Store, tmp_path: Path) -> None:
    index = write_index(store, [recording("a.wav")], parts=2)
    names = ["a.wav", *(f"no-{number}.wav" for number in range(8)), "a.wav"]
    rows = [{"recording_id": recording_id(name), "value": 1} for name in names]
    path = write_values(tmp_path / "v.jsonl", rows)
    _, matched = match(path, Target(index, ON_RECORDING), 4)
    with pytest.raises(CatalogueError) as raised:
        matched.check(str(path), ignore_unknown=False)
    message = str(raised.value)
    first = ", ".join(f"line {n + 2} ({recording_id(f'no-{n}.wav')})" for n in range(5))
    assert f"8 rows belong to nothing in the dataset: {first}, and 3 more;" in message
    assert f"1 row repeats the key of an earlier row: line 10 ({recording_id('a.wav')})" in message
    with pytest.raises(CatalogueError, match="repeat") as raised:
        matched.check(str(path), ignore_unknown=True)
    assert "belong to nothing" not in str(raised.value)


def test_a_table_for_another_dataset_is_refused(store: Store, tmp_path: Path) -> None:
    index = write_index(store, [recording("a.wav")])
    path = write_values(tmp_path / "v.jsonl", [{"recording_id": "a.wav", "value": 1}])
    _, matched = match(path, Target(index, ON_RECORDING))
    with pytest.raises(CatalogueError, match=r"line 1 \(a.wav\); no row belongs to it"):
        matched.check(str(path), ignore_unknown=True)


def test_a_uri_stands_for_all_segments_of_its_object(store: Store, tmp_path: Path) -> None:
    segments = [
        recording("a.wav") | {"recording_id": recording_id("a.wav", start, start + 1)}
        for start in (0, 1, 2)
    ]
    index = write_index(store, [*segments, recording("b.wav")])
    path = write_values(tmp_path / "v.jsonl", [{"uri": "a.wav", "value": 7}])
    rows, matched = match(path, Target(index, ON_RECORDING, ("/songs",)), 1, ("uri",))
    assert {row["recording_id"] for row in rows} == {s["recording_id"] for s in segments}
    assert {row["value"] for row in rows} == {7}
    assert not matched.unknown.number
    assert not matched.doubled.number


def test_two_names_of_one_recording_are_a_repeated_key(store: Store, tmp_path: Path) -> None:
    index = write_index(store, [recording("a.wav")])
    uris = ["a.wav", "file:///songs/a.wav", "./a.wav"]
    path = write_values(tmp_path / "v.jsonl", [{"uri": uri, "value": 7} for uri in uris])
    _, matched = match(path, Target(index, ON_RECORDING, ("/songs",)), 1, ("uri",))
    assert matched.doubled.number == 2


def test_a_relative_uri_starts_at_the_catalogue_alone(store: Store, tmp_path: Path) -> None:
    # Below "/", the first would have the name that the second has below "/songs".
    index = write_index(store, [recording("a.wav"), recording("songs/a.wav")])
    path = write_values(tmp_path / "v.jsonl", [{"uri": "songs/a.wav", "value": 1}])
    rows, _ = match(path, Target(index, ON_RECORDING, ("/songs", "/")), 1, ("uri",))
    assert [row["uri"] for row in rows] == ["/songs/songs/a.wav"]


@pytest.mark.parametrize(
    ("number", "channel", "known"),
    [(0, 0, True), (2, 1, True), (3, 0, False), (-1, 0, False), (2, 2, False), (0, -1, False)],
)
def test_a_row_must_be_a_row_of_its_recording(
    store: Store, tmp_path: Path, number: int, channel: int, known: bool
) -> None:
    index = write_index(store, [recording("a.wav", rows=6, channels=2)])
    row = {"recording_id": recording_id("a.wav"), "chunk_index": number, "channel": channel}
    path = write_values(tmp_path / "v.jsonl", [{**row, "value": 1}])
    rows, matched = match(path, Target(index, (*ON_ROW, "channel")))
    assert len(rows) == known
    assert matched.unknown.number == (not known)
    if not known:
        text = f"line 1 ({row['recording_id']}, chunk_index {number}, channel {channel})"
        assert matched.unknown.text() == text


def test_values_of_rows_are_matched_chunk_by_chunk(store: Store, tmp_path: Path) -> None:
    index = write_index(store, [recording("a.wav", 300), recording("b.wav", 2)], parts=2)
    chunks = [("a.wav", 299), ("b.wav", 0), ("a.wav", 7), ("b.wav", 1), ("a.wav", 256)]
    rows = [
        {"recording_id": recording_id(name), "chunk_index": number, "value": [number]}
        for name, number in chunks
    ]
    path = write_values(tmp_path / "v.jsonl", rows)
    stored, matched = match(path, Target(index, ON_ROW), 4)
    keys = {(row["uri"], row["chunk_index"]): row["value"] for row in stored}
    assert keys == {(f"/songs/{name}", number): [number] for name, number in chunks}
    assert not matched.doubled.number


def test_an_update_keeps_the_other_rows(store: Store, tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(9)]
    index = write_index(store, [recording(name) for name in names], parts=2)
    before = [
        {"recording_id": recording_id(name), "verdict": "ok", "note": "old"} for name in names[:6]
    ]
    path = write_values(tmp_path / "v.jsonl", before)
    matched, key = Matched(), ON_RECORDING
    table = open_user_table(str(path), key)
    with tempfile.TemporaryDirectory() as folder:
        parts = match_values(table, Target(index, key), matched, 2, Path(folder))
        paths = write_part_files(Path(folder), parts)
        previous = publish_parts(make_job(store), paths, key, table.columns)
    after = [
        {"recording_id": recording_id(name), "verdict": "reject", "by": "me"} for name in names[4:8]
    ]
    path = write_values(tmp_path / "w.jsonl", after)
    # The new table has another number of parts.
    rows, _ = match(path, Target(index, key, previous=previous), 4)
    verdicts = {row["uri"].removeprefix("/songs/"): (row["verdict"], row["by"]) for row in rows}
    assert verdicts == {
        **dict.fromkeys(names[:4], ("ok", None)),
        **dict.fromkeys(names[4:8], ("reject", "me")),
    }
