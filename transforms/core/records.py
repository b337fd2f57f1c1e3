"""The records that the stages pass to each other: small, frozen, without audio.

Positions are integer samples. ``frames`` counts samples per channel at the recording's
own sample rate; every name ``*_sample`` counts samples at the target rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from melmill.transforms.core.errors import Cause, RecordingError, Stage

#: A label from the catalogue's table: a single value or a list of values.
Scalar = str | int | float | bool | None
Label = Scalar | tuple[Scalar, ...]


#: Statuses of recordings that have rows.
WITH_ROWS = ("ok", "partial")


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio object, or one segment of an object, that the catalogue lists.

    Attributes
    ----------
    recording_id
        Stable digest of the URI relative to the catalogue's root, and of the segment.
    uri
        URI of the audio, as fsspec opens it.
    relative_uri
        URI below the catalogue's root; the split is drawn from it.
    fingerprint
        Version that the store gives the object (ETag and size, generation, or size and
        mtime); ``""`` if the catalogue is a table and the object was not looked up yet.
    size_bytes
        Size of the object; ``-1`` if the object was not looked up yet.
    start_seconds, end_seconds
        Start and end of the segment in the catalogue; ``None`` for the start or the end of
        the recording.
    split
        Split that the catalogue's table gives, if any.
    labels
        ``(column, value)`` pairs, in the order of the table's columns.
    origin
        Place of the entry in the catalogue (``songs.csv line 7``), for messages.
    change
        Result of a refresh for this recording, a key of
        :attr:`~melmill.transforms.plan.change_records.Difference.counts`; for recordings that are
        left out, the reason.
    content_hash
        SHA-256 of the object's bytes, if the job asks for it; see
        :func:`~melmill.transforms.store.objects.hash_content`.
    carried_from
        Files of the snapshot that hold its rows, if their unchanged features are carried over.
    fault
        Cause and message if the catalogue's entry itself is wrong; its audio is not read.
    place
        Place in an archive, for a recording that is a member of it; see
        :class:`~melmill.transforms.store.archives.Place`.
    measures
        Readings that the snapshot has of the same version, as JSON; ``""`` if it has none.
    known_split
        Split in which the recording stays, if splits are stratified; ``""`` if it has none yet.
    """

    recording_id: str
    uri: str
    relative_uri: str
    fingerprint: str = ""
    size_bytes: int = -1
    start_seconds: float | None = None
    end_seconds: float | None = None
    split: str | None = None
    labels: tuple[tuple[str, Label], ...] = ()
    origin: str = ""
    # Not part of the repr, from which a shard's name is made: the rows do not hold the hash.
    content_hash: str = field(default="", repr=False)
    carried_from: tuple[str, ...] = field(default=(), repr=False, compare=False)
    fault: tuple[Cause, str] | None = field(default=None, repr=False)
    change: str = field(default="", repr=False, compare=False)
    measures: str = field(default="", repr=False, compare=False)
    known_split: str = field(default="", repr=False, compare=False)
    # Another version of the archive has the same member at another place.
    place: str = field(default="", repr=False, compare=False)

    @property
    def is_segment(self) -> bool:
        """Whether the catalogue names a segment of the object."""
        return self.start_seconds is not None or self.end_seconds is not None


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The header of a recording, after the check that it is plausible.

    Attributes
    ----------
    container, codec
        Names in lower case (``wav``/``pcm_16``, ``ogg``/``vorbis``, ``m4a``/``aac``).
    decoder
        Name of the reader that opens the file: ``libsndfile`` or ``pyav``.
    sample_rate_hz, channels, frames
        Values of the decoded audio; ``frames`` is the number of samples per channel.
    tags
        Title, artist, album and similar tags, as ``(name, value)`` pairs sorted by name.
    """

    container: str
    codec: str
    decoder: str
    sample_rate_hz: int
    channels: int
    frames: int
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProbedRecording:
    """A recording whose header was read.

    Attributes
    ----------
    recording, audio
        Recording, and the audio that can be read from it.
    damage
        Reason why a part of the recording cannot be read; ``None`` if all of it can.
    """

    recording: Recording
    audio: AudioInfo
    damage: Failure | None = None

    @property
    def seconds(self) -> float:
        """Length of the audio that is used: the whole file, or the segment."""
        whole = self.audio.frames / self.audio.sample_rate_hz
        end = self.recording.end_seconds
        stop = whole if end is None else min(whole, end)
        return max(0.0, stop - (self.recording.start_seconds or 0.0))


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the failures table: a recording that cannot be used, and the reason.

    Attributes
    ----------
    recording_id, uri, fingerprint
        Id, URI and version of the recording.
    stage, cause, message
        Stage at which the recording failed, reason, and description.
    audio
        Part of the recording that can still be read; see
        :class:`~melmill.transforms.core.errors.RecordingError`.
    """

    recording_id: str
    uri: str
    fingerprint: str
    stage: Stage
    cause: Cause
    message: str
    audio: AudioInfo | None = None

    @classmethod
    def of(cls, recording: Recording, error: RecordingError) -> Failure:
        """Return the failure of a recording that raised an error."""
        return cls(
            recording.recording_id,
            recording.uri,
            recording.fingerprint,
            error.stage,
            error.cause,
            error.message,
            error.audio,
        )


@dataclass(frozen=True, slots=True)
class MeasuredPart:
    """What the meters read from a part of a recording.

    Attributes
    ----------
    recording_id
        Recording.
    start, stop, total
        First frame and end of the part, and length of the recording.
    text
        Readings by group, as JSON, if the part is the whole recording; otherwise the states of the
        meters, as JSON, which are merged with those of the other parts.
    """

    recording_id: str
    start: int
    stop: int
    total: int
    text: str

    @property
    def is_whole(self) -> bool:
        """Whether the part is the whole recording."""
        return self.start == 0 and self.stop == self.total
