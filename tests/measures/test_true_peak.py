"""The true-peak meter, beside the filter of BS.1770, EBU's cases, and FFmpeg's meter."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.signal import firwin

from melmill.transforms.measures.blocks import Shape
from melmill.transforms.measures.true_peak import MEASURES, TruePeakMeter, _interpolator
from tests.ffmpeg_meter import read_with_ffmpeg
from tests.measures.meters import RECORDINGS, measure, read_part, read_real
from tests.signals import click, clipped, noise, silence

Samples = NDArray[np.float32]

#: Table of annex 2 of BS.1770-4, as printed.
PHASES = np.transpose(
    [
        (0.0017089843750, -0.0291748046875, -0.0189208984375, -0.0083007812500),
        (0.0109863281250, 0.0292968750000, 0.0330810546875, 0.0148925781250),
        (-0.0196533203125, -0.0517578125000, -0.0582275390625, -0.0266113281250),
        (0.0332031250000, 0.0891113281250, 0.1015625000000, 0.0476074218750),
        (-0.0594482421875, -0.1665039062500, -0.2003173828125, -0.1022949218750),
        (0.1373291015625, 0.4650878906250, 0.7797851562500, 0.9721679687500),
        (0.9721679687500, 0.7797851562500, 0.4650878906250, 0.1373291015625),
        (-0.1022949218750, -0.2003173828125, -0.1665039062500, -0.0594482421875),
        (0.0476074218750, 0.1015625000000, 0.0891113281250, 0.0332031250000),
        (-0.0266113281250, -0.0582275390625, -0.0517578125000, -0.0196533203125),
        (0.0148925781250, 0.0330810546875, 0.0292968750000, 0.0109863281250),
        (-0.0083007812500, -0.0189208984375, -0.0291748046875, 0.0017089843750),
    ]
)
#: Phases computed at a rate.
PHASES_AT = {44_100: PHASES, 95_999: PHASES, 96_000: PHASES[1:3], 192_000: PHASES[:0]}
#: Rounding of float32, relative.
ROUNDING = 1e-6


def readings(samples: Samples, rate_hz: int) -> dict[str, Any]:
    measures = measure(TruePeakMeter, samples, rate_hz)
    return {name.removeprefix("loudness."): value for name, value in measures.items()}


def true_peak(samples: Samples, phases: NDArray[np.float64]) -> float:
    """Filter all of a recording, with silence around it."""
    planes = samples.reshape(len(samples), -1).T.astype(np.float64)
    values = [np.abs(np.convolve(plane, phase)).max() for plane in planes for phase in phases]
    return max([*values, float(np.abs(planes).max())])


def divided(samples: Samples, borders: list[int], order: Random) -> TruePeakMeter:
    """Divide a recording at 1 kHz before some blocks, and merge the parts in a random order."""
    length = Shape(1_000, samples.shape[1]).block_frames
    cuts = [0, *(block * length for block in borders), len(samples)]
    parts = [read_part(TruePeakMeter, samples, 1_000, *cut) for cut in pairwise(cuts)]
    while len(parts) > 1:
        place = order.randrange(len(parts) - 1)
        parts[place].merge(parts.pop(place + 1))
    return parts[0]


def faded(samples: Samples) -> Samples:
    """Fade in and out: a sine that begins at once has a higher peak than its amplitude."""
    fade = np.minimum(1, np.arange(len(samples)) / 4_800)
    return np.float32(samples * fade * fade[::-1])


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(
    ("divisor", "phase", "amplitude", "expected"),
    [(4, 0, 0.5, -6), (4, 45, 0.5, -6), (6, 60, 0.5, -6), (8, 67.5, 0.5, -6), (4, 45, 1.41, 3)],
    ids=["3341-15", "3341-16", "3341-17", "3341-18", "3341-19"],
)
def test_ebus_sines(
    divisor: int, phase: float, amplitude: float, expected: float, rate_hz: int
) -> None:
    phases = 2 * np.pi * np.arange(rate_hz) / divisor + np.radians(phase)
    samples = faded(amplitude * np.sin(phases))
    peak = readings(samples, rate_hz)["true_peak"]
    assert expected - 0.4 <= peak <= expected + 0.2  # EBU's tolerance


@pytest.mark.parametrize("offset", range(4), ids=["3341-20", "3341-21", "3341-22", "3341-23"])
def test_ebus_peaks_between_samples(offset: int) -> None:
    quiet = 0.5 * np.sin(2 * np.pi * np.arange(96_000) / 24)
    loud = np.sin(2 * np.pi * np.arange(16) / 16)
    at_four_times_the_rate = np.concatenate([quiet, loud, quiet])
    samples = np.convolve(at_four_times_the_rate, firwin(255, 1 / 4), "same")[offset::4]
    assert -0.4 <= readings(faded(samples), 48_000)["true_peak"] <= 0.2  # EBU's tolerance


@pytest.mark.parametrize("rate_hz", PHASES_AT)
@pytest.mark.parametrize("channels", [1, 5, 64])
@pytest.mark.parametrize("frames", [1, 6, 11, 1_013, 5_000])
def test_noise_peaks_as_the_filter_of_the_recommendation_says(
    frames: int, channels: int, rate_hz: int
) -> None:
    samples = noise(1, frames, seed=frames, channels=channels, amplitude=0.5)
    expected = 20 * math.log10(true_peak(samples, PHASES_AT[rate_hz]))
    # A relative rounding of 1e-6 is 1e-5 dB.
    assert readings(samples, rate_hz)["true_peak"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rate_hz", [8_000, 96_000])
def test_segments_that_are_skipped_have_no_higher_peak(rate_hz: int) -> None:
    # Clipped and smooth sounds, whose bounds are close to their peaks, at levels close together.
    rng = np.random.default_rng(rate_hz)
    parts = [
        clipped(rng.uniform(50, 3_000), 0.2, rate_hz, gain=rng.uniform(0.8, 3))
        * rng.uniform(0.9, 1)
        for _ in range(40)
    ]
    samples = np.concatenate(parts).astype(np.float32)
    samples += noise(1, len(samples), amplitude=0.01)
    phases = PHASES if rate_hz < 96_000 else PHASES[1:3]
    expected = 20 * math.log10(true_peak(samples, phases))
    assert readings(samples, rate_hz)["true_peak"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("at", range(1_010, 1_040))
def test_a_peak_is_found_at_the_border_of_two_segments_and_at_the_end(at: int) -> None:
    samples = noise(3, 1_000, channels=2)
    samples[at, 1] = 1
    for frames in (at + 1, len(samples)):
        meter = read_part(TruePeakMeter, samples[:frames], 1_000, 0, frames)
        assert meter.peak == pytest.approx(true_peak(samples[:frames], PHASES), rel=ROUNDING)
        assert abs(meter.frame - at) <= 1


@pytest.mark.parametrize("curve", [0.05, 0.2, 0.5, 1, 2, 4])
@pytest.mark.parametrize("phase", PHASES)
def test_no_value_exceeds_the_bound_of_its_segment(phase: Samples, curve: float) -> None:
    # Find the samples of at most 1, with limited second differences, that have the highest value.
    differences = np.diff(np.eye(12), 2, axis=0)
    limits = {"A_ub": np.concatenate([differences, -differences]), "b_ub": np.full(20, curve)}
    worst = linprog(-phase[::-1], **limits, bounds=(-1, 1))
    interpolator, samples = _interpolator(44_100), worst.x[None].astype(np.float32)
    peak, _ = interpolator.peak(samples[0])
    assert peak >= -worst.fun - ROUNDING
    assert peak <= interpolator.gain
    assert peak <= interpolator.bounds(samples, np.abs(samples).max(axis=1, keepdims=True))


@given(
    frames=st.integers(1, 20_000),
    channels=st.integers(1, 2),
    kind=st.sampled_from(["noise", "repeated", "click"]),
    borders=st.sets(st.integers(1, 9)),
    order=st.randoms(use_true_random=False),
)
def test_the_result_does_not_depend_on_the_division(
    frames: int, channels: int, kind: str, borders: set[int], order: Random
) -> None:
    length = {"noise": frames, "repeated": min(frames, 500), "click": 1}[kind]
    samples = np.random.default_rng(frames).normal(0, 0.3, (length, channels)).astype(np.float32)
    if kind == "repeated":  # The same peak occurs in many segments and blocks.
        samples = np.resize(samples, (frames, channels))
    if kind == "click":
        samples = np.pad(samples, ((frames - 1 - frames // 3, frames // 3), (0, 0)))
    inner = sorted(border for border in borders if border * 2_000 < len(samples))
    whole, parts = divided(samples, [], order), divided(samples, inner, order)
    assert parts == whole
    assert parts.readings() == whole.readings()
    assert whole.peak == pytest.approx(true_peak(samples, PHASES), rel=ROUNDING)


@pytest.mark.parametrize("start", [0, 500, 1_018, 1_024, 1_999, 2_000, 5_998, 7_990])
def test_the_first_of_equal_peaks_is_found(start: int) -> None:
    bump = np.float32([0.2, 0.9, 0.9, 0.2])
    samples = np.zeros((8_000, 2), np.float32)
    for at in range(start, 8_000 - 4, 300):
        samples[at : at + 4, at // 300 % 2] = bump
    # The peak lies between the bump's second and third sample.
    for borders in ([], [1], [1, 2, 3]):
        assert divided(samples, borders, Random(start)).frame == start + 1


def test_peaks_before_the_first_sample_are_found() -> None:
    samples = np.float32([1, -1, 1, -1, 1, -1] + 20 * [0])
    meter = read_part(TruePeakMeter, samples[:, None], 48_000, 0, len(samples))
    assert meter.peak == pytest.approx(true_peak(samples, PHASES), rel=ROUNDING)
    assert meter.frame == 0
    mirrored = read_part(TruePeakMeter, samples[::-1, None], 48_000, 0, len(samples))
    assert mirrored.peak == pytest.approx(meter.peak, rel=ROUNDING)


def measured_by_ffmpeg(samples: Samples, rate_hz: int) -> float:
    layout, name = "mono" if samples.shape[1] == 1 else "stereo", "lavfi.r128.true_peak"
    readings = read_with_ffmpeg(samples, rate_hz, layout, "metadata=1:peak=true")
    return 20 * math.log10([float(reading[name]) for reading in readings if name in reading][-1])


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_peak_where_ffmpeg_says(path: Path) -> None:
    samples, rate_hz = read_real(path)
    samples = samples[: 30 * 44_100]
    expected = 20 * math.log10(true_peak(samples, PHASES))
    assert readings(samples, rate_hz)["true_peak"] == pytest.approx(expected, abs=1e-5)
    # FFmpeg resamples by another filter. The gain of the recommendation's varies by 0.25 dB.
    assert expected == pytest.approx(measured_by_ffmpeg(samples, rate_hz), abs=0.25)


def test_silence_has_no_true_peak() -> None:
    nothing = {measure.name: None for measure in MEASURES}
    assert measure(TruePeakMeter, silence(3, 8_000), 8_000) == nothing
    assert TruePeakMeter(Shape(8_000, 1)).readings() == nothing


def test_one_sample_peaks_at_itself() -> None:
    assert readings(np.float32([-0.5]), 44_100) == {
        "true_peak": pytest.approx(20 * math.log10(0.5)),
        "true_peak_second": 0,
    }


def test_a_click_peaks_where_it_is() -> None:
    measures = readings(click(5, 8_000, at_seconds=3.25, amplitude=0.1), 8_000)
    assert measures == {"true_peak": pytest.approx(-20, abs=1e-5), "true_peak_second": 3.25}


@pytest.mark.filterwarnings("error")
def test_huge_samples_have_a_finite_true_peak() -> None:
    samples = np.float32([3e38, -3e38] * 4_000)
    assert 590 < readings(samples, 8_000)["true_peak"] < 620
