"""Duplicates: recordings of a dataset, or of two datasets, that sound the same."""

from __future__ import annotations

import json
import secrets
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.pipelines.run.launch import run_job, runs_here
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.duplicates.deciding import read_groups
from melmill.transforms.duplicates.grouping import (
    TICKS_PER_SECOND,
    FoundMatch,
    Kind,
    MatchedRecording,
    best_first,
    groups_of,
    read_matched,
    with_lengths,
    without_doubles,
)
from melmill.transforms.duplicates.match_job import (
    IndexedDataset,
    MatchJob,
    Search,
    count_words,
    is_short,
    place_of,
)
from melmill.transforms.index.tables import read_batches
from melmill.transforms.match_fingerprints import MatchFingerprints
from melmill.transforms.measures.registry import meters_in, quality_text, quality_with
from melmill.transforms.plan.group_decisions import leaves_out
from melmill.transforms.plan.job import is_matching
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import remove_own

#: Fewest words for whose comparison worker processes are started: some 50 hours.
_MANY_WORDS = 2_000_000


@dataclass(frozen=True, slots=True)
class RecordingMatch:
    """Two recordings that sound the same, or of which one contains the other.

    Attributes
    ----------
    kind
        ``exact``: all samples are equal. ``same``: the same recording in another form.
        ``contained``: most of the shorter recording is in the longer one.
    first, second
        The recordings. Of ``contained``, the first is in the second.
    offset_seconds
        Time in the second recording at which the first one starts; below zero if it starts earlier.
    overlap_seconds
        Length of the compared sound.
    error
        Share of the fingerprints' bits that differ; of short recordings, half of what the
        waveforms' correlation lacks to 1. It is near 0.5 for different sounds.
    """

    kind: Kind
    first: MatchedRecording
    second: MatchedRecording
    offset_seconds: float
    overlap_seconds: float
    error: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The duplicates of a dataset, or those that two datasets share.

    Attributes
    ----------
    datasets, versions
        Folders of the datasets, and the versions that were searched.
    recordings
        Number of recordings that have a digest and, unless they are silent or steady, a fingerprint
        or a waveform.
    groups
        Recordings that sound the same, the best first. The groups are in the order of their best
        recordings' URIs. Of two datasets, each group has recordings of both.
    matches
        All matches, in the order of the URIs; of two datasets, those between them. A group of many
        copies has no match for each pair.
    together
        URIs whose file also has recordings that are no copies: other segments.
    """

    datasets: tuple[str, ...]
    versions: tuple[int, ...]
    recordings: int
    groups: tuple[tuple[MatchedRecording, ...], ...]
    matches: tuple[RecordingMatch, ...]
    together: frozenset[str]

    @property
    def extra(self) -> tuple[MatchedRecording, ...]:
        """All recordings of the groups but the best; of two datasets, those of the first one."""
        if len(self.datasets) == 1:
            return tuple(member for members in self.groups for member in members[1:])
        return tuple(member for members in self.groups for member in members if member.dataset == 0)

    @property
    def leaking(self) -> tuple[tuple[MatchedRecording, ...], ...]:
        """Groups of one dataset that have rows in several splits."""
        if len(self.datasets) > 1:
            return ()
        return tuple(members for members in self.groups if len(splits_of(members)) > 1)


def splits_of(members: Iterable[MatchedRecording]) -> set[str]:
    """Return the splits in which recordings have rows."""
    return {member.split for member in members if member.status in ("ok", "partial")}


def build_pipeline(pipeline: beam.Pipeline, search: Search) -> None:
    """Apply the transforms of a search."""
    start = pipeline | "CheckWorkers" >> CheckWorkers(search.stores)
    described = start | "DescribeSearch" >> beam.Map(lambda _, job: job, search.job)
    matches = described | "MatchFingerprints" >> MatchFingerprints(search.progress)
    _ = matches | "WriteMatches" >> beam.Map(_write, search)


def _write(matches: list[FoundMatch], search: Search) -> None:
    data = json.dumps(matches).encode()
    search.output.put(f"{search.matches}/{digest(data)}.json", data)


def find_duplicates(stores: Sequence[Store], options: Any, progress: str = "") -> Duplicates:
    """Find the duplicates in a dataset's current snapshot, or those that two datasets share.

    Nothing is decoded: the fingerprints are in the index. If the dataset's recipe has ``dedupe`` or
    ``split.keep_together``, the matches are there, too, and nothing is searched. With workers on
    other machines, the matches pass through the first dataset's folder, and are removed from it.

    Parameters
    ----------
    stores
        The dataset, or two datasets.
    options
        The options of Beam.
    progress
        Address at which the launcher listens; ``""`` if it does not listen.

    Raises
    ------
    DatasetError
        There is no dataset, or its recipe makes no fingerprints.
    """
    if len({store.root for store in stores}) < len(stores):
        raise ConfigError(f"--against {stores[0].root}: it is the same dataset; leave it out")
    opened = [OpenSnapshot.current(store) for store in stores]
    for snapshot in opened:
        _require_fingerprints(snapshot)
    if len(opened) == 1 and _has_matches(opened[0]):
        return stored_duplicates(opened[0])
    recordings, seconds, short = _count(opened)
    job = MatchJob(tuple(map(_indexed, opened)), count_words(seconds), short)
    local = runs_here(options)
    with tempfile.TemporaryDirectory(prefix="melmill-duplicates-") as folder:
        output = Store(folder) if local else stores[0]
        # Each search has its own folder: another one may read the same dataset at the same time.
        search = Search(job, output, f"staging/{secrets.token_hex(8)}", progress)
        try:
            run_job(build_pipeline, search, options, brief=job.size < _MANY_WORDS)
            found = _read_matches(search)
        finally:
            if not local:
                remove_own(search.output, search.staging)
    return _describe(opened, job, found, recordings)


def _has_matches(opened: OpenSnapshot) -> bool:
    """Return whether the index has the matches of all recordings with fingerprints."""
    recipe = opened.recipe
    is_searched = is_matching(recipe.dedupe, recipe.split.keep_together)
    return is_searched and not opened.totals.recordings["deselected"]


def stored_duplicates(opened: OpenSnapshot) -> Duplicates:
    """Return the duplicates that are in the index; which must have been looked for."""
    tables, recipe = read_groups(opened.store, opened.snapshot.index), opened.recipe
    members: dict[str, MatchedRecording] = {}
    for row in tables.matched_recordings.to_pylist():
        if row.pop("duplicate_of") and leaves_out(recipe.dedupe):
            row["status"] = "duplicate"
        members[row["recording_id"]] = MatchedRecording(dataset=0, **row)
    matches = []
    for row in tables.matches.to_pylist():
        first, second, kind, *numbers = row.values()
        matches.append(_match(kind, (members[first], members[second]), *numbers))
    number = sum(opened.totals.recordings[status] for status in ("ok", "partial", "duplicate"))
    return _duplicates([opened], MatchJob((_indexed(opened),), 0), matches, number)


def _indexed(opened: OpenSnapshot) -> IndexedDataset:
    return IndexedDataset(opened.store, opened.snapshot.index, tuple(range(opened.parts)))


def _count(opened: Iterable[OpenSnapshot]) -> tuple[int, float, int]:
    """Return the number of measured recordings, their length in seconds, and how many are short."""
    recordings, seconds, short = 0, 0.0, 0
    for snapshot in opened:
        columns = ["status", "seconds"]
        for batch in read_batches(snapshot.store, snapshot.snapshot.index, "recordings", columns):
            values = (batch[name].to_pylist() for name in columns)
            for status, length in zip(*values, strict=True):
                if status in ("ok", "partial", "deselected", "duplicate"):
                    recordings, seconds = recordings + 1, seconds + length
                    short += is_short(length)
    return recordings, seconds, short


def _require_fingerprints(opened: OpenSnapshot) -> None:
    quality = opened.recipe.quality
    if "acoustic" not in meters_in(quality):
        wanted = quality_text(quality_with(quality, ("acoustic",)))
        folders = opened.snapshot.catalogue, opened.store.root
        command = ["melmill", "refresh", *folders, "--set", f"quality={wanted}"]
        raise DatasetError(
            f"{opened.store.root}: its recipe has quality: {quality_text(quality)}, so not "
            "all of its recordings have fingerprints; make them, without computing any feature "
            f"again: {shlex.join(command)}"
        )


def _read_matches(search: Search) -> list[FoundMatch]:
    names, read = sorted(search.output.names(search.matches)), search.output.read
    return without_doubles(tuple(row) for name in names for row in json.loads(read(name)))


def _describe(
    opened: Sequence[OpenSnapshot], job: MatchJob, found: Sequence[FoundMatch], number: int
) -> Duplicates:
    numbers = {number for first, second, *_ in found for number in (first, second)}
    recordings = dict(_read_recordings(job, numbers))
    matches = []
    for row in found:
        first, second, kind, offset, overlap, error = with_lengths(row, recordings)
        pair = recordings[first], recordings[second]
        compared = pair[0].seconds if kind == "exact" else overlap / TICKS_PER_SECOND
        matches.append(_match(kind, pair, offset / TICKS_PER_SECOND, compared, error))
    return _duplicates(opened, job, matches, number)


def _match(
    kind: Kind,
    pair: tuple[MatchedRecording, MatchedRecording],
    offset_seconds: float,
    overlap_seconds: float,
    error: float,
) -> RecordingMatch:
    """Return a match in the order of the URIs, unless the first recording is in the second."""
    by_uri = [(recording.dataset, recording.uri) for recording in pair]
    if kind != "contained" and by_uri[1] < by_uri[0]:
        pair, offset_seconds = (pair[1], pair[0]), -offset_seconds
    return RecordingMatch(kind, *pair, offset_seconds, overlap_seconds, error)


def _duplicates(
    opened: Sequence[OpenSnapshot], job: MatchJob, matches: list[RecordingMatch], number: int
) -> Duplicates:
    groups = _groups(matches)
    if len(opened) > 1:
        groups = [same for same in groups if len({member.dataset for member in same}) > 1]
        matches = [match for match in matches if match.first.dataset != match.second.dataset]
    return Duplicates(
        datasets=tuple(snapshot.store.root for snapshot in opened),
        versions=tuple(snapshot.snapshot.version for snapshot in opened),
        recordings=number,
        groups=tuple(sorted(groups, key=lambda same: same[0].uri)),
        matches=tuple(sorted(matches, key=lambda match: (match.first.uri, match.second.uri))),
        together=_together(job, groups),
    )


def _groups(matches: Iterable[RecordingMatch]) -> list[tuple[MatchedRecording, ...]]:
    """Return the groups of recordings that are the same, each with the best first."""
    members, pairs = dict[str, MatchedRecording](), list[tuple[str, str]]()
    for match in matches:
        if match.kind != "contained":
            first, second = (f"{m.dataset} {m.recording_id}" for m in (match.first, match.second))
            members |= {first: match.first, second: match.second}
            pairs.append((first, second))
    return [tuple(best_first(members[key] for key in same)) for same in groups_of(pairs)]


def _together(job: MatchJob, groups: Iterable[Sequence[MatchedRecording]]) -> frozenset[str]:
    """Return the URIs in groups whose file has other recordings that are to be kept."""
    copies = Counter(m.uri for members in groups for m in members[len(job.datasets) == 1 :])
    if not copies:
        return frozenset()
    uris: Counter[str] = Counter()
    for place in job.places():
        uris.update(uri for uri in job.read(place, ["uri"])[0].to_pylist() if uri in copies)
    return frozenset(uri for uri, number in copies.items() if uris[uri] > number)


def _read_recordings(
    job: MatchJob, numbers: Iterable[int]
) -> Iterator[tuple[int, MatchedRecording]]:
    """Yield the recordings with some numbers; one part of the index is in memory at a time."""
    by_place: defaultdict[int, list[int]] = defaultdict(list)
    for number in numbers:
        by_place[place_of(number)].append(number)
    for place, members in sorted(by_place.items()):
        yield from read_matched(job, place, members)
