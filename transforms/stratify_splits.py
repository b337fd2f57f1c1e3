"""Divides new recordings among the splits so that each class of a label has the recipe's shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.records import WITH_ROWS
from melmill.transforms.index.tables import read_part, read_shards
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.plan.stratifying import NewUnit, class_of_unit, divide_class, in_split
from melmill.transforms.rows.distribution import MAX_CLASSES

_RECORDINGS, _KNOWN, _NEW, _SPLITS = "recordings", "known", "new", "splits"

#: Number of recordings of each class in each split.
ClassNumbers = Mapping[str, Mapping[str, int]]


@dataclass(eq=False)
class StratifySplits(beam.PTransform):
    """Put new recordings into the split that is furthest behind in their class.

    The input and the output are planned recordings. Those of a file of which the snapshot has a
    recording are put into its split. All new files of a class are divided by one worker, which
    keeps an identifier of each in memory; a retry gives the same result.

    Attributes
    ----------
    job
        Job of the run, whose ``split.stratify`` names the label.

    Raises
    ------
    CatalogueError
        The label has too many classes.
    """

    job: ExtractJob

    def expand(
        self, recordings: beam.PCollection[PlannedRecording]
    ) -> beam.PCollection[PlannedRecording]:
        """Join the recordings with what the snapshot knows, and divide what is new by class."""
        job, pipeline = self.job, recordings.pipeline
        parts = range(0 if job.base.is_nothing else job.base.parts)
        known = (
            pipeline
            | "NameParts" >> beam.Create(list(parts))
            | "ReadUnits" >> beam.FlatMap(_known_units, job)
        )
        # Recordings whose split the catalogue gives have no unit: there may be millions.
        given = recordings | "TakeWithoutUnit" >> beam.Filter(lambda own: not own.split_unit)
        keyed = (
            recordings
            | "TakeUnits" >> beam.Filter(lambda planned: bool(planned.split_unit))
            | "KeyByUnit" >> beam.Map(lambda planned: (planned.split_unit, planned))
        )
        by_unit = (
            {_RECORDINGS: keyed, _KNOWN: known}
            | "JoinUnits" >> beam.CoGroupByKey()
            | "KeepSplits" >> beam.FlatMap(_keep, job).with_outputs(_NEW, main="kept")
        )
        numbers = pipeline | "StartCount" >> beam.Create([0]) | "Count" >> beam.Map(_count, job)
        by_class = (
            by_unit[_NEW]
            | "KeyByClass" >> beam.Map(_key_by_class, job)
            | "GroupByClass" >> beam.GroupByKey()
        )
        classes = by_class | "CountClasses" >> beam.combiners.Count.Globally()
        sides = beam.pvalue.AsSingleton(numbers), beam.pvalue.AsSingleton(classes)
        splits = by_class | "DivideClasses" >> beam.FlatMap(_divide, job, *sides)
        divided = (
            {_RECORDINGS: by_unit[_NEW], _SPLITS: splits}
            | "JoinSplits" >> beam.CoGroupByKey()
            | "PutIntoSplits" >> beam.FlatMap(_put)
        )
        return (given, by_unit["kept"], divided) | "JoinDivided" >> beam.Flatten()


def _known_units(part: int, job: ExtractJob) -> Iterator[tuple[str, str]]:
    """Yield the units of a part of the snapshot, with their splits."""
    names = {name for name, _ in job.split.fractions}
    columns = ["split_unit", "split", "status"]
    table = read_part(job.store, job.base.index, "recordings", part, columns)
    values = (table[name].to_pylist() for name in columns)
    for unit, split, status in zip(*values, strict=True):
        # Without rows, a split was never used, and is not counted.
        if unit and split in names and status in WITH_ROWS:
            yield unit, split


def _keep(
    group: tuple[str, Mapping[str, Iterable[Any]]], job: ExtractJob
) -> Iterator[PlannedRecording | beam.pvalue.TaggedOutput]:
    """Yield the recordings of a unit that has a split, or needs none; tag those of a new unit."""
    unit, members = group[0], list(group[1][_RECORDINGS])
    names = {name for name, _ in job.split.fractions}
    known = {planned.probed.recording.known_split for planned in members} & names
    known |= set(group[1][_KNOWN])
    if known:
        yield from (in_split(planned, min(known)) for planned in members)
    elif any(planned.rows for planned in members):
        yield beam.pvalue.TaggedOutput(_NEW, (unit, members))
    else:
        yield from members


def _key_by_class(new: tuple[str, list[PlannedRecording]], job: ExtractJob) -> tuple[str, NewUnit]:
    unit, members = new
    with_rows = sum(planned.rows > 0 for planned in members)
    return class_of_unit(members, job.split.stratify or ""), NewUnit(unit, with_rows)


def _count(_: int, job: ExtractJob) -> dict[str, Counter[str]]:
    """Return the number of recordings of each class in each split of the snapshot."""
    label, numbers = job.split.stratify or "", defaultdict[str, Counter[str]](Counter)
    if job.base.is_nothing:
        return {}
    for shard in read_shards(job.store, job.base.index):
        if label in shard.distribution.many:
            raise _too_many_classes(job)
        for entry in shard.distribution.classes:
            if entry.column == label:
                numbers[repr(entry.value)][shard.split] += entry.recordings
    return dict(numbers)


def _divide(
    group: tuple[str, Iterable[NewUnit]], job: ExtractJob, numbers: ClassNumbers, classes: int
) -> Iterator[tuple[str, str]]:
    if max(classes, len(numbers)) > MAX_CLASSES:
        raise _too_many_classes(job)
    yield from divide_class(group[1], numbers.get(group[0], {}), job.split)


def _too_many_classes(job: ExtractJob) -> CatalogueError:
    return CatalogueError(
        f"split.stratify: {job.split.stratify!r}: {job.catalogue.uri} has more than "
        f"{MAX_CLASSES:,} values of this label; name a label with fewer values"
    )


def _put(
    group: tuple[str, Mapping[str, Iterable[Any]]],
) -> Iterator[PlannedRecording]:
    (split,) = group[1][_SPLITS]
    for members in group[1][_RECORDINGS]:
        yield from (in_split(planned, split) for planned in members)
