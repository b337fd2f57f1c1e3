"""Test the reasons: which measures are unusual."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.transforms.patterns.reasons import COMPARED, UsualReadings, flatten


def readings(rng: np.random.Generator, **changes: float) -> dict[str, float]:
    known = {
        "level.rms": rng.normal(-20, 3),
        "level.peak": rng.normal(-1, 0.5),
        "origin.bandwidth": rng.normal(16_000, 500),
        "spectrum.flatness": abs(rng.normal(0.02, 0.005)),
        "clipping.share": 0.0,
        "noise.offset": 2e-7,
    }
    return known | {name.replace("_", ".", 1): value for name, value in changes.items()}


@pytest.fixture
def usual() -> UsualReadings:
    rng = np.random.default_rng(0)
    return UsualReadings([readings(rng) for _ in range(200)])


def test_unusual_measures_are_named_the_most_unusual_first(usual):
    rng = np.random.default_rng(1)
    odd = readings(rng, origin_bandwidth=4_000.0, level_rms=-35.0)
    reasons = usual.reasons(odd)
    assert [reason.measure for reason in reasons] == ["origin.bandwidth", "level.rms"]
    assert reasons[0].text.startswith("origin.bandwidth 4,000 Hz is low (median 15,9")
    assert reasons[0].deviation == pytest.approx(-24, abs=3)


def test_usual_recordings_have_no_reasons(usual):
    calm = {"level.rms": -19.0, "origin.bandwidth": 16_300.0, "spectrum.flatness": 0.021}
    assert usual.reasons(calm) == ()
    assert usual.reasons({}) == ()


def test_measures_of_a_group_give_one_reason_and_there_are_at_most_three(usual):
    rng = np.random.default_rng(1)
    odd = readings(
        rng, level_rms=-90.0, level_peak=-60.0, origin_bandwidth=900.0, clipping_share=0.4
    )
    reasons = usual.reasons({**odd, "spectrum.flatness": 0.9})
    assert [reason.measure for reason in reasons] == [
        *("clipping.share", "spectrum.flatness", "level.peak")
    ]


def test_differences_that_nobody_hears_are_no_reasons(usual):
    assert usual.reasons({"noise.offset": 8e-6}) == ()
    (reason,) = usual.reasons({"noise.offset": 0.05})
    assert reason.text == "noise.offset 0.05 is high (median 2e-07)"


def test_the_typical_measures_of_a_group_need_a_smaller_deviation(usual):
    rng = np.random.default_rng(2)
    group = [readings(rng, level_rms=-26.0 + rng.normal(0, 1)) for _ in range(30)]
    (reason,) = usual.typical(group)
    assert (reason.measure, reason.value < reason.median) == ("level.rms", True)
    assert usual.typical([]) == ()


def test_few_recordings_say_nothing_about_what_is_usual():
    rng = np.random.default_rng(0)
    few = UsualReadings([readings(rng) for _ in range(4)])
    assert few.reasons(readings(rng, level_rms=-90.0)) == ()


def test_readings_that_are_not_defined_or_no_numbers_are_left_out():
    measures = {"level": {"rms": None, "peak": -1.5, "peak_second": 3.0}, "channels": None}
    measures["clipping"] = {"runs": 3, "events": []}
    assert flatten(measures) == {"level.peak": -1.5, "clipping.runs": 3.0}
    assert flatten(None) == {}
    assert "level.peak_second" not in COMPARED
    assert "channels.dead" not in COMPARED
