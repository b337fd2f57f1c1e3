"""Duplicates: recordings of a dataset, or of two datasets, that sound the same."""

from __future__ import annotations

import json
import secrets
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apache_beam as beam

from melmill.pipelines.run.launch import run_job, runs_here
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.duplicates.groups import group
from melmill.transforms.duplicates.prints import (
    IndexedDataset,
    MatchJob,
    dataset_at,
    place_of,
    row_of,
)
from melmill.transforms.index.tables import read_batches
from melmill.transforms.match_recordings import MatchRecordings
from melmill.transforms.measures.acoustic import WORDS_PER_SECOND
from melmill.transforms.measures.registry import meters_in, quality_text, quality_with
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import remove_own

#: Fewest words for whose comparison worker processes are started: some 50 hours.
_MANY_WORDS = 2_000_000

#: Share of the longer recording's length that the same recording has at least.
_SAME_LENGTH = 0.75
#: Share of the greatest length and bandwidth of a group that its best recording has at least.
_NEARLY = 0.9

_COLUMNS = [
    *("recording_id", "uri", "split", "status", "size_bytes", "seconds", "sample_rate_hz"),
    "channels",
    *("measures.acoustic.digest", "measures.origin.bandwidth"),
]

Kind = Literal["exact", "same", "contained"]


@dataclass(frozen=True, slots=True)
class MatchedRecording:
    """A recording that has a duplicate.

    Attributes
    ----------
    dataset
        Number of its dataset: 0, or 1 for the other dataset.
    recording_id, uri, split, status
        Columns of the index.
    size_bytes, seconds, sample_rate_hz, channels
        Size of the file, length, sample rate and number of channels.
    digest
        Digest of all samples.
    bandwidth_hz
        Highest frequency with sound; ``None`` if it was not measured.
    """

    dataset: int
    recording_id: str
    uri: str
    split: str
    status: str
    size_bytes: int
    seconds: float
    sample_rate_hz: int
    channels: int
    digest: str
    bandwidth_hz: float | None


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
        Share of the fingerprints' bits that differ: near 0.5 for different sounds.
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
        Number of recordings that have a digest and, unless they are short, silent or steady, a
        fingerprint.
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


def best_first(members: Iterable[MatchedRecording]) -> list[MatchedRecording]:
    """Return the recordings of a group, the best first.

    The best is whole, not much shorter than the longest, and reaches nearly the highest
    frequencies. Then it has the most channels and the largest file, and its URI is the first.
    """
    recordings = list(members)
    long = _NEARLY * max(member.seconds for member in recordings)
    high = _NEARLY * max(member.bandwidth_hz or 0.0 for member in recordings)
    return sorted(
        recordings,
        key=lambda member: (
            member.status != "ok",
            member.seconds < long,
            (member.bandwidth_hz or 0.0) < high,
            -member.channels,
            -member.size_bytes,
            member.uri,
            member.dataset,
        ),
    )


def build_pipeline(pipeline: beam.Pipeline, job: MatchJob) -> None:
    """Apply the transforms of a search."""
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores)
    _ = start | "MatchRecordings" >> MatchRecordings(job)


def find_duplicates(stores: Sequence[Store], options: Any, progress: str = "") -> Duplicates:
    """Find the duplicates in a dataset's current snapshot, or those that two datasets share.

    Nothing is decoded: the fingerprints are in the index. With workers on other machines, the
    matches pass through the first dataset's folder, and are removed from it.

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
    datasets = tuple(IndexedDataset(o.store, o.snapshot.index, o.parts) for o in opened)
    recordings, seconds = _count(opened)
    words = round(seconds * WORDS_PER_SECOND)
    local = runs_here(options)
    with tempfile.TemporaryDirectory(prefix="melmill-duplicates-") as folder:
        output = Store(folder) if local else stores[0]
        # Each search has its own folder: another one may read the same dataset at the same time.
        job = MatchJob(datasets, output, f"staging/{secrets.token_hex(8)}", words, progress)
        try:
            run_job(build_pipeline, job, options, brief=words < _MANY_WORDS)
            found = _read_matches(job)
        finally:
            if not local:
                remove_own(job.output, job.staging)
    return _describe(opened, job, found, recordings)


def _count(opened: Iterable[OpenSnapshot]) -> tuple[int, float]:
    """Return the number of measured recordings, and their length in seconds."""
    recordings, seconds = 0, 0.0
    for snapshot in opened:
        columns = ["status", "seconds"]
        for batch in read_batches(snapshot.store, snapshot.snapshot.index, "recordings", columns):
            values = (batch[name].to_pylist() for name in columns)
            for status, length in zip(*values, strict=True):
                if status in ("ok", "partial", "deselected"):
                    recordings, seconds = recordings + 1, seconds + length
    return recordings, seconds


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


#: A match as the workers write it: two numbers, kind, offset and overlap in words, and error.
_Found = tuple[int, int, Kind, int, int, float]


def _read_matches(job: MatchJob) -> list[_Found]:
    """Return the matches; of two exact copies, the exact match alone."""
    names = sorted(job.output.names(job.matches))
    found: list[_Found] = [
        tuple(row) for name in names for row in json.loads(job.output.read(name))
    ]
    exact = group((first, second) for first, second, kind, *_ in found if kind == "exact")
    return [
        row for row in found if row[2] == "exact" or exact.get(row[0], -1) != exact.get(row[1], -2)
    ]


def _describe(
    opened: Sequence[OpenSnapshot], job: MatchJob, found: Sequence[_Found], number: int
) -> Duplicates:
    numbers = {number for first, second, *_ in found for number in (first, second)}
    recordings = dict(_read_recordings(job, numbers))
    rows = [_with_lengths(row, recordings) for row in found]
    matches = [_match(row, recordings) for row in rows]
    pairs = [(first, second) for first, second, kind, *_ in rows if kind != "contained"]
    members: defaultdict[int, list[MatchedRecording]] = defaultdict(list)
    for member, smallest in group(pairs).items():
        members[smallest].append(recordings[member])
    groups = [tuple(best_first(same)) for same in members.values()]
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


def _together(job: MatchJob, groups: Iterable[Sequence[MatchedRecording]]) -> frozenset[str]:
    """Return the URIs in groups whose file has other recordings that are to be kept."""
    copies = Counter(m.uri for members in groups for m in members[len(job.datasets) == 1 :])
    if not copies:
        return frozenset()
    uris: Counter[str] = Counter()
    for place in job.places():
        uris.update(uri for uri in job.read(place, ["uri"])[0].to_pylist() if uri in copies)
    return frozenset(uri for uri, number in copies.items() if uris[uri] > number)


def _with_lengths(row: _Found, recordings: Mapping[int, MatchedRecording]) -> _Found:
    """Return a match; recordings of other lengths are not the same, whatever was compared.

    The silence of a recording, and its sound after half an hour, have no words.
    """
    first, second, kind, offset, overlap, error = row
    lengths = recordings[first].seconds, recordings[second].seconds
    if kind != "same" or min(lengths) >= _SAME_LENGTH * max(lengths):
        return row
    if lengths[0] > lengths[1]:
        first, second, offset = second, first, -offset
    return first, second, "contained", offset, overlap, error


def _read_recordings(
    job: MatchJob, numbers: Iterable[int]
) -> Iterator[tuple[int, MatchedRecording]]:
    """Yield the recordings with some numbers; one part of the index is in memory at a time."""
    by_place: defaultdict[int, list[int]] = defaultdict(list)
    for number in numbers:
        by_place[place_of(number)].append(number)
    for place, members in sorted(by_place.items()):
        table = job.read(place, _COLUMNS).take([row_of(number) for number in members])
        for number, row in zip(members, table.to_pylist(), strict=True):
            yield number, MatchedRecording(dataset_at(place), *row.values())


def _match(row: _Found, recordings: Mapping[int, MatchedRecording]) -> RecordingMatch:
    first, second, kind, offset, overlap, error = row
    pair = recordings[first], recordings[second]
    compared = pair[0].seconds if kind == "exact" else overlap / WORDS_PER_SECOND
    by_uri = [(recording.dataset, recording.uri) for recording in pair]
    if kind != "contained" and by_uri[1] < by_uri[0]:
        pair, offset = (pair[1], pair[0]), -offset
    return RecordingMatch(kind, *pair, offset / WORDS_PER_SECOND, compared, error)
