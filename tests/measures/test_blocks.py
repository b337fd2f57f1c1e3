"""Test that blocks hold every frame once, with the right frames around them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.measures.blocks import Shape, first_frame
from tests.measures.meters import cut_blocks


@given(
    rate_hz=st.sampled_from([1000, 1003, 8000]),
    channels=st.integers(1, 3),
    frames=st.integers(1, 40_000),
    piece=st.integers(1, 9_000),
    data=st.data(),
)
def test_blocks_are_the_frames_however_they_come(rate_hz, channels, frames, piece, data):
    shape = Shape(rate_hz, channels)
    numbers = np.arange(frames * channels, dtype=np.float32).reshape(frames, channels)
    blocks = -(-frames // shape.block_frames)
    first_block = data.draw(st.integers(0, blocks - 1))
    start = first_block * shape.block_frames
    stop = min(frames, data.draw(st.integers(first_block + 1, blocks)) * shape.block_frames)
    begin = first_frame(start, shape)
    pieces = [numbers[at : at + piece] for at in range(begin, frames, piece)]

    seen = []
    for block in cut_blocks(pieces, shape, start, stop, frames):
        before = min(block.start, shape.around_frames)
        after = min(frames, block.start + block.frames + shape.around_frames)
        np.testing.assert_array_equal(block.around, numbers[block.start - before : after].T)
        np.testing.assert_array_equal(
            block.samples, numbers[block.start : block.start + block.frames].T
        )
        assert block.before == before
        assert block.is_first == (block.start == 0)
        seen += range(block.start, block.start + block.frames)
    assert seen == list(range(start, stop))


@given(st.integers(500, 768_000), st.integers(1, 64))
def test_a_block_is_whole_hops_and_of_bounded_size(rate_hz, channels):
    shape = Shape(rate_hz, channels)
    assert shape.block_frames % shape.hop_frames == 0
    hops = shape.block_frames // shape.hop_frames
    assert 1 <= hops <= 20
    # 2 MB and a hop: with 768 kHz and 64 channels a hop alone has 20 MB.
    assert shape.block_frames * channels <= max(1 << 19, shape.hop_frames * channels)


def test_the_last_block_of_a_recording_is_known_as_the_last():
    shape = Shape(1000, 1)
    samples = np.zeros((2 * shape.block_frames, 1), np.float32)
    blocks = [b.is_last for b in cut_blocks([samples], shape, 0, len(samples), len(samples))]
    assert blocks == [False, True]
    # The second block is shorter than the frames around the first.
    total = shape.block_frames + 50
    assert [b.is_last for b in cut_blocks([samples], shape, 0, total, total)] == [False, True]
    first = [b.is_last for b in cut_blocks([samples], shape, 0, shape.block_frames, len(samples))]
    assert first == [False]
