"""The refresh: from a dataset and its current catalogue to the next snapshot.

Only what changed is computed.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from functools import partial
from typing import Any

import apache_beam as beam

from melmill.pipelines.commit import changes_schema
from melmill.pipelines.extract import Extraction, lay_out_plan, read_current, run
from melmill.pipelines.run.errors import TooManyFailuresError
from melmill.pipelines.run.launch import (
    has_few_headers,
    is_dry_run,
    not_shared,
    run_job,
    runs_here,
)
from melmill.pipelines.snapshots.kept_columns import kept_columns
from melmill.pipelines.snapshots.open import OpenSnapshot, start_from
from melmill.transforms.core.errors import Cause, ConfigError, DatasetError, UserError
from melmill.transforms.index.comparing import has_lost_groups
from melmill.transforms.plan.change_records import Decision
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store
from melmill.transforms.summarize_plan import SummarizePlan

#: The number of times that a recording is read if it changes while it is read.
_PASSES = 3


def build_plan_pipeline(pipeline: beam.Pipeline, job: ExtractJob, told: ExtractJob) -> None:
    """Apply the transforms up to the plan; the plan is written to the store of `told`."""
    planned = lay_out_plan(pipeline, job, selecting=False)
    diff, adopted = planned.diff, planned.adopted
    facts = planned.recordings, planned.failures, planned.plans, planned.decision
    _ = facts | "SummarizePlan" >> SummarizePlan(told)
    touched = beam.pvalue.AsSingleton(
        (diff.touched, adopted.touched)
        | "JoinTouched" >> beam.Flatten()
        | "NameShards" >> beam.Map(lambda touched: touched.shard)
        | "OnlyOnce" >> beam.Distinct()
        | "CountShards" >> beam.combiners.Count.Globally()
    )
    moved = beam.pvalue.AsSingleton(adopted.number)
    _ = planned.decision | "WriteDecision" >> beam.Map(_write_decision, touched, moved, told)


def _write_decision(decision: Decision, touched: int, moved: int, job: ExtractJob) -> None:
    values: dict[str, Any] = {"difference": decision.difference.to_json(), "todo": decision.todo}
    values |= {"shards_rewritten": touched, "moved": moved}
    job.store.put(f"{job.staging}/decision.json", json.dumps(values).encode())


def refresh(
    job: ExtractJob, configuration: dict[str, Any], options: Any, *, single_writer: bool = False
) -> Extraction:
    """Update a dataset from its catalogue, or create the dataset; return the result.

    If recordings change while they are read, another pass reads them again. If recordings that are
    kept instead of their duplicates fail, another pass keeps others. Each pass ends in a snapshot.

    Parameters
    ----------
    job
        The extraction that would create the dataset from the current catalogue.
    configuration
        The recipe, to be stored with the snapshot.
    options
        The options of Beam.
    single_writer
        Whether the user guarantees that no other run writes to the dataset at the same time.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    ConflictError
        Another run committed first; nothing of this run is left.
    TooManyFailuresError
        Too many recordings failed; nothing was committed.
    """
    before = read_current(job)
    extraction = _pass(job, configuration, options, before, single_writer)
    for _ in range(1, _PASSES):
        if not (extraction.committed and _needs_another_pass(job, extraction)):
            break
        try:
            next_pass = _pass(job, configuration, options, read_current(job), single_writer)
        except (UserError, TooManyFailuresError) as error:
            # The first pass is committed; the next refresh tries again.
            logging.getLogger("melmill").warning("reading changed recordings again: %s", error)
            break
        # The difference and the metrics are those of the first pass.
        columns = kept_columns(next_pass.opened, before)
        extraction = replace(extraction, opened=next_pass.opened, columns=columns)
    return extraction


def _needs_another_pass(job: ExtractJob, extraction: Extraction) -> bool:
    totals, index = extraction.totals, extraction.snapshot.index
    has_failures = job.is_matching and totals.recordings["failed"]
    return bool(totals.failures[Cause.CHANGED]) or bool(
        has_failures and has_lost_groups(job.store, index)
    )


def _pass(
    job: ExtractJob,
    configuration: dict[str, Any],
    options: Any,
    current: OpenSnapshot | None,
    single_writer: bool,
) -> Extraction:
    if current is not None:
        job = start_from(job, current, configuration)
    return run(job, configuration, options, current, single_writer=single_writer)


def plan_refresh(job: ExtractJob, configuration: dict[str, Any], options: Any) -> dict[str, Any]:
    """Return what a refresh would do, without doing it; reads headers, decodes no audio.

    Returns
    -------
    dict
        ``version``: the current version. ``todo``: whether there is anything to do.
        ``difference``: the numbers of recordings by what would be done with them, with examples.
        ``select``: the expression that is not applied yet to what would be extracted, or ``""``;
        ``dedupe``: the treatment of duplicates, which is not applied either.
        ``new_schema``: whether a new dataset version would start. ``shards_rewritten``: the
        number of shards that would be rewritten, or ``"all"``. ``moved``: the number of new and
        changed recordings whose rows are carried over, because their contents are known.
        ``passed_over``: the numbers of files that are not listed, by extension. ``made``: the
        :class:`~melmill.transforms.summarize_plan.PlanSummary` of what would be extracted.

    Raises
    ------
    UserError
        The refresh would raise the same error.
    """
    current = read_current(job)
    if current is None:
        raise DatasetError(
            f"{job.store.root} holds no dataset yet: a refresh would extract the whole catalogue; "
            "run melmill plan to see what that costs"
        )
    job = start_from(job, current, configuration)
    if is_dry_run(options):
        raise ConfigError("--plan is already a dry run; remove --dry_run")
    with tempfile.TemporaryDirectory(prefix="melmill-plan-") as folder:
        # If the workers run here, write the plan to a local folder: the dataset may be read-only.
        plan_job = replace(job, store=Store(folder)) if runs_here(options) else job
        build = partial(build_plan_pipeline, told=plan_job)
        metrics = run_job(build, job, options, brief=has_few_headers(job, options))
        try:
            plan = json.loads(plan_job.store.read(f"{plan_job.staging}/plan.json"))
            decision = json.loads(plan_job.store.read(f"{plan_job.staging}/decision.json"))
        except FileNotFoundError as error:
            raise not_shared(job.store.root) from error
        for name in ("plan.json", "decision.json"):
            plan_job.store.remove(f"{plan_job.staging}/{name}")
    rewrites_all = job.base.same_features and not job.base.same_files
    return {
        "version": current.snapshot.version,
        "todo": decision["todo"],
        "select": job.select,
        "dedupe": job.dedupe,
        "difference": decision["difference"],
        "new_schema": changes_schema(job, current),
        "moved": decision["moved"],
        "shards_rewritten": "all" if rewrites_all else decision["shards_rewritten"],
        "passed_over": metrics.passed_over,
        "made": plan,
    }
