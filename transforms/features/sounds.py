"""The files of variants, such as noise: examined once before a run, read by its workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, ConfigError, RecordingError
from melmill.transforms.decode.decoders import open_audio, probe_object
from melmill.transforms.features.chunks import resampled_length
from melmill.transforms.features.decoded_spans import block_frames, read_samples
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.variants_spec import SoundFile
from melmill.transforms.store.objects import StoredObject

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

Samples = npt.NDArray[np.float32]

#: Causes that fail only the recording whose variant needs a file: a later run may succeed.
_PASSING_CAUSES = (Cause.STORAGE_ERROR, Cause.TIMEOUT, Cause.OUT_OF_MEMORY)


def examine_sound(source: StoredObject) -> SoundFile:
    """Return the description of a file, after its header and its content were read.

    Raises
    ------
    RecordingError
        The file cannot be read, or is no audio.
    """
    audio, size_bytes, fingerprint, sha256 = probe_object(source, segment="")
    return SoundFile(source.uri, size_bytes, fingerprint, sha256, replace(audio, tags=()))


def require_decodable(file: SoundFile, options: StorageOptions) -> None:
    """Decode a file to its end.

    Raises
    ------
    RecordingError
        The header lies, or the file is damaged.
    ConfigError
        The file is silent.
    """
    with open_audio(_stored(file, options), file.audio) as reader:
        blocks = reader.blocks(0, file.audio.frames, block_frames(file.audio))
        is_silent = not sum(bool(block.any()) for block in blocks)
        reader.finish()
    if is_silent:
        raise ConfigError(f"{file.uri} is silent")


def digest_of_sounds(files: Iterable[SoundFile]) -> str:
    """Return the SHA-256 of the contents of files, in any order."""
    return hashlib.sha256("".join(sorted(file.sha256 for file in files)).encode()).hexdigest()


def _stored(file: SoundFile, options: StorageOptions) -> StoredObject:
    return StoredObject(file.uri, file.size_bytes, options, file.fingerprint)


# A response is read for each chunk, and is at most ten seconds long.
@lru_cache(maxsize=8)
def read_response(file: SoundFile, at_rate: FeatureSpec, options: StorageOptions) -> Samples:
    """Return a whole file, float32 [samples], mixed to mono; for errors, see `read_stretch`."""
    total = resampled_length(file.audio.frames, file.audio.sample_rate_hz, at_rate.sample_rate_hz)
    return _read(file, at_rate, options, 0, total)


def read_stretch(
    file: SoundFile, at_rate: FeatureSpec, options: StorageOptions, count: int, place: float
) -> Samples:
    """Return a stretch of a file, mixed to mono, at the sample rate of features.

    A file that is shorter than the stretch is repeated.

    Parameters
    ----------
    file, options
        File, and options of fsspec for it.
    at_rate
        Settings for the sample rate.
    count
        Number of samples.
    place
        Number in [0, 1) that says where the stretch begins.

    Returns
    -------
    float32 [count]

    Raises
    ------
    ConfigError
        The file cannot be read, or changed since the run started.
    RecordingError
        The store does not answer at the moment.
    """
    audio, rate_hz = file.audio, at_rate.sample_rate_hz
    total = resampled_length(audio.frames, audio.sample_rate_hz, rate_hz)
    if total < count:
        whole = _read(file, at_rate, options, 0, total)
        return whole[(int(place * total) + np.arange(count)) % total]
    start = int(place * (total - count + 1))
    return _read(file, at_rate, options, start, start + count)


def _read(
    file: SoundFile, at_rate: FeatureSpec, options: StorageOptions, start: int, stop: int
) -> Samples:
    mono, source = replace(at_rate, channels="mono"), _stored(file, options)
    try:
        blocks = list(read_samples(file.audio, mono, source, start, stop))
        if not source.holds_version and source.stat()[1] != file.fingerprint:
            raise ConfigError(f"variants: {file.uri} changed during the run; run it again")
    except RecordingError as error:
        message = f"variants: {file.uri}: {error.message}"
        if error.cause in _PASSING_CAUSES:
            raise RecordingError(error.stage, error.cause, message) from error
        raise ConfigError(message) from error
    return np.concatenate(blocks)[:, 0]
