"""A run's name does not depend on what may change when the same command is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.core.records import Recording
from melmill.transforms.plan.job import ExtractJob
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


def test_a_renewed_token_leaves_a_run_its_name(job: ExtractJob) -> None:
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
