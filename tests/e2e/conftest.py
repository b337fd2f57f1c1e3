"""One catalogue and one undisturbed dataset of it, for all that read or compare with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tests.e2e.rows import Rows, from_arrow
from tests.e2e.songs import Songs, make_songs
from tests.pipeline_runs import melmill


@pytest.fixture(scope="session")
def songs(tmp_path_factory) -> Songs:
    return make_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="session")
def dataset(songs, tmp_path_factory) -> Path:
    """Made by the real command; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "dataset"
    done = melmill(*songs.command(folder), "--json")
    assert done.returncode == 0, done.stderr
    (folder.parent / "said.json").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def rows(dataset) -> Rows:
    """Every row of the dataset, as pyarrow reads it."""
    return from_arrow(DeltaTable(dataset).to_pyarrow_dataset().to_table())


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, where it is installed."""
    return pytest.importorskip("tensorflow")
