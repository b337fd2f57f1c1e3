"""The excerpts of a report's examples, made in decoder processes, several at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from melmill.pipelines.check import in_order
from melmill.pipelines.config import LimitsConfig
from melmill.pipelines.explore.chunk_rows import ChunkReader
from melmill.pipelines.report.contents import Candidate, Contents, Defect
from melmill.pipelines.report.excerpts import Excerpt, make_excerpt, place_around
from melmill.transforms.core.errors import Cause, DatasetError, RecordingError, UnavailableError
from melmill.transforms.decode.lending import borrow_decoder, return_decoder
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Example:
    """A recording with a defect, to see and to hear.

    Attributes
    ----------
    defect
        The limit that it breaks.
    candidate
        The recording.
    excerpt
        Picture and sound; ``None`` if there are none.
    missing
        Reason why there are none; ``""`` if there are.
    """

    defect: Defect
    candidate: Candidate
    excerpt: Excerpt | None
    missing: str = ""


def make_examples(
    contents: Contents, source_options: StorageOptions = (), workers: int = 2
) -> Generator[Example, None, None]:
    """Yield the examples of all defects: first the worst of each, then the second of each.

    Parameters
    ----------
    contents
        The report.
    source_options
        fsspec options for the recordings' own store.
    workers
        Number of decoder processes.
    """
    chunks = ChunkReader(contents.reported.opened.store)

    def make(pair: tuple[Defect, Candidate]) -> Example:
        try:
            return Example(*pair, _excerpt(pair[1], chunks, source_options))
        except UnavailableError:
            raise
        except (RecordingError, DatasetError) as error:
            return Example(*pair, None, _reason(error))

    return in_order(make, by_rank(contents.defects), workers)


def by_rank(defects: Sequence[Defect]) -> list[tuple[Defect, Candidate]]:
    """Return the candidates of all defects: first the worst of each, then the second of each."""
    ranks = range(max((len(defect.candidates) for defect in defects), default=0))
    return [
        (defect, defect.candidates[rank])
        for rank in ranks
        for defect in defects
        if rank < len(defect.candidates)
    ]


def _excerpt(candidate: Candidate, chunks: ChunkReader, options: StorageOptions) -> Excerpt:
    audio, fingerprint = candidate.audio, candidate.fingerprint
    source = StoredObject(candidate.uri, candidate.size_bytes, options, fingerprint)
    place = place_around(audio, *_bounds(candidate, chunks), candidate.second)
    if audio.channels > 2:
        place = replace(place, channel=candidate.channel)
    limits = LimitsConfig().spec()
    decoder = borrow_decoder(limits.memory_bytes)
    try:
        return decoder.call(limits.timeout_s, make_excerpt, source, audio, fingerprint, place)
    finally:
        return_decoder(limits.memory_bytes, decoder)


def _bounds(candidate: Candidate, chunks: ChunkReader) -> tuple[int, int]:
    """Return the frames of a recording, or of a segment: its first chunk says where it starts."""
    audio = candidate.audio
    if not candidate.is_segment:
        return 0, audio.frames
    names = "recording_id", "split", "shards"
    rows = chunks.chunks({name: getattr(candidate, name) for name in names})
    if not rows:
        raise DatasetError("it is a segment without rows, so its place in the file is not known")
    start = round(rows[0].start_seconds * audio.sample_rate_hz)
    return start, min(audio.frames, start + round(candidate.seconds * audio.sample_rate_hz))


def _reason(error: RecordingError | DatasetError) -> str:
    if isinstance(error, DatasetError):
        return str(error)
    if error.cause is Cause.NOT_FOUND:
        return "the file is no longer there"
    return f"{error.cause}: {error.message}"
