"""Tests of a commit without a waiting launcher: the job's last step commits, maybe twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melmill.pipelines.commit import commit_index
from melmill.pipelines.config import load_config
from melmill.transforms.core.errors import DatasetError
from tests.pipeline_runs import extract_here, make_test_job
from tests.signals import noise, write_audio

CONFIGURATION = load_config(None, ()).as_dict()


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    write_audio(folder / "a.wav", noise(4, 22_050, 0), 22_050)
    return folder


def test_a_repeated_step_finds_its_own_commit(songs: Path, tmp_path: Path) -> None:
    snapshot = extract_here(songs, tmp_path / "set").snapshot
    job = replace(make_test_job(songs, tmp_path / "set"), attempt=snapshot.run)
    assert commit_index(snapshot.index, job, CONFIGURATION, began_with=-1) == snapshot.version


@pytest.mark.parametrize("launched_before", [True, False])
def test_another_runs_commit_is_not_replaced(
    songs: Path, tmp_path: Path, launched_before: bool
) -> None:
    """If a template is launched twice, the second launch is a different run."""
    snapshot = extract_here(songs, tmp_path / "set").snapshot
    job = replace(
        make_test_job(songs, tmp_path / "set"),
        attempt=snapshot.run if launched_before else "0123456789abcdef-" + "0" * 32,
    )
    job.store.put(f"{job.staging}/made/{'0' * 32}.json", b'{"index": "none"}')
    message = r"was at version -1 .* is at version 0 now; nothing was commit"
    with pytest.raises(DatasetError, match=message):
        commit_index("0" * 32, job, CONFIGURATION, began_with=-1)
    assert not (tmp_path / "set" / "staging").exists()
    assert extract_here(songs, tmp_path / "set").snapshot == snapshot
