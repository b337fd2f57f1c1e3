"""The command line: what it asks, refuses and says, as real processes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pipeline_runs import extract_here, melmill, melmill_json
from tests.refresh.catalogues import SMALL, statuses_of, write_songs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``songs`` and a dataset ``set``; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    extract_here(write_songs(folder / "songs", 3), folder / "set", *SMALL)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_a_script_says_yes_before_anything_is_erased(folder: Path) -> None:
    dataset = folder / "set"
    before = statuses_of(dataset)
    uri = min(before)
    refused = melmill("takedown", dataset, uri, stdin=subprocess.DEVNULL)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Nobody is there to ask" in refused.stderr
    assert "--yes" in refused.stderr
    assert statuses_of(dataset) == before
    # What the message says to do.
    taken = melmill_json("takedown", dataset, uri, "--yes", stdin=subprocess.DEVNULL)
    assert [one["uri"] for one in taken["erased"]] == [uri]
