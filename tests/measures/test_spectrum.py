"""Test the bandwidth and the shape of the spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.spectrum import SpectrumMeter
from tests.measures.meters import (
    RECORDINGS,
    encoded,
    measure,
    measure_in_parts,
    read_part,
    read_real,
)

RATE = 44_100
NOISE = np.random.default_rng(3).normal(0, 0.1, 4 * RATE).astype(np.float32)


def bandwidth(samples: np.ndarray, rate_hz: int = RATE) -> float:
    return measure(SpectrumMeter, samples, rate_hz)["origin.bandwidth"]


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 32_000])
def test_the_bandwidth_of_upsampled_sound_is_that_of_its_origin(rate_hz):
    low = soxr.resample(NOISE, RATE, rate_hz)
    upsampled = soxr.resample(low, rate_hz, RATE)
    # The resampler's transition band, and a band of 172 Hz.
    assert bandwidth(upsampled) == pytest.approx(rate_hz / 2, rel=0.05)
    share = measure(SpectrumMeter, upsampled, RATE)["origin.bandwidth_share"]
    assert share == pytest.approx(rate_hz / RATE, rel=0.05)


def test_dither_of_16_bits_is_not_sound():
    low = soxr.resample(soxr.resample(NOISE, RATE, 16_000), 16_000, RATE)
    random = np.random.default_rng(4)
    dither = random.uniform(-0.5, 0.5, (2, len(low))).sum(axis=0)
    dithered = np.rint(low * 32768 + dither) / 32768
    assert bandwidth(dithered) == pytest.approx(8000, rel=0.05)


def test_white_noise_reaches_half_the_rate_and_is_flat():
    readings = measure(SpectrumMeter, NOISE, RATE)
    assert readings["origin.bandwidth_share"] == 1.0
    # The power of a bin of noise is exponential: its geometric mean is exp(−γ) of its mean.
    assert readings["spectrum.flatness"] == pytest.approx(np.exp(-0.5772), abs=0.02)
    assert readings["spectrum.centroid"] == pytest.approx(RATE / 4, rel=0.02)


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 192_000])
def test_a_tone_is_where_it_is_at_any_rate(rate_hz):
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(3 * rate_hz) / rate_hz)
    readings = measure(SpectrumMeter, sine, rate_hz)
    assert readings["spectrum.centroid"] == pytest.approx(1000, abs=15)
    assert readings["spectrum.flatness"] < 0.001
    assert 1000 < readings["origin.bandwidth"] < 2500


def test_a_lossy_codec_shows_in_the_bandwidth():
    # LAME's low-pass at 16 kHz for its usual bit rates, or below.
    assert bandwidth(encoded(NOISE, RATE, "mp3")) < 20_500


def test_a_few_clicks_do_not_hide_the_bandwidth():
    low = soxr.resample(soxr.resample(NOISE, RATE, 16_000), 16_000, RATE)
    low[::RATE] += 0.5
    assert bandwidth(low) == pytest.approx(8000, rel=0.05)


def test_channels_that_cancel_in_a_mix_are_heard():
    assert bandwidth(np.stack([NOISE, -NOISE], axis=1)) == pytest.approx(RATE / 2)


@pytest.mark.parametrize("samples", [np.zeros(9000), np.ones(1), np.zeros((9000, 64))])
def test_silence_and_a_single_sample_have_no_spectrum(samples):
    assert set(measure(SpectrumMeter, samples, RATE).values()) == {None}


@pytest.mark.filterwarnings("error")
def test_absurd_samples_have_defined_readings():
    readings = measure(SpectrumMeter, 3e38 * np.sign(NOISE), RATE)
    assert all(value is None or np.isfinite(value) for value in readings.values())


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_real_recordings_have_plausible_spectra(path):
    samples, rate_hz = read_real(path)
    readings = measure(SpectrumMeter, samples, rate_hz)
    assert 0 < readings["spectrum.centroid"] < readings["origin.bandwidth"] <= rate_hz / 2
    assert 0 <= readings["spectrum.flatness"] < 0.5


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 9000), st.integers(1, 3), st.lists(st.integers(1, 5)))
def test_parts_give_the_same_as_the_whole(seed, frames, channels, borders):
    samples = np.random.default_rng(seed).normal(0, 0.1, (frames, channels)).astype(np.float32)
    whole = read_part(SpectrumMeter, samples, 1000, 0, frames)
    assert measure_in_parts(SpectrumMeter, samples, 1000, borders) == whole
