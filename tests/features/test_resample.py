"""Tests that spans are converted to the same bits, and nearly to soxr's own conversion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.features import resample
from melmill.transforms.features.chunks import resampled_length
from melmill.transforms.features.resample import Conversion, drifts, resample_stream
from tests import signals

#: Full scale is 1. soxr sums the same products in different orders in a block and in the whole
#: recording. The measured difference is at most 4.8e-7 over 150 random rate pairs.
WHOLE_TOLERANCE = 1e-6

#: The tolerance where soxr's position drifts. The measured difference is at most 5.2e-4 after
#: 2,000,000 source samples, so at most 1.8e-4 after the 700,000 samples of these tests.
DRIFT_TOLERANCE = 3e-4

USUAL = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
RATES = st.one_of(st.sampled_from(USUAL), st.integers(8_000, 192_000))
QUALITIES = st.sampled_from(["soxr_hq", "soxr_vhq"])


def noise(frames: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def convert(
    samples: np.ndarray, first: int, stop: int, conversion: Conversion, piece: int = 65_536
) -> np.ndarray:
    """Return converted samples ``[first, stop)`` of a recording, converted as a separate span."""
    start, _ = conversion.source_range(first, stop, len(samples))
    pieces = (samples[i : i + piece] for i in range(start, len(samples), piece))
    return np.concatenate([*resample_stream(pieces, first, stop, conversion)])


def converted_whole(samples: np.ndarray, conversion: Conversion) -> np.ndarray:
    rates = conversion.rate_hz, conversion.target_rate_hz
    return convert(samples, 0, resampled_length(len(samples), *rates), conversion)


@settings(max_examples=60, deadline=None)
@given(
    rate=RATES,
    target=RATES,
    quality=QUALITIES,
    frames=st.integers(1, 700_000),
    channels=st.integers(1, 3),
    piece=st.integers(500, 100_000),
    block=st.sampled_from([1 << 14, 1 << 17, resample.BLOCK_SAMPLES]),
    data=st.data(),
)
def test_a_span_is_the_same_bits_as_that_part_of_the_whole(
    rate, target, quality, frames, channels, piece, block, data
):
    conversion = Conversion(rate, target, quality)
    samples = noise(frames, channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "BLOCK_SAMPLES", block)
        whole = converted_whole(samples, conversion)
        for _ in range(3):
            first = data.draw(st.integers(0, len(whole) - 1))
            stop = data.draw(st.integers(first + 1, min(len(whole), first + 200_000)))
            span = convert(samples, first, stop, conversion, piece)
            assert np.array_equal(span, whole[first:stop])


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000, 44_099])
def test_spans_around_the_borders_of_blocks_are_the_same_bits(rate):
    conversion = Conversion(rate, 22_050)
    border = conversion.block_samples
    samples = noise(3 * border * rate // 22_050 + 1_000, 2)
    whole = converted_whole(samples, conversion)
    for first in (0, 1, border - 1, border, border + 1, 2 * border - 1, 2 * border):
        for stop in (first + 1, border, border + 1, 2 * border, 2 * border + 7, len(whole)):
            if first < stop:
                assert np.array_equal(convert(samples, first, stop, conversion), whole[first:stop])


@settings(max_examples=40, deadline=None)
@given(rate=RATES, target=RATES, quality=QUALITIES, frames=st.integers(1, 700_000))
def test_all_spans_together_are_the_conversion_of_the_whole_recording(
    rate, target, quality, frames
):
    conversion, samples = Conversion(rate, target, quality), noise(frames)
    converted = converted_whole(samples, conversion)
    expected = samples
    if rate != target:
        expected = soxr.resample(samples, rate, target, quality=quality)[: len(converted)]
    tolerance = DRIFT_TOLERANCE if drifts(rate, target) else WHOLE_TOLERANCE
    np.testing.assert_allclose(converted[: len(expected)], expected, rtol=0, atol=tolerance)
    assert not converted[len(expected) :].any()


@pytest.mark.parametrize("target", [22_050, 44_099])
def test_the_first_block_is_soxrs_own_bits(target):
    conversion, samples = Conversion(44_100, target), noise(400_000)
    first = slice(conversion.block_samples)
    expected = soxr.resample(samples, 44_100, target, quality="soxr_hq")
    assert np.array_equal(converted_whole(samples, conversion)[first], expected[first])


@pytest.mark.parametrize("rates", [(44_100, 22_050), (44_100, 44_099), (8_000, 44_100)])
def test_a_tone_has_no_seam_where_blocks_meet(rates):
    conversion = Conversion(*rates)
    seconds = 2.5 * conversion.block_samples / rates[1]
    converted = converted_whole(signals.tone(440, seconds, rates[0])[:, None], conversion)[:, 0]
    expected = signals.tone(440, seconds + 1, rates[1])[: len(converted)]
    inside = slice(1_000, -1_000)  # soxr assumes silence before and after the tone
    tolerance = 2e-5 if drifts(*rates) else 3e-6
    np.testing.assert_allclose(converted[inside], expected[inside], rtol=0, atol=tolerance)


def counted(pieces: Iterator[np.ndarray], samples_read: list[int]) -> Iterator[np.ndarray]:
    for piece in pieces:
        samples_read[0] += len(piece)
        yield piece


@settings(max_examples=40, deadline=None)
@given(rate=RATES, target=RATES, quality=QUALITIES, first=st.integers(0, 50_000))
def test_no_more_is_decoded_than_the_range_says(rate, target, quality, first):
    conversion, samples, samples_read = Conversion(rate, target, quality), noise(2_000_000), [0]
    start, stop = conversion.source_range(first, first + 1_000, len(samples))
    pieces = (samples[i : min(i + 512, stop)] for i in range(start, stop, 512))
    stream = resample_stream(counted(pieces, samples_read), first, first + 1_000, conversion)
    assert sum(map(len, stream)) == 1_000
    assert samples_read[0] <= stop - start


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_soxr_gets_more_where_its_delay_is_longer_than_was_measured(monkeypatch, rate):
    conversion, samples = Conversion(rate, 22_050), noise(400_000)
    expected = convert(samples, 5_000, 100_000, conversion)
    monkeypatch.setattr(resample, "DELAY_SAMPLES", 0)
    assert np.array_equal(convert(samples, 5_000, 100_000, conversion), expected)


def test_zeros_follow_where_the_recording_ends_before_the_last_sample():
    # librosa rounds the length up; soxr rounds it to the nearest integer.
    conversion, samples = Conversion(44_100, 8_000), np.ones((44_102, 1), np.float32)
    whole = converted_whole(samples, conversion)
    assert len(whole) == 8_001
    assert len(soxr.resample(samples, 44_100, 8_000)) == 8_000
    assert whole[8_000] == 0
    assert whole[7_999] != 0


def test_equal_rates_pass_through():
    samples = noise(1_000, 2)
    assert np.array_equal(convert(samples, 10, 900, Conversion(8_000, 8_000)), samples[10:900])


def test_a_block_is_whole_periods_of_bounded_length():
    for rate in (500, 8_000, 11_025, 44_056, 44_099, 44_100, 191_999, 768_000):
        for target in (500, 8_000, 16_000, 22_050, 44_100, 192_000):
            conversion = Conversion(rate, target)
            up, down = conversion.period
            assert conversion.block_samples % up == 0
            source = conversion.block_samples // up * down
            longest = max(conversion.block_samples, source)
            assert longest <= max(resample.BLOCK_SAMPLES, rate, target)
