"""A refresh on a store with temporary faults, and later commands, work as on a disk."""

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
def place_and_gateway(
    request: pytest.FixtureRequest, endpoints: dict[str, str], tmp_path: Path
) -> Iterator[tuple[Place, Gateway]]:
    """Yield a bucket with songs and the gateway in front of it."""
    place = new_place(request.param, endpoints)
    upload(place, write_songs(tmp_path / "songs"), "songs")
    with gateway_to(place.endpoint) as gateway:
        yield place.through(gateway.endpoint), gateway


def run(place: Place, command: str, *arguments: str) -> Any:
    options = [f"{name}={value}" for name, value in place.options.items()]
    if command in ("extract", "refresh"):
        sections = ("catalogue", "output")
        settings = [
            f"--set={section}.storage_options.{option}"
            for section in sections
            for option in options
        ]
    else:
        settings = [f"--storage-option={option}" for option in options]
    result = melmill(command, *arguments, *settings, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def rows(place: Place, folder: str) -> dict[tuple[str, int], bytes]:
    table = Dataset(f"{place.root}/{folder}", place.options).as_arrow().to_table()
    keys = zip(table["recording_id"].to_pylist(), table["chunk_index"].to_pylist(), strict=True)
    return dict(
        zip(keys, (json.dumps(mel).encode() for mel in table["mel"].to_pylist()), strict=True)
    )


def test_a_refresh_and_what_follows(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = place_and_gateway
    direct = place.through(gateway.target)
    settings = [f"--set={setting}" for setting in SMALL]
    songs, dataset = f"{place.root}/songs", f"{place.root}/set"
    run(direct, "extract", songs, dataset, *settings)
    assert not run(direct, "refresh", songs, dataset)["committed"]

    write_song(tmp_path / "change" / "new.wav", 70)
    write_song(tmp_path / "change" / "1.wav", 71)
    upload(direct, tmp_path / "change", "songs")
    direct.filesystem().rm(f"{place.bucket}/songs/2.wav")
    chance = Chance()
    gateway.fault = chance
    summary = run(place, "refresh", songs, dataset)
    gateway.fault = lambda method, path: None
    assert chance.faults.total() >= 3
    assert [summary["difference"][kind] for kind in ("new", "changed", "removed")] == [1, 1, 1]
    run(direct, "extract", songs, f"{place.root}/fresh", *settings)
    fresh = rows(direct, "fresh")
    assert rows(direct, "set") == fresh

    assert run(direct, "compact", dataset)["committed"]
    collected = run(direct, "gc", dataset, "--keep=1", "--grace-hours=0")
    assert (collected["kept"], collected["expired"]) == ([2], [0, 1])
    assert rows(direct, "set") == fresh
    uri = f"{songs}/3.wav"
    run(direct, "takedown", dataset, uri, "--yes")
    assert len(rows(direct, "set")) == len(fresh) - 10
    assert [snapshot["kept"] for snapshot in run(direct, "history", dataset)["snapshots"]] == [
        *(True, True, False, False)
    ]
    direct.filesystem().pipe_file(f"{place.bucket}/lists/out.txt", b"../songs/4.wav\n")
    excluding = f"--set=catalogue.exclude={place.root}/lists/out.txt"
    difference = run(direct, "refresh", songs, dataset, excluding)["difference"]
    assert (difference["taken_down"], difference["excluded"]) == (1, 1)
    names = {name.partition("/")[0] for name in direct.store("set").names()}
    assert names == {
        *("README.md", "_delta_log", "index", "runs", "split=test", "split=train"),
        *("split=validation", "statistics.json", "taken_down", ".melmill"),
    } - ({"split=test", "split=validation"} - names)


@pytest.mark.slow
def test_added_columns_are_joined_and_erased(
    place_and_gateway: tuple[Place, Gateway], tmp_path: Path
) -> None:
    place, gateway = place_and_gateway
    direct = place.through(gateway.target)
    songs, dataset = f"{place.root}/songs", f"{place.root}/set"
    run(direct, "extract", songs, dataset, *(f"--set={setting}" for setting in SMALL))
    (tmp_path / "v.csv").write_text(f"uri,verdict\n0.wav,ok\n{songs}/1.wav,reject\n")
    gateway.fault = chance = Chance()
    added = run(place, "add-columns", dataset, str(tmp_path / "v.csv"), "--on=uri")
    gateway.fault = lambda method, path: None
    assert chance.faults.total() >= 1
    assert (added["version"], added["added_columns"]["verdict"]["lacking"]) == (1, 4)
    assert verdicts(direct) == {"0.wav": "ok", "1.wav": "reject", "2.wav": None}
    run(direct, "takedown", dataset, f"{songs}/1.wav", "--yes")
    assert verdicts(direct) == {"0.wav": "ok", "2.wav": None}
    names = [name for name in direct.store("set").names() if name.startswith("columns/")]
    assert len(names) == 1
    assert run(direct, "validate", dataset)["faults"] == []


def verdicts(place: Place) -> dict[str, str | None]:
    """Return the verdicts in the rows of three songs."""
    rows = Dataset(f"{place.root}/set", place.options).as_arrow()
    found = {
        Path(row["uri"]).name: row["verdict"]
        for row in rows.to_table(columns=["uri", "verdict"]).to_pylist()
    }
    return {name: found[name] for name in ("0.wav", "1.wav", "2.wav") if name in found}
