import librosa
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from melmill.transforms.features.windows import (
    PaddedFrames,
    centred_window,
    frame_blocks,
    window_samples,
)

OWN_WINDOWS = ["boxcar", "hann", "hamming", "blackman", "nuttall", "blackmanharris", "flattop"]
SCIPY_WINDOWS = ["bartlett", "triang", "cosine", "bohman", "parzen", "tukey", "han"]


@pytest.mark.parametrize("length", [1, 2, 3, 400, 601, 2048])
@pytest.mark.parametrize("name", OWN_WINDOWS + SCIPY_WINDOWS)
def test_windows_are_librosas(name, length):
    theirs = librosa.filters.get_window(name, length, fftbins=True)
    # Both sum the same few cosines; the last bit of a double may differ between platforms.
    np.testing.assert_allclose(window_samples(name, length), theirs, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["no-such-window", "kaiser", "dpss"])
def test_unknown_windows_and_those_with_parameters_are_refused(name):
    with pytest.raises(ValueError, match=name):
        window_samples(name, 4)


@pytest.mark.parametrize("n_fft", [8, 9])
@pytest.mark.parametrize("length", [1, 5, 6, 8])
def test_short_windows_are_centred_as_librosa_centres_them(length, n_fft):
    theirs = librosa.util.pad_center(window_samples("hann", length), size=n_fft)
    assert_array_equal(centred_window("hann", length, n_fft), theirs.astype(np.float32))


def frames_of(chunk, pad_mode, margin):
    frames = PaddedFrames(
        chunk_samples=len(chunk),
        frame_samples=5,
        hop_samples=2,
        margin_samples=margin,
        pad_mode=pad_mode,
    )
    frames.of(np.full(len(chunk), 99, np.float32))
    return frames.of(chunk)


@pytest.mark.parametrize("pad_mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("margin", [0, 1, 3])
@pytest.mark.parametrize("samples", [5, 8, 9])
def test_frames_lie_over_the_padded_chunk(pad_mode, margin, samples):
    chunk = np.arange(1, samples + 1, dtype=np.float32)
    padded = np.pad(chunk, margin, mode=pad_mode)
    expected = [padded[i : i + 5] for i in range(0, len(padded) - 4, 2)]
    assert_array_equal(frames_of(chunk, pad_mode, margin), expected)


@pytest.mark.parametrize("n_frames", [1, 64, 129, 130, 1292])
@pytest.mark.parametrize("frame_samples", [1, 400, 2048, 1 << 22])
def test_blocks_cover_every_frame_once(n_frames, frame_samples):
    blocks = frame_blocks(n_frames, frame_samples)
    covered = [i for block in blocks for i in range(n_frames)[block]]
    assert covered == list(range(n_frames))
    assert max(block.stop - block.start for block in blocks) == blocks[0].stop
