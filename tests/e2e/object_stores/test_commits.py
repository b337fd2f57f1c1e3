"""Commits on object stores: of many at once one wins, and a store that lets two win is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import Snapshot, open_table, read_snapshot, table_files
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from tests.e2e.object_stores.gateway import Gateway
from tests.e2e.object_stores.servers import Place
from tests.plans import summary

RUNS = 8
SCHEMA = pa.schema([("a", pa.int64()), ("split", pa.string())])

#: One process of two races: waits for a line, then commits a shard of its own name.
RACER = """
import json, sys
from tests.e2e.object_stores.test_commits import VERSIONS, commit_one
from tests.plans import lay_down, summary
from melmill.transforms.store.folders import Store
root, options, number = json.loads(sys.argv[1])
store = Store(root, tuple(options.items()))
for version in VERSIONS:
    name = f"v{version}-{number}"
    lay_down(store, name, summary(name))
    print("ready", flush=True)
    sys.stdin.readline()
    print(commit_one(store, version, name), flush=True)
"""
#: Making the table, and adding to it.
VERSIONS = (-1, 0)


def commit_one(store: Store, version: int, name: str) -> str:
    """Commit an index that is there over a version; gives who won, or what the loser is told."""
    snapshot = Snapshot(version, name, {}, "catalogue", "features", {})
    try:
        return f"won {commit(store, snapshot, SCHEMA)}"
    except DatasetError as error:
        return str(error)


@contextmanager
def racers(store: Store) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that are ready to commit."""
    options = dict(store.storage_options)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER, json.dumps([store.root, options, number])],
                    cwd=Path(__file__).parents[3],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(RUNS)
        ]


def race(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let all of them commit at once; gives what each says."""
    assert [one.stdout.readline() for one in processes] == ["ready\n"] * RUNS
    for one in processes:
        one.stdin.write("go\n")
        one.stdin.flush()
    return [one.stdout.readline().strip() for one in processes]


def test_of_eight_runs_exactly_one_commits(place: Place) -> None:
    store = place.store("dataset")
    with racers(store) as processes:
        for version in VERSIONS:
            said = race(processes)
            winners = [n for n, words in enumerate(said) if words == f"won {version + 1}"]
            assert len(winners) == 1, said
            losers = [words for n, words in enumerate(said) if n not in winners]
            assert all("another run committed" in words for words in losers), said

            snapshot = read_snapshot(store)
            assert snapshot is not None
            assert (snapshot.version, snapshot.index) == (version + 1, f"v{version}-{winners[0]}")
            (file,) = table_files(open_table(store))
            won = summary(f"v{version}-{winners[0]}").parquet
            assert won is not None
            assert file[0] == won.name


def test_a_store_that_lets_one_commit_win_is_accepted(place: Place) -> None:
    store = place.store("dataset")
    require_exclusive_commits(store, "staging/run")
    assert list(store.names()) == []


def test_a_store_that_ignores_the_condition_is_refused(place: Place, gateway: Gateway) -> None:
    filesystem = place.filesystem()

    def make_room(path: str) -> None:
        name = path[path.index(place.bucket) :]
        if filesystem.exists(name):
            filesystem.rm_file(name)

    gateway.make_room = make_room
    store = place.through(gateway.endpoint).store("dataset")
    with pytest.raises(DatasetError, match=r"ignores the condition.*--unsafe-single-writer"):
        require_exclusive_commits(store, "staging/run")
    assert list(store.names()) == []
