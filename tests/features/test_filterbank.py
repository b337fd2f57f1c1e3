import librosa
import numpy as np
import pytest
from numpy.testing import assert_allclose

from melmill.transforms.features.filterbank import BandedSum, hz_to_mel, mel_filterbank, mel_to_hz

SCALES = ["slaney", "htk"]


def filterbank(**changes):
    settings = {
        "sample_rate_hz": 22050,
        "n_fft": 2048,
        "n_mels": 128,
        "f_min_hz": 0.0,
        "f_max_hz": 11025.0,
    }
    return mel_filterbank(**(settings | changes))


@pytest.mark.parametrize("norm", ["slaney", "none"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("sample_rate_hz", "n_fft", "n_mels", "f_min_hz", "f_max_hz"),
    [
        (22050, 2048, 128, 0.0, 11025.0),
        (16000, 400, 80, 0.0, 8000.0),
        (44100, 4096, 229, 30.0, 16000.0),
        (8000, 251, 23, 64.0, 3800.0),
        (48000, 512, 300, 0.0, 24000.0),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_the_filterbank_is_librosas(sample_rate_hz, n_fft, n_mels, f_min_hz, f_max_hz, scale, norm):
    ours = mel_filterbank(
        sample_rate_hz=sample_rate_hz,
        n_fft=n_fft,
        n_mels=n_mels,
        f_min_hz=f_min_hz,
        f_max_hz=f_max_hz,
        scale=scale,
        norm=norm,
    )
    theirs = librosa.filters.mel(
        sr=sample_rate_hz,
        n_fft=n_fft,
        n_mels=n_mels,
        fmin=f_min_hz,
        fmax=f_max_hz,
        htk=scale == "htk",
        norm="slaney" if norm == "slaney" else None,
        dtype=np.float64,
    )
    assert ours.shape == theirs.shape
    # Both compute the same formulas in double precision. They subtract nearly equal
    # frequencies, so the last bits differ.
    assert_allclose(ours, theirs, rtol=0, atol=1e-12 * theirs.max())


@pytest.mark.parametrize("scale", SCALES)
def test_the_mel_scale_is_librosas_and_inverts(scale):
    hz = np.array([0.0, 20.0, 440.0, 999.9, 1000.0, 1000.1, 6400.0, 24000.0])
    mels = np.array([hz_to_mel(f, scale) for f in hz])
    assert_allclose(mels, librosa.hz_to_mel(hz, htk=scale == "htk"), rtol=1e-14)
    assert_allclose(mel_to_hz(mels, scale), hz, rtol=1e-12, atol=1e-12)


def test_the_published_points_of_the_scales_hold():
    assert hz_to_mel(200.0, "slaney") == pytest.approx(3.0)
    assert hz_to_mel(6400.0, "slaney") == pytest.approx(15.0 + 27.0)
    assert hz_to_mel(700.0, "htk") == pytest.approx(2595.0 * np.log10(2.0))


@pytest.mark.parametrize("scale", SCALES)
def test_bare_triangles_share_every_bin_between_two_bands(scale):
    weights = filterbank(scale=scale, norm="none", n_mels=40)
    peaks = weights.argmax(axis=1)
    assert_allclose(weights.sum(axis=0)[peaks[0] + 1 : peaks[-1]], 1.0, rtol=1e-12)


def test_normed_triangles_have_area_one():
    bin_hz = 22050 / 65536
    areas = filterbank(n_fft=65536).sum(axis=1) * bin_hz
    # The sum over bins is a trapezoid rule. It errs by less than a bin at each of three corners.
    assert_allclose(areas, 1.0, atol=1e-3)


def test_bands_narrower_than_a_bin_are_empty():
    assert not filterbank(n_fft=256).any(axis=1).all()
    assert filterbank(n_fft=2048).any(axis=1).all()


@pytest.mark.parametrize("n_mels", [1, 7, 8, 9, 128])
@pytest.mark.parametrize("repeats", [1, 2])
def test_the_banded_sum_is_the_dense_product(n_mels, repeats):
    weights = np.repeat(filterbank(n_mels=n_mels), repeats, axis=1)
    spectrum = np.random.default_rng(0).random((13, weights.shape[1]), np.float32)
    summed = np.empty((n_mels, 13), np.float32)
    BandedSum(weights.astype(np.float32))(spectrum, out=summed)
    # Each sum has up to two thousand products in single precision, none of them negative.
    assert_allclose(summed, weights @ spectrum.T.astype(np.float64), rtol=1e-5)
