"""Matches recordings by their fingerprints and waveforms: finds exact and near duplicates."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.duplicates.blocks import pack, unpack
from melmill.transforms.duplicates.candidates import (
    POSTING,
    VOTE,
    key_bits,
    merge_votes,
    mixed,
    pick,
    postings,
    vote,
)
from melmill.transforms.duplicates.correlation import compare_waveforms
from melmill.transforms.duplicates.grouping import TICKS_PER_SECOND, FoundMatch
from melmill.transforms.duplicates.match_job import (
    MatchJob,
    Print,
    has_waveforms,
    place_of,
    without_kind,
)
from melmill.transforms.duplicates.verification import Match, compare
from melmill.transforms.duplicates.waveform_candidates import waveform_key_bits, waveform_postings
from melmill.transforms.measures.acoustic_fingerprint import WORDS_PER_SECOND

_Array = npt.NDArray[Any]
_PrintOf = Mapping[int, Print]

#: Number of words whose postings one worker votes with at a time: up to 0.4 GB.
_WORDS_PER_RANGE = 500_000
#: Number of ranges of keys for each range of pairs.
_KEY_RANGES_PER_PAIR_RANGE = 4
#: Number of candidates whose first fingerprints travel together: up to 72 MB.
_CANDIDATES_PER_BLOCK = 1_000
#: Number of postings that one worker collects before it sends them.
_POSTINGS_PER_BLOCK = 1_000_000


@dataclass(eq=False)
class MatchFingerprints(beam.PTransform):
    """Find the recordings that sound the same.

    The input is one :class:`~melmill.transforms.duplicates.match_job.MatchJob`. Blocks of postings,
    each of a range of keys, are grouped; so no worker compares all pairs. Fingerprints are matched
    with fingerprints, and waveforms of short recordings with waveforms. The output is lists of
    :data:`~melmill.transforms.duplicates.grouping.FoundMatch`. A retry gives the same matches.

    Attributes
    ----------
    progress
        Address at which the launcher listens; ``""`` if it does not listen.
    """

    progress: str = ""

    def expand(self, jobs: beam.PCollection[MatchJob]) -> beam.PCollection[list[FoundMatch]]:
        """Collect pairs with keys in common, then compare the fingerprints of each pair."""
        job = beam.pvalue.AsSingleton(jobs)
        places = (
            jobs | "ListParts" >> beam.FlatMap(_list_places) | "SpreadParts" >> beam.Reshuffle()
        )
        exact = (
            places
            | "ReadDigests" >> beam.FlatMap(_read_digests, job)
            | "GroupByDigest" >> beam.GroupByKey()
            | "ConnectEqual" >> beam.FlatMap(_connect)
            | "GroupEqual" >> beam.GroupByKey()
            | "ListEqual" >> beam.MapTuple(_list_equal)
        )
        near = (
            places
            | "CutPostings" >> beam.ParDo(_CutPostings(self.progress), job)
            | "GroupByKeys" >> beam.GroupByKey()
            | "Vote" >> beam.FlatMap(_vote, job)
            | "GroupByPairs" >> beam.GroupByKey()
            | "PickCandidates" >> beam.FlatMap(_pick)
            | "GroupByFirst" >> beam.GroupByKey()
            | "TakeFirst" >> beam.FlatMap(_take_first, job)
            | "GroupBySecond" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_Compare(self.progress), job)
        )
        return (exact, near) | "JoinMatches" >> beam.Flatten()


def _list_places(job: MatchJob) -> list[int]:
    return list(job.places())


def _read_digests(place: int, job: MatchJob) -> Iterator[tuple[str, int]]:
    yield from job.digests(place)


def _ranges(job: MatchJob) -> int:
    return 1 + job.size // _WORDS_PER_RANGE


def _connect(group: tuple[str, Iterable[int]]) -> Iterator[tuple[str, FoundMatch]]:
    """Yield exact matches that connect all recordings with one digest."""
    first, *others = sorted(group[1])
    for other in others:
        yield group[0][-2:], (first, other, "exact", 0, 0, 0.0)


def _list_equal(_: str, matches: Iterable[FoundMatch]) -> list[FoundMatch]:
    return sorted(matches)


class _CutPostings(ReportingDoFn):
    """Reads the fingerprints of a part, and yields blocks of postings by the range of keys."""

    def process(self, place: int, job: MatchJob) -> Iterator[tuple[int, bytes]]:
        blocks, size, ranges = list[_Array](), 0, _ranges(job)
        for rows in _postings(place, job):
            blocks.append(rows)
            size += len(rows)
            self.progress.add(fingerprints=1)
            if size > _POSTINGS_PER_BLOCK:
                yield from _deal(np.concatenate(blocks), "key", ranges)
                blocks, size = [], 0
        if size:
            yield from _deal(np.concatenate(blocks), "key", ranges)


def _postings(place: int, job: MatchJob) -> Iterator[_Array]:
    """Yield the postings of each fingerprint and each waveform of a part."""
    of_words, of_waveforms = key_bits(job.words), waveform_key_bits(job.waveforms)
    for print_place in job.with_waveforms(place):
        for number, content in job.prints(print_place):
            if has_waveforms(print_place):
                yield waveform_postings(number, content, of_waveforms)
            else:
                yield postings(number, content, of_words)


def _deal(rows: _Array, field: str, ranges: int) -> Iterator[tuple[int, bytes]]:
    """Yield rows by the range of the field's hash, as bytes."""
    numbers = (mixed(rows[field]) >> np.uint64(40)) % np.uint64(ranges)
    for number, some in _divide(rows, numbers.astype(np.int64)):
        yield number, pack(some)


def _divide(rows: _Array, numbers: npt.NDArray[np.int64]) -> Iterator[tuple[int, _Array]]:
    """Yield rows by their numbers."""
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows[order], numbers[order]
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)])
    for start, stop in pairwise([*starts.tolist(), len(rows)]):
        yield int(numbers[start]), rows[start:stop]


def _vote(group: tuple[int, Iterable[bytes]], job: MatchJob) -> Iterator[tuple[int, bytes]]:
    rows = np.concatenate([unpack(block, POSTING) for block in group[1]])
    ranges = 1 + _ranges(job) // _KEY_RANGES_PER_PAIR_RANGE
    yield from _deal(vote(rows, job.is_known), "first", ranges)


def _pick(group: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
    candidates = pick(merge_votes([unpack(block, VOTE) for block in group[1]]))
    for place, some in _by_place(candidates, "first"):
        yield place, pack(some)


def _by_place(candidates: _Array, field: str) -> Iterator[tuple[int, _Array]]:
    yield from _divide(candidates, place_of(candidates[field].astype(np.int64)))


def _take_first(
    group: tuple[int, Iterable[bytes]], job: MatchJob
) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Yield candidates by the place of the second recording, with the prints of the first ones."""
    candidates = np.concatenate([unpack(block, VOTE) for block in group[1]])
    prints = _prints_of(job, group[0], candidates["first"])
    for place, rows in _by_place(candidates, "second"):
        for start in range(0, len(rows), _CANDIDATES_PER_BLOCK):
            some = rows[start : start + _CANDIDATES_PER_BLOCK]
            firsts = {number: prints[number] for number in np.unique(some["first"]).tolist()}
            yield place, (pack(some), pickle.dumps(firsts))


def _prints_of(job: MatchJob, place: int, numbers: _Array) -> dict[int, Print]:
    wanted = set(numbers.tolist())
    return {number: content for number, content in job.prints(place) if number in wanted}


class _Compare(ReportingDoFn):
    """Compares the fingerprints of candidates, and yields the matches."""

    def process(
        self, group: tuple[int, Iterable[tuple[bytes, bytes]]], job: MatchJob
    ) -> Iterator[list[FoundMatch]]:
        place, blocks = group
        seconds = [np.unique(unpack(block, VOTE)["second"]) for block, _ in blocks]
        prints = _prints_of(job, place, np.concatenate(seconds))
        compared = compare_waveforms if has_waveforms(place) else compare
        found: dict[tuple[int, int], Match] = {}
        for block, firsts in blocks:
            first_prints = pickle.loads(firsts)
            for first, second, offset, _ in unpack(block, VOTE).tolist():
                self.progress.add(compared=1)
                match = compared(first_prints[first], prints[second], offset)
                if match is not None:
                    pair, match = _inner_first(first, second, match, first_prints, prints)
                    found[pair] = min(match, found.get(pair, match), key=_quality)
        if found:
            yield [_found(place, pair, match) for pair, match in sorted(found.items())]


def _found(place: int, pair: tuple[int, int], match: Match) -> FoundMatch:
    ticks = 1 if has_waveforms(place) else TICKS_PER_SECOND // WORDS_PER_SECOND
    first, second = map(without_kind, pair)
    return first, second, match.kind, match.offset * ticks, match.overlap * ticks, match.error


def _inner_first(
    first: int, second: int, match: Match, first_prints: _PrintOf, second_prints: _PrintOf
) -> tuple[tuple[int, int], Match]:
    """Return a match whose first recording is in the second one, if it is contained."""
    lengths = np.count_nonzero(first_prints[first]), np.count_nonzero(second_prints[second])
    if match.kind == "contained" and lengths[0] > lengths[1]:
        return (second, first), replace(match, offset=-match.offset)
    return (first, second), match


def _quality(match: Match) -> tuple[bool, float, int]:
    return match.kind != "same", match.error, match.offset
