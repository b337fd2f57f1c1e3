"""The records that travel between stages: small, frozen, and free of audio.

Positions are integer samples. ``frames`` counts samples per channel at the recording's
own rate; everything named ``*_sample`` counts samples at the target rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from melmill.transforms.core.errors import Cause, RecordingError, Stage

#: A label as the catalogue's table gave it: one value, or a list of them.
Scalar = str | int | float | bool | None
Label = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio object, or one segment of it, as the catalogue lists it.

    Attributes
    ----------
    recording_id
        Stable digest of the URI relative to the catalogue's root, and of the segment.
    uri
        Where the audio is, as fsspec opens it.
    relative_uri
        The URI below the catalogue's root; what the split is drawn from.
    fingerprint
        The store's own version of the object (ETag and size, generation, or size and
        mtime); ``""`` where the catalogue is a table and the object was not seen yet.
    size_bytes
        The object's size; ``-1`` where not seen yet.
    start_seconds, end_seconds
        The segment that the catalogue asks for; ``None`` for the recording's own ends.
    split
        The split that the catalogue's table gives it, if any.
    labels
        ``(column, value)`` pairs, in the order of the table's columns.
    origin
        Where the catalogue says so (``songs.csv line 7``), for messages.
    change
        What a refresh found of it, a key of
        :attr:`~melmill.transforms.plan.comparing.Difference.counts`; of recordings that stay out,
        why.
    content_hash
        SHA-256 of the object's bytes, where the job asks for it; see
        :func:`~melmill.transforms.store.objects.hash_content`.
    fault
        Cause and message where the catalogue's entry itself is wrong: nothing of it is read.
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
    # Not among what a shard's name is made of: its rows do not tell it.
    content_hash: str = field(default="", repr=False)
    fault: tuple[Cause, str] | None = field(default=None, repr=False)
    change: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording's header says, after it was found plausible.

    Attributes
    ----------
    container, codec
        Lower-case names (``wav``/``pcm_16``, ``ogg``/``vorbis``, ``m4a``/``aac``).
    decoder
        Which reader opens it: ``libsndfile`` or ``pyav``.
    sample_rate_hz, channels, frames
        As decoded; ``frames`` is the number of samples per channel.
    tags
        Title, artist, album and the like, as ``(name, value)`` pairs sorted by name.
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
        The recording, and what is read of it.
    damage
        Why that is not all of the recording; ``None`` where it is.
    """

    recording: Recording
    audio: AudioInfo
    damage: Failure | None = None

    @property
    def seconds(self) -> float:
        """Length of what is used of the file: all of it, or the segment."""
        whole = self.audio.frames / self.audio.sample_rate_hz
        end = self.recording.end_seconds
        stop = whole if end is None else min(whole, end)
        return max(0.0, stop - (self.recording.start_seconds or 0.0))


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the failures table: one recording that could not be used, and why.

    Attributes
    ----------
    recording_id, uri, fingerprint
        Which recording, in which version.
    stage, cause, message
        Where it failed, why, and what was seen.
    audio
        What can be read of it in spite of that; see
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
        """Say of a recording what went wrong with it."""
        return cls(
            recording.recording_id,
            recording.uri,
            recording.fingerprint,
            error.stage,
            error.cause,
            error.message,
            error.audio,
        )
