"""The loudness meter, beside EBU's cases, libebur128's digits, a filter, and FFmpeg's meter."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from melmill.transforms.features.loudness import integrated_loudness, k_weighting
from melmill.transforms.measures import blocks
from melmill.transforms.measures.blocks import Shape
from melmill.transforms.measures.loudness import MEASURES, LoudnessMeter, weighted_energies
from tests.ffmpeg_meter import read_with_ffmpeg
from tests.measures.meters import RECORDINGS, cut_blocks, measure, read_part
from tests.signals import click, constant, noise, silence, tone

Samples = NDArray[np.float32]

#: The reference has three decimals. At 44.1 kHz, the filters' gain at 1 kHz is 0.003 dB higher.
LIBEBUR128_LU = 0.005
#: The loudness is counted in steps of 1/256 LU, and a range is the difference of two steps.
RANGE_LU = 1 / 256 + 1e-9


def readings(samples: Samples, rate_hz: int) -> dict[str, Any]:
    measures = measure(LoudnessMeter, samples, rate_hz)
    return {name.removeprefix("loudness."): value for name, value in measures.items()}


def divided(samples: Samples, borders: list[int], order: Random) -> LoudnessMeter:
    """Divide a recording at 4 kHz before some blocks, and merge the parts in a random order."""
    length = Shape(4_000, samples.shape[1]).block_frames
    cuts = [0, *(block * length for block in borders), len(samples)]
    parts = [read_part(LoudnessMeter, samples, 4_000, *cut) for cut in pairwise(cuts)]
    while len(parts) > 1:
        place = order.randrange(len(parts) - 1)
        parts[place].merge(parts.pop(place + 1))
    return parts[0]


def sine(level_dbfs: float, seconds: float, rate_hz: int) -> Samples:
    return tone(1000, seconds, rate_hz, amplitude=10 ** (level_dbfs / 20))


def stereo(levels: list[tuple[float, float]], rate_hz: int) -> Samples:
    samples = np.concatenate([sine(level, seconds, rate_hz) for level, seconds in levels])
    return np.stack([samples, samples], axis=1)


def filtered_energies(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    from scipy.signal import sosfilt

    hop = Shape(rate_hz, 1).hop_frames
    weighted = sosfilt(k_weighting(rate_hz), samples.astype(np.float64), axis=0)
    whole = weighted[: len(weighted) // hop * hop]
    return np.square(whole).reshape(-1, hop, samples.shape[1]).mean(axis=1).sum(axis=1)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(
    ("levels", "libebur128"),
    [
        ([(-23, 20)], -22.993),
        ([(-33, 20)], -32.993),
        ([(-36, 10), (-23, 60), (-36, 10)], -23.014),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.014),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -22.979),
    ],
    ids=["3341-1", "3341-2", "3341-3", "3341-4", "3341-5"],
)
def test_integrated_loudness_is_that_of_libebur128(
    levels: list[tuple[float, float]], libebur128: float, rate_hz: int
) -> None:
    integrated = readings(stereo(levels, rate_hz), rate_hz)["integrated"]
    assert integrated == pytest.approx(libebur128, abs=LIBEBUR128_LU)


def surround(levels: list[float], rate_hz: int) -> Samples:
    return np.stack([sine(level, 20, rate_hz) for level in levels], axis=1)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_surround_channels_weigh_more_and_the_lfe_channel_nothing(rate_hz: int) -> None:
    case_6 = surround([-28, -28, -24, -30, -30], rate_hz)
    with_lfe = surround([-28, -28, -24, -3, -30, -30], rate_hz)
    assert readings(case_6, rate_hz)["integrated"] == pytest.approx(-23.016, abs=LIBEBUR128_LU)
    assert readings(with_lfe, rate_hz) == readings(case_6, rate_hz)


@pytest.mark.parametrize("channels", [2, 3, 4, 7, 8, 64])
def test_other_numbers_of_channels_have_equal_weights(channels: int) -> None:
    mono = sine(-23, 4, 8_000)
    many = np.repeat(mono[:, None], channels, axis=1)
    louder = readings(many, 8_000)["integrated"] - readings(mono, 8_000)["integrated"]
    # Hops have the energies of float32: 1e-6 of a loudness are 4e-6 LU.
    assert louder == pytest.approx(10 * math.log10(channels), abs=1e-5)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(
    ("levels", "range_lu"),
    [([-20, -30], 10), ([-20, -15], 5), ([-40, -20], 20), ([-50, -35, -20, -35, -50], 15)],
    ids=["3342-1", "3342-2", "3342-3", "3342-4"],
)
def test_the_range_is_ebus(levels: list[float], range_lu: float, rate_hz: int) -> None:
    samples = stereo([(level, 20) for level in levels], rate_hz)
    assert readings(samples, rate_hz)["range"] == pytest.approx(range_lu, abs=RANGE_LU)


def test_the_windows_are_those_of_ebus_meter() -> None:
    # EBU allows 0.1 LU. Case 13 is left out between hops: a window starts only every 100 ms.
    rate_hz = 48_000
    short_term = stereo([(-20, 1.34), (-30, 1.66)] * 5, rate_hz)
    momentary = stereo([(-20, 0.18), (-30, 0.22)] * 25, rate_hz)
    for case, name in ((short_term, "short_term_max"), (momentary, "momentary_max")):
        assert readings(case, rate_hz)[name] == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("hops", range(0, 20, 3))
def test_the_loudest_windows_are_found(hops: int) -> None:
    parts = [silence(hops / 10, 48_000), sine(-23, 3, 48_000), silence(1, 48_000)]
    measures = readings(np.concatenate(parts).repeat(2).reshape(-1, 2), 48_000)
    assert measures["short_term_max"] == pytest.approx(-23, abs=0.1)
    assert measures["short_term_max_second"] == pytest.approx(hops / 10)
    loud = np.concatenate([parts[0], sine(-23, 0.4, 48_000), silence(1, 48_000)])
    measures = readings(loud.repeat(2).reshape(-1, 2), 48_000)
    assert measures["momentary_max"] == pytest.approx(-23, abs=0.1)
    assert measures["momentary_max_second"] == pytest.approx(hops / 10)


@pytest.mark.parametrize("rate_hz", [4_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_hops_have_the_energies_of_a_filter_over_the_whole_recording(rate_hz: int) -> None:
    rng = np.random.default_rng(rate_hz)
    levels = np.repeat(10 ** rng.uniform(-3, 0, 50), rate_hz // 10)
    low = tone(37, 5, rate_hz, amplitude=0.8) + constant(5, rate_hz)
    samples = np.stack([noise(5, rate_hz) + low, low], axis=1)[: len(levels)] * levels[:, None]
    samples = samples.astype(np.float32)
    shape = Shape(rate_hz, 2)
    cut = cut_blocks([samples], shape, 0, len(samples), len(samples))
    energies = np.concatenate([weighted_energies(block) for block in cut])
    expected = filtered_energies(samples, rate_hz)
    # The spectrum of float32 is exact to 1e-6 of the loudest frequency, before the filters.
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_measure_as_windows_of_a_filtered_recording(path: Path) -> None:
    samples, rate_hz = soundfile.read(path, frames=30 * 44_100, dtype="float32", always_2d=True)
    measures, energies = readings(samples, rate_hz), filtered_energies(samples, rate_hz)
    if len(energies) < 30:
        assert measures["short_term_max"] is measures["range"] is None
        return
    windows = np.lib.stride_tricks.sliding_window_view(energies, 30).mean(axis=1)
    lufs = -0.691 + 10 * np.log10(windows)
    gate = -0.691 + 10 * np.log10(windows[lufs > -70].mean()) - 20
    passed = np.sort(lufs[lufs > max(-70, gate)])
    quiet, loud = (passed[math.floor((len(passed) - 1) * share + 0.5)] for share in (0.1, 0.95))
    assert measures["range"] == pytest.approx(loud - quiet, abs=RANGE_LU)
    assert measures["short_term_max"] == pytest.approx(lufs.max(), abs=1e-4)


def measured_by_ffmpeg(samples: Samples, rate_hz: int, layout: str) -> list[dict[str, float]]:
    """Return what FFmpeg's meter reads after every 100 ms."""
    return [
        {name: float(reading[f"lavfi.r128.{name}"]) for name in ("I", "M", "S")}
        for reading in read_with_ffmpeg(samples, rate_hz, layout)
        if "lavfi.r128.I" in reading
    ]


def assert_as_ffmpeg_says(samples: Samples, rate_hz: int, layout: str) -> None:
    expected, measures = measured_by_ffmpeg(samples, rate_hz, layout), readings(samples, rate_hz)
    # FFmpeg counts blocks in a histogram of 0.01 LU, and prints thousandths.
    assert measures["integrated"] == pytest.approx(expected[-1]["I"], abs=0.011)
    momentary = max(measure["M"] for measure in expected)
    assert measures["momentary_max"] == pytest.approx(momentary, abs=0.001)
    if measures["short_term_max"] is not None:
        short_term = max(measure["S"] for measure in expected)
        assert measures["short_term_max"] == pytest.approx(short_term, abs=0.001)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_are_as_loud_as_ffmpeg_says(path: Path) -> None:
    samples, rate_hz = soundfile.read(path, frames=30 * 44_100, dtype="float32", always_2d=True)
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    assert_as_ffmpeg_says(samples, rate_hz, layout)


@pytest.mark.parametrize(("channels", "layout"), [(5, "5.0"), (6, "5.1")])
def test_surround_is_as_loud_as_ffmpeg_says(channels: int, layout: str) -> None:
    assert_as_ffmpeg_says(noise(4, 48_000, channels=channels), 48_000, layout)


@given(
    hops=st.integers(0, 150),
    rest=st.integers(0, 399),
    hops_in_block=st.integers(1, 20),
    channels=st.integers(1, 2),
    borders=st.sets(st.integers(1, 150)),
    order=st.randoms(use_true_random=False),
)
def test_the_result_does_not_depend_on_the_division(
    hops: int, rest: int, hops_in_block: int, channels: int, borders: set[int], order: Random
) -> None:
    rng = np.random.default_rng(hops)
    levels = np.repeat(10 ** rng.uniform(-4, 0, hops + 1), 400)[: hops * 400 + rest, None]
    samples = (levels * rng.normal(0, 0.3, (len(levels), channels))).astype(np.float32)
    count = -(-len(samples) // (400 * hops_in_block))
    inner = sorted(border for border in borders if border < count)
    # Blocks of few hops are those of recordings with many channels.
    with patch.object(blocks, "_HOPS", hops_in_block):
        whole = divided(samples, [], order)
        parts = divided(samples, inner, order)
        assert parts == whole
        assert parts.readings() == whole.readings()
        assert divided(samples, list(range(1, count)), order) == whole


def test_all_windows_are_counted_once() -> None:
    samples = noise(7.35, 4_000, amplitude=0.2)[:, None]
    whole = divided(samples, [1, 3], Random(0))
    assert (sum(whole.momentary.counts.values()), sum(whole.short_term.counts.values())) == (70, 44)


def test_the_state_is_small_and_can_be_stored_as_json() -> None:
    samples = np.tile(noise(10, 4_000), 60)[:, None]
    meter = divided(samples, [], Random(0))
    state = json.loads(json.dumps(asdict(meter)))
    assert (len(state["first"]), len(state["last"])) == (29, 29)
    assert len(state["momentary"]["counts"]) < 400 < 5_000 < meter.frames // 400
    assert math.isfinite(state["momentary"]["loudest"])


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_silence_has_no_loudness(rate_hz: int, channels: int) -> None:
    quiet = np.zeros((4 * rate_hz, channels), np.float32)
    nothing = {measure.name.removeprefix("loudness."): None for measure in MEASURES}
    assert readings(quiet, rate_hz) == nothing
    assert readings(quiet[:1], rate_hz) == nothing
    empty = LoudnessMeter(Shape(rate_hz, channels)).readings()
    assert list(empty.values()) == [None] * len(MEASURES)


def test_sounds_below_the_gate_have_only_maxima() -> None:
    # In one channel, the loudness of EBU's sine is 3 LU below its peak. The filters' gain at 1 kHz
    # is 0.01 dB higher than EBU says.
    measures = readings(sine(-67.1, 4, 48_000), 48_000)
    assert measures["momentary_max"] == pytest.approx(-70.1, abs=0.02)
    assert measures["short_term_max"] == pytest.approx(-70.1, abs=0.02)
    assert measures["integrated"] is measures["range"] is None
    measures = readings(sine(-66.9, 4, 48_000), 48_000)
    assert measures["integrated"] == pytest.approx(-69.9, abs=0.02)
    assert measures["range"] == 0


def test_the_first_of_equally_loud_windows_is_found() -> None:
    # The sound lies at the same place of each block of two seconds, so the energies are the same.
    sound = np.concatenate([silence(0.5, 8_000), noise(0.4, 8_000), silence(1.1, 8_000)])
    assert readings(np.tile(sound, 5), 8_000)["momentary_max_second"] == 0.5


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.237, 0.399])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 192_000])
def test_less_than_400_ms_are_one_window(seconds: float, rate_hz: int) -> None:
    samples = noise(seconds, rate_hz)
    measures = readings(samples, rate_hz)
    # float32 instead of float64.
    expected = pytest.approx(integrated_loudness(samples, rate_hz), abs=1e-4)
    assert (measures["integrated"], measures["momentary_max_second"]) == (expected, 0)
    assert measures["momentary_max"] == measures["integrated"]
    assert measures["short_term_max"] is measures["range"] is None


def test_less_than_400_ms_in_many_channels_take_several_blocks() -> None:
    samples, length = noise(0.25, 192_000, channels=64), Shape(192_000, 64).block_frames
    assert length == 19_200
    first = read_part(LoudnessMeter, samples, 192_000, 0, 2 * length)
    first.merge(read_part(LoudnessMeter, samples, 192_000, 2 * length, len(samples)))
    assert first == read_part(LoudnessMeter, samples, 192_000, 0, len(samples))
    energies = [10 ** (integrated_loudness(plane, 192_000) / 10) for plane in samples.T]
    # float32 instead of float64.
    expected = pytest.approx(10 * math.log10(sum(energies)), abs=1e-4)
    assert first.readings()["loudness.integrated"] == expected


def test_one_sample_is_a_click() -> None:
    measures = readings(click(1 / 48_000, 48_000), 48_000)
    # The first sample passes the filters with the gain of their first coefficient.
    gain_db = 20 * math.log10(1.53512485958697)
    assert measures["integrated"] == pytest.approx(gain_db - 0.691, abs=1e-6)


def test_three_seconds_have_one_short_term_loudness_and_no_range() -> None:
    measures = readings(sine(-20, 3, 48_000), 48_000)
    assert (measures["short_term_max_second"], measures["range"]) == (0, 0)
    measures = readings(sine(-20, 3, 48_000)[:-1], 48_000)
    assert measures["short_term_max"] is measures["range"] is None


def test_rates_that_the_filters_do_not_exist_for_have_no_loudness() -> None:
    assert set(readings(noise(4, 2_000), 2_000).values()) == {None}


def test_huge_samples_have_a_finite_loudness() -> None:
    samples = np.full(48_000, 3e38, np.float32) * np.float32([1, -1] * 24_000)
    values = [value for value in readings(samples, 48_000).values() if value is not None]
    assert np.isfinite(values).all()
    assert values[0] > 300
