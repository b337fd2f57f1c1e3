"""From a dataset and its catalogue of today to the next snapshot: only the change is computed."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
from deltalake import Schema

from pipelines.counters import RunMetrics
from pipelines.extract import check_folder, committing, count_finished, extract
from pipelines.finish import (
    Outcome,
    TooManyFailuresError,
    begin,
    changes_schema,
    discard,
    finish,
    read_outcome,
    require_outcome,
    table_schema,
)
from pipelines.launch import (
    is_dry_run,
    makes_template,
    not_shared,
    run_job,
    runs_here,
    write_template,
)
from pipelines.maintenance import require_agreement
from transforms.diff import Adoptions, AdoptRecordings, Decision, DiffCatalogue, Differences
from transforms.errors import Cause, ConfigError, ConflictError, DatasetError, UserError
from transforms.index import WriteIndex
from transforms.job import Base, ExtractJob
from transforms.plan import PlanRecordings, PlanShards
from transforms.plan_summary import SummarizePlan
from transforms.planning import PlannedRecording, ShardPlan
from transforms.probe import ProbeRecordings
from transforms.records import Failure
from transforms.rewrite import RewriteShards
from transforms.shards import WriteShards
from transforms.storage.card import card_is_of, write_card
from transforms.storage.endpoints import require_reachable
from transforms.storage.exclusive import require_exclusive_commits
from transforms.storage.index import count_parts
from transforms.storage.snapshot import Snapshot, open_table, read_snapshot
from transforms.storage.store import Store
from transforms.storage.totals import Totals, add_up
from transforms.workers import CheckWorkers

#: How often recordings are read that change while they are read.
_PASSES = 3

#: Keys of the recipe's section ``output`` that a shard's bytes depend on.
_FILES = ("formats", "row_group_rows", "compression_level")


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a refresh came to.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    totals
        What it holds.
    committed
        Whether this run made it.
    difference
        Recordings by what was done with them; see :class:`~transforms.diffing.Difference`.
    new_schema
        Whether it started a new dataset version.
    shape
        ``(n_mels, frames)`` of each row.
    metrics
        What the run counted.
    """

    snapshot: Snapshot
    totals: Totals
    committed: bool
    difference: dict[str, Any]
    new_schema: bool
    shape: tuple[int, int]
    metrics: RunMetrics


@dataclass(frozen=True, slots=True)
class _Planned:
    """Collections that are known before anything is decoded."""

    diff: Differences
    adopted: Adoptions
    recordings: beam.PCollection[PlannedRecording]
    failures: beam.PCollection[Failure]
    plans: beam.PCollection[ShardPlan]


def _lay_out_plan(pipeline: beam.Pipeline, job: ExtractJob) -> _Planned:
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores)
    diff = start | "DiffCatalogue" >> DiffCatalogue(job)
    probed = diff.recordings | "ProbeRecordings" >> ProbeRecordings(job)
    adopted = (diff.offers, probed.recordings) | "AdoptRecordings" >> AdoptRecordings(job)
    known = (adopted.recordings, diff.probed) | "JoinProbed" >> beam.Flatten()
    planned = known | "PlanRecordings" >> PlanRecordings(job)
    failures = (probed.failures, planned.failures) | "JoinFailures" >> beam.Flatten()
    pack = PlanShards(job, diff.decision, adopted.number)
    plans = (planned.recordings, failures) | "PlanShards" >> pack
    return _Planned(diff, adopted, planned.recordings, failures, plans)


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> beam.PCollection[str]:
    """Lay out the path of the data: what an extraction does, for what the snapshot lacks.

    Out comes the index's name, for the commit.
    """
    planned = _lay_out_plan(pipeline, job)
    diff, adopted = planned.diff, planned.adopted
    shards = planned.plans | "WriteShards" >> WriteShards(job)
    touched = diff.touched, adopted.touched
    rewritten = (*touched, diff.decision) | "RewriteShards" >> RewriteShards(job)
    found = planned.recordings, planned.failures, shards
    facts = *found, diff.facts, adopted.facts, rewritten
    return facts | "WriteIndex" >> WriteIndex(job, diff.decision)


def build_plan_pipeline(pipeline: beam.Pipeline, job: ExtractJob, told: ExtractJob) -> None:
    """Lay out the same path up to where anything is decoded; the plan goes to `told`'s store."""
    planned = _lay_out_plan(pipeline, job)
    diff, adopted = planned.diff, planned.adopted
    facts = planned.recordings, planned.failures, planned.plans
    _ = facts | "SummarizePlan" >> SummarizePlan(told)
    touched = beam.pvalue.AsSingleton(
        (diff.touched, adopted.touched)
        | "JoinTouched" >> beam.Flatten()
        | "NameShards" >> beam.Map(lambda one: one.shard)
        | "OnlyOnce" >> beam.Distinct()
        | "CountShards" >> beam.combiners.Count.Globally()
    )
    moved = beam.pvalue.AsSingleton(adopted.number)
    _ = diff.decision | "WriteDecision" >> beam.Map(_write_decision, touched, moved, told)


def _write_decision(decision: Decision, touched: int, moved: int, job: ExtractJob) -> None:
    said: dict[str, Any] = {"difference": decision.difference.to_json(), "todo": decision.todo}
    said |= {"shards_rewritten": touched, "moved": moved}
    job.store.put(f"{job.staging}/decision.json", json.dumps(said).encode())


def read_current(job: ExtractJob) -> Snapshot | None:
    """Read the dataset's current snapshot; ``None`` where there is none yet.

    Raises
    ------
    DatasetError
        The folder is not reachable, or holds something else.
    """
    require_reachable(job.store.root, job.store.storage_options, DatasetError)
    return read_snapshot(job.store) if check_folder(job.store) else None


def start_from(job: ExtractJob, current: Snapshot, configuration: dict[str, Any]) -> ExtractJob:
    """Make of an extraction the refresh that starts from a snapshot."""
    require_agreement(job.store, current)
    before = current.configuration
    base = Base(
        version=current.version,
        index=current.index,
        parts=current.parts or count_parts(job.store, current.index),
        listed_ms=current.listed_ms,
        same_features=current.features == job.features.canonical(),
        same_files=_same_files(job, before, configuration),
        same_split=before.get("split") == configuration["split"],
        max_seconds=3600 * before.get("limits", {}).get("max_duration_hours", 0.0),
        configured=_made_with(before) == _made_with(configuration),
    )
    erased = frozenset(one.recording_id for one in current.taken_down)
    job = replace(job, base=base, taken_down=erased)
    return replace(job, store=replace(job.store, scratch_folder=f"{job.staging}/scratch"))


def _made_with(configuration: dict[str, Any]) -> dict[str, Any]:
    """Leave out what no row depends on, nor whether a recording is in."""
    return {k: v for k, v in configuration.items() if k not in ("refresh", "retention")}


def _same_files(job: ExtractJob, before: dict[str, Any], now: dict[str, Any]) -> bool:
    table, output = open_table(job.store), before.get("output", {})
    if table is None or Schema.from_arrow(table_schema(job)) != table.schema():
        return False
    return all(_as_written(output, key) == _as_written(now["output"], key) for key in _FILES)


def _as_written(output: dict[str, Any], key: str) -> Any:
    # Parquet is written whether it is asked for or not.
    return {*output.get(key, ()), "parquet"} if key == "formats" else output.get(key)


def refresh(
    job: ExtractJob, configuration: dict[str, Any], options: Any, *, single_writer: bool = False
) -> Refresh:
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
        made = replace(made, snapshot=again.snapshot, totals=again.totals)
    return made


def _pass(
    job: ExtractJob, configuration: dict[str, Any], options: Any, single_writer: bool
) -> Refresh:
    current = read_current(job)
    if current is None:
        return _first(job, configuration, options, single_writer=single_writer)
    job = start_from(job, current, configuration)
    new_schema = changes_schema(job)
    if not is_dry_run(options):
        _begin(job)
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    if makes_template(options):
        write_template(committing(build_pipeline, configuration, current.version), job, options)
    with discarding_the_overtaken(job, current):
        metrics = run_job(build_pipeline, job, options, partial(count_finished, job))
        outcome = require_outcome(job)
        snapshot, totals, committed = _finish(job, configuration, current, outcome)
    difference = outcome.difference
    shape = job.features.shape
    return Refresh(snapshot, totals, committed, difference, new_schema, shape, metrics)


def _first(job: ExtractJob, configuration: dict[str, Any], options: Any, **how: bool) -> Refresh:
    made = extract(job, configuration, options, **how)
    difference = {"new": made.totals.recordings.total()}
    return Refresh(
        made.snapshot, made.totals, made.committed, difference, False, made.shape, made.metrics
    )


def _begin(job: ExtractJob) -> None:
    try:
        begin(job)
    except OSError as error:
        raise DatasetError(f"output {job.store.root}: cannot be written: {error}") from error


def _finish(
    job: ExtractJob, configuration: dict[str, Any], current: Snapshot, outcome: Outcome
) -> tuple[Snapshot, Totals, bool]:
    if outcome.todo:
        return finish(job, configuration, current, outcome)
    totals = add_up(job.store, current.index)
    # A run that was killed after its commit has not described it.
    if not card_is_of(job.store, current):
        write_card(job.store, current, totals, job.schema)
    job.store.remove(job.staging)
    return current, totals, False


@contextlib.contextmanager
def discarding_the_overtaken(
    job: ExtractJob, current: Snapshot, jobs: Iterable[ExtractJob] = ()
) -> Iterator[None]:
    """Where another run committed meanwhile, leave nothing of this one, and say so.

    Both may use one staging folder, which the first to commit removes: then this one fails at
    whatever it needs next.

    Parameters
    ----------
    job
        What runs.
    current
        The snapshot that it started from.
    jobs
        More that have made something, looked at when it is needed.

    Raises
    ------
    ConflictError
        Another run committed.
    """
    try:
        yield
    except (OSError, RuntimeError, DatasetError) as error:
        found = read_snapshot(job.store)
        overtaken = isinstance(error, ConflictError) or not _is_ours(job, found)
        if found is None or found.version == current.version or not overtaken:
            raise
        for one in (job, *jobs):
            discard(one)
        raise ConflictError(
            f"another run committed version {found.version} to {job.store.root} while this one "
            f"was working from version {current.version}; nothing of this one is left: run the "
            "same command again to see what is left to do"
        ) from error


def _is_ours(job: ExtractJob, found: Snapshot | None) -> bool:
    """Whether a snapshot is what this run has made."""
    try:
        return found is not None and found.index == read_outcome(job).index
    except FileNotFoundError:
        return False


def plan_refresh(job: ExtractJob, configuration: dict[str, Any], options: Any) -> dict[str, Any]:
    """Say what a refresh would do, without doing it; reads headers, decodes nothing.

    Returns
    -------
    dict
        ``version``, the current one; ``todo``; ``difference``: recordings by what would be done
        with them, and examples; ``new_schema``; ``shards_rewritten``; ``moved``, how many of the
        new and changed are carried over, since their contents are known; and ``made``, the
        :class:`~transforms.plan_summary.PlanSummary` of what would be extracted.

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
        run_job(partial(build_plan_pipeline, told=told), job, options)
        try:
            made = json.loads(told.store.read(f"{told.staging}/plan.json"))
            decision = json.loads(told.store.read(f"{told.staging}/decision.json"))
        except FileNotFoundError as error:
            raise not_shared(job.store.root) from error
        for name in ("plan.json", "decision.json"):
            told.store.remove(f"{told.staging}/{name}")
    rewrites_all = job.base is not None and job.base.same_features and not job.base.same_files
    return {
        "version": current.version,
        "todo": decision["todo"],
        "difference": decision["difference"],
        "new_schema": changes_schema(job),
        "moved": decision["moved"],
        "shards_rewritten": "all" if rewrites_all else decision["shards_rewritten"],
        "made": made,
    }
