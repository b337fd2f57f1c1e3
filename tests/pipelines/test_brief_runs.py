"""A small job runs in the launcher, without workers; the dataset is the same."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import psutil
import pytest
from apache_beam.portability import python_urns

import melmill
from melmill.pipelines.run.interruption import Interrupted
from melmill.pipelines.run.launch import run_pipeline
from melmill.pipelines.run.local_runner import LocalRunner
from melmill.transforms.core.errors import DatasetError
from tests.pipeline_runs import here
from tests.refresh.catalogues import SMALL, files_of, rows_of, write_song, write_songs


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that gets, for each pipeline, whether it has worker processes."""
    pipelines: list[bool] = []
    run = LocalRunner.run_via_runner_api

    def run_via_runner_api(runner: LocalRunner, pipeline_proto: Any, options: Any) -> Any:
        environments = pipeline_proto.components.environments.values()
        pipelines.append(any(e.urn == python_urns.SUBPROCESS_SDK for e in environments))
        return run(runner, pipeline_proto, options)

    monkeypatch.setattr(LocalRunner, "run_via_runner_api", run_via_runner_api)
    return pipelines


def contents(dataset: Path) -> dict[str, bytes]:
    names = {name for name in files_of(dataset) if name.endswith((".parquet", ".tfrecord"))}
    return {name: (dataset / name).read_bytes() for name in names}


def our_children() -> set[psutil.Process]:
    """Return the decoders and workers under this process, without the browser of other tests."""
    ours = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("python"):
                ours.add(child)
    return ours


def test_a_run_without_workers_makes_the_same_bytes(tmp_path: Path, started: list[bool]) -> None:
    songs = write_songs(tmp_path / "songs", 3)
    (songs / "bad.wav").write_bytes(b"no audio")
    settings = [*SMALL, "output.formats=[parquet,tfrecord]", "audio.sample_rate_hz=3000"]
    before = our_children()
    for name, workers in (("here", 0), ("workers", 2)):
        melmill.extract(songs, tmp_path / name, settings=settings, workers=workers)
    assert started == [False, True]
    assert contents(tmp_path / "here") == contents(tmp_path / "workers") != {}
    # Neither a decoder nor a worker is left.
    assert our_children() <= before

    write_song(songs / "0.wav", 99, 1.5)
    for name, workers in (("here", 0), ("workers", 2)):
        melmill.refresh(songs, tmp_path / name, workers=workers)
    assert started == [False, True, False, True]
    assert contents(tmp_path / "here") == contents(tmp_path / "workers")


def test_nothing_to_do_needs_no_pipeline(tmp_path: Path, started: list[bool]) -> None:
    songs, dataset = write_songs(tmp_path / "songs", 2), tmp_path / "set"
    (songs / "notes.doc").write_bytes(b"?")
    melmill.extract(songs, dataset, settings=SMALL)
    del started[:]
    for workers in (0, 2):
        again = melmill.refresh(songs, dataset, workers=workers)
        assert not again.extraction.committed
    assert started == [True]
    here, by_workers = (
        json.loads(path.read_text()) for path in sorted((dataset / "runs").iterdir())
    )
    for key in ("status", "difference", "passed_over", "version", "index", "rows", "metrics"):
        assert here[key] == by_workers[key], key
    assert [p for p in (dataset / "staging").rglob("*") if p.is_file()] == []
    assert rows_of(dataset)


def test_plans_exports_and_compactions_of_little_need_no_workers(
    tmp_path: Path, started: list[bool]
) -> None:
    songs, dataset = write_songs(tmp_path / "songs", 4), tmp_path / "set"
    plans = [melmill.plan(songs, settings=SMALL, workers=workers) for workers in (0, 1)]
    assert started == [False, True]
    measured = dict.fromkeys(["cpu_seconds", "wall_seconds", "costs"])
    assert {**plans[0], **measured} == {**plans[1], **measured}
    melmill.extract(songs, dataset, settings=[*SMALL, "output.min_shards=4"])
    del started[:]
    melmill.export(dataset, tmp_path / "view", format="numpy")
    assert started == [False]


@pytest.mark.parametrize("signalled", [KeyboardInterrupt, Interrupted])
def test_a_signal_stays_a_signal(signalled: type[BaseException]) -> None:
    def interrupt(_: object) -> None:
        raise signalled

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create([1]) | beam.Map(interrupt)

    with pytest.raises(signalled):
        run_pipeline(build, here())


def test_an_error_does_not_name_beams_steps(tmp_path: Path, started: list[bool]) -> None:
    dataset = tmp_path / "set"
    melmill.extract(write_songs(tmp_path / "songs", 2), dataset, settings=SMALL)
    shard = next(dataset.glob("split=*/*.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(content[:4] + bytes(200) + content[204:])  # the launcher reads only the end
    with pytest.raises(DatasetError, match="is damaged") as error:
        melmill.export(dataset, tmp_path / "view", format="numpy")
    assert started == [False, False]
    assert "while running" not in str(error.value)
