"""From a recording's channels to the rows' channels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError, Stage

ChannelPolicy = Literal["mono", "left", "right", "each"]
Samples = npt.NDArray[np.float32]


def count_channels(channels: int, policy: ChannelPolicy) -> int:
    """Rows that each chunk of a recording with so many channels becomes.

    >>> [count_channels(2, policy) for policy in ("mono", "left", "right", "each")]
    [1, 1, 1, 2]
    """
    return channels if policy == "each" else 1


def check_channels(channels: int, policy: ChannelPolicy) -> None:
    """Refuse a recording that lacks the channel asked for.

    Raises
    ------
    RecordingError
        ``missing_channel``, where ``right`` is asked of a recording with one channel.

    Examples
    --------
    >>> check_channels(1, "right")  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    melmill.transforms.core.errors.RecordingError: probe: missing_channel: no right channel:
        the recording has 1
    """
    if policy == "right" and channels < 2:
        message = f"no right channel: the recording has {channels}"
        raise RecordingError(Stage.PROBE, Cause.MISSING_CHANNEL, message)


def select_channels(block: Samples, policy: ChannelPolicy) -> Samples:
    """Mix or pick channels.

    Parameters
    ----------
    block : float32 [samples, channels]
    policy
        ``mono`` is the mean of all channels, as ``librosa.to_mono``; ``left`` and
        ``right`` are the first and the second; ``each`` keeps them all.

    Returns
    -------
    float32 [samples, rows' channels]

    Examples
    --------
    >>> stereo = np.array([[1, 3], [2, 6]], np.float32)
    >>> select_channels(stereo, "mono").ravel().tolist()
    [2.0, 4.0]
    >>> select_channels(stereo, "right").ravel().tolist()
    [3.0, 6.0]
    >>> select_channels(stereo, "each").shape
    (2, 2)
    """
    if policy == "each" or (policy == "mono" and block.shape[1] == 1):
        return block
    if policy == "mono":
        return _mean(block)
    return block[:, [0]] if policy == "left" else block[:, [1]]


def _mean(block: Samples) -> Samples:
    # Column by column: ten times quicker than a reduction over an axis of length two, and
    # each sample's rounding does not depend on how many samples the block holds, as that of a
    # product with a matrix does where numbers are denormal.
    with np.errstate(over="ignore"):  # features that are not finite are refused
        total = block[:, 0] + block[:, 1]
        for channel in range(2, block.shape[1]):
            total += block[:, channel]
    total *= np.float32(1 / block.shape[1])
    return total[:, None]
