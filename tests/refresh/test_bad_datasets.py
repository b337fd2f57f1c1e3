"""Commands refuse datasets that are damaged, foreign or too new, and do not change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from melmill.pipelines.compact import compact
from melmill.pipelines.snapshots.history import rollback
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.snapshot import delta as snapshots
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import SMALL, files_of, write_song, write_songs


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs and a dataset of two versions, which lacks the newest song."""
    folder = tmp_path_factory.mktemp("damaged")
    write_songs(folder / "songs", 3)
    extract_here(folder / "songs", folder / "set", *SMALL)
    write_song(folder / "songs" / "new.wav", 9)
    refresh_here(folder / "songs", folder / "set")
    write_song(folder / "songs" / "newer.wav", 10)
    return folder


@pytest.fixture
def dataset(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original / "set", tmp_path / "set")
    return tmp_path / "set"


def assert_refused(original: Path, dataset: Path, message: str) -> None:
    """Assert that every command that continues from this snapshot fails and changes nothing."""
    before = files_of(dataset)
    with pytest.raises(DatasetError, match=message):
        refresh_here(original / "songs", dataset, *SMALL)
    store = Store(str(dataset))
    with pytest.raises(DatasetError, match=message):
        compact(store, here())
    with pytest.raises(DatasetError, match=message):
        takedown(store, [str(original / "songs" / "0.wav")])
    assert files_of(dataset) == before


def index_of(dataset: Path) -> Path:
    return dataset / "index" / require_snapshot(Store(str(dataset))).index


def test_a_commit_that_breaks_off(original: Path, dataset: Path) -> None:
    log = dataset / "_delta_log" / f"{1:020d}.json"
    log.write_bytes(log.read_bytes()[:200])
    assert_refused(original, dataset, "the Delta log cannot be read")


def test_a_commit_that_is_empty(original: Path, dataset: Path) -> None:
    (dataset / "_delta_log" / f"{1:020d}.json").write_bytes(b"")
    assert_refused(original, dataset, "its commit 1 is empty")


def test_a_commit_that_lacks_some_of_its_lines(original: Path, dataset: Path) -> None:
    log = dataset / "_delta_log" / f"{1:020d}.json"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if b'"add"' not in line))
    assert_refused(original, dataset, "the log or the index is damaged")


def test_a_log_with_a_gap(original: Path, dataset: Path) -> None:
    (dataset / "_delta_log" / f"{0:020d}.json").unlink()
    assert_refused(original, dataset, "the Delta log cannot be read")


@pytest.mark.parametrize("kind", ["recordings", "shards", "*"])
def test_an_index_that_lacks_a_part(original: Path, dataset: Path, kind: str) -> None:
    for path in list(index_of(dataset).glob(f"{kind}-*" if kind != "*" else kind)):
        path.unlink()
    assert_refused(original, dataset, "the log or the index is damaged")
    # A rollback to an earlier version still works.
    rollback(Store(str(dataset)), 0)
    assert refresh_here(original / "songs", dataset, *SMALL).committed


def test_a_table_of_another_tool(original: Path, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "set", pa.table({"x": [1]}))
    assert_refused(original, tmp_path / "set", "melmill did not make it")


def test_a_dataset_of_a_newer_melmill(
    original: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "FORMAT", snapshots.FORMAT - 1)
    assert_refused(original, dataset, "was committed by a newer melmill")


def test_a_folder_of_something_else(original: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"holds something else \(thesis\.txt\)"):
        refresh_here(original / "songs", tmp_path / "set", *SMALL)
    assert files_of(tmp_path / "set") == {"thesis.txt"}
