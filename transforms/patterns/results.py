"""Results: the listed recordings and chunks, and the groups."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.transforms.patterns.reasons import Reason


@dataclass(frozen=True, slots=True)
class RankedRecording:
    """A recording in a list.

    Attributes
    ----------
    recording_id, uri, split, seconds
        Columns of the index.
    chunks
        Number of its chunks.
    distance
        Distance from the centre of all chunks, or from the recording that it is compared with; that
        of the median chunk from the centre is 1. For a cluster, the distance from its centre; that
        of the median recording is 1.
    reasons
        Measures that are unusual in it; empty if it was not measured.
    """

    recording_id: str
    uri: str
    split: str
    seconds: float
    chunks: int
    distance: float
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class RankedChunk:
    """The chunk of a recording that is the most unusual, or the most like another recording.

    Attributes
    ----------
    recording_id, uri, split, chunk_index, channel
        Columns of its row; the channel is 0 if channels have no rows of their own.
    start_seconds
        Start of the chunk in the recording.
    distance
        See :class:`RankedRecording`.
    """

    recording_id: str
    uri: str
    split: str
    chunk_index: int
    channel: int
    start_seconds: float
    distance: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of recordings.

    Attributes
    ----------
    recording_count, chunk_count
        Number of its recordings, and of their chunks.
    nearest
        Recordings that are nearest to its centre.
    typical
        Measures whose median in the cluster differs from that of all recordings.
    """

    recording_count: int
    chunk_count: int
    nearest: tuple[RankedRecording, ...]
    typical: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns of a dataset.

    Attributes
    ----------
    dataset, version, feature
        Folder of the dataset, version that was read, and feature that was compared.
    compared, compared_chunks
        Number of recordings and of chunks that were compared.
    like
        Recording that the others are compared with; ``None`` for the most unusual recordings.
    recordings
        The most unusual recordings, or those most like another recording.
    chunks
        The most unusual chunks, or those most like another recording; one of each recording.
    clusters
        Groups of recordings, the largest first; empty unless they were asked for.
    measured
        Whether the index has readings, from which the reasons are made.
    """

    dataset: str
    version: int
    feature: str
    compared: int
    compared_chunks: int
    like: RankedRecording | None
    recordings: tuple[RankedRecording, ...]
    chunks: tuple[RankedChunk, ...]
    clusters: tuple[Cluster, ...]
    measured: bool
