"""The plan of an extraction, and what carrying it out would cost; nothing is decoded."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from melmill.pipelines.estimate.calibration import seconds_per_audio_second
from melmill.pipelines.estimate.costs import estimate_costs
from melmill.pipelines.extract import lay_out_plan
from melmill.pipelines.run.launch import not_shared, run_job, runs_here
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import remove_own
from melmill.transforms.summarize_plan import SummarizePlan


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> None:
    """Lay out the path of the data up to the plan."""
    planned = lay_out_plan(pipeline, job)
    facts = planned.recordings, planned.failures, planned.plans, planned.decision
    _ = facts | "SummarizePlan" >> SummarizePlan(job)


def plan(job: ExtractJob, options: Any) -> dict[str, Any]:
    """Plan an extraction and estimate what it takes.

    Parameters
    ----------
    job
        The extraction. Its store is used only where workers are on other machines.
    options
        Beam's.

    Raises
    ------
    ConfigError
        Workers are elsewhere, and no store is named for the plan.

    Returns
    -------
    dict
        The plan's :class:`~melmill.transforms.summarize_plan.PlanSummary` as plain values, and
        ``cpu_seconds``, from a short calibration on this machine; ``costs`` on others
        (:func:`~melmill.pipelines.estimate.costs.estimate_costs`); and ``passed_over``, files by
        extension.
    """
    here = runs_here(options)
    if not here and not job.store.root:
        raise ConfigError("melmill plan: name an OUTPUT, where workers elsewhere leave the plan")
    with tempfile.TemporaryDirectory(prefix="melmill-plan-") as folder:
        job = replace(job, store=Store(folder)) if here else job
        metrics = run_job(build_pipeline, job, options)
        try:
            text = job.store.read(f"{job.staging}/plan.json")
        except FileNotFoundError as error:
            raise not_shared(job.store.root) from error
        if not here:
            remove_own(job.store, job.staging)
        summary: dict[str, Any] = json.loads(text)
        costs = seconds_per_audio_second(summary["codec_seconds"], job.features, Path(folder))
    cpu = sum(costs[codec] * seconds for codec, seconds in summary["codec_seconds"].items())
    planned = summary["recordings"].get("planned", 0)
    costs_usd = estimate_costs(cpu, summary["seconds"], planned)
    passed_over = metrics.passed_over
    return {**summary, "passed_over": passed_over, "cpu_seconds": cpu, "costs": costs_usd}
