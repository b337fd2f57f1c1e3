"""From a dataset and its catalogue of today to the next snapshot: only the change is computed."""

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
from melmill.pipelines.run.launch import is_dry_run, not_shared, run_job, runs_here
from melmill.pipelines.snapshots.open import start_from
from melmill.transforms.core.errors import Cause, ConfigError, DatasetError, UserError
from melmill.transforms.plan.comparing import Decision
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store
from melmill.transforms.summarize_plan import SummarizePlan

#: How often recordings are read that change while they are read.
_PASSES = 3


def build_plan_pipeline(pipeline: beam.Pipeline, job: ExtractJob, told: ExtractJob) -> None:
    """Lay out the same path up to where anything is decoded; the plan goes to `told`'s store."""
    planned = lay_out_plan(pipeline, job)
    diff, adopted = planned.diff, planned.adopted
    facts = planned.recordings, planned.failures, planned.plans, planned.decision
    _ = facts | "SummarizePlan" >> SummarizePlan(told)
    touched = beam.pvalue.AsSingleton(
        (diff.touched, adopted.touched)
        | "JoinTouched" >> beam.Flatten()
        | "NameShards" >> beam.Map(lambda one: one.shard)
        | "OnlyOnce" >> beam.Distinct()
        | "CountShards" >> beam.combiners.Count.Globally()
    )
    moved = beam.pvalue.AsSingleton(adopted.number)
    _ = planned.decision | "WriteDecision" >> beam.Map(_write_decision, touched, moved, told)


def _write_decision(decision: Decision, touched: int, moved: int, job: ExtractJob) -> None:
    said: dict[str, Any] = {"difference": decision.difference.to_json(), "todo": decision.todo}
    said |= {"shards_rewritten": touched, "moved": moved}
    job.store.put(f"{job.staging}/decision.json", json.dumps(said).encode())


def refresh(
    job: ExtractJob, configuration: dict[str, Any], options: Any, *, single_writer: bool = False
) -> Extraction:
    """Bring a dataset up to date with its catalogue; make it where there is none yet.

    Recordings that change while they are read are read again, in another pass over what is
    left to do: each pass ends in a snapshot.

    Parameters
    ----------
    job
        The extraction that would make it of today's catalogue.
    configuration
        The recipe, to be kept with the snapshot.
    options
        Beam's.
    single_writer
        Whether the user warrants that no other run writes there meanwhile.

    Raises
    ------
    UserError
        Something that its message says how to change.
    ConflictError
        Another run committed meanwhile; nothing of this one is left.
    TooManyFailuresError
        Nothing was committed.
    """
    made = _pass(job, configuration, options, single_writer)
    for _ in range(1, _PASSES):
        if not (made.committed and made.totals.failures[Cause.CHANGED]):
            break
        try:
            again = _pass(job, configuration, options, single_writer)
        except (UserError, TooManyFailuresError) as error:
            # What is committed is committed; the next refresh tries again.
            logging.getLogger("melmill").warning("reading changed recordings again: %s", error)
            break
        # What was done is what the first pass had to do.
        made = replace(made, opened=again.opened)
    return made


def _pass(
    job: ExtractJob, configuration: dict[str, Any], options: Any, single_writer: bool
) -> Extraction:
    if (current := read_current(job)) is not None:
        job = start_from(job, current, configuration)
    return run(job, configuration, options, current, single_writer=single_writer)


def plan_refresh(job: ExtractJob, configuration: dict[str, Any], options: Any) -> dict[str, Any]:
    """Say what a refresh would do, without doing it; reads headers, decodes nothing.

    Returns
    -------
    dict
        ``version``, the current one; ``todo``; ``difference``: recordings by what would be done
        with them, and examples; ``new_schema``; ``shards_rewritten``; ``moved``, how many of the
        new and changed are carried over, since their contents are known; ``passed_over``, files
        that are not listed, by extension; and ``made``, the
        :class:`~melmill.transforms.summarize_plan.PlanSummary` of what would be extracted.

    Raises
    ------
    UserError
        What the refresh would raise, too.
    """
    current = read_current(job)
    if current is None:
        raise DatasetError(
            f"{job.store.root} holds no dataset yet: a refresh would extract the whole catalogue; "
            "melmill plan says what that takes"
        )
    job = start_from(job, current, configuration)
    if is_dry_run(options):
        raise ConfigError("--plan is a dry run already; leave --dry_run out")
    with tempfile.TemporaryDirectory(prefix="melmill-plan-") as folder:
        # A dataset that may only be read is planned, too, where the workers are here.
        told = replace(job, store=Store(folder)) if runs_here(options) else job
        metrics = run_job(partial(build_plan_pipeline, told=told), job, options)
        try:
            made = json.loads(told.store.read(f"{told.staging}/plan.json"))
            decision = json.loads(told.store.read(f"{told.staging}/decision.json"))
        except FileNotFoundError as error:
            raise not_shared(job.store.root) from error
        for name in ("plan.json", "decision.json"):
            told.store.remove(f"{told.staging}/{name}")
    rewrites_all = job.base.same_features and not job.base.same_files
    return {
        "version": current.snapshot.version,
        "todo": decision["todo"],
        "difference": decision["difference"],
        "new_schema": changes_schema(job, current),
        "moved": decision["moved"],
        "shards_rewritten": "all" if rewrites_all else decision["shards_rewritten"],
        "passed_over": metrics.passed_over,
        "made": made,
    }
