"""Where a recording's sound comes from: its source, as the index names it, and its header."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from melmill.pipelines.explore.kept import Kept
from melmill.pipelines.sound.decoder_pool import DecoderPool
from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.objects import StoredObject

#: Number of results of probes, and of damages, that are kept.
_PROBES = 1_000
_HEADER = ("container", "codec", "decoder", "sample_rate_hz", "channels", "frames")
_CHANGED = (
    "The file was changed after this version of the dataset was made: you see and hear it as it is "
    "now. Readings and features are of the file as it was; refresh the dataset to renew them."
)


@dataclass(frozen=True, slots=True)
class SoundSource:
    """A recording that can be decoded, at least in part.

    Attributes
    ----------
    source
        The recording.
    audio
        Its header, or what can be read of it.
    notices
        What a listener must know: the file was changed, or a part of it is missing.
    """

    source: StoredObject
    audio: AudioInfo
    notices: tuple[str, ...] = ()


class SoundSources:
    """The sources of recordings.

    Parameters
    ----------
    decoders
        Processes in which headers are read.
    options
        fsspec options for the recordings' own store.
    """

    def __init__(self, decoders: DecoderPool, options: StorageOptions) -> None:
        self._decoders, self._options = decoders, options
        self._probes: Kept[AudioInfo | RecordingError] = Kept(_PROBES, lambda probe: 1)
        self._damages: OrderedDict[StoredObject, RecordingError] = OrderedDict()

    def find(self, row: Mapping[str, Any]) -> SoundSource:
        """Return the source of a recording of the index.

        If the file is the one that the dataset was made from, its header is in the index. Otherwise
        it is read.

        Raises
        ------
        RecordingError
            The source is gone or cannot be read, or nothing of it can be decoded; the message says
            what to do.
        """
        source = StoredObject(row["uri"], storage_options=self._options)
        try:
            size_bytes, fingerprint = source.stat()
        except RecordingError as error:
            raise _explained(error, row["uri"]) from error
        source = replace(source, size_bytes=size_bytes, fingerprint=fingerprint)
        damage = self._damages.get(source)
        if damage is not None and damage.audio is not None:
            return SoundSource(source, damage.audio, (_notice(damage),))
        was_changed = bool(row["fingerprint"]) and fingerprint != row["fingerprint"]
        notices = (_CHANGED,) if was_changed else ()
        is_known = row["status"] != "failed" and all(row[name] is not None for name in _HEADER)
        if is_known and not was_changed:
            return SoundSource(source, AudioInfo(*(row[name] for name in _HEADER)))
        probe = self._probes.get(source, lambda: self._probe(source))
        if isinstance(probe, AudioInfo):
            return SoundSource(source, probe, notices)
        if probe.audio is None:
            raise RecordingError(probe.stage, probe.cause, probe.message)
        return SoundSource(source, probe.audio, (*notices, _notice(probe)))

    def note_damage(self, found: SoundSource, error: RecordingError) -> None:
        """Remember up to where a recording can be decoded, so that its sound ends there."""
        if error.audio is not None and error.audio != found.audio:
            self._damages[found.source] = error
            if len(self._damages) > _PROBES:
                self._damages.popitem(last=False)

    def _probe(self, source: StoredObject) -> AudioInfo | RecordingError:
        try:
            return self._decoders.call(source.uri, probe_audio, source)
        except RecordingError as error:
            if error.cause in TRANSIENT_CAUSES:  # not kept: the next request asks again
                raise
            return error


def _notice(error: RecordingError) -> str:
    if error.cause is Cause.LENGTH_MISMATCH:
        return f"The file's header is wrong, and all of its sound is here: {error.message}"
    return f"Only a part of the file can be read: {error.message}"


def _explained(error: RecordingError, uri: str) -> RecordingError:
    """Return the error with what to do about it."""
    advice = {
        Cause.NOT_FOUND: "the source is gone: put it back, or mount its disk, to see and hear it",
        Cause.PERMISSION_DENIED: "this user may not read it: change its permissions, or give the "
        "store's credentials",
    }.get(error.cause, "the store did not give it: try again later")
    return RecordingError(error.stage, error.cause, f"{uri}: {advice} ({error.message})")
