"""What some front ends do to the samples before the spectrum: scale, DC removal, pre-emphasis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.features.stft_spec import StftSpec


def prepare_samples(
    chunk: NDArray[np.float32], spec: StftSpec, valid_samples: int
) -> NDArray[np.float32]:
    """Return a chunk scaled and, if the whole chunk is emphasised, with pre-emphasis.

    Parameters
    ----------
    chunk
        Samples of shape [n], float32. They are not modified.
    spec
        Settings of the features.
    valid_samples
        Number of real samples; the padding after them is not emphasised.

    Returns
    -------
    ndarray of shape [n], float32
    """
    if spec.sample_scale != 1:
        chunk = chunk * np.float32(spec.sample_scale)
    if spec.preemphasis and spec.preemphasis_over == "chunk":
        emphasised = chunk.copy()
        emphasised[1:valid_samples] -= np.float32(spec.preemphasis) * chunk[: valid_samples - 1]
        return emphasised
    return chunk


def apply_window(
    frames: NDArray[np.float32],
    window: NDArray[np.float32],
    spec: StftSpec,
    out: NDArray[np.float32],
) -> None:
    """Write the frames times the window; first remove their DC offset and emphasise them.

    Parameters
    ----------
    frames
        Samples of shape [n_frames, n], float32.
    window
        Samples of shape [n], float32.
    spec
        Settings of the features.
    out
        Array to write to, of the shape of `frames`, float32.
    """
    by_frame = spec.preemphasis and spec.preemphasis_over == "frame"
    if spec.remove_dc_offset:
        frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    if by_frame:
        factor = np.float32(spec.preemphasis)
        emphasised = np.empty(frames.shape, np.float32)
        np.multiply(frames[:, :-1], factor, out=emphasised[:, 1:])
        np.multiply(frames[:, 0], factor, out=emphasised[:, 0])
        frames = np.subtract(frames, emphasised, out=emphasised)
    # Equal to np.multiply, in two thirds of its time.
    np.einsum("ij,j->ij", frames, window, out=out)
