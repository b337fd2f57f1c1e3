"""From a catalogue to a committed snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam

from melmill.pipelines.commit import (
    begin,
    changes_schema,
    commit_index,
    discarding_the_overtaken,
    finish,
    require_outcome,
    tidy_up_after,
)
from melmill.pipelines.config import Config
from melmill.pipelines.run.counters import RunMetrics
from melmill.pipelines.run.launch import is_dry_run, makes_template, run_job, write_template
from melmill.pipelines.snapshots.open import OpenSnapshot, in_its_staging, start_from
from melmill.transforms.catalogue.left_out import read_uris
from melmill.transforms.catalogue.parts import (
    Catalogue,
    open_catalogue,
    require_recordings,
)
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.records import Failure
from melmill.transforms.diff_catalogue import (
    Adoptions,
    AdoptRecordings,
    DiffCatalogue,
    Differences,
    LeaveOutContents,
)
from melmill.transforms.plan.comparing import Decision
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.packing import ShardPlan
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.plan_shards import PlanRecordings, PlanShards
from melmill.transforms.probe_recordings import ProbeRecordings
from melmill.transforms.rewrite_shards import RewriteShards
from melmill.transforms.shards.receipts import count_finished
from melmill.transforms.snapshot.delta import Snapshot, read_snapshot
from melmill.transforms.snapshot.totals import Totals
from melmill.transforms.store.endpoints import require_reachable
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from melmill.transforms.store.ownership import check_folder
from melmill.transforms.write_index import WriteIndex
from melmill.transforms.write_recounted import WriteRecounted
from melmill.transforms.write_shards import WriteShards


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction, or a refresh, came to.

    Attributes
    ----------
    opened
        The dataset's current snapshot.
    committed
        Whether this run made it; otherwise there was nothing to do.
    difference
        Recordings by what was done with them; see
        :class:`~melmill.transforms.plan.comparing.Difference`.
    new_schema
        Whether it started a new dataset version.
    shape
        ``(n_mels, frames)`` of each row.
    metrics
        What the run counted.
    """

    opened: OpenSnapshot
    committed: bool
    difference: dict[str, Any]
    new_schema: bool
    shape: tuple[int, int]
    metrics: RunMetrics

    @property
    def snapshot(self) -> Snapshot:
        """What the current snapshot's commit says."""
        return self.opened.snapshot

    @property
    def totals(self) -> Totals:
        """What the current snapshot holds."""
        return self.opened.totals


@dataclass(frozen=True, slots=True)
class Planned:
    """Collections that are known before anything is decoded."""

    diff: Differences
    decision: beam.PCollection[Decision]
    adopted: Adoptions
    recordings: beam.PCollection[PlannedRecording]
    failures: beam.PCollection[Failure]
    plans: beam.PCollection[ShardPlan]


def lay_out_plan(pipeline: beam.Pipeline, job: ExtractJob) -> Planned:
    """Lay out the path of the data up to where anything is decoded."""
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores)
    diff = start | "DiffCatalogue" >> DiffCatalogue(job)
    probed = diff.recordings | "ProbeRecordings" >> ProbeRecordings(job)
    read = probed.recordings, diff.decision
    recordings, decision = read | "LeaveOutContents" >> LeaveOutContents(job)
    adopted = (diff.offers, recordings) | "AdoptRecordings" >> AdoptRecordings(job)
    known = (adopted.recordings, diff.probed) | "JoinProbed" >> beam.Flatten()
    planned = known | "PlanRecordings" >> PlanRecordings(job)
    failures = (probed.failures, planned.failures) | "JoinFailures" >> beam.Flatten()
    pack = PlanShards(job, diff.decision, adopted.number)
    plans = (planned.recordings, failures) | "PlanShards" >> pack
    return Planned(diff, decision, adopted, planned.recordings, failures, plans)


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> beam.PCollection[str]:
    """Lay out the whole path of the data, for what the job's snapshot lacks of its catalogue.

    Out comes the index's name, for the commit.
    """
    planned = lay_out_plan(pipeline, job)
    diff, adopted = planned.diff, planned.adopted
    written = planned.plans | "WriteShards" >> WriteShards(job)
    recounted = written.again | "WriteRecounted" >> WriteRecounted(job)
    touched = diff.touched, adopted.touched
    rewritten = (*touched, diff.decision) | "RewriteShards" >> RewriteShards(job)
    found = planned.recordings, planned.failures, written.summaries, *recounted
    facts = *found, diff.facts, adopted.facts, rewritten
    return facts | "WriteIndex" >> WriteIndex(job, planned.decision)


def committing(
    build: Callable[[beam.Pipeline, ExtractJob], beam.PCollection[str]],
    configuration: dict[str, Any],
    began_with: int,
) -> Callable[[beam.Pipeline, ExtractJob], None]:
    """Extend what lays out a path by the commit, for where no launcher waits for the end."""

    def build_all(pipeline: beam.Pipeline, job: ExtractJob) -> None:
        index = build(pipeline, job)
        _ = index | "CommitSnapshot" >> beam.Map(commit_index, job, configuration, began_with)

    return build_all


def make_job(config: Config, catalogue: Catalogue, store: Store) -> ExtractJob:
    """Put together what the workers need to know."""
    job = ExtractJob(
        catalogue=catalogue,
        store=store,
        features=config.features(),
        split=config.split.spec(),
        shards=config.output.shard_spec(),
        writer=config.output.writer_spec(),
        limits=config.limits.spec(),
        refresh=config.refresh.spec(),
        exclude=config.catalogue.exclude or "",
        content_hashes=config.catalogue.content_hashes,
    )
    return in_its_staging(job)


def resolve_catalogue(uri: str, config: Config) -> Catalogue:
    """Find the catalogue, and see that it is not empty, before any worker starts."""
    storage_options = tuple(config.catalogue.storage_options.items())
    require_reachable(uri, storage_options, CatalogueError)
    catalogue = open_catalogue(
        uri,
        extensions=config.catalogue.extensions,
        storage_options=storage_options,
        label_types=config.catalogue.label_types,
    )
    _check_group(catalogue, config)
    for _ in read_uris(config.catalogue.exclude or "", storage_options):
        pass  # what is wrong with the list is said before any worker starts
    require_recordings(catalogue)
    return catalogue


def _check_group(catalogue: Catalogue, config: Config) -> None:
    labels = [label.name for label in catalogue.label_columns]
    if config.split.group is not None and config.split.group not in labels:
        raise CatalogueError(
            f"split.group: {config.split.group!r}: {catalogue.uri} has no such label column; "
            f"it has: {', '.join(labels) or 'none'}"
        )


def extract(
    job: ExtractJob,
    configuration: dict[str, Any],
    options: Any,
    *,
    overwrite: bool = False,
    single_writer: bool = False,
) -> Extraction:
    """Make the dataset, go on where an earlier run was interrupted, or bring it up to date.

    A dataset that was made of the same catalogue and recipe is refreshed.

    Parameters
    ----------
    job
        What is extracted from where to where.
    configuration
        The recipe, to be kept with the snapshot.
    options
        Beam's.
    overwrite
        Whether a dataset made of something else may be replaced.
    single_writer
        Whether the user warrants that no other run writes there meanwhile: then the output's
        store need not keep two runs from making the same commit.

    Raises
    ------
    UserError
        Something that its message says how to change.
    ConflictError
        Another run committed meanwhile; nothing of this one is left.
    TooManyFailuresError
        Nothing was committed.
    NothingSubmittedError
        It was a dry run, or a template was made, whose jobs commit by themselves.
    """
    current = check_output(job, configuration, overwrite)
    if current is not None:
        snapshot = current.snapshot
        if any(_differences(snapshot, job, configuration)):
            base = Base(version=snapshot.version)
            job = replace(job, base=base, taken_down=snapshot.taken_down)
        else:
            job = start_from(job, current, configuration)
            # Limits are no part of what a dataset holds.
            job = replace(job, base=replace(job.base, configured=True))
    return run(job, configuration, options, current, single_writer=single_writer)


def run(
    job: ExtractJob,
    configuration: dict[str, Any],
    options: Any,
    current: OpenSnapshot | None,
    *,
    single_writer: bool = False,
) -> Extraction:
    """Run a job from beginning to commit; see :func:`extract`.

    Parameters
    ----------
    current
        The snapshot that the dataset holds; ``None`` for none.
    """
    job = in_its_staging(job)
    new_schema = current is not None and changes_schema(job, current)
    if not is_dry_run(options):
        job = _begin(job, current, single_writer)
    if makes_template(options):
        began_with = current.snapshot.version if current else -1
        write_template(committing(build_pipeline, configuration, began_with), job, options)
    with discarding_the_overtaken(job, current):
        metrics = run_job(build_pipeline, job, options, partial(count_finished, job))
        outcome = require_outcome(job)
        finished = finish(job, configuration, current, outcome)
    return Extraction(*finished, outcome.difference, new_schema, job.features.shape, metrics)


def _begin(job: ExtractJob, current: OpenSnapshot | None, single_writer: bool) -> ExtractJob:
    try:
        job = begin(job)
    except OSError as error:
        raise DatasetError(f"output {job.store.root}: cannot be written: {error}") from error
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    if current is not None:
        current.mend_side_files()
        tidy_up_after(job.store, current.snapshot)
    return job


def read_current(job: ExtractJob) -> OpenSnapshot | None:
    """Read the dataset's current snapshot; ``None`` where there is none yet.

    Raises
    ------
    DatasetError
        The folder is not reachable, or holds something else.
    """
    require_reachable(job.store.root, job.store.storage_options, DatasetError)
    snapshot = read_snapshot(job.store) if check_folder(job.store) else None
    return OpenSnapshot(job.store, snapshot) if snapshot else None


def check_output(
    job: ExtractJob, configuration: dict[str, Any], overwrite: bool = False
) -> OpenSnapshot | None:
    """See that the output may be written; give the snapshot that it holds already.

    Raises
    ------
    DatasetError
        It holds something else.
    """
    try:
        current = read_current(job)
    except OSError as error:
        raise DatasetError(f"output {job.store.root}: cannot be read: {error}") from error
    if current is None or overwrite:
        return current
    snapshot = current.snapshot
    if differences := list(_differences(snapshot, job, configuration)):
        raise DatasetError(
            f"output {job.store.root}: holds a dataset made from {snapshot.catalogue} with another "
            f"{' and another '.join(differences)}; choose another output, or --overwrite it"
        )
    return current


def _differences(
    current: Snapshot, job: ExtractJob, configuration: dict[str, Any]
) -> Iterator[str]:
    if current.catalogue != job.catalogue.uri:
        yield "catalogue"
    if current.features != job.features.canonical():
        yield "feature configuration"
    for section in ("split", "output"):
        if current.configuration.get(section) != configuration.get(section):
            yield f"configuration of {section}"
