"""The plan of an extraction and its estimated cost; no recording is decoded."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from melmill.pipelines.estimate.calibration import seconds_per_audio_second
from melmill.pipelines.estimate.costs import estimate_costs
from melmill.pipelines.estimate.durations import estimate_seconds
from melmill.pipelines.extract import lay_out_plan
from melmill.pipelines.run.launch import has_few_headers, not_shared, run_job, runs_here
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.extractors import load_models
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.refusals import Refusal, refusal_of
from melmill.transforms.plan.split_shares import share_warnings, too_few
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import remove_own
from melmill.transforms.summarize_plan import SummarizePlan


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> None:
    """Apply the transforms up to the plan, and write the plan to the job's store."""
    planned = lay_out_plan(pipeline, job, selecting=False)
    facts = planned.recordings, planned.failures, planned.plans, planned.decision
    _ = facts | "SummarizePlan" >> SummarizePlan(job)


def plan(job: ExtractJob, options: Any) -> dict[str, Any]:
    """Return the plan of an extraction, with its estimated time and costs.

    Parameters
    ----------
    job
        The extraction. Its store is used only if workers run on other machines.
    options
        The options of Beam.

    Raises
    ------
    ConfigError
        Workers run on other machines, and the job has no store for the plan.

    Returns
    -------
    dict
        The plan's :class:`~melmill.transforms.summarize_plan.PlanSummary` as plain values, and:
        ``cpu_seconds``, from a short calibration on this machine; ``wall_seconds``, how long the
        extraction takes on this machine; ``costs`` on rented machines
        (:func:`~melmill.pipelines.estimate.costs.estimate_costs`); ``passed_over``, the numbers of
        files that are not listed, by extension; ``refused``, why the extraction would be refused,
        or ``""``; ``refusal_may_pass``, whether the reason may pass by itself; ``split_warnings``,
        a sentence for each split that is empty or far from its share; ``select``, the expression
        that is not applied yet, or ``""``; ``dedupe``, the treatment of duplicates, which is not
        applied either.
    """
    local = runs_here(options)
    if not local and not job.store.root:
        raise ConfigError(
            "melmill plan: OUTPUT is missing; workers on other machines write the plan to it"
        )
    with tempfile.TemporaryDirectory(prefix="melmill-plan-") as folder:
        job = replace(job, store=Store(folder)) if local else job
        metrics = run_job(build_pipeline, job, options, brief=has_few_headers(job, options))
        try:
            text = job.store.read(f"{job.staging}/plan.json")
        except FileNotFoundError as error:
            raise not_shared(job.store.root) from error
        if not local:
            remove_own(job.store, job.staging)
        summary: dict[str, Any] = json.loads(text)
        load_models(job.features, job.catalogue.uri, job.catalogue.storage_options)
        what = summary["codec_seconds"], job.features, job.meters
        costs = seconds_per_audio_second(*what, Path(folder))
    cpu = sum(costs[codec] * seconds for codec, seconds in summary["codec_seconds"].items())
    planned = summary["recordings"].get("planned", 0)
    costs_usd = estimate_costs(cpu, summary["seconds"], planned)
    refusal = _refusal(summary, job)
    workers = options.get_all_options()["direct_num_workers"] if local else 0
    return {
        **summary,
        "passed_over": metrics.passed_over,
        "cpu_seconds": cpu,
        "wall_seconds": estimate_seconds(cpu, workers),
        "costs": costs_usd,
        "refused": refusal.reason if refusal else "",
        "refusal_may_pass": refusal is not None and refusal.may_pass,
        "split_warnings": share_warnings(job.asked_shares, summary["split_recordings"]),
        "select": job.select,
        "dedupe": job.dedupe,
    }


def _refusal(summary: dict[str, Any], job: ExtractJob) -> Refusal | None:
    """Return why an extraction with this plan commits nothing; ``None`` if it commits."""
    recordings = {
        status: summary["recordings"].get(status, 0) for status in ("failed", "planned", "skipped")
    }
    rows = sum(summary["rows"].values())
    refusal = refusal_of(recordings, summary["failures"], rows, job.limits)
    numbers, at_least = summary["split_recordings"], job.limits.min_split_recordings
    if refusal is None and (reason := too_few(job.asked_shares, numbers, at_least)):
        return Refusal(reason, may_pass=False)
    return refusal
