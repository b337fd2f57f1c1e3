"""Pictures of features: one pixel for each value, in the colour that stands for it."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb

from melmill.pipelines.explore.feature_pictures import (
    LEVELS,
    ValueRange,
    draw_values,
    draw_waveform,
)


def pixels(png: bytes, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert(mode))


def viridis(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return Plotly's own colours of values, rounded to the levels of a picture."""
    shares = np.clip((values.astype(float) - low) / ((high - low) or 1), 0, 1)
    steps = np.rint(shares * (LEVELS - 1)) / (LEVELS - 1)
    colours = sample_colorscale("Viridis", steps.ravel().tolist())
    return np.rint([unlabel_rgb(colour) for colour in colours]).reshape(*values.shape, 3)


def test_each_pixel_has_the_colour_of_its_value_and_band_0_is_at_the_bottom() -> None:
    values = np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32)
    drawn = pixels(draw_values(values, ValueRange(-1, 1)))
    assert drawn.shape == (12, 7, 3)
    # Plotly rounds the colours between its anchors in another place.
    assert np.abs(drawn - viridis(values[::-1], -1, 1)).max() <= 1


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=1, max_dims=4, max_side=6),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_a_picture_has_a_pixel_for_each_value_of_any_shape(values: np.ndarray) -> None:
    shown = ValueRange.of(values)
    drawn = pixels(draw_values(values, shown))
    rows, columns, _ = drawn.shape
    assert rows * columns == values.size
    assert columns == values.shape[-1] or values.ndim == 1
    expected = viridis(values.reshape(rows, columns)[::-1], shown.low, shown.high)
    assert np.abs(drawn - expected).max() <= 1


def test_values_that_are_not_finite_have_a_colour_of_their_own() -> None:
    values = np.array([[0.0, np.nan, np.inf, 1.0]], np.float32)
    drawn = pixels(draw_values(values, ValueRange.of(values)))
    assert drawn[0, 1:3].tolist() == [[255, 0, 255]] * 2
    assert drawn[0, [0, 3]].tolist() == [[68, 1, 84], [253, 231, 37]]


def test_a_waveform_reaches_from_the_lowest_to_the_highest_sample_of_each_column() -> None:
    samples = np.zeros(256 * 10, np.int16)
    samples[5], samples[16] = 1000, -500
    is_drawn = pixels(draw_waveform(samples, ValueRange(-1000, 1000)), "RGBA")[..., 3] > 0
    middle = is_drawn[:, 100].nonzero()[0]
    assert len(middle) == 1
    assert is_drawn[: middle[0] + 1, 0].all()  # the first column: up to full height
    assert not is_drawn[middle[0] + 1 :, 0].any()
    assert is_drawn[:, 1].sum() == round(96 / 4) + 1  # half of the way down, and the middle


def test_a_waveform_may_be_shorter_than_its_picture_is_wide() -> None:
    assert pixels(draw_waveform(np.array([0.5, -0.5]), ValueRange(-1, 1))).shape == (96, 2, 3)
