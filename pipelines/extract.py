"""From a catalogue to a committed snapshot."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.config import Config
from pipelines.counters import RunMetrics
from pipelines.finish import begin, commit_index, finish, forget, require_outcome
from pipelines.launch import is_dry_run, makes_template, run_job, write_template
from transforms.catalogue import ReadCatalogue
from transforms.errors import CatalogueError, DatasetError
from transforms.index import WriteIndex
from transforms.job import ExtractJob
from transforms.plan import PlanRecordings, PlanShards
from transforms.probe import ProbeRecordings
from transforms.shards import WriteShards
from transforms.storage.catalogue import (
    Catalogue,
    catalogue_parts,
    list_part,
    nothing_found_message,
    open_catalogue,
)
from transforms.storage.endpoints import require_reachable
from transforms.storage.exclusive import require_exclusive_commits
from transforms.storage.snapshot import Snapshot, read_snapshot
from transforms.storage.store import Store
from transforms.storage.totals import Totals
from transforms.workers import CheckWorkers


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction came to.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    totals
        What it holds.
    committed
        Whether this run made it; otherwise it was there already, the very same.
    shape
        ``(n_mels, frames)`` of each row.
    metrics
        What the run counted.
    """

    snapshot: Snapshot
    totals: Totals
    committed: bool
    shape: tuple[int, int]
    metrics: RunMetrics


def build_pipeline(pipeline: beam.Pipeline, job: ExtractJob) -> beam.PCollection[str]:
    """Lay out the whole path of the data: every stage of it is a word here.

    Out comes the index's name, for the commit.
    """
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores)
    listed = start | "ReadCatalogue" >> ReadCatalogue(job.catalogue, job.taken_down)
    probed = listed | "ProbeRecordings" >> ProbeRecordings(job)
    planned = probed.recordings | "PlanRecordings" >> PlanRecordings(job)
    failures = (probed.failures, planned.failures) | "JoinFailures" >> beam.Flatten()
    plans = (planned.recordings, failures) | "PlanShards" >> PlanShards(job)
    shards = plans | "WriteShards" >> WriteShards(job)
    return (planned.recordings, failures, shards) | "WriteIndex" >> WriteIndex(job)


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
        content_hashes=config.catalogue.content_hashes,
    )
    return replace(job, store=replace(store, scratch_folder=f"{job.staging}/scratch"))


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
    parts = catalogue_parts(catalogue)
    found = (recording for part in parts for recording in list_part(catalogue, part))
    if next(found, None) is None:
        raise CatalogueError(nothing_found_message(catalogue))
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
    """Make the dataset, or go on making it where an earlier run was interrupted.

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
    TooManyFailuresError
        Nothing was committed.
    NothingSubmittedError
        It was a dry run, or a template was made, whose jobs commit by themselves.
    """
    current = check_output(job, configuration, overwrite)
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    if current is not None:
        erased = frozenset(one.recording_id for one in current.taken_down)
        job = replace(job, known_index=current.index, taken_down=erased)
    if makes_template(options):
        began_with = current.version if current else -1
        write_template(committing(build_pipeline, configuration, began_with), job, options)
    if is_dry_run(options):
        forget(job)
    with _naming_rivals(job, current):
        metrics = run_job(build_pipeline, job, options, partial(count_finished, job))
        outcome = require_outcome(job)
    finished = finish(job, configuration, current, outcome)
    return Extraction(*finished, job.features.shape, metrics)


def count_finished(job: ExtractJob) -> int:
    """Count the shards that a run has finished so far."""
    return sum(1 for _ in job.store.names(f"{job.staging}/shards"))


@contextlib.contextmanager
def _naming_rivals(job: ExtractJob, current: Snapshot | None) -> Iterator[None]:
    """Say so where a run fails because the same command, run twice, ended before it.

    Both use one staging folder, and the first to commit removes it.
    """
    try:
        yield
    except (OSError, RuntimeError, DatasetError) as error:
        found = read_snapshot(job.store)
        made_of = job.catalogue.uri, job.features.canonical()
        if found is None or found == current or (found.catalogue, found.features) != made_of:
            raise
        job.store.remove(job.staging)
        raise DatasetError(
            f"another run committed version {found.version} to {job.store.root} while this one "
            "was working on the same; run the same command again to see what is left to do"
        ) from error


def check_output(
    job: ExtractJob, configuration: dict[str, Any], overwrite: bool = False
) -> Snapshot | None:
    """See that the output may be written; give the snapshot that it holds already.

    Raises
    ------
    DatasetError
        It holds something else, or cannot be written.
    """
    store = job.store
    require_reachable(store.root, store.storage_options, DatasetError)
    try:
        # Where there is no table, a refusal of the store is clearer from what writes a file.
        current = read_snapshot(store) if check_folder(store) else None
        begin(job)
    except OSError as error:
        raise DatasetError(f"output {store.root}: cannot be written: {error}") from error
    if current is None or overwrite:
        return current
    if differences := list(_differences(current, job, configuration)):
        raise DatasetError(
            f"output {store.root}: holds a dataset made from {current.catalogue} with another "
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


_OURS = frozenset(
    {"_delta_log", "index", "runs", "staging", "tfrecord", "README.md", "statistics.json"}
)


#: What the Delta library reads otherwise in a path, or not at all: it takes it for a URL.
_UNREADABLE = re.compile(r"[#?\[\]\\]|[\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check_folder(store: Store) -> bool:
    """See that the output is a folder for a dataset; tell whether it holds a Delta table."""
    if not store.root:
        raise DatasetError("the output has no name; name a folder")
    if store.is_local:
        _check_path(Path(store.path("")))
    names = store.top_names()
    foreign = {name for name in names - _OURS if not name.startswith("split=")}
    if foreign and "_delta_log" not in names:
        some = ", ".join(sorted(foreign)[:3])
        raise DatasetError(
            f"output {store.root}: holds something else ({some}); choose an empty or new folder"
        )
    return "_delta_log" in names


def _check_path(folder: Path) -> None:
    if found := _UNREADABLE.search(str(folder)):
        raise DatasetError(
            f"output {str(folder)!r}: {found[0]!r} cannot be in the path of a Delta table; "
            "choose another name"
        )
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"output {folder}: is a file; a dataset is a folder")
