import json
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import TypeAdapter, ValidationError

from melmill.transforms.features.filterbank import mel_filterbank
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import (
    MelSpec,
    contradictions,
    filterbank,
    mel_shape,
)
from melmill.transforms.features.standardization import StandardizationSpec

EPS = float(np.finfo(np.float32).eps)
BARE = LogSpec("none", top_db=None)
SMALL = MelSpec(n_fft=512, hop_length=128, n_mels=32)
RATE_HZ = 16000


def noise(*shape, amplitude=0.2, seed=0):
    return amplitude * np.random.default_rng(seed).standard_normal(shape, np.float32)


def tone(samples, frequency_hz=1000.0, amplitude=0.9):
    radians = 2 * np.pi * frequency_hz / RATE_HZ * np.arange(samples)
    return (amplitude * np.sin(radians)).astype(np.float32)


def features(chunk, spec):
    return MelExtractor(spec, RATE_HZ, len(chunk))(chunk[np.newaxis])[0]


def stft_settings(spec):
    names = ("n_fft", "win_length", "hop_length", "window", "center", "pad_mode")
    return {name: getattr(spec, name) for name in names}


def mel_settings(spec):
    return {
        "n_mels": spec.n_mels,
        "fmin": spec.f_min_hz,
        "fmax": spec.f_max_hz,
        "htk": spec.scale == "htk",
        "norm": "slaney" if spec.norm == "slaney" else None,
    }


def librosa_mel(chunk, spec):
    return librosa.feature.melspectrogram(
        y=chunk, sr=RATE_HZ, power=spec.power, **stft_settings(spec), **mel_settings(spec)
    )


def rounding(chunk, spec):
    """Return an upper bound of the mel values' rounding errors, as a column with a row per band.

    librosa transforms in double precision; we transform in single precision. The rounding adds
    an error e to each bin X of the spectrum. e is c·EPS times the loudest bin, however quiet X
    is. An amplitude is then wrong by c·EPS·max. A power is wrong by 2|X||e| + |e|². With
    t = 1e-4, 2|X||e| <= t|X|² + |e|²/t. So a power is wrong by 1e-4 of itself +
    1e4·(c·EPS·max)². The error of a band is the sum of its bins' errors times their weights.
    Over 3,000 random specs with tones, sweeps and noise, c stayed below 0.9. Sounds that fill
    the spectrum agree to 1e-6 of each value.
    """
    loudest = np.abs(librosa.stft(chunk, **stft_settings(spec))).max()
    weights = librosa.filters.mel(sr=RATE_HZ, n_fft=spec.n_fft, **mel_settings(spec))
    bin_error = {1: EPS * loudest, 2: 1e4 * (EPS * loudest) ** 2}[spec.power]
    return bin_error * weights.sum(axis=1, keepdims=True)


def assert_mel_is_librosas(chunk, spec):
    ours, theirs = features(chunk, replace(spec, log=BARE)), librosa_mel(chunk, spec)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    assert (np.abs(ours - theirs) <= 1e-4 * theirs + rounding(chunk, spec)).all()


SPECS = {
    "librosa's default": MelSpec(),
    "amplitudes": MelSpec(power=1),
    "htk without norm": MelSpec(n_fft=1024, hop_length=160, n_mels=64, scale="htk", norm="none"),
    "25 ms frames": MelSpec(n_fft=400, hop_length=160, n_mels=40),
    "short window in a long transform": MelSpec(win_length=601, hop_length=150, window="hamming"),
    "not centred": MelSpec(n_fft=1024, hop_length=300, n_mels=40, center=False),
    "mirrored": MelSpec(n_fft=1000, hop_length=250, n_mels=40, pad_mode="reflect"),
    "odd transform": MelSpec(n_fft=1021, win_length=800, hop_length=251, n_mels=40, power=1),
    "part of the range": MelSpec(n_mels=40, f_min_hz=300.0, f_max_hz=3400.0),
    "one band": MelSpec(n_mels=1),
}
CHUNKS = {
    "noise": noise(40000),
    "tone": tone(40000),
    "quiet noise": noise(40000, amplitude=1e-4),
    "tone over quiet noise": tone(40000, 440.0, 0.5) + noise(40000, amplitude=1e-4),
    "sweep": (0.8 * np.sin(np.linspace(0, 150, 40000) ** 2)).astype(np.float32),
    "constant": np.full(40000, 0.5, np.float32),
    "click": np.eye(1, 40000, 20000, dtype=np.float32)[0],
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_mel_values_are_librosas(spec, chunk):
    assert_mel_is_librosas(chunk, spec)


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_decibels_are_librosas(spec, chunk):
    to_db = librosa.power_to_db if spec.power == 2 else librosa.amplitude_to_db
    # A bin 80 dB below the loudest bin has 1e-8 of its power. The rounding above may add
    # 1e4·EPS², which is 1 in 70. The measured error stays below 0.0016 dB, and below 2e-5 dB
    # on noise.
    assert_allclose(features(chunk, spec), to_db(librosa_mel(chunk, spec)), rtol=0, atol=0.01)


@st.composite
def specs(draw):
    n_fft = draw(st.sampled_from([256, 400, 512, 1000, 1021, 2048]))
    win_length = draw(st.none() | st.integers(n_fft // 3, n_fft))
    return MelSpec(
        n_fft=n_fft,
        win_length=win_length,
        hop_length=draw(st.integers(40, win_length or n_fft)),
        window=draw(st.sampled_from(["hann", "hamming", "blackman", "boxcar", "cosine"])),
        center=draw(st.booleans()),
        pad_mode=draw(st.sampled_from(["constant", "edge", "reflect", "symmetric"])),
        power=draw(st.sampled_from([1, 2])),
        n_mels=draw(st.integers(1, 60)),
        f_min_hz=draw(st.floats(0.0, 1000.0)),
        f_max_hz=draw(st.none() | st.floats(2000.0, RATE_HZ / 2)),
        scale=draw(st.sampled_from(["slaney", "htk"])),
        norm=draw(st.sampled_from(["slaney", "none"])),
        log=BARE,
    )


def librosa_mirrors_twice(spec, chunk_samples):
    """Return whether librosa 0.11 computes a wrong value for the last sample of the padding.

    librosa mirrors only the tail of the chunk that its last frame covers. In these cases the
    tail is one sample too short for the padding, so librosa mirrors it twice.
    """
    long_hop = spec.hop_length >= spec.n_fft // 2
    return spec.pad_mode == "reflect" and long_hop and chunk_samples % spec.hop_length == 0


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(specs(), st.integers(300, 6000), st.floats(20, 7900), st.sampled_from([0.0, 1e-4, 0.1]))
def test_mel_values_are_librosas_for_every_spec(spec, chunk_samples, frequency_hz, noise_amplitude):
    assume(not contradictions(spec, RATE_HZ, chunk_samples))
    assume(not librosa_mirrors_twice(spec, chunk_samples))
    chunk = tone(chunk_samples, frequency_hz) + noise(chunk_samples, amplitude=noise_amplitude)
    assert_mel_is_librosas(chunk, spec)


def test_the_whole_chunk_is_mirrored_where_librosa_mirrors_its_tail_twice():
    spec = replace(SMALL, hop_length=500, window="boxcar", pad_mode="reflect", log=BARE)
    chunk = noise(5000)
    theirs = librosa_mel(np.pad(chunk, 256, mode="reflect"), replace(spec, center=False))
    assert_allclose(features(chunk, spec), theirs, rtol=1e-4)
    assert not np.allclose(librosa_mel(chunk, spec), theirs, rtol=1e-2)


@pytest.mark.parametrize("top_db", [None, 80.0, 30.0, 0.0])
@pytest.mark.parametrize("ref", [1.0, 0.25, 1e-12, "max"])
@pytest.mark.parametrize("power", [1, 2])
def test_ref_and_top_db_are_librosas(power, ref, top_db):
    spec = replace(SMALL, power=power, log=LogSpec(ref=ref, top_db=top_db))
    to_db = librosa.power_to_db if power == 2 else librosa.amplitude_to_db
    chunk = noise(8000)
    theirs = to_db(librosa_mel(chunk, spec), ref=np.max if ref == "max" else ref, top_db=top_db)
    # Values around 100 dB are rounded, and the mel values agree only to 1e-6.
    assert_allclose(features(chunk, spec), theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("power", [1, 2])
def test_the_decibel_floor_is_librosas_amin(power):
    spec = replace(SMALL, power=power, log=LogSpec(floor=1e-4, top_db=None))
    mel = librosa_mel(noise(8000, amplitude=0.01), spec)
    theirs = (
        librosa.power_to_db(mel, amin=1e-4, top_db=None)
        if power == 2
        else librosa.amplitude_to_db(mel, amin=1e-2, top_db=None)
    )
    ours = features(noise(8000, amplitude=0.01), spec)
    assert_allclose(ours, theirs, rtol=0, atol=5e-5)
    assert ours.min() == -40.0


@pytest.mark.parametrize(("kind", "log"), [("ln", np.log), ("log10", np.log10)])
@pytest.mark.parametrize(("floor", "offset"), [(1e-10, 0.0), (1e-2, 0.0), (0.0, 1e-6), (0.0, 1.0)])
def test_plain_logarithms_are_numpys(kind, log, floor, offset):
    spec = replace(SMALL, log=LogSpec(kind, floor=floor, offset=offset, top_db=None))
    chunk = noise(8000)
    theirs = log(np.maximum(librosa_mel(chunk, spec) + offset, floor))
    assert_allclose(features(chunk, spec), theirs, rtol=0, atol=1e-5)


def test_the_clamp_refers_to_each_chunk_alone():
    loud_and_quiet = np.stack([noise(8000), noise(8000, amplitude=1e-5)])
    spec = replace(SMALL, log=LogSpec(floor=1e-20, top_db=40.0))
    decibels = MelExtractor(spec, RATE_HZ, 8000)(loud_and_quiet)
    assert decibels[1].max() < decibels[0].min()


@pytest.mark.parametrize("frequency_hz", [250.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_the_band_around_it(frequency_hz):
    weights = mel_filterbank(
        sample_rate_hz=RATE_HZ, n_fft=512, n_mels=32, f_min_hz=0.0, f_max_hz=8000.0
    )
    expected = weights[:, round(frequency_hz * 512 / RATE_HZ)].argmax()
    assert (features(tone(8000, frequency_hz), SMALL)[:, 2:-2].argmax(axis=0) == expected).all()


def test_a_click_shows_the_filterbank():
    spec = replace(SMALL, log=BARE)
    weights = mel_filterbank(
        sample_rate_hz=RATE_HZ, n_fft=512, n_mels=32, f_min_hz=0.0, f_max_hz=8000.0
    )
    click = np.eye(1, 4096, 10 * 128, dtype=np.float32)[0]
    # The middle of the window is 1, and the spectrum of a single sample of 1 is 1 everywhere.
    assert_allclose(features(click, spec)[:, 10], weights.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("log", "value"),
    [
        (LogSpec(), -100.0),
        (LogSpec(top_db=None), -100.0),
        (LogSpec(ref="max"), 0.0),
        (LogSpec("log10", top_db=None), -10.0),
        (LogSpec("ln", floor=0.0, offset=1.0, top_db=None), 0.0),
        (BARE, 0.0),
    ],
)
@pytest.mark.parametrize("power", [1, 2])
def test_silence_is_the_floor(log, value, power):
    silence = features(np.zeros(8000, np.float32), replace(SMALL, log=log, power=power))
    assert silence.shape == (32, 63)
    # float32 cannot represent 1e-10 exactly, and its logarithm is rounded.
    assert_allclose(silence, value, rtol=2e-7)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_chunk_does_not_depend_on_its_batch(spec):
    batch = np.stack([*CHUNKS.values()])
    extractor = MelExtractor(spec, RATE_HZ, batch.shape[1])
    mels = [MelExtractor(spec, RATE_HZ, batch.shape[1])(chunk[np.newaxis])[0] for chunk in batch]
    for size in (1, 2, 3, len(batch)):
        for first in range(len(batch) - size + 1):
            batched = extractor(batch[first : first + size])
            assert_array_equal(batched, mels[first : first + size])


@pytest.mark.parametrize("spec", [SMALL, SPECS["odd transform"]])
def test_a_chunk_does_not_depend_on_where_it_lies_in_memory(spec):
    samples = 8001
    extractor = MelExtractor(spec, RATE_HZ, samples)
    expected = extractor(noise(1, samples))
    for shift in range(1, 16):
        source = np.empty(samples + shift, np.float32)[np.newaxis, shift:]
        source[:] = noise(1, samples)
        target = np.empty(expected.size + shift, np.float32)[shift:].reshape(expected.shape)
        assert_array_equal(extractor(source, out=target), expected)


def test_overlapping_chunks_need_no_copy():
    recording = noise(20000)
    overlapping = np.lib.stride_tricks.sliding_window_view(recording, 8000)[::3000]
    extractor = MelExtractor(SMALL, RATE_HZ, 8000)
    assert_array_equal(extractor(overlapping), extractor(overlapping.copy()))


def test_the_input_is_not_modified():
    chunks = noise(3, 8000)
    MelExtractor(SMALL, RATE_HZ, 8000)(chunks)
    assert_array_equal(chunks, noise(3, 8000))


def test_features_are_written_to_out():
    extractor = MelExtractor(SMALL, RATE_HZ, 8000)
    out = np.full((3, extractor.n_mels, extractor.n_frames), np.nan, np.float32)
    assert extractor(noise(3, 8000), out=out) is out
    assert_array_equal(out, extractor(noise(3, 8000)))


def test_no_chunks_have_no_features():
    assert MelExtractor(SMALL, RATE_HZ, 8000)(noise(0, 8000)).shape == (0, 32, 63)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (noise(2, 7999), r"chunks is float32 of shape \(2, 7999\).* float32 of shape \(2, 8000\)"),
        (noise(8000), r"chunks is float32 of shape \(8000,\)"),
        (noise(1, 1, 8000), r"chunks is float32 of shape \(1, 1, 8000\)"),
        (np.float32(0.5), r"chunks is float32 of shape \(\)"),
        (np.zeros((2, 8000)), "chunks is float64"),
        (np.zeros((2, 8000), np.int16), "chunks is int16"),
        (np.zeros((2, 8000), ">f4"), "chunks is >f4"),
    ],
)
def test_chunks_of_another_shape_or_dtype_are_refused(chunks, message):
    with pytest.raises(ValueError, match=message):
        MelExtractor(SMALL, RATE_HZ, 8000)(chunks)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((1, 32, 63), np.float32), r"out is float32 of shape \(1, 32, 63\)"),
        (np.empty((2, 32, 63)), "out is float64"),
        (np.empty((2, 63, 32), np.float32).transpose(0, 2, 1), "out has strides"),
    ],
)
def test_an_out_of_another_shape_or_layout_is_refused(out, message):
    with pytest.raises(ValueError, match=message):
        MelExtractor(SMALL, RATE_HZ, 8000)(noise(2, 8000), out=out)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n_fft", [400, 401, 512])
@pytest.mark.parametrize("hop_length", [1, 160, 399])
def test_frames_are_counted_as_librosa_counts_them(n_fft, hop_length, center):
    spec = MelSpec(n_fft=n_fft, hop_length=hop_length, center=center)
    for samples in (512, 513, 639, 640, 641):
        theirs = librosa.stft(noise(samples), n_fft=n_fft, hop_length=hop_length, center=center)
        assert mel_shape(spec, samples)[1] == theirs.shape[1]


def with_log(**changes):
    return MelSpec(log=replace(LogSpec(), **changes))


@pytest.mark.parametrize(
    ("spec", "key", "value", "allowed"),
    [
        (MelSpec(win_length=4096), "win_length", 4096, "at most n_fft, 2048"),
        (MelSpec(hop_length=2049), "hop_length", 2049, "at most win_length, 2048"),
        (MelSpec(win_length=400), "hop_length", 512, "at most win_length, 400"),
        (MelSpec(window="kaiser"), "window", "kaiser", "without parameters"),
        (MelSpec(window="hen"), "window", "hen", "scipy.signal.get_window"),
        (MelSpec(n_fft=65536, center=False), "n_fft", 65536, "48000 samples"),
        (
            MelSpec(n_fft=96000, pad_mode="reflect"),
            "pad_mode",
            "reflect",
            "needs n_fft // 2 = 48000",
        ),
        (
            MelSpec(n_fft=96002, pad_mode="symmetric"),
            "pad_mode",
            "symmetric",
            "the chunk has 48000",
        ),
        (MelSpec(f_max_hz=8000.1), "f_max_hz", 8000.1, "at most 8000.0"),
        (MelSpec(f_min_hz=8000.0), "f_min_hz", 8000.0, "below f_max_hz, 8000.0"),
        (MelSpec(f_min_hz=500.0, f_max_hz=400.0), "f_min_hz", 500.0, "below f_max_hz, 400.0"),
        (MelSpec(n_fft=256, hop_length=64), "n_mels", 128, "13 of the bands"),
        (with_log(kind="ln"), "log.top_db", 80.0, "null where log.kind is 'ln'"),
        (with_log(kind="ln", ref="max", top_db=None), "log.ref", "max", "1.0 where"),
        (with_log(offset=1e-6), "log.offset", 1e-6, "0.0 where log.kind is 'db'"),
        (with_log(kind="none", offset=1.0, top_db=None), "log.offset", 1.0, "'none'"),
        (with_log(floor=0.0), "log.floor", 0.0, "infinite"),
        (with_log(kind="log10", floor=1e-60, top_db=None), "log.floor", 1e-60, "infinite"),
        (with_log(gain=2.0), "log.gain", 2.0, "1.0 where log.kind is 'db'"),
        (with_log(range=8.0), "log.range", 8.0, "null where log.kind is 'db'"),
        (with_log(range_top=1.5), "log.range_top", 1.5, "max where log.range is null"),
        (
            MelSpec(window_position="left"),
            *("window_position", "left", "center where center is true"),
        ),
        (MelSpec(pad_samples=10), "pad_samples", 10, "null where center is true"),
        (MelSpec(snip_edges=False), "snip_edges", False, "true, or set center to false"),
        (MelSpec(magnitude_epsilon=1e-9), "magnitude_epsilon", 1e-9, "0.0 where power is 2"),
        (MelSpec(triangles="mel"), "norm", "slaney", "none where triangles is mel"),
        (
            MelSpec(n_fft=48000, center=False, drop_last_frame=True),
            *("drop_last_frame", True, "false: a chunk has 1 frame"),
        ),
        (MelSpec(stack_frames=64, hop_length=2048), "stack_frames", 64, "a chunk has 24 frames"),
        (
            MelSpec(n_fft=65536, win_length=50000, window_position="left", center=False),
            *("win_length", 50000, "at most the chunk's 48000 samples"),
        ),
        (
            MelSpec(n_fft=48000, center=False, standardization=StandardizationSpec(ddof=1)),
            *("standardization.ddof", 1, "0 where a chunk has one frame"),
        ),
        (
            MelSpec(standardization=StandardizationSpec(std=2.0, std_epsilon=0.1)),
            *("standardization.std_epsilon", 0.1, "0.0 where standardization.std is a number"),
        ),
    ],
)
def test_each_contradiction_is_named(spec, key, value, allowed):
    [(actual_key, actual_value, actual_allowed)] = contradictions(spec, 16000, 48000)
    assert (actual_key, actual_value) == (key, value)
    assert allowed in actual_allowed
    with pytest.raises(ValueError, match=f"{key} is {value!r}; it may be .*{allowed}"):
        MelExtractor(spec, 16000, 48000)


@pytest.mark.parametrize(
    "spec",
    [
        *SPECS.values(),
        MelSpec(n_fft=95998, pad_mode="reflect"),
        MelSpec(n_fft=96000, pad_mode="symmetric"),
        MelSpec(n_fft=48000, center=False, pad_mode="reflect"),
        MelSpec(n_fft=65536, pad_mode="edge"),
        with_log(kind="ln", floor=0.0, offset=1e-6, top_db=None),
        with_log(kind="none", floor=0.0, top_db=None),
        MelSpec(n_fft=256, hop_length=64, empty_bands=True),
        MelSpec(n_fft=50000, center=False, pad_samples=1000, pad_mode="reflect"),
        MelSpec(n_fft=48000, center=False, standardization=StandardizationSpec(ddof=0)),
    ],
)
def test_what_can_be_made_has_no_contradictions(spec):
    assert contradictions(spec, 16000, 48000) == []


def test_all_contradictions_are_found_at_once():
    spec = MelSpec(
        n_fft=512,
        win_length=600,
        hop_length=700,
        window="hen",
        pad_mode="reflect",
        f_min_hz=9000.0,
        f_max_hz=8500.0,
        log=LogSpec("ln", ref="max", floor=0.0),
    )
    keys = [key for key, _, _ in contradictions(spec, 16000, 100)]
    framing = ["win_length", "hop_length", "window", "pad_mode"]
    assert keys == [*framing, "f_max_hz", "f_min_hz", "log.ref", "log.top_db", "log.floor"]


def test_a_spec_is_read_from_plain_settings():
    settings_ = {"n_fft": 400, "hop_length": 160, "log": {"kind": "ln", "top_db": None}}
    # The recipe is also validated as JSON. If the recipe's module is loaded, validation is strict.
    spec = TypeAdapter(MelSpec).validate_json(json.dumps(settings_))
    assert spec == MelSpec(n_fft=400, hop_length=160, log=LogSpec("ln", top_db=None))


@pytest.mark.parametrize(
    "settings_",
    [
        {"n_fft": 0},
        {"hop_length": 1.5},
        {"power": 3},
        {"scale": "bark"},
        {"pad_mode": "wrap"},
        {"f_min_hz": -1.0},
        {"f_max_hz": float("inf")},
        {"log": {"ref": 0.0}},
        {"log": {"ref": "median"}},
        {"log": {"floor": float("nan")}},
        {"log": {"top_db": -1.0}},
    ],
)
def test_settings_out_of_bounds_are_refused(settings_):
    with pytest.raises(ValidationError):
        TypeAdapter(MelSpec).validate_python(settings_)


def test_an_extractor_survives_pickling():
    extractor = MelExtractor(replace(SMALL, pad_mode="reflect"), RATE_HZ, 8000)
    copy = pickle.loads(pickle.dumps(extractor))
    assert_array_equal(copy(noise(2, 8000)), extractor(noise(2, 8000)))


def test_workers_do_not_import_librosa_numba_or_scipy_signal():
    code = """if True:
        import sys
        import numpy as np
        from melmill.transforms.features.mel import MelExtractor
        from melmill.transforms.features.mel_spec import MelSpec
        MelExtractor(MelSpec(), 22050, 66150)(np.zeros((1, 66150), np.float32))
        print(*sorted({"librosa", "numba", "scipy.signal", "apache_beam"} & set(sys.modules)))
    """
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""


# Settings that librosa does not have; test_presets.py compares them with the models' front ends


def test_empty_bands_are_silent() -> None:
    spec = MelSpec(n_fft=256, hop_length=64, empty_bands=True, log=BARE)
    mel = features(noise(4000), spec)
    assert not mel[~filterbank(spec, RATE_HZ).any(axis=1)].any()
    assert np.isfinite(features(noise(4000), replace(spec, log=LogSpec()))).all()


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_stacked_frames_lie_below_one_another(frames: int) -> None:
    chunk = noise(4000)
    single, stacked = features(chunk, SMALL), features(chunk, replace(SMALL, stack_frames=frames))
    number = single.shape[1] // frames
    assert stacked.shape == mel_shape(replace(SMALL, stack_frames=frames), 4000)
    assert stacked.shape == (32 * frames, number)
    for index in range(frames):
        mine = stacked[32 * index : 32 * (index + 1)]
        assert_array_equal(mine, single[:, index : number * frames : frames])


def test_a_dropped_frame_is_the_last() -> None:
    chunk = noise(4000)
    fewer = features(chunk, replace(SMALL, drop_last_frame=True))
    # On some processors, a matrix product of another width sums in another order: a few units in
    # the last place of float32, which are 2e-6 of a logarithm.
    np.testing.assert_allclose(fewer, features(chunk, SMALL)[:, :-1], atol=1e-5)


@pytest.mark.parametrize("top", ["max", -1.0])
@pytest.mark.parametrize("kind", ["ln", "log10"])
def test_the_range_of_a_logarithm_ends_at_the_maximum_or_at_a_number(kind: str, top: Any) -> None:
    plain = replace(SMALL, log=LogSpec(kind, top_db=None))
    limited = replace(SMALL, log=LogSpec(kind, top_db=None, range=0.5, range_top=top))
    values = features(noise(4000), plain)
    highest = values.max() if top == "max" else top
    assert_array_equal(features(noise(4000), limited), np.maximum(values, highest - 0.5))


@given(
    samples=st.integers(600, 3000),
    hop_length=st.integers(1, 400),
    win_length=st.integers(400, 512),
    position=st.sampled_from(["center", "left"]),
    snip_edges=st.booleans(),
    pad_samples=st.none() | st.integers(0, 300),
)
def test_the_shape_is_what_comes_out(
    samples: int,
    hop_length: int,
    win_length: int,
    position: Any,
    snip_edges: bool,
    pad_samples: int | None,
) -> None:
    spec = MelSpec(
        n_fft=512,
        win_length=win_length,
        hop_length=hop_length,
        window_position=position,
        center=False,
        pad_samples=pad_samples,
        snip_edges=snip_edges,
        pad_mode="symmetric",
        n_mels=20,
    )
    assume(not contradictions(spec, RATE_HZ, samples))
    values = features(noise(samples), spec)
    assert values.shape == mel_shape(spec, samples)
    if not snip_edges:
        assert values.shape[1] == (samples + hop_length // 2) // hop_length
