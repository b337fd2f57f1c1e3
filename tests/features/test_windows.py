import librosa
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from melmill.transforms.features.windows import place_window, window_samples

OWN_WINDOWS = ["boxcar", "hann", "hamming", "blackman", "nuttall", "blackmanharris", "flattop"]
SCIPY_WINDOWS = ["bartlett", "triang", "cosine", "bohman", "parzen", "tukey", "han"]


@pytest.mark.parametrize("length", [1, 2, 3, 400, 601, 2048])
@pytest.mark.parametrize("name", OWN_WINDOWS + SCIPY_WINDOWS)
def test_windows_are_librosas(name, length):
    for periodic in (True, False):
        theirs = librosa.filters.get_window(name, length, fftbins=periodic)
        # Both sum the same few cosines; the last bit of a double may differ between platforms.
        ours = window_samples(name, length, periodic=periodic)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)


def test_the_povey_window_is_kaldis():
    # feature-window.cc: pow(0.5 - 0.5 * cos(a * i), 0.85), with a = 2π / (length - 1).
    kaldis = (0.5 - 0.5 * np.cos(2 * np.pi / 399 * np.arange(400))) ** 0.85
    ours = window_samples("povey", 400, periodic=False)
    np.testing.assert_allclose(ours, kaldis, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["no-such-window", "kaiser", "dpss"])
def test_unknown_windows_and_those_with_parameters_are_refused(name):
    with pytest.raises(ValueError, match=name):
        window_samples(name, 4)


@pytest.mark.parametrize("n_fft", [8, 9])
@pytest.mark.parametrize("length", [1, 5, 6, 8])
def test_short_windows_are_centred_as_librosa_centres_them(length, n_fft):
    window = window_samples("hann", length)
    theirs = librosa.util.pad_center(window, size=n_fft)
    assert_array_equal(place_window(window, n_fft, "center"), theirs.astype(np.float32))
    assert_array_equal(place_window(window, n_fft, "left"), window.astype(np.float32))
