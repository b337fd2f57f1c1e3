"""Matches recordings by their fingerprints: finds exact and near duplicates."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.duplicates.candidates import (
    POSTING,
    VOTE,
    key_bits,
    merge_votes,
    pick,
    postings,
    vote,
)
from melmill.transforms.duplicates.prints import MatchJob, dataset_at, place_of
from melmill.transforms.duplicates.verification import Match, compare

_Array = npt.NDArray[Any]

#: Number of words whose postings one worker votes with at a time: up to 0.4 GB.
_WORDS_PER_RANGE = 500_000
#: Number of postings that one worker collects before it sends them.
_POSTINGS_PER_BLOCK = 1_000_000


@dataclass(eq=False)
class MatchRecordings(beam.PTransform):
    """Find the recordings that sound the same, and write the matches to files.

    The input is one element with any value (see
    :class:`~melmill.transforms.check_workers.CheckWorkers`). Blocks of postings, each of a range of
    keys, are grouped; so no worker compares all pairs. The output is the names of the files, each
    with matches as JSON: ``first``, ``second`` (numbers of recordings), ``kind``, ``offset`` and
    ``overlap`` (in words of a tenth of a second), ``error``. A retry writes the same files again.

    Attributes
    ----------
    job
        Description of the search.
    """

    job: MatchJob

    def expand(self, start: beam.PCollection[str]) -> beam.PCollection[str]:
        """Collect pairs with words in common, then compare the fingerprints of each pair."""
        job, ranges = self.job, 1 + self.job.words // _WORDS_PER_RANGE
        places = (
            start
            | "ListParts" >> beam.FlatMap(_list_places, job)
            | "SpreadParts" >> beam.Reshuffle()
        )
        exact = (
            places
            | "ReadDigests" >> beam.FlatMap(job.digests)
            | "GroupByDigest" >> beam.GroupByKey()
            | "ConnectEqual" >> beam.FlatMap(_connect, job)
            | "GroupEqual" >> beam.GroupByKey()
        )
        near = (
            places
            | "CutPostings" >> beam.ParDo(_CutPostings(job, ranges))
            | "GroupByKeys" >> beam.GroupByKey()
            | "Vote" >> beam.FlatMap(_vote, job, ranges)
            | "GroupByPairs" >> beam.GroupByKey()
            | "PickCandidates" >> beam.FlatMap(_pick)
            | "GroupByFirst" >> beam.GroupByKey()
            | "TakeFirst" >> beam.FlatMap(_take_first, job)
            | "GroupBySecond" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_Compare(job))
        )
        matches = (exact, near) | "JoinMatches" >> beam.Flatten()
        return matches | "WriteMatches" >> beam.Map(_write, job)


def _list_places(_: Any, job: MatchJob) -> list[int]:
    return list(job.places())


def _connect(group: tuple[str, Iterable[int]], job: MatchJob) -> Iterator[tuple[str, Any]]:
    """Yield exact matches that connect all recordings with one digest."""
    numbers = sorted(group[1])
    # The smallest number; of two datasets, the smallest number of each.
    hubs = {dataset_at(place_of(number)): number for number in reversed(numbers)}.values()
    pairs = {(hub, number) for hub in hubs for number in numbers if job.wants(hub, number)}
    for first, second in sorted({(min(pair), max(pair)) for pair in pairs}):
        yield f"exact-{group[0][-2:]}", (first, second, "exact", 0, 0, 0.0)


class _CutPostings(ReportingDoFn):
    """Reads the fingerprints of a part, and yields blocks of postings by the range of keys."""

    def __init__(self, job: MatchJob, ranges: int) -> None:
        super().__init__(job.progress)
        self.job, self.ranges, self.extra_bits = job, ranges, key_bits(job.words)

    def process(self, place: int) -> Iterator[tuple[int, bytes]]:
        blocks, size = list[_Array](), 0
        for number, words in self.job.fingerprints(place):
            blocks.append(postings(number, words, self.extra_bits))
            size += len(blocks[-1])
            self.progress.add(fingerprints=1)
            if size > _POSTINGS_PER_BLOCK:
                yield from _deal(np.concatenate(blocks), "key", self.ranges)
                blocks, size = [], 0
        if size:
            yield from _deal(np.concatenate(blocks), "key", self.ranges)


def _deal(rows: _Array, field: str, ranges: int) -> Iterator[tuple[int, bytes]]:
    """Yield rows by the range of the field's hash, as bytes."""
    # Fibonacci hashing: the upper bits of a product spread keys that are alike.
    hashes = (rows[field].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    numbers = hashes % np.uint64(ranges)
    for number in np.unique(numbers):
        yield int(number), rows[numbers == number].tobytes()


def _vote(
    group: tuple[int, Iterable[bytes]], job: MatchJob, ranges: int
) -> Iterator[tuple[int, bytes]]:
    votes = vote(np.concatenate([np.frombuffer(block, POSTING) for block in group[1]]))
    wanted = votes[job.wants(votes["first"], votes["second"])]
    if len(wanted):
        yield from _deal(wanted, "first", ranges)


def _pick(group: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
    candidates = pick(merge_votes([np.frombuffer(block, VOTE) for block in group[1]]))
    yield from _by_place(candidates, "first")


def _by_place(candidates: _Array, field: str) -> Iterator[tuple[int, bytes]]:
    places = np.array([place_of(int(number)) for number in candidates[field]], np.int64)
    for place in np.unique(places):
        yield int(place), candidates[places == place].tobytes()


def _take_first(
    group: tuple[int, Iterable[bytes]], job: MatchJob
) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Yield candidates by the place of the second recording, with the words of the first ones."""
    candidates = np.concatenate([np.frombuffer(block, VOTE) for block in group[1]])
    words = _words_of(job, group[0], candidates["first"])
    for place, block in _by_place(candidates, "second"):
        firsts = np.unique(np.frombuffer(block, VOTE)["first"]).tolist()
        yield place, (block, pickle.dumps({number: words[number] for number in firsts}))


def _words_of(job: MatchJob, place: int, numbers: _Array) -> dict[int, npt.NDArray[np.uint32]]:
    wanted = set(numbers.tolist())
    return {number: words for number, words in job.fingerprints(place) if number in wanted}


class _Compare(ReportingDoFn):
    """Compares the fingerprints of candidates, and yields the matches by the file's name."""

    def __init__(self, job: MatchJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(
        self, group: tuple[int, Iterable[tuple[bytes, bytes]]]
    ) -> Iterator[tuple[str, list[Any]]]:
        place, blocks = group[0], list(group[1])
        seconds = [np.frombuffer(block, VOTE)["second"] for block, _ in blocks]
        words = _words_of(self.job, place, np.concatenate(seconds))
        found: dict[tuple[int, int], Match] = {}
        for block, firsts in blocks:
            first_words = pickle.loads(firsts)
            for first, second, offset, _ in np.frombuffer(block, VOTE).tolist():
                self.progress.add(compared=1)
                match = compare(first_words[first], words[second], offset)
                if match is not None:
                    known = found.get((first, second), match)
                    found[first, second] = min(match, known, key=_quality)
        if found:
            rows = [(*pair, *astuple(match)) for pair, match in sorted(found.items())]
            yield f"near-{place:06d}", rows


def _quality(match: Match) -> tuple[bool, float, int]:
    return match.kind != "same", match.error, match.offset


def _write(group: tuple[str, Iterable[Any]], job: MatchJob) -> str:
    name, matches = group
    file = f"{job.matches}/{name}.json"
    job.output.put(file, json.dumps(sorted(matches)).encode())
    return file
