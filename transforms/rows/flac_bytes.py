"""Waveforms of 16 bits as FLAC files: the same samples in less space."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile


def encode_flac(samples: npt.NDArray[np.int16], rate_hz: int) -> bytes:
    """Return samples of one channel as a FLAC file.

    The bytes depend on the samples, the rate and the version of libFLAC.

    Examples
    --------
    >>> data = encode_flac(np.arange(1000, dtype=np.int16), 16_000)
    >>> data[:4], decode_flac(data, 1000).tolist() == list(range(1000))
    (b'fLaC', True)
    """
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_flac(data: bytes, length: int) -> npt.NDArray[np.int16]:
    """Return the samples of a FLAC file of one channel.

    Raises
    ------
    ValueError
        The bytes are not FLAC, or do not hold `length` samples of one channel.
    """
    try:
        # The header's length is a claim: read no more than one sample too many.
        samples, _ = soundfile.read(io.BytesIO(data), frames=length + 1, dtype="int16")
    except soundfile.SoundFileError as error:
        raise ValueError(f"not FLAC: {error}") from error
    if samples.shape != (length,):
        raise ValueError(f"FLAC of shape {list(samples.shape)}, not [{length}]")
    decoded: npt.NDArray[np.int16] = samples
    return decoded
