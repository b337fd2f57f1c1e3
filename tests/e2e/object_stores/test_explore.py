"""A dataset on an object store, and its recordings there, are seen and heard."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from starlette.testclient import TestClient

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import ALWAYS
from melmill.pipelines.explore.server import create_app
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.pipelines.profiles import load_profile
from melmill.transforms.store.folders import Store
from tests.e2e.object_stores.conftest import upload
from tests.e2e.object_stores.servers import Place
from tests.e2e.object_stores.test_extract import run
from tests.e2e.songs import Songs


def test_pages_pictures_and_sound_come_from_a_store(
    s3: Place, songs: Songs, tmp_path: Path
) -> None:
    upload(s3, songs.table.parent / "audio", "audio")
    output = f"{s3.root}/sets/dataset"
    run("extract", f"{s3.root}/audio/*.flac", output, "--set=chunk.seconds=0.5", places=(s3,))
    options = tuple(s3.options.items())
    opened = Explorer.open(
        Store(output, options), load_profile("training"), Verdicts(tmp_path / "v.csv"), options
    )
    before = sorted(s3.filesystem().find(s3.bucket))
    with closing(opened) as explorer:
        client = TestClient(create_app(explorer))
        rows = explorer.table.page(ALWAYS, "-rows", ["uri"], 0, 1)
        place = f"/recordings/{rows[0]['recording_id']}"
        for path in ("/", "/recordings", "/chunks", "/compare", place, f"{place}/chunks"):
            assert client.get(path).status_code == 200, path
        picture = client.get(f"{place}/chunks/0/picture.png?feature=mel")
        assert picture.headers["content-type"] == "image/png"
        lines = client.get(f"{place}/picture?columns=100").text.splitlines()
        assert json.loads(lines[-1]) == {"done": True}
        sound = client.get(f"{place}/sound.wav", headers={"Range": "bytes=1000-1999"})
        assert (sound.status_code, len(sound.content)) == (206, 1000)
    assert sorted(s3.filesystem().find(s3.bucket)) == before
