"""The name of a run stays the same when the same command is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.catalogue.taken_down_list import TakenDown, write_taken_down
from melmill.transforms.core.errors import Cause
from melmill.transforms.core.records import Recording
from melmill.transforms.plan import job as job_module
from melmill.transforms.plan.job import Base, ExtractJob
from tests.pipeline_runs import make_test_job
from tests.signals import noise, write_audio

TOKEN = "hunter2"


@pytest.fixture(params=["directory", "table"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> ExtractJob:
    write_audio(tmp_path / "a.wav", noise(1, 22_050), 22_050)
    (tmp_path / "songs.csv").write_text("uri\na.wav\n")
    catalogue = tmp_path if request.param == "directory" else tmp_path / "songs.csv"
    return make_test_job(catalogue, tmp_path / "out")


def with_token(job: ExtractJob) -> ExtractJob:
    options = (("token", TOKEN), ("client_kwargs", {"aws_session_token": TOKEN}))
    source = replace(job.catalogue.source, storage_options=options)
    catalogue = Catalogue(job.catalogue.uri, source)
    return replace(job, catalogue=catalogue, store=replace(job.store, storage_options=options))


def test_a_renewed_token_does_not_change_the_name_of_a_run(job: ExtractJob) -> None:
    renewed = with_token(job)
    assert renewed.catalogue.storage_options != job.catalogue.storage_options
    assert renewed.run_id == job.run_id


def test_no_token_is_in_any_text(job: ExtractJob) -> None:
    assert TOKEN not in repr(with_token(job))
    recording = Recording("id", "s3://bucket/a.wav", "a.wav")
    assert TOKEN not in repr(with_token(job).source(recording))


def test_another_catalogue_is_another_run(job: ExtractJob) -> None:
    other_catalogue = replace(job.catalogue, uri="/elsewhere")
    assert replace(job, catalogue=other_catalogue).run_id != job.run_id


def test_a_run_has_the_same_name_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("uri,a,b,c\na.wav,1,2,3\n")
    types = "catalogue.label_types={a: string, b: string, c: double}"
    code = (
        "from tests.pipeline_runs import make_test_job; "
        f"print(make_test_job({str(tmp_path / 'songs.csv')!r}, '/out', {types!r}).run_id)"
    )
    names = {
        subprocess.check_output(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2", "3")
    }
    assert len(names) == 1


def test_a_recording_of_a_table_gets_the_version_of_the_stored_file(
    job: ExtractJob, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    listed = Recording("id", str(path), "a.wav", labels=(("genre", "rock"),))
    versioned = job.in_its_version(listed)
    assert versioned.size_bytes == path.stat().st_size
    assert versioned.fingerprint.startswith("mtime:")
    assert replace(versioned, size_bytes=-1, fingerprint="") == listed


def test_a_recording_that_needs_no_version_or_has_none_does_not_change(
    job: ExtractJob, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.wav")
    probed_before = Recording("id", path, "a.wav", "1-1", 100)
    faulty = Recording("id", path, "a.wav", fault=(Cause.BAD_ROW, "no such column"))
    missing = Recording("id", str(tmp_path / "b.wav"), "b.wav")
    for song in (probed_before, faulty, missing):
        assert job.in_its_version(song) is song


def test_a_recording_is_read_in_its_version_with_the_catalogues_options(job: ExtractJob) -> None:
    source = with_token(job).source(Recording("id", "/songs/a.wav", "a.wav", "1-1", 100))
    assert (source.uri, source.size_bytes, source.fingerprint) == ("/songs/a.wav", 100, "1-1")
    assert source.storage_options == with_token(job).catalogue.storage_options


def test_left_out_recordings_are_read_from_both_lists(job: ExtractJob, tmp_path: Path) -> None:
    exclude_list = tmp_path / "excluded.csv"
    exclude_list.write_text("uri\n/songs/b.wav\n")
    names = ("a.wav", "b.wav", "c.wav")
    used, excluded, erased = (Recording(name, f"/songs/{name}", name) for name in names)
    taken_down = write_taken_down(job.store, [TakenDown("", erased.uri, "2026-01-01T00:00:00Z")])
    left_out = replace(job, exclude=str(exclude_list), taken_down=taken_down).left_out()
    reasons = [left_out.reason(song) for song in (used, excluded, erased)]
    assert reasons == ["", "excluded", "taken_down"]
    assert job.left_out().reason(excluded) == ""


def test_the_exclude_list_is_read_with_the_catalogues_options(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "read_left_out", lambda *arguments: arguments)
    token_job = replace(with_token(job), exclude="s3://bucket/list.txt", taken_down="list")
    options = token_job.catalogue.storage_options
    assert token_job.left_out() == (token_job.store, "list", "s3://bucket/list.txt", options)


@pytest.mark.parametrize(
    ("failed", "recordings", "too_many"),
    [(0, 0, False), (0, 1, False), (1, 1, True), (1, 2, False), (2, 3, True), (5, 10, False)],
)
def test_more_failures_than_the_limit_are_too_many(
    job: ExtractJob, failed: int, recordings: int, too_many: bool
) -> None:
    limits = replace(job.limits, max_failure_ratio=0.5)
    assert limits.too_many_failed(failed, recordings) == too_many


def test_a_setting_that_changes_files_changes_the_name_of_the_run(job: ExtractJob) -> None:
    writer, base = job.writer, job.base
    other_jobs = [
        replace(job, features=replace(job.features, resolution=0.5)),
        replace(job, split=replace(job.split, seed=1)),
        replace(job, shards=replace(job.shards, seed=1)),
        replace(job, shards=replace(job.shards, min_shards=3)),
        replace(job, writer=replace(writer, row_group_rows=writer.row_group_rows + 1)),
        replace(job, writer=replace(writer, compression_level=writer.compression_level + 1)),
        replace(job, writer=replace(writer, formats=("parquet", "tfrecord"))),
        replace(job, features=replace(job.features, channels="each")),
        replace(job, base=replace(base, version=7)),
        replace(job, base=replace(base, index="7")),
        replace(job, operation="compact"),
    ]
    names = [job.run_id, *(other_job.run_id for other_job in other_jobs)]
    assert len(set(names)) == len(names)
    assert {len(name) for name in names} == {16}


def test_a_setting_that_changes_no_file_does_not_change_the_name_of_the_run(
    job: ExtractJob,
) -> None:
    other_jobs = [
        replace(job, limits=replace(job.limits, timeout_s=1.0)),
        replace(job, refresh=replace(job.refresh, retry_failed=True)),
        replace(job, base=replace(job.base, parts=9, listed_ms=9)),
        replace(job, progress="here:1", attempt="a", began_ms=1, exclude="x", taken_down="y"),
    ]
    assert {other_job.run_id for other_job in other_jobs} == {job.run_id}


def test_the_files_of_a_run_are_in_a_folder_with_its_name(job: ExtractJob) -> None:
    assert job.staging == f"staging/{job.run_id}"
    assert job.outcome == f"staging/{job.run_id}/outcomes/{job.run_id}.json"
    attempt = replace(job, attempt="run-attempt")
    assert attempt.outcome == f"staging/{job.run_id}/outcomes/run-attempt.json"


def test_rows_have_the_catalogues_labels_and_the_features_shape(job: ExtractJob) -> None:
    schema = job.schema
    assert schema.features == job.features.columns
    assert (schema.labels, schema.per_channel) == (job.catalogue.label_columns, False)
    assert replace(job, features=replace(job.features, channels="each")).schema.per_channel


def test_the_stores_of_a_job_are_listed_with_their_options(job: ExtractJob) -> None:
    token_job = with_token(job)
    options = token_job.catalogue.storage_options
    stores = ((job.catalogue.uri, options), (job.store.root, options))
    assert token_job.stores == stores
    assert replace(token_job, exclude="s3://b/list").stores == (*stores, ("s3://b/list", options))


def test_a_job_without_an_index_carries_nothing_over() -> None:
    assert Base().is_nothing
    assert not Base(index="x").is_nothing


def test_the_text_of_the_columns_is_what_it_was(job: ExtractJob) -> None:
    """Shards' names and interrupted runs of before there were other features depend on it."""
    shape = "n_mels={}, n_frames={}".format(*job.schema.features[0].shape)
    labels = repr(job.catalogue.label_columns)
    writer = job.writer.row_group_rows, job.writer.compression_level
    columns = f"RowSchema({shape}, labels={labels}, per_channel=False)"
    assert job.writer_key == f"({columns}, {writer[0]}, {writer[1]})"
