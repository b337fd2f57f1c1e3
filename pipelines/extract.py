"""The extraction: from a catalogue to a committed snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import apache_beam as beam

from melmill.pipelines.commit import (
    Outcome,
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
from melmill.pipelines.run.launch import (
    compare_here,
    is_dry_run,
    makes_template,
    run_job,
    write_template,
)
from melmill.pipelines.snapshots.kept_columns import KeptColumns, kept_columns
from melmill.pipelines.snapshots.open import OpenSnapshot, in_its_staging, start_from
from melmill.transforms.adopt_recordings import Adoptions, AdoptRecordings, no_adoptions
from melmill.transforms.catalogue.left_out import read_uris
from melmill.transforms.catalogue.licenses import ANY_LICENSE, LicenseRule, license_column
from melmill.transforms.catalogue.parts import (
    Catalogue,
    open_catalogue,
    require_recordings,
)
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.records import Failure
from melmill.transforms.diff_catalogue import DiffCatalogue, Differences
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.spec import column_names
from melmill.transforms.group_duplicates import GroupDuplicates, Groups, apply_groups
from melmill.transforms.index.comparing import Comparison
from melmill.transforms.index.results import GroupTables
from melmill.transforms.leave_out_contents import LeaveOutContents, leave_out
from melmill.transforms.list_catalogue import ListCatalogue
from melmill.transforms.measures.registry import meters_in
from melmill.transforms.plan.change_records import Decision
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.packing import ShardPlan
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.plan_shards import PlanRecordings, PlanShards
from melmill.transforms.probe_recordings import ProbeRecordings
from melmill.transforms.rewrite_shards import RewriteShards
from melmill.transforms.select_recordings import SelectRecordings
from melmill.transforms.shards.receipts import count_finished
from melmill.transforms.snapshot.delta import (
    Snapshot,
    read_snapshot,
    split_rule,
    with_later_keys,
)
from melmill.transforms.snapshot.totals import Totals
from melmill.transforms.store.endpoints import require_reachable
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from melmill.transforms.store.ownership import check_folder
from melmill.transforms.stratify_splits import StratifySplits
from melmill.transforms.write_index import WriteIndex
from melmill.transforms.write_recounted import WriteRecounted
from melmill.transforms.write_shards import WriteShards


@dataclass(frozen=True, slots=True)
class Extraction:
    """The result of an extraction or a refresh.

    Attributes
    ----------
    opened
        The dataset's current snapshot.
    committed
        Whether this run committed the snapshot; otherwise there was nothing to do.
    difference
        The numbers of recordings by what was done with them; see
        :class:`~melmill.transforms.plan.change_records.Difference`.
    new_schema
        Whether the run started a new dataset version.
    features
        The columns of the features.
    metrics
        The metrics of the run.
    columns
        What became of the columns that were added to the dataset.
    """

    opened: OpenSnapshot
    committed: bool
    difference: dict[str, Any]
    new_schema: bool
    features: tuple[FeatureColumn, ...]
    metrics: RunMetrics
    columns: KeptColumns = field(default_factory=KeptColumns)

    @property
    def snapshot(self) -> Snapshot:
        """Return the current snapshot as its commit describes it."""
        return self.opened.snapshot

    @property
    def totals(self) -> Totals:
        """Return the totals of the current snapshot."""
        return self.opened.totals


@dataclass(frozen=True, slots=True)
class Planned:
    """The collections of a pipeline that are known before anything is decoded."""

    diff: Differences
    decision: beam.PCollection[Decision]
    adopted: Adoptions
    recordings: beam.PCollection[PlannedRecording]
    failures: beam.PCollection[Failure]
    plans: beam.PCollection[ShardPlan]
    groups: Groups | None


def lay_out_plan(pipeline: beam.Pipeline, job: ExtractJob, *, selecting: bool = True) -> Planned:
    """Apply the transforms up to the plan, and return their outputs.

    Nothing is decoded, except recordings that must be measured to select them or to find their
    duplicates, if this is wanted.
    """
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores)
    listed = start | "ListCatalogue" >> ListCatalogue(job)
    diff = listed | "DiffCatalogue" >> DiffCatalogue(job)
    probed = diff.recordings | "ProbeRecordings" >> ProbeRecordings(job)
    recordings, erased = probed.recordings | "LeaveOutContents" >> LeaveOutContents(job)
    if not job.is_matching:
        adopted = (diff.offers, recordings) | "AdoptRecordings" >> AdoptRecordings(job)
        recordings = adopted.recordings
    known = (recordings, diff.probed) | "JoinProbed" >> beam.Flatten()
    planned = known | "PlanRecordings" >> PlanRecordings(job)
    recordings, all_failures = planned.recordings, [probed.failures, planned.failures]
    if (job.select or job.is_matching) and selecting:
        selected = recordings | "SelectRecordings" >> SelectRecordings(job)
        recordings, all_failures = selected.recordings, [*all_failures, selected.failures]
    groups = None
    if job.is_matching and selecting:
        compared = recordings, diff.facts, diff.decision
        groups = compared | "GroupDuplicates" >> GroupDuplicates(job)
        recordings = groups.recordings
        if job.matches_base:
            diff = listed | "DiffGroups" >> DiffCatalogue(job, groups.decisions)
            probed_again = diff.recordings | "ProbeReadmitted" >> ProbeRecordings(job)
            known = (probed_again.recordings, diff.probed) | "JoinProbedAgain" >> beam.Flatten()
            readmitted = known | "PlanReadmitted" >> PlanRecordings(job)
            joined = (
                recordings,
                readmitted.recordings
                | "ApplyGroups"
                >> beam.Map(apply_groups, beam.pvalue.AsSingleton(groups.decisions)),
            )
            recordings = joined | "JoinReadmitted" >> beam.Flatten()
            all_failures = [*all_failures, probed_again.failures, readmitted.failures]
    if job.split.stratify:
        recordings = recordings | "StratifySplits" >> StratifySplits(job)
    if job.is_matching:
        adopted = no_adoptions(diff.offers, recordings)
    decision = diff.decision
    if erased is not None:
        contents = beam.pvalue.AsList(erased)
        decision = decision | "CountContents" >> beam.Map(leave_out, contents, job)
    failures = all_failures | "JoinFailures" >> beam.Flatten()
    plan_shards = PlanShards(job, diff.decision, adopted.number)
    plans = (recordings, failures) | "PlanShards" >> plan_shards
    return Planned(diff, decision, adopted, recordings, failures, plans, groups)


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> beam.PCollection[str]:
    """Apply all transforms of an extraction; return the name of the index, for the commit.

    The pipeline extracts what the job's snapshot lacks of the catalogue.
    """
    planned = lay_out_plan(pipeline, job)
    diff, adopted = planned.diff, planned.adopted
    written = planned.plans | "WriteShards" >> WriteShards(job)
    groups = planned.groups
    decisions = groups.decisions if groups else None
    recounted = written.again | "WriteRecounted" >> WriteRecounted(job, decisions)
    touched = diff.touched, adopted.touched
    rewritten = (*touched, diff.decision) | "RewriteShards" >> RewriteShards(job)
    new_facts = planned.recordings, planned.failures, written.summaries, *recounted
    facts = *new_facts, diff.facts, adopted.facts, rewritten
    if groups is not None:
        todo = beam.pvalue.AsSingleton(planned.decision)
        facts = *facts, groups.tables | "KeepTables" >> beam.Filter(_is_todo, todo)
    return facts | "WriteIndex" >> WriteIndex(job, planned.decision)


def _is_todo(_: GroupTables, decision: Decision) -> bool:
    return decision.todo


def committing(
    build: Callable[[beam.Pipeline, ExtractJob], beam.PCollection[str]],
    configuration: dict[str, Any],
    began_with: int,
) -> Callable[[beam.Pipeline, ExtractJob], None]:
    """Return a function that builds the pipeline and adds the commit as its last step.

    Use it for jobs that no launcher waits for.
    """

    def build_all(pipeline: beam.Pipeline, job: ExtractJob) -> None:
        index = build(pipeline, job)
        _ = index | "CommitSnapshot" >> beam.Map(commit_index, job, configuration, began_with)

    return build_all


def make_job(config: Config, catalogue: Catalogue, store: Store) -> ExtractJob:
    """Return the job for the workers; the recipe's files are known (:func:`pin_files`)."""
    for entry in config.features or ():
        if isinstance(entry, ModelSpec) and not entry.sha256:
            raise ValueError(f"the model of {entry.name} is not pinned")
    for variant in config.variants:
        if variant.lacks_files:
            raise ValueError(f"the files of the variant {variant.text()} were not looked for")
    job = ExtractJob(
        catalogue=catalogue,
        store=store,
        features=config.feature_spec(),
        split=config.split.spec(),
        shards=config.output.shard_spec(),
        writer=config.output.writer_spec(),
        limits=replace(config.limits.spec(), min_split_recordings=config.split.min_recordings),
        refresh=config.refresh.spec(),
        exclude=config.catalogue.exclude or "",
        licenses=_license_rule(config, catalogue),
        content_hashes=config.catalogue.content_hashes,
        meters=meters_in(config.quality),
        select=config.select or "",
        dedupe=config.dedupe,
    )
    return in_its_staging(job)


def _license_rule(config: Config, catalogue: Catalogue) -> LicenseRule:
    """Return which licences are allowed; raise ``CatalogueError`` if no column has licences."""
    section = config.catalogue
    if section.require_license is None:
        return ANY_LICENSE
    labels = tuple(label.name for label in catalogue.label_columns)
    column = license_column(catalogue.uri, labels)
    return LicenseRule(section.require_license, column, section.other_license)


def resolve_catalogue(uri: str, config: Config) -> Catalogue:
    """Return the catalogue; raise an error if it is missing, wrong or empty."""
    storage_options = tuple(config.catalogue.storage_options.items())
    require_reachable(uri, storage_options, CatalogueError)
    catalogue = open_catalogue(
        uri,
        extensions=config.catalogue.extensions,
        storage_options=storage_options,
        label_types=config.catalogue.label_types,
        keys=config.catalogue.table_keys(),
    )
    _check_group(catalogue, config)
    _check_names(catalogue, config)
    _license_rule(config, catalogue)
    for _ in read_uris(config.catalogue.exclude or "", storage_options):
        pass  # read the whole list, so that its errors are raised before any worker starts
    first = require_recordings(catalogue)
    if config.split.keep_together and config.split.by == "auto" and first.split is not None:
        raise CatalogueError(
            f"split.keep_together: duplicates: {uri} gives each recording a split; leave "
            "keep_together out, or set split.by to recording or group"
        )
    if config.split.stratify and config.split.by == "auto" and first.split is not None:
        raise CatalogueError(
            f"split.stratify: {config.split.stratify}: {uri} gives each recording a split; leave "
            "stratify out, or set split.by to recording"
        )
    return replace(catalogue, gives_splits=first.split is not None)


def _check_group(catalogue: Catalogue, config: Config) -> None:
    labels = [label.name for label in catalogue.label_columns]
    classes = [c.name for c in catalogue.label_columns if c.type in ("string", "int64", "bool")]
    if config.split.stratify is not None and config.split.stratify not in classes:
        raise CatalogueError(
            f"split.stratify: {config.split.stratify!r}: {catalogue.uri} has no such label column "
            f"of text, integers or booleans; it has: {', '.join(classes) or 'none'}"
        )
    if config.split.group is not None and config.split.group not in labels:
        raise CatalogueError(
            f"split.group: {config.split.group!r}: {catalogue.uri} has no such label column; "
            f"it has: {', '.join(labels) or 'none'}"
        )


def _check_names(catalogue: Catalogue, config: Config) -> None:
    names = {label.name.casefold() for label in catalogue.label_columns}
    if config.variants and "variant" in names:
        raise CatalogueError(
            f"variants: {catalogue.uri} has a label column 'variant', and the rows have a column "
            "of this name, the number of the variant; rename the column"
        )
    for column in config.feature_spec().columns:
        if column.valid in names:
            raise CatalogueError(
                f"{catalogue.uri}: no label can be named {column.valid!r}: the rows have a column "
                f"of this name, the number of valid frames or samples of {column.name}; rename the "
                "column"
            )
    for number, feature in enumerate(config.feature_spec().features):
        if taken := [name for name in column_names(feature) if name in names]:
            which = "of this name" if taken[0] == feature.name else f"{taken[0]}, as this feature"
            raise CatalogueError(
                f"features.{number}.name: {feature.name!r}: {catalogue.uri} has a label column "
                f"{which}; give the feature another name, or rename the column"
            )


def extract(
    job: ExtractJob,
    configuration: dict[str, Any],
    options: Any,
    *,
    overwrite: bool = False,
    single_writer: bool = False,
) -> Extraction:
    """Create a dataset, continue an interrupted run, or refresh the dataset.

    The dataset is refreshed if it was made from the same catalogue with the same recipe.

    Parameters
    ----------
    job
        The extraction: its catalogue, output and settings.
    configuration
        The recipe, to be stored with the snapshot.
    options
        The options of Beam.
    overwrite
        Whether to replace a dataset that was made from another catalogue or recipe.
    single_writer
        Whether the user guarantees that no other run writes to the output at the same time. The
        output's store then need not prevent two runs from making the same commit.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    ConflictError
        Another run committed first; nothing of this run is left.
    TooManyFailuresError
        Too many recordings failed; nothing was committed.
    NothingSubmittedError
        The run was a dry run, or it made a template, whose jobs commit by themselves.
    """
    current = check_output(job, configuration, overwrite)
    if current is not None:
        snapshot = current.snapshot
        if any(_differences(snapshot, job, configuration)):
            base = Base(version=snapshot.version)
            job = replace(job, base=base, taken_down=snapshot.taken_down)
        else:
            job = start_from(job, current, configuration)
            # The limits are not part of a dataset's content.
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
    """Run a job from the start to the commit, and return its result; see :func:`extract`.

    Parameters
    ----------
    current
        The dataset's current snapshot; ``None`` for none.
    """
    job = in_its_staging(job)
    new_schema = current is not None and changes_schema(job, current)
    if not is_dry_run(options):
        job = _begin(job, current, single_writer)
    if makes_template(options):
        began_with = current.snapshot.version if current else -1
        write_template(committing(build_pipeline, configuration, began_with), job, options)
    with discarding_the_overtaken(job, current):
        comparison = compare_here(job, options)
        if comparison is not None and not comparison.decision.todo:
            outcome, metrics = _nothing_to_do(job, comparison)
        else:
            brief = comparison is not None and comparison.is_brief
            count = partial(count_finished, job)
            metrics = run_job(build_pipeline, job, options, count, brief)
            outcome = require_outcome(job)
        opened, committed = finish(job, configuration, current, outcome)
    columns = kept_columns(opened, current) if committed else KeptColumns()
    about = outcome.difference, new_schema, job.features.columns, metrics, columns
    return Extraction(opened, committed, *about)


def _nothing_to_do(job: ExtractJob, comparison: Comparison) -> tuple[Outcome, RunMetrics]:
    """Return what the pipeline would return, without a pipeline."""
    difference = comparison.decision.difference.to_json()
    outcome = Outcome(job.base.index, job.base.parts, difference, todo=False)
    return outcome, RunMetrics.of_listing(comparison.listed, comparison.passed_over)


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
    """Return the dataset's current snapshot; ``None`` if there is none yet.

    Raises
    ------
    DatasetError
        The folder is not reachable, or holds something other than a dataset.
    """
    require_reachable(job.store.root, job.store.storage_options, DatasetError)
    snapshot = read_snapshot(job.store) if check_folder(job.store) else None
    return OpenSnapshot(job.store, snapshot) if snapshot else None


def check_output(
    job: ExtractJob, configuration: dict[str, Any], overwrite: bool = False
) -> OpenSnapshot | None:
    """Check that the output may be written; return its current snapshot, or ``None``.

    Raises
    ------
    DatasetError
        The output holds something other than a dataset, or a dataset that was made from another
        catalogue or recipe.
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
            f"{' and another '.join(differences)}; choose another output, or replace the dataset "
            "with --overwrite"
        )
    return current


def _differences(
    current: Snapshot, job: ExtractJob, configuration: dict[str, Any]
) -> Iterator[str]:
    if current.catalogue != job.catalogue.uri:
        yield "catalogue"
    if not job.features.computes_same(current.features):
        yield "feature configuration"
    before, now = current.recipe, with_later_keys(configuration)
    for key in ("select", "dedupe"):
        if before[key] != now[key]:
            yield f"{key} (melmill refresh --set {key}=... changes it)"
    if split_rule(before) != split_rule(now):
        yield "configuration of split"
    if before.get("output") != now.get("output"):
        yield "configuration of output"
