import numpy as np
import pytest
from numpy.testing import assert_array_equal

from melmill.transforms.features.framing import PaddedFrames, frame_blocks, whole_frames


def frames_of(chunk, pad_mode, margin):
    frames = PaddedFrames(whole_frames(len(chunk), 5, 2, margin), len(chunk), pad_mode)
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
