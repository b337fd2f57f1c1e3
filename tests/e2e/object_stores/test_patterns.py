"""Patterns are found in a dataset on an object store."""

from __future__ import annotations

import json

from tests.e2e.object_stores.conftest import upload
from tests.e2e.object_stores.servers import Place
from tests.e2e.object_stores.test_extract import run
from tests.e2e.songs import Songs


def test_patterns_of_a_dataset_on_a_store(s3: Place, songs: Songs) -> None:
    upload(s3, songs.table.parent / "audio", "audio")
    output = f"{s3.root}/sets/dataset"
    run("extract", f"{s3.root}/audio/*.flac", output, "--set=chunk.seconds=0.5", places=(s3,))
    found = json.loads(run("patterns", output, "--json", places=(s3,)).stdout)
    assert len(found["recordings"]) == found["compared"] > 1
    uri = found["recordings"][0]["uri"]
    options = [f"--storage-option={name}={value}" for name, value in s3.options.items()]
    like = json.loads(run("patterns", output, "--like", uri, "--json", *options, places=()).stdout)
    assert like["like"]["uri"] == uri
    assert uri not in [recording["uri"] for recording in like["recordings"]]
