"""One catalogue and one undisturbed dataset of it, for all that read or compare with it."""

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

# gcsfs asks Google's own servers what kind of bucket an emulator's is, for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Songs:
    return Songs(made_once(tmp_path_factory, "songs", make_songs) / "songs.jsonl")


@pytest.fixture(scope="session")
def dataset(songs: Songs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the real command; not to be changed."""

    def extract(folder: Path) -> None:
        done = melmill(*songs.command(folder / "dataset"), "--json")
        assert done.returncode == 0, done.stderr
        (folder / "said.json").write_text(done.stdout)

    return made_once(tmp_path_factory, "undisturbed", extract) / "dataset"


@pytest.fixture(scope="session")
def rows(dataset) -> Rows:
    """Every row of the dataset, as pyarrow reads it."""
    return from_arrow(DeltaTable(dataset).to_pyarrow_dataset().to_table())


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, where it is installed."""
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URL of each server; those of Google's and Azure's through a gateway, see there."""
    programs = installed()
    if programs is None:
        message = "no servers of object stores: run scripts/object-stores install"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        found = {k: stack.enter_context(serving(k, programs, folder / k)) for k in KINDS}
        for kind in ("gcs", "azure"):
            found[kind] = stack.enter_context(process_to(found[kind]))
        yield found


@pytest.fixture
def gcs(endpoints: dict[str, str]) -> Place:
    """A new bucket on the server of Google's protocol."""
    return new_place("gcs", endpoints)
