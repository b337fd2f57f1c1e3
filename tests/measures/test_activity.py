"""Test the rate of onsets and the share of speech-like sound."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.measures.activity import ActivityMeter
from melmill.transforms.measures.blocks import Shape
from tests.measures.meters import RECORDINGS, measure, measure_in_parts, read_part, read_real
from tests.signals import constant, noise, silence, song, sweep, times, tone

RATE = 44_100
SPEECH = [path for path in RECORDINGS if path.parent.name == "speech"]
MUSIC = [path for path in RECORDINGS if path.parent.name == "music"]


def onsets(samples: np.ndarray, rate: int = RATE) -> float:
    """Return the number of onsets of samples [frames]."""
    rate_of_onsets = measure(ActivityMeter, samples, rate)["activity.onset_rate"]
    return rate_of_onsets * len(samples) / rate


def speech_like(samples: np.ndarray, rate: int = RATE) -> float | None:
    return measure(ActivityMeter, samples, rate)["activity.speech_like"]


def strokes(number: int, seconds: float, rate: int, decay: float = 30.0) -> np.ndarray:
    """Return bursts of noise that decay, at equal distances."""
    samples, rng = np.zeros(round(seconds * rate)), np.random.default_rng(number)
    length = rate // 10
    for start in ((np.arange(number) + 0.5) * len(samples) / number).astype(int):
        burst = rng.normal(0, 0.3, length) * np.exp(-decay * np.arange(length) / rate)
        samples[start : start + length] += burst[: len(samples) - start]
    return samples


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("number", [10, 39, 80])
def test_clicks_and_strokes_are_counted_at_any_rate(rate: int, number: int) -> None:
    clicks = np.zeros(10 * rate)
    clicks[((np.arange(number) + 0.5) * 10 * rate / number).astype(int)] = 0.5
    assert onsets(clicks, rate) == pytest.approx(number)
    assert onsets(strokes(number, 10, rate), rate) == pytest.approx(number)


def test_strokes_are_counted_among_other_sounds() -> None:
    drums = strokes(40, 10, RATE)
    assert onsets(drums + tone(440, 10, RATE, 0.2)) == pytest.approx(40)
    assert onsets(drums + noise(10, RATE, amplitude=0.02)) == pytest.approx(40, abs=1)
    assert onsets(0.03 * drums) == pytest.approx(40)


def test_the_notes_of_a_song_are_counted() -> None:
    # Notes begin every 250 ms, while earlier notes sound; that at the very start is not counted.
    for seed in range(3):
        assert onsets(song(15, RATE, seed=seed)) == pytest.approx(59)


def test_sounds_that_begin_softly_or_shortly_after_another_are_one_onset() -> None:
    swell = tone(440, 8, RATE) * np.linspace(0, 1, 8 * RATE)
    assert onsets(swell) <= 1
    clicks = silence(8, RATE)
    clicks[RATE :: 2 * RATE] = clicks[RATE + 441 :: 2 * RATE] = 0.5
    assert onsets(clicks) == pytest.approx(4)


@pytest.mark.parametrize("hz", [41.2, 55, 110, 440, 3000])
def test_steady_tones_have_no_onset(hz: float) -> None:
    for rate in (8_000, RATE):
        assert onsets(tone(hz, 12, rate), rate) == 0
        if hz < 1000:
            assert onsets(0.5 * (hz * times(12, rate) % 1 - 0.5), rate) == 0


@pytest.mark.parametrize("hz", [110, 440, 3000])
def test_a_vibrato_has_no_onset(hz: float) -> None:
    # Six times a second, by 2 % of the frequency: a third of a semitone.
    seconds = times(12, RATE)
    wobble = 0.02 * hz / 6 * np.sin(2 * np.pi * 6 * seconds)
    assert onsets(0.5 * np.sin(2 * np.pi * hz * seconds + wobble)) == 0


@pytest.mark.parametrize("rate", [8_000, RATE])
def test_noise_has_almost_no_onset(rate: int) -> None:
    for amplitude in (1e-5, 1e-3, 0.1):
        assert onsets(noise(16, rate, amplitude=amplitude), rate) <= 3


@cache
def both_rates(path: Path) -> tuple[float, float]:
    """Return the rates of onsets that melmill and librosa read in the first minute."""
    import librosa

    samples, rate = read_real(path)
    samples = samples[: 60 * rate].mean(axis=1)
    lowered = librosa.resample(samples, orig_sr=rate, target_sr=22_050)
    expected = len(librosa.onset.onset_detect(y=lowered, sr=22_050))
    return onsets(samples, rate) * rate / len(samples), expected * rate / len(samples)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_onsets_agree_loosely_with_librosa(path: Path) -> None:
    # librosa's threshold depends on the loudest onset of a recording, ours does not: the soft
    # notes of music are lost, and a whale's calls are found.
    rate, expected = both_rates(path)
    assert 0.4 * expected < rate < 1.25 * expected + 0.5


@pytest.mark.slow
def test_recordings_have_about_the_order_that_librosa_gives_them() -> None:
    from scipy.stats import spearmanr

    rates = [both_rates(path) for path in RECORDINGS]
    assert not rates or spearmanr(rates).statistic > 0.8


def test_speech_ranks_above_music() -> None:
    if not SPEECH:
        pytest.skip("no real recordings")
    shares = {path: speech_like(*read_real(path)) for path in (*SPEECH, *MUSIC)}
    assert min(shares[path] for path in SPEECH) > 0.8
    # The most speech-like is electronic music with sparse drums.
    assert max(shares[path] for path in MUSIC) < 0.3
    assert np.median([shares[path] for path in MUSIC]) < 0.05


@pytest.mark.parametrize("path", SPEECH, ids=lambda path: path.stem)
def test_speech_is_speech_at_any_rate_and_level_and_in_soft_noise(path: Path) -> None:
    import soxr

    samples, rate = read_real(path)
    for other in (8_000, 11_025, 48_000):
        assert speech_like(soxr.resample(samples, rate, other), other) > 0.6
    assert speech_like(0.05 * samples, rate) > 0.6
    hiss = noise(len(samples) / rate, rate, amplitude=samples.std() / 10)
    assert speech_like(samples[:, 0] + hiss, rate) > 0.6


def test_tones_noise_and_whistles_are_not_speech() -> None:
    for samples in (tone(440, 8, RATE), noise(8, RATE), sweep(8, RATE)):
        assert speech_like(samples) == 0
    gated = (times(8, RATE) * 4 % 1 < 0.5).astype(float)
    assert speech_like(gated * tone(3000, 8, RATE)) == 0


def test_pieces_of_silence_do_not_count() -> None:
    if not SPEECH:
        pytest.skip("no real recordings")
    samples, rate = read_real(SPEECH[0])
    samples = samples[: 8 * rate, 0]
    assert speech_like(np.append(samples, silence(8, rate)), rate) == speech_like(samples, rate)


def test_of_a_long_recording_every_other_block_is_measured_after_16_seconds() -> None:
    samples = silence(60, RATE)
    # Clicks in the blocks from 18 to 20 s, from 22 to 24 s, …: these are not measured.
    samples[RATE // 2 : 16 * RATE : RATE] = 0.5
    samples[19 * RATE :: 4 * RATE] = 0.5
    measured = measure(ActivityMeter, samples, RATE)["activity.onset_rate"]
    assert measured == pytest.approx(16 / (16 + 22))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [4_000, 8_000, 192_000])
@pytest.mark.parametrize("channels", [1, 64])
def test_silence_and_an_offset_have_no_activity(rate: int, channels: int) -> None:
    for samples in (silence(2.3, rate), constant(2.3, rate)):
        readings = measure(ActivityMeter, samples[:, None].repeat(channels, axis=1), rate)
        assert readings["activity.onset_rate"] == 0
        # The windows leak less than -60 dBFS of an offset, so that it is silence.
        assert readings["activity.speech_like"] is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("rate", "frames"), [(RATE, 1), (RATE, 4_000), (3_999, 9_000), (10, 50)])
def test_too_short_or_too_low_recordings_have_no_readings(rate: int, frames: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (frames, 2))
    assert set(measure(ActivityMeter, samples, rate).values()) == {None}
    assert set(ActivityMeter(Shape(rate, 1)).readings().values()) == {None}


def test_speech_needs_a_second_and_blocks_of_a_second() -> None:
    assert speech_like(noise(0.9, RATE)) is None
    assert speech_like(noise(1.1, RATE)) == 0
    # The last piece is shorter than a second, and is not judged.
    assert speech_like(np.append(silence(2, RATE), noise(0.9, RATE))) is None
    assert speech_like(noise(3, 192_000, channels=8), 192_000) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_absurd_samples_have_finite_readings(value: float) -> None:
    samples = np.stack([strokes(20, 5, RATE), np.full(5 * RATE, value)], axis=1)
    readings = measure(ActivityMeter, samples, RATE)
    assert np.isfinite(readings["activity.onset_rate"])
    assert readings["activity.speech_like"] is None or 0 <= readings["activity.speech_like"] <= 1
    if np.isnan(value):
        # Samples that are no numbers are silent.
        assert readings["activity.onset_rate"] == pytest.approx(4)


@settings(max_examples=25)
@given(
    st.integers(0, 99),
    st.integers(1, 90_000),
    st.integers(1, 3),
    st.sampled_from([4_000, 4_410, 5_512]),
    st.lists(st.integers(1, 11)),
)
def test_parts_give_the_same_as_the_whole(
    seed: int, frames: int, channels: int, rate: int, borders: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.1, (frames, channels)) * (rng.random((frames, 1)) < 0.001)
    samples = samples.astype(np.float32)
    whole = read_part(ActivityMeter, samples, rate, 0, frames)
    assert measure_in_parts(ActivityMeter, samples, rate, borders) == whole


def test_an_onset_at_the_border_of_blocks_is_counted_once() -> None:
    for rate in (8_000, 22_050, 44_100):
        border = Shape(rate, 1).block_frames
        for offset in range(-rate // 40, rate // 40, rate // 400):
            samples = silence(4.2, rate)
            samples[border + offset] = 0.5
            assert measure_in_parts(ActivityMeter, samples[:, None], rate, [1]).onsets == 1
