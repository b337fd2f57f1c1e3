"""Measures planning of millions of recordings, with synthetic headers and no audio.

    python benchmarks/scale.py --alone [--sizes 1000000,10000000]
    scripts/flink-cluster run python benchmarks/scale.py --runner-config RECIPE

The script plans synthetic probe results: songs of about four minutes, in three codecs; one
recording in 100,000 lasts 24 h. ``--alone`` plans bucket after bucket in this process, without
a runner, which measures the planning itself. Otherwise the real transforms run, and each
worker reports its own peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from measure import describe_machine, print_table

from melmill.pipelines.config import load_config
from melmill.pipelines.extract import make_job
from melmill.pipelines.run.counters import run_metrics
from melmill.pipelines.run.launch import run_pipeline
from melmill.pipelines.run.options import pipeline_options
from melmill.transforms.catalogue.listing import Listing
from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo, ProbedRecording, Recording
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import RECORDINGS_PER_BUCKET, SplitTotals
from melmill.transforms.plan.recordings import plan_recording
from melmill.transforms.plan_shards import PlanRecordings, PlanShards, pack_bucket
from melmill.transforms.store.folders import Store
from melmill.transforms.summarize_plan import SummarizePlan

PER_PART = RECORDINGS_PER_BUCKET
RATE_HZ = 44_100
ONE_IN_24_HOURS = 100_000
CODECS = (("flac", "flac_16"), ("mp3", "mp3"), ("ogg", "vorbis"))


def synthetic_part(part: int, size: int) -> Iterator[ProbedRecording]:
    """Yield the synthetic recordings of a part; they are the same for each call."""
    rng = np.random.default_rng(part)
    seconds = rng.lognormal(np.log(220), 0.5, PER_PART)
    for index in range(min(PER_PART, size - part * PER_PART)):
        number = part * PER_PART + index
        is_long = number % ONE_IN_24_HOURS == ONE_IN_24_HOURS // 2
        frames = int(RATE_HZ * (86_400 if is_long else min(seconds[index], 3600)))
        container, codec = CODECS[number % len(CODECS)]
        name = f"artist-{number // 120}/album-{number // 12}/song-{number}.{container}"
        recording = Recording(digest(name), f"s3://songs/{name}", name, f"etag:{number:032x}", 9**7)
        yield ProbedRecording(
            recording, AudioInfo(container, codec, "libsndfile", RATE_HZ, 2, frames)
        )


def make_synthetic_job(folder: str) -> ExtractJob:
    """Return a job for a catalogue that is never listed."""
    recipe = load_config(None, ["limits.max_duration_hours=25"])
    return make_job(recipe, Catalogue("s3://songs", Listing("s3://songs", "", ())), Store(folder))


# With a runner


class _ReportPeak(beam.DoFn):
    """Report this process's peak memory at the end of each bundle."""

    def process(self, element: Any) -> Iterator[Any]:
        yield element

    def finish_bundle(self) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        beam.metrics.Metrics.distribution("melmill", "peak_mib").update(peak)


def plan_with_runner(size: int, options: Any, folder: str) -> tuple[str, ...]:
    """Return the table row for planning with the real transforms."""
    job = make_synthetic_job(folder)

    def build(pipeline: beam.Pipeline) -> None:
        probed = (
            pipeline
            | "NumberParts" >> beam.Create(range(-(-size // PER_PART)))
            | "SpreadParts" >> beam.Reshuffle()
            | "MakeUp" >> beam.FlatMap(synthetic_part, size)
        )
        planned = probed | "PlanRecordings" >> PlanRecordings(job)
        failures = planned.failures
        plans = (planned.recordings, failures) | "PlanShards" >> PlanShards(job)
        reported = plans | "ReportPeak" >> beam.ParDo(_ReportPeak())
        _ = (planned.recordings, failures, reported) | "SummarizePlan" >> SummarizePlan(job)

    started = time.perf_counter()
    result = run_pipeline(build, options)
    elapsed = time.perf_counter() - started
    peak = run_metrics(result).distributions["peak_mib"].max
    summary = json.loads((Path(folder) / job.staging / "plan.json").read_text())
    if summary["recordings"]["planned"] != size:
        planned_count = summary["recordings"]["planned"]
        raise RuntimeError(f"{planned_count} recordings were planned, but {size} were expected")
    launcher = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return _row(size, sum(summary["shards"].values()), elapsed, peak, launcher)


# Alone


def plan_alone(size: int, folder: str) -> tuple[str, ...]:
    """Return the table row for planning all buckets in this process, one after the other."""
    job = make_synthetic_job(folder)
    started = time.process_time()
    totals: dict[str, SplitTotals] = {}
    for part in range(-(-size // PER_PART)):
        for planned in _planned(part, size, job):
            previous = totals.get(planned.split, SplitTotals())
            totals[planned.split] = previous + SplitTotals(1, planned.rows)
    shards = 0
    # A part replaces a bucket: both have as many recordings, and the same proportions of splits.
    for part in range(-(-size // PER_PART)):
        by_split: dict[str, list[Any]] = {}
        for planned in _planned(part, size, job):
            by_split.setdefault(planned.split, []).append(planned)
        for split, members in by_split.items():
            shards += sum(1 for _ in pack_bucket(((split, part), members), totals, 0, job))
    elapsed = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return _row(size, shards, elapsed, peak, peak)


def _planned(part: int, size: int, job: ExtractJob) -> Iterator[Any]:
    for probed in synthetic_part(part, size):
        yield plan_recording(probed, job.features, job.split, job.limits.max_seconds)


HEADER = ("recordings", "shards", "s", "µs per recording", "worker peak, MiB", "launcher peak, MiB")


def _row(size: int, shards: int, elapsed: float, peak: int, launcher: int) -> tuple[str, ...]:
    micros = f"{1e6 * elapsed / size:.0f}"
    return (f"{size:,}", f"{shards:,}", f"{elapsed:.1f}", micros, f"{peak:,}", f"{launcher:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--alone", action="store_true", help="plan without a runner")
    parser.add_argument("--runner-config", help="the same option as in melmill")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n", flush=True)
    rows = []
    for size in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            if arguments.alone:
                rows.append(plan_alone(size, folder))
            else:
                options = pipeline_options(None, arguments.workers, [], arguments.runner_config)
                rows.append(plan_with_runner(size, options, folder))
        print(rows[-1], flush=True)
    print_table(HEADER, rows)


if __name__ == "__main__":
    main()
