"""Pictures as PNG files: the right pixels, few colours, and a transparent background."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from melmill.pipelines.sound.colours import colour_map
from melmill.pipelines.sound.png import (
    BACKGROUND,
    LEVELS,
    LINE,
    WAVE,
    draw_levels,
    draw_waveform,
    png_bytes,
    wave_scale,
)


def decoded(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png_bytes(pixels))).convert("RGBA"))


def test_the_first_row_is_at_the_bottom_and_the_largest_value_is_brightest() -> None:
    values = np.array([[0.0, 1.0], [5.0, 10.0]], np.float32)
    colours = decoded(draw_levels(values, 0, 10))
    bright, dark = colour_map(LEVELS)[-1], colour_map(LEVELS)[0]
    assert colours[0, 1, :3].tolist() == bright.tolist()
    assert colours[1, 0, :3].tolist() == dark.tolist()
    assert (colours[..., 3] == 255).all()


def test_values_beyond_the_range_have_its_colours_and_nan_is_transparent() -> None:
    values = np.array([[-99.0, 99.0, np.nan, -np.inf]], np.float32)
    colours = decoded(draw_levels(values, 0, 10))[0]
    ends = colour_map(LEVELS)[[0, -1, 0]].tolist()
    assert [colours[k, :3].tolist() for k in (0, 1, 3)] == ends
    assert colours[2, 3] == 0


def test_brightness_grows_in_even_steps() -> None:
    red, green, blue = (colour_map(LEVELS) / 255).T
    linear = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    lightness = 116 * np.cbrt(linear) - 16
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.mean()


def test_a_waveform_reaches_from_its_smallest_to_its_largest_sample() -> None:
    pixels = draw_waveform(np.float32([-1, 0, -2]), np.float32([1, 0, 0.5]), 11)
    assert (pixels[:, 0] == WAVE).all()
    assert np.flatnonzero(pixels[:, 1] == WAVE).tolist() == [5]
    assert np.flatnonzero(pixels[:, 2] == WAVE).tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    quiet = draw_waveform(np.float32([-0.05]), np.float32([0.1]), 11, full=0.1)
    assert np.flatnonzero(quiet[:, 0] == WAVE).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert {*np.unique(pixels)} <= {BACKGROUND, WAVE, LINE}


@given(peak=st.floats(1e-30, 1e30))
def test_a_scale_has_room_for_the_peak_and_little_more(peak: float) -> None:
    assert peak * 0.99 <= wave_scale(peak) <= peak * 2.51
