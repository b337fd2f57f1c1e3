"""The plan of an extraction, and what carrying it out would cost; nothing is decoded."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.calibration import seconds_per_audio_second
from pipelines.costs import estimate_costs
from pipelines.launch import run_job
from transforms.catalogue import ReadCatalogue
from transforms.job import ExtractJob
from transforms.plan import PlanRecordings, PlanShards
from transforms.plan_summary import SummarizePlan
from transforms.probe import ProbeRecordings
from transforms.storage.store import Store
from transforms.workers import CheckWorkers


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> None:
    """Lay out the path of the data up to the plan."""
    start = pipeline | "CheckWorkers" >> CheckWorkers()
    listed = start | "ReadCatalogue" >> ReadCatalogue(job.catalogue)
    probed = listed | "ProbeRecordings" >> ProbeRecordings(job)
    planned = probed.recordings | "PlanRecordings" >> PlanRecordings(job)
    failures = (probed.failures, planned.failures) | "JoinFailures" >> beam.Flatten()
    plans = (planned.recordings, failures) | "PlanShards" >> PlanShards(job)
    _ = (planned.recordings, failures, plans) | "SummarizePlan" >> SummarizePlan(job)


def plan(job: ExtractJob, options: Any) -> dict[str, Any]:
    """Plan an extraction and estimate what it takes.

    Parameters
    ----------
    job
        The extraction. Where its store is a local disk, nothing is written there.
    options
        Beam's.

    Returns
    -------
    dict
        The plan's :class:`~transforms.plan_summary.PlanSummary` as plain values, and
        ``cpu_seconds``, from a short calibration on this machine; ``costs`` on others
        (:func:`~pipelines.costs.estimate_costs`).
    """
    with tempfile.TemporaryDirectory(prefix="melmill-plan-") as folder:
        local = job.store.is_local
        job = replace(job, store=Store(folder)) if local else job
        run_job(build_pipeline, job, options)
        text = job.store.read(f"{job.staging}/plan.json")
        if not local:
            job.store.remove(job.staging)
        summary: dict[str, Any] = json.loads(text)
        costs = seconds_per_audio_second(summary["codec_seconds"], job.features, Path(folder))
    cpu = sum(costs[codec] * seconds for codec, seconds in summary["codec_seconds"].items())
    planned = summary["recordings"].get("planned", 0)
    costs_usd = estimate_costs(cpu, summary["seconds"], planned)
    return {**summary, "cpu_seconds": cpu, "costs": costs_usd}
