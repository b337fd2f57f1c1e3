"""A part of the catalogue is listed in blocks, and each recording gets its version."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.catalogue.left_out import LeftOut
from melmill.transforms.catalogue.listing import OutOfTimeError
from melmill.transforms.catalogue.parts import catalogue_parts
from melmill.transforms.core.errors import Cause
from melmill.transforms.core.records import Recording
from melmill.transforms.plan import listing
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import list_blocks, look_up_versions, needs_version
from tests.pipeline_runs import make_test_job

NOTHING = LeftOut()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtractJob:
    """Return a job for five files, of which a block holds two, and two files of other kinds."""
    monkeypatch.setattr(listing, "BLOCK", 2)
    for name in ("a.wav", "b.wav", "c.wav", "d.wav", "e.wav", "cover.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    return make_test_job(tmp_path, tmp_path / "set")


def blocks_of(
    job: ExtractJob, left_out: LeftOut, passed_over: Counter[str], deadline: float = math.inf
) -> list[list[Recording]]:
    first_part = next(catalogue_parts(job.catalogue))
    return list(list_blocks(job, first_part, left_out, passed_over, deadline))


def test_the_blocks_hold_each_recording_once(job: ExtractJob) -> None:
    passed_over = Counter({".jpg": 1})
    blocks = blocks_of(job, NOTHING, passed_over)
    names = [[recording.relative_uri for recording in block] for block in blocks]
    assert names == [["a.wav", "b.wav"], ["c.wav", "d.wav"], ["e.wav"]]
    assert {recording.change for block in blocks for recording in block} == {""}
    assert passed_over == {".jpg": 2, ".txt": 1}


def test_recordings_that_are_left_out_are_marked_with_the_reason(
    job: ExtractJob, tmp_path: Path
) -> None:
    erased, excluded = (str(tmp_path / name) for name in ("b.wav", "e.wav"))
    left_out = LeftOut(frozenset([erased]), frozenset([excluded]))
    listed = [recording for block in blocks_of(job, NOTHING, Counter()) for recording in block]
    marked = [recording for block in blocks_of(job, left_out, Counter()) for recording in block]
    assert [recording.change for recording in marked] == ["", "taken_down", "", "", "excluded"]
    assert marked == listed  # the change is not compared


def test_no_page_is_listed_after_the_deadline(job: ExtractJob) -> None:
    with pytest.raises(OutOfTimeError):
        blocks_of(job, NOTHING, Counter(), deadline=0)


def test_only_recordings_without_a_version_that_may_be_read_need_one() -> None:
    song = Recording("id", "/songs/a.wav", "a.wav")
    assert needs_version(song)
    assert not needs_version(replace(song, fingerprint="1-1"))
    assert not needs_version(replace(song, change="excluded"))
    assert not needs_version(replace(song, fault=(Cause.BAD_ROW, "no such column")))


def test_versions_that_the_listing_lacks_are_looked_up(job: ExtractJob, tmp_path: Path) -> None:
    listed = [recording for block in blocks_of(job, NOTHING, Counter()) for recording in block]
    bare = [replace(recording, fingerprint="", size_bytes=-1) for recording in listed]
    left_out = replace(bare[4], change="excluded")
    assert look_up_versions(job, [*bare[:2], *listed[2:4], left_out]) == [*listed[:4], left_out]
    assert look_up_versions(job, iter([left_out])) == [left_out]
    assert look_up_versions(job, iter(listed)) == listed
    assert look_up_versions(job, []) == []


def test_no_thread_is_started_if_every_version_is_known(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing has all versions, and a worker lists millions of recordings."""
    monkeypatch.delattr(listing, "ThreadPoolExecutor")
    known = [Recording("id", "/songs/a.wav", "a.wav", "1-1", 100)]
    assert look_up_versions(job, known) == known
