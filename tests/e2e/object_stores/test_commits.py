"""Exactly one of many simultaneous commits wins. A store on which two commits win is refused."""

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
from tests.e2e.object_stores.servers import S3_FIRST, Place
from tests.plans import summary

RUNS = 8
SCHEMA = pa.schema([("a", pa.int64()), ("split", pa.string())])

#: A process in two races: it waits for a line, then commits a shard with its own name.
RACER = """
import json, sys
from tests.e2e.object_stores.test_commits import VERSIONS, try_commit
from tests.plans import lay_down, summary
from melmill.transforms.store.folders import Store
root, options, number = json.loads(sys.argv[1])
store = Store(root, tuple(options.items()))
for version in VERSIONS:
    name = f"v{version}-{number}"
    lay_down(store, name, summary(name))
    print("ready", flush=True)
    sys.stdin.readline()
    print(try_commit(store, version, name), flush=True)
"""
#: Versions before the two commits: the first makes the table, the second adds to it.
VERSIONS = (-1, 0)


def try_commit(store: Store, version: int, name: str) -> str:
    """Commit an existing index after a version; return "won" and the new version, or the error."""
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
    """Let all processes commit at once; return the output of each."""
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * RUNS
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes]


@pytest.mark.parametrize("place", S3_FIRST, indirect=True)
def test_exactly_one_of_eight_runs_commits(place: Place) -> None:
    store = place.store("dataset")
    with racers(store) as processes:
        for version in VERSIONS:
            outputs = race(processes)
            winners = [
                number for number, output in enumerate(outputs) if output == f"won {version + 1}"
            ]
            assert len(winners) == 1, outputs
            losers = [output for number, output in enumerate(outputs) if number not in winners]
            assert all("another run committed" in output for output in losers), outputs

            snapshot = read_snapshot(store)
            assert snapshot is not None
            assert (snapshot.version, snapshot.index) == (version + 1, f"v{version}-{winners[0]}")
            (file,) = table_files(open_table(store))
            parquet = summary(f"v{version}-{winners[0]}").parquet
            assert parquet is not None
            assert file[0] == parquet.name


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
