"""Describing: the results of a search, with what the index says of the recordings in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from melmill.transforms.patterns.ranking import RecordingSum
from melmill.transforms.patterns.reasons import UsualReadings
from melmill.transforms.patterns.recordings import IndexedRecording, RecordingIndex, is_drawn
from melmill.transforms.patterns.results import Cluster, RankedChunk, RankedRecording
from melmill.transforms.patterns.searching import Search


@dataclass(frozen=True, slots=True)
class Describer:
    """What the index says of the recordings that a search found.

    Attributes
    ----------
    search
        Search, after all recordings were added.
    known
        Seconds and readings of each listed recording, by id.
    usual
        What is usual in all recordings.
    of_clusters
        Readings of recordings of each cluster, by the cluster's number.
    """

    search: Search
    known: Mapping[str, tuple[float, dict[str, float]]]
    usual: UsualReadings
    of_clusters: Mapping[int, list[dict[str, float]]]

    @classmethod
    def read(cls, search: Search, index: RecordingIndex) -> Describer:
        """Return what an index says, read part by part."""
        known, drawn = dict[str, tuple[float, dict[str, float]]](), list[dict[str, float]]()
        of_clusters: defaultdict[int, list[dict[str, float]]] = defaultdict(list)
        listed = search.listed()
        for recording_id, seconds, readings in index.readings(listed, search.share):
            if recording_id in listed:
                known[recording_id] = seconds, readings
            if is_drawn(recording_id, search.share):
                drawn.append(readings)
            if recording_id in search.cluster_of:
                of_clusters[search.cluster_of[recording_id]].append(readings)
        return cls(search, known, UsualReadings(drawn), of_clusters)

    @property
    def measured(self) -> bool:
        """Whether listed recordings have readings."""
        return any(readings for _, readings in self.known.values())

    def like(self) -> RankedRecording | None:
        """Return the recording that the others are compared with."""
        target = self.search.target
        return None if target is None else self._recording(target, 0.0)

    def recordings(self) -> tuple[RankedRecording, ...]:
        """Return the best recordings."""
        return tuple(self._recording(r, score) for score, r in self.search.recordings.items())

    def chunks(self, rate_hz: int) -> tuple[RankedChunk, ...]:
        """Return the best chunks; their places are counted at a sample rate."""
        return tuple(_chunk(r, rate_hz, score) for score, r in self.search.chunks.items())

    def clusters(self) -> tuple[Cluster, ...]:
        """Return the clusters that have recordings, the largest first."""
        clusters = [
            Cluster(
                group.recordings,
                group.chunks,
                tuple(self._recording(r, score) for score, r in group.nearest.items()),
                self.usual.typical(self.of_clusters.get(number, [])),
            )
            for number, group in enumerate(self.search.groups)
            if group.recordings
        ]
        return tuple(sorted(clusters, key=lambda cluster: -cluster.recording_count))

    def _recording(
        self, recording: RecordingSum | IndexedRecording, score: float
    ) -> RankedRecording:
        seconds, readings = self.known[recording.recording_id]
        names = recording.recording_id, recording.uri, recording.split
        reasons = self.usual.reasons(readings)
        return RankedRecording(*names, seconds, recording.rows, abs(score), reasons)


def _chunk(recording: RecordingSum, rate_hz: int, score: float) -> RankedChunk:
    names, best = (recording.recording_id, recording.uri, recording.split), recording.best
    place = best.chunk_index, best.channel, best.start_sample / rate_hz
    return RankedChunk(*names, *place, abs(score))
