"""Tests that chunks have equal lengths and the right samples, in every span of a recording."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from melmill.transforms.features.chunks import (
    ChunkSpec,
    Place,
    chunk_start,
    count_chunks,
    cut_chunks,
    place_chunk,
    resampled_length,
    valid_samples,
)

PAD = -7.0

TAILS = ["drop", "pad", "shift_back"]
SHORTS = ["drop", "pad", "repeat"]


@st.composite
def specs(
    draw: st.DrawFn, tails: list[str] = TAILS, shorts: list[str] = SHORTS, gaps: bool = True
) -> ChunkSpec:
    length = draw(st.integers(1, 12))
    hop = draw(st.integers(1, 20 if gaps else length))
    return ChunkSpec(length, hop, draw(st.sampled_from(tails)), draw(st.sampled_from(shorts)), PAD)


SAMPLES = st.integers(1, 60)


def ramp(samples: int, channels: int = 1) -> np.ndarray:
    """Return samples that all differ, so that a test notices a wrong sample."""
    return np.arange(samples * channels, dtype=np.float32).reshape(samples, channels)


def naive_chunks(audio: np.ndarray, spec: ChunkSpec) -> list[np.ndarray]:
    """Return the chunks that the policies describe, cut one by one without our arithmetic."""
    if len(audio) < spec.length:
        if spec.short == "drop":
            return []
        rest = spec.length - len(audio)
        if spec.short == "repeat":
            return [np.pad(audio, ((0, rest), (0, 0)), mode="wrap")]
        return [np.pad(audio, ((0, rest), (0, 0)), constant_values=spec.pad_value)]
    chunks, position, covered = [], 0, 0
    while position + spec.length <= len(audio):
        chunks.append(audio[position : position + spec.length])
        covered = position + spec.length
        position += spec.hop
    tail = audio[max(position, covered) :] if position < len(audio) else audio[:0]
    if len(tail) and spec.tail == "shift_back":
        chunks.append(audio[-spec.length :])
    if len(tail) and spec.tail == "pad":
        piece = audio[position:]
        rest = spec.length - len(piece)
        chunks.append(np.pad(piece, ((0, rest), (0, 0)), constant_values=spec.pad_value))
    return chunks


def cut(
    audio: np.ndarray, spec: ChunkSpec, sizes: list[int], first: int = 0, stop: int | None = None
) -> list[np.ndarray]:
    """Return chunks `first` to `stop` of a stream whose blocks have `sizes`, repeated."""
    stop = count_chunks(len(audio), spec) if stop is None else stop
    stream = blocks(audio[chunk_start(first, len(audio), spec) :], sizes)
    wanted = places(stop, len(audio), spec)[first:]
    placed = list(cut_chunks(stream, wanted, spec))
    assert [place for place, _ in placed] == wanted
    return [chunk for _, chunk in placed]


def places(number: int, samples: int, spec: ChunkSpec) -> list[Place]:
    return [place_chunk(index, samples, spec) for index in range(number)]


def blocks(audio: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    position = 0
    while position < len(audio):
        for size in sizes:
            yield audio[position : position + size]
            position += size


@given(SAMPLES, specs(), st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 3))
def test_cutting_a_stream_equals_slicing_the_array(
    samples: int, spec: ChunkSpec, sizes: list[int], channels: int
) -> None:
    audio = ramp(samples, channels)
    assert_chunks_equal(cut(audio, spec, sizes), naive_chunks(audio, spec))


def assert_chunks_equal(chunks: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(chunks) == len(expected)
    for chunk, expected_chunk in zip(chunks, expected, strict=True):
        assert_array_equal(chunk, expected_chunk)
        assert chunk.dtype == np.float32


@given(SAMPLES, specs(), st.data())
def test_every_span_gives_the_chunks_that_the_whole_gives(
    samples: int, spec: ChunkSpec, data: st.DataObject
) -> None:
    audio, number = ramp(samples), count_chunks(samples, spec)
    border = data.draw(st.integers(0, number))
    spans = [(0, border), (border, number)]
    chunks = [c for a, b in spans if a < b for c in cut(audio, spec, [5], first=a, stop=b)]
    assert_chunks_equal(chunks, naive_chunks(audio, spec))


@given(SAMPLES, specs())
def test_all_chunks_are_equally_long(samples: int, spec: ChunkSpec) -> None:
    assert {len(chunk) for chunk in cut(ramp(samples), spec, [7])} <= {spec.length}


@given(SAMPLES, specs(tails=["pad", "shift_back"], shorts=["pad", "repeat"], gaps=False))
def test_padded_and_shifted_tails_cover_every_sample(samples: int, spec: ChunkSpec) -> None:
    covered = {value for chunk in cut(ramp(samples), spec, [7]) for value in chunk.ravel()}
    assert covered - {PAD} == set(range(samples))


@given(SAMPLES, specs(shorts=["pad"]))
def test_the_valid_samples_are_the_real_ones(samples: int, spec: ChunkSpec) -> None:
    for index, chunk in enumerate(cut(ramp(samples), spec, [7])):
        start = chunk_start(index, samples, spec)
        valid = valid_samples(index, samples, spec)
        assert valid >= 1
        assert_array_equal(chunk[:valid, 0], np.arange(start, start + valid))
        assert (chunk[valid:] == PAD).all()


@given(SAMPLES, specs())
def test_one_more_sample_never_takes_a_chunk_away(samples: int, spec: ChunkSpec) -> None:
    assert count_chunks(samples + 1, spec) >= count_chunks(samples, spec)


@pytest.mark.parametrize("short", ["drop", "pad", "repeat"])
def test_nothing_has_no_chunks(short: str) -> None:
    assert count_chunks(0, ChunkSpec(4, 4, "pad", short)) == 0


def test_a_long_hop_leaves_gaps() -> None:
    chunks = cut(ramp(20), ChunkSpec(3, 8), [20])
    assert [chunk.ravel().tolist() for chunk in chunks] == [[0, 1, 2], [8, 9, 10], [16, 17, 18]]


def test_a_tail_behind_a_gap_is_padded_from_where_its_chunk_starts() -> None:
    chunks = cut(ramp(10), ChunkSpec(3, 8, "pad", pad_value=PAD), [10])
    assert chunks[1].ravel().tolist() == [8, 9, PAD]


def test_a_short_recording_repeats_to_the_end_of_the_chunk() -> None:
    chunks = cut(ramp(3), ChunkSpec(8, 8, short="repeat"), [2])
    assert chunks[0].ravel().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_repeating_is_for_short_recordings_not_for_tails() -> None:
    chunks = cut(ramp(6), ChunkSpec(4, 4, "pad", "repeat", PAD), [2])
    assert chunks[1].ravel().tolist() == [4, 5, PAD, PAD]


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(cut_chunks(iter([ramp(5)]), places(2, 8, ChunkSpec(4, 4)), ChunkSpec(4, 4)))


def test_little_more_than_a_chunk_is_held() -> None:
    indices = []
    stream = (indices.append(i) or ramp(4) for i in range(1000))  # type: ignore[func-returns-value]
    next(cut_chunks(stream, places(1000, 4000, ChunkSpec(4, 4)), ChunkSpec(4, 4)))
    assert indices == [0]


@given(st.integers(0, 10**7), st.sampled_from([8_000, 22_050, 44_100, 48_000, 96_000]))
def test_resampled_lengths_are_the_ceiling_that_librosa_takes(frames: int, rate_hz: int) -> None:
    # librosa computes ceil(frames * target / rate) in floats, which are exact for these numbers.
    assert resampled_length(frames, rate_hz, 16_000) == np.ceil(frames * 16_000 / rate_hz)
