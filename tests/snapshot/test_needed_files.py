"""melmill finds the files that snapshots need and recognises its own files."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from melmill.transforms.shards.receipts import Made, announce_index, announce_shard
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Past, Snapshot, read_history
from melmill.transforms.snapshot.needed_files import (
    Needed,
    Records,
    in_order_of_removal,
    list_own,
    needed,
    read_announced,
    read_records,
)
from melmill.transforms.store.folders import Store
from tests.plans import lay_down, summary
from tests.shard_rows import job_of_rows

SCHEMA = pa.schema({"mel": pa.float32(), "split": pa.string()})
A, B, C = ("a" * 32, "b" * 32, "c" * 32)
ONE, TWO, THREE = summary("one"), summary("two", split="test"), summary("three")
LIST = f"taken_down/{'d' * 32}.jsonl"


def parquet(shard: str, split: str = "train") -> str:
    return f"split={split}/part-{shard}.parquet"


def twin(shard: str, split: str = "train") -> str:
    return f"tfrecord/{split}/part-{shard}.tfrecord"


def part(index: str, table: str = "recordings", number: int = 0) -> str:
    return f"index/{index}/{table}-{number:05d}.parquet"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def committed(store: Store) -> Store:
    """Return a store with two snapshots.

    The second snapshot lacks a shard and names a list of the recordings that were taken down.
    """
    first = Snapshot(-1, A, {}, "/songs", "{}")
    lay_down(store, A, ONE, TWO)
    commit(store, first, SCHEMA)
    lay_down(store, B, TWO, THREE)
    commit(store, replace(first, version=0, index=B, taken_down=LIST), SCHEMA)
    return store


def test_snapshots_need_their_indexes_and_shards(committed: Store) -> None:
    latest, earlier = read_history(committed)
    assert needed(committed, [latest, earlier]) == Needed(
        frozenset({A, B}), frozenset({ONE.name, TWO.name, THREE.name}), LIST
    )
    assert needed(committed, [latest]) == Needed(
        frozenset({B}), frozenset({TWO.name, THREE.name}), LIST
    )
    assert needed(committed, []) == Needed(frozenset(), frozenset(), "")


def test_files_are_needed_by_their_names() -> None:
    needs = Needed(frozenset({A}), frozenset({B}), LIST)
    for name in (parquet(B), twin(B), parquet(B, "test"), part(A), part(A, "shards", 7), LIST):
        assert needs.has(name), name
    unneeded = (parquet(A), twin(C), part(B), LIST.replace("d", "e"), "staging/started", "a.txt")
    assert not any(needs.has(name) for name in unneeded)


def test_only_files_with_melmills_names_are_its_own(store: Store) -> None:
    run = "0123456789abcdef"
    own_files = [
        *(parquet(A), parquet(B, "test"), part(A), f"staging/{run}/started", LIST, twin(A)),
        f"staging/{run}/made/{A}.json",
    ]
    other_files = ["README.md", "split=train/a.parquet", "index/mine.csv", "tfrecord/x", "other/x"]
    for name in (*own_files, *other_files, f"_delta_log/{'0' * 20}.json", "taken_down/x.jsonl"):
        store.put(name, b"x")
    assert sorted(file.name for file in list_own(store)) == sorted(own_files)


def test_announcements_of_all_runs_are_read(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path)
    store = job.store
    announce_shard(job, A, [parquet(A)])
    announce_index(job, B)
    other_run = f"staging/{'0' * 16}"
    store.put(f"{other_run}/made/{C}.json", b'{"files": ["x"]}')
    store.put("staging/scratch/" + "0" * 32, b"")
    store.put(parquet(A), b"")
    announced = read_announced(store, list_own(store))
    own_folder = f"{job.staging}/made"
    assert sorted(announced, key=lambda announcement: announcement.name) == sorted(
        [
            Made(A, (parquet(A),), "", f"{own_folder}/{A}.json"),
            Made("", (), B, f"{own_folder}/{B}.json"),
            Made("", ("x",), "", f"{other_run}/made/{C}.json"),
        ],
        key=lambda announcement: announcement.name,
    )
    assert read_announced(store, []) == []


def test_records_come_from_the_log_the_indexes_and_the_announcements(committed: Store) -> None:
    hidden = summary("in an index alone", split="fold")
    lay_down(committed, C, hidden)
    lay_down(committed, "e" * 32, summary("in an index that nobody names"))
    announced = [
        Made(index=C, files=()),
        Made(shard="f" * 32, files=(parquet("f" * 32), twin("f" * 32))),
        Made(files=("README.md",)),
        Made(index="9" * 32),
    ]
    records = read_records(committed, read_history(committed), announced, list_own(committed))
    assert records.shards == {
        *(("train", ONE.name), ("test", TWO.name), ("train", THREE.name)),
        *(("fold", hidden.name), ("train", "f" * 32)),
    }
    assert records.indexes == {A, B, C, "9" * 32}
    assert records.lists == {"", LIST, "README.md", parquet("f" * 32), twin("f" * 32)}


def test_records_recognise_files_by_their_names() -> None:
    records = Records(frozenset({("train", A)}), frozenset({B}), frozenset({LIST, "note.txt"}))
    working = ("staging/0123456789abcdef/started", "staging/scratch/" + "0" * 32)
    for name in (parquet(A), twin(A), part(B), LIST, "note.txt", *working):
        assert records.know(name), name
    unknown = (
        parquet(A, "test"),
        parquet(B),
        part(A),
        LIST.replace("d", "e"),
        "staging/x",
        "a.txt",
    )
    assert not any(records.know(name) for name in unknown)


def test_the_order_of_removal_allows_a_stop_at_any_time() -> None:
    run = "staging/0123456789abcdef"
    ordered = [
        *(part(A), part(B)),
        *(parquet(A), LIST, twin(A)),
        *(part(A, "failures"), part(A, number=1), part(B, "shards")),
        *(f"{run}/attempts/0123456789abcdef-{A}", f"{run}/shards/{A}.json", f"{run}/started"),
        *(f"{run}/made/{A}.json", f"{run}/made/{B}.json"),
    ]
    for seed in range(5):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert list(in_order_of_removal(shuffled)) == _in_groups(ordered)


def _in_groups(ordered: list[str]) -> list[str]:
    """Sort the names within each of the five groups of 2, 3, 3, 3 and 2 files."""
    borders = itertools.pairwise([0, 2, 5, 8, 11, 13])
    return [name for first, stop in borders for name in sorted(ordered[first:stop])]


def test_the_current_snapshot_is_the_first(committed: Store) -> None:
    past = read_history(committed)
    assert [entry.snapshot.index for entry in past] == [B, A]
    assert isinstance(past[0], Past)
    assert needed(committed, past[::-1]).taken_down == ""
