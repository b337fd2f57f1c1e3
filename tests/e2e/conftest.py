"""A catalogue and its undisturbed dataset, for all tests that read it or compare with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tests.e2e.object_stores.gateway import process_to
from tests.e2e.object_stores.servers import KINDS, Place, installed, new_place, serving
from tests.e2e.rows import Rows, from_arrow
from tests.e2e.songs import Songs, make_songs
from tests.pipeline_runs import melmill
from tests.sharing import made_once

# Without this, gcsfs asks Google's servers about an emulator's bucket, which takes a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Songs:
    return Songs(made_once(tmp_path_factory, "songs", make_songs) / "songs.jsonl")


@pytest.fixture(scope="session")
def dataset(songs: Songs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset that the real command made. Tests must not change it."""

    def extract(folder: Path) -> None:
        result = melmill(*songs.command(folder / "dataset"), "--json")
        assert result.returncode == 0, result.stderr
        (folder / "summary.json").write_text(result.stdout)

    return made_once(tmp_path_factory, "undisturbed", extract) / "dataset"


@pytest.fixture(scope="session")
def rows(dataset) -> Rows:
    """Return every row of the dataset, as pyarrow reads it."""
    return from_arrow(DeltaTable(dataset).to_pyarrow_dataset().to_table())


@pytest.fixture(scope="session")
def tf() -> Any:
    """Return TensorFlow; skip the test if it is not installed."""
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the URLs of the servers. Google's and Azure's servers are behind a gateway process."""
    programs = installed()
    if programs is None:
        message = "the object stores' servers are not installed; run scripts/object-stores install"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        urls = {kind: stack.enter_context(serving(kind, programs, folder / kind)) for kind in KINDS}
        for kind in ("gcs", "azure"):
            urls[kind] = stack.enter_context(process_to(urls[kind]))
        yield urls


@pytest.fixture
def gcs(endpoints: dict[str, str]) -> Place:
    """Return a new bucket on the server with Google's protocol."""
    return new_place("gcs", endpoints)
