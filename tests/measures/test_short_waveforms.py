"""Test the waveforms of short recordings: what they keep, and that they do not depend on parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.acoustic_fingerprint import AcousticMeter
from melmill.transforms.measures.short_waveforms import (
    MOST_SECONDS,
    RATE_HZ,
    packed,
    read_waveform,
    unpacked,
)
from melmill.transforms.measures.states import from_json, to_json
from tests.measures.meters import encoded, measure, measure_in_parts, read_part
from tests.signals import silence, song

RATE = 22_050
CLIP = song(1.3, RATE, seed=5)


def waveform(samples: np.ndarray, rate_hz: int = RATE) -> Any:
    text = measure(AcousticMeter, samples, rate_hz)["acoustic.waveform"]
    return None if text is None else read_waveform(text)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    length = min(len(first), len(second))
    return float(np.corrcoef(first[:length], second[:length])[0, 1])


def test_a_waveform_is_the_sound_at_a_low_rate():
    low = soxr.resample(CLIP - CLIP.mean(), RATE, RATE_HZ)
    assert len(waveform(CLIP)) == len(low)
    np.testing.assert_allclose(waveform(CLIP), low * (127 / np.abs(low).max()), atol=0.51)


@pytest.mark.parametrize("format", ["mp3", "ogg", "flac"])
def test_an_encoded_copy_has_nearly_the_same_waveform(format):
    assert correlation(waveform(CLIP), waveform(encoded(CLIP, RATE, format))) > 0.97


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 0.1 * x,
        lambda x: x + 0.5 * x.std(),
        lambda x: np.stack([1.5 * x, 0.5 * x], axis=1),
    ],
    ids=["level", "offset", "channels"],
)
def test_level_offset_and_channels_do_not_matter(change):
    assert np.abs(waveform(CLIP).astype(int) - waveform(change(CLIP))).max() <= 1


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 44_100, 96_000])
def test_a_copy_at_another_rate_has_nearly_the_same_waveform(rate_hz):
    copy = waveform(soxr.resample(CLIP, RATE, rate_hz), rate_hz)
    assert correlation(waveform(CLIP), copy) > 0.999


@pytest.mark.parametrize(
    ("samples", "rate_hz"),
    [
        (silence(1, RATE), RATE),
        (np.full(RATE, 0.5), RATE),
        (CLIP + 1.1 * CLIP.std(), RATE),
        (1e-4 * CLIP, RATE),
        (np.stack([CLIP, -CLIP], axis=1), RATE),
        (CLIP[: RATE // 10 - 1], RATE),
        (np.random.default_rng(1).normal(0, 0.1, 3999), 3999),
        (np.ones(1), 1),
    ],
    ids=[
        "silence",
        "offset",
        "offset and sound",
        "quiet",
        "cancelling",
        "too short",
        "low rate",
        "one sample",
    ],
)
def test_what_is_silent_or_tiny_has_no_waveform(samples, rate_hz):
    assert waveform(samples, rate_hz) is None


@pytest.mark.parametrize(("more", "has_one"), [(0, True), (1, False)])
def test_only_short_recordings_have_a_waveform(more, has_one):
    frames = MOST_SECONDS * 4000 + more
    samples = np.random.default_rng(1).normal(0, 0.1, frames)
    assert (waveform(samples, 4000) is not None) == has_one


def test_huge_samples_have_a_waveform():
    assert waveform(np.where(np.arange(len(CLIP)) == 1000, 1e38, CLIP)).max() == 127


@settings(deadline=None, max_examples=25)
@given(
    borders=st.lists(st.integers(0, 4), max_size=4),
    frames=st.integers(1, 8 * 4410),
    channels=st.integers(1, 3),
)
def test_a_waveform_does_not_depend_on_the_division(borders, frames, channels):
    samples = np.random.default_rng(frames).normal(0, 0.1, (frames, channels)).astype(np.float32)
    whole = read_part(AcousticMeter, samples, 4410, 0, frames)
    merged = measure_in_parts(AcousticMeter, samples, 4410, borders)
    assert merged == whole
    (restored,) = from_json(to_json({"acoustic": whole})).values()
    assert restored == whole
    assert bool(whole.mono) == (frames <= MOST_SECONDS * 4410)
    assert merged.readings() == whole.readings()


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=5), max_size=3))
def test_packed_samples_come_back(parts):
    texts = [packed(np.array(part, np.float32)) for part in parts]
    assert unpacked(texts).tolist() == [sample for part in parts for sample in part]
