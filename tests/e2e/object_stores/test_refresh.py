"""A refresh on a store that fails now and then, and what follows: the same as on a disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from melmill.pipelines.dataset import Dataset
from tests.e2e.object_stores.conftest import new_place, upload
from tests.e2e.object_stores.gateway import Gateway, gateway_to
from tests.e2e.object_stores.servers import Place
from tests.e2e.object_stores.test_faults import Chance
from tests.pipeline_runs import melmill
from tests.refresh.catalogues import SMALL, write_song, write_songs

SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("gcs", "azure")]


@pytest.fixture(params=["s3", *SLOW])
def faulty(
    request: pytest.FixtureRequest, endpoints: dict[str, str], tmp_path: Path
) -> Iterator[tuple[Place, Gateway]]:
    """A bucket with songs, behind a gateway."""
    place = new_place(request.param, endpoints)
    upload(place, write_songs(tmp_path / "songs"), "songs")
    with gateway_to(place.endpoint) as gateway:
        yield place.through(gateway.endpoint), gateway


def run(place: Place, command: str, *arguments: str) -> Any:
    options = [f"{name}={value}" for name, value in place.options.items()]
    if command in ("extract", "refresh"):
        sections = ("catalogue", "output")
        settings = [f"--set={s}.storage_options.{one}" for s in sections for one in options]
    else:
        settings = [f"--storage-option={one}" for one in options]
    done = melmill(command, *arguments, *settings, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(place: Place, folder: str) -> dict[tuple[str, int], bytes]:
    table = Dataset(f"{place.root}/{folder}", place.options).as_arrow().to_table()
    keys = zip(table["recording_id"].to_pylist(), table["chunk_index"].to_pylist(), strict=True)
    return dict(
        zip(keys, (json.dumps(mel).encode() for mel in table["mel"].to_pylist()), strict=True)
    )


def test_a_refresh_and_what_follows(faulty: tuple[Place, Gateway], tmp_path: Path) -> None:
    place, gateway = faulty
    direct = place.through(gateway.target)
    settings = [f"--set={one}" for one in SMALL]
    songs, dataset = f"{place.root}/songs", f"{place.root}/set"
    run(direct, "extract", songs, dataset, *settings)
    assert not run(direct, "refresh", songs, dataset)["committed"]

    write_song(tmp_path / "change" / "new.wav", 70)
    write_song(tmp_path / "change" / "1.wav", 71)
    upload(direct, tmp_path / "change", "songs")
    direct.filesystem().rm(f"{place.bucket}/songs/2.wav")
    chance = Chance()
    gateway.fault = chance
    made = run(place, "refresh", songs, dataset)
    gateway.fault = lambda method, path: None
    assert chance.made.total() >= 3
    assert [made["difference"][kind] for kind in ("new", "changed", "removed")] == [1, 1, 1]
    run(direct, "extract", songs, f"{place.root}/fresh", *settings)
    fresh = rows(direct, "fresh")
    assert rows(direct, "set") == fresh

    assert run(direct, "compact", dataset)["committed"]
    kept = run(direct, "gc", dataset, "--keep=1", "--grace-hours=0")
    assert (kept["kept"], kept["expired"]) == ([2], [0, 1])
    assert rows(direct, "set") == fresh
    uri = f"{songs}/3.wav"
    run(direct, "takedown", dataset, uri, "--yes")
    assert len(rows(direct, "set")) == len(fresh) - 10
    assert [one["kept"] for one in run(direct, "history", dataset)["snapshots"]] == [
        *(True, True, False, False)
    ]
    direct.filesystem().pipe_file(f"{place.bucket}/lists/out.txt", b"../songs/4.wav\n")
    excluding = f"--set=catalogue.exclude={place.root}/lists/out.txt"
    difference = run(direct, "refresh", songs, dataset, excluding)["difference"]
    assert (difference["taken_down"], difference["excluded"]) == (1, 1)
    left = {name.partition("/")[0] for name in direct.store("set").names()}
    assert left == {
        *("README.md", "_delta_log", "index", "runs", "split=test", "split=train"),
        *("split=validation", "statistics.json", "taken_down", ".melmill"),
    } - ({"split=test", "split=validation"} - left)
