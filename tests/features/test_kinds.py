"""The kinds of features beside log-mels: spectra, MFCC and PCEN, judged by librosa."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import librosa
import numpy as np
import pytest

from melmill.pipelines.config import load_config
from melmill.pipelines.snapshots.verify_reference import reference_row
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.mfcc import MfccExtractor, MfccSpec
from melmill.transforms.features.pcen import PcenExtractor, PcenSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft import StftExtractor
from melmill.transforms.features.stft_spec import StftSpec
from tests.signals import noise, song

RATE, LENGTH = 16_000, 16_000
#: Relative to the loudest value: the rounding of a float32 transform, see test_mel.py.
CLOSE = 1e-5

SPECS: dict[str, Any] = {
    "stft": StftSpec(n_fft=512, hop_length=160),
    "power": StftSpec(n_fft=512, hop_length=160, power=2),
    "log_power": StftSpec(n_fft=400, hop_length=160, power=2, log=LogSpec("db")),
    "mfcc": MfccSpec(n_fft=512, hop_length=160, n_mels=40, n_mfcc=13),
    "liftered": MfccSpec(n_fft=512, hop_length=160, n_mels=40, n_mfcc=20, lifter=22.0),
    "pcen": PcenSpec(n_fft=512, hop_length=160, n_mels=40, power=1, sample_scale=2.0**31),
    "strong": PcenSpec(n_fft=512, hop_length=160, n_mels=16, gain=0.8, bias=10.0, exponent=0.25),
}


def features_with(name: str) -> FeatureSpec:
    features = (Feature(name, SPECS[name]),)
    return FeatureSpec(sample_rate_hz=RATE, chunk=ChunkSpec(LENGTH, LENGTH), features=features)


def sound(seed: int = 0) -> np.ndarray:
    seconds = LENGTH / RATE
    return np.float32(song(seconds, RATE, seed) + noise(seconds, RATE, seed, amplitude=0.01))


def by_librosa(chunk: np.ndarray, spec: Any) -> np.ndarray:
    frames = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
    if type(spec) is StftSpec:
        amplitudes = np.abs(librosa.stft(chunk.astype(np.float64), **frames))
        powers = amplitudes**spec.power
        return powers if spec.log.kind == "none" else librosa.power_to_db(powers)
    scaled = chunk.astype(np.float64) * spec.sample_scale
    mel = librosa.feature.melspectrogram(
        y=scaled, sr=RATE, n_mels=spec.n_mels, power=spec.power, dtype=np.float64, **frames
    )
    if isinstance(spec, PcenSpec):
        how = {"gain": spec.gain, "bias": spec.bias, "power": spec.exponent, "eps": spec.epsilon}
        return librosa.pcen(mel, sr=RATE, hop_length=spec.hop_length, **how)
    decibels = librosa.power_to_db(mel)
    return librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc, lifter=spec.lifter)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_kind_is_what_librosa_computes(name: str, seed: int) -> None:
    chunk, spec = sound(seed), features_with(name)
    values = extract_features(chunk[None], [LENGTH], spec)[name][0]
    expected = by_librosa(chunk, SPECS[name])
    assert values.shape == expected.shape == spec.columns[0].shape
    if SPECS[name].log.kind == "none":
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=CLOSE * np.abs(expected).max())
    else:  # 80 dB below the maximum, the transform's rounding moves a bin by some hundredths
        np.testing.assert_allclose(values, expected, atol=0.05)


@pytest.mark.parametrize("name", SPECS)
def test_verify_computes_the_same(name: str) -> None:
    spec = features_with(name)
    for seed in range(3):
        chunk = sound(seed)
        row = reference_row(chunk, 0, LENGTH, 0, spec, RATE)
        values = extract_features(chunk[None], [LENGTH], spec)[name][0]
        assert (np.abs(values - row.values) <= row.tolerance).all()
        assert (np.abs(values + 0.5 - row.values) > row.tolerance).any()


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_is_its_chunks(name: str) -> None:
    spec, chunks = features_with(name), np.stack([sound(seed) for seed in range(3)])
    batch = extract_features(chunks, [LENGTH] * 3, spec)[name]
    for chunk, values in zip(chunks, batch, strict=True):
        alone = extract_features(chunk[None], [LENGTH], spec)[name][0]
        np.testing.assert_array_equal(values, alone)


@pytest.mark.parametrize("name", SPECS)
def test_silence_is_finite(name: str) -> None:
    silence = np.zeros((1, LENGTH), np.float32)
    assert np.isfinite(extract_features(silence, [LENGTH], features_with(name))[name]).all()


def test_only_logarithms_are_rounded_to_the_resolution() -> None:
    chunk = sound()[None]
    for name in SPECS:
        exact = extract_features(chunk, [LENGTH], features_with(name))[name]
        rounded_spec = replace(features_with(name), resolution=0.5)
        rounded = extract_features(chunk, [LENGTH], rounded_spec)[name]
        is_rounded = name == "log_power"
        assert (rounded * 2 == np.rint(rounded * 2)).all() == is_rounded
        assert np.array_equal(rounded, exact) != is_rounded


@pytest.mark.parametrize(
    ("extractor", "faults"),
    [
        (lambda: MfccExtractor(MfccSpec(n_mels=10), RATE, LENGTH), "n_mfcc is 20; .* at most n_m"),
        (lambda: MfccExtractor(MfccSpec(stack_frames=2), RATE, LENGTH), "stack_frames is 2"),
        (lambda: PcenExtractor(PcenSpec(log=LogSpec("db")), RATE, LENGTH), "log.kind is 'db'"),
        (lambda: StftExtractor(StftSpec(hop_length=4096), LENGTH), "hop_length is 4096"),
        (lambda: StftExtractor(StftSpec(center=False), 100), "n_fft is 2048"),
    ],
)
def test_what_cannot_be_computed_is_refused(extractor: Any, faults: str) -> None:
    with pytest.raises(ValueError, match=faults):
        extractor()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, kind: mfcc, n_mfcc: 200}", "features.0.n_mfcc: 200: at most n_mels, 128"),
        ("{name: a, kind: mfcc, stack_frames: 2}", "features.0.stack_frames: 2: 1 for an MFCC"),
        ("{name: a, kind: pcen, log: {kind: ln}}", "features.0.log.kind: 'ln': none for a PCEN"),
        (
            "{name: a, kind: stft, n_mels: 3}",
            "features.0.n_mels: 3: no such key; did you mean mel.n_mels? allowed: center, drop",
        ),
        (
            "{name: a, kind: mfcc, n_mfc: 3}",
            "features.0.n_mfc: 3: no such key; did you mean n_mfcc",
        ),
        ("{name: a, kind: stft, log: {floor: 1e-8}}", "features.0.log.kind: null: is missing: a l"),
        (
            "{name: a, kind: mfcc, energy: raw, preemphasis: 0.9, preemphasis_over: chunk}",
            "features.0.energy: 'raw': none where preemphasis_over is chunk",
        ),
        ("{name: a, kind: stft, hop_length: 9999}", "features.0.hop_length: 9999: at most"),
    ],
)
def test_a_recipe_that_cannot_be_computed_is_refused(entry: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [f"features=[{entry}]"])
    assert message in str(raised.value)


def test_all_faults_of_all_entries_are_named_at_once() -> None:
    entries = (
        "{kind: mfcc, hop_lenght: 160}, {name: b, kind: mfcc, n_mfcc: 500}, 7, "
        "{name: c, kind: waveform, dtpye: int16}, {name: d, kind: stft, n_fft: x}"
    )
    with pytest.raises(ConfigError) as raised:
        load_config(None, ["audio.sample_rate_hz=192000", f"features=[{entries}]"])
    keys = [line.split(":")[0].strip() for line in str(raised.value).splitlines()[1:]]
    assert sorted(keys) == [
        "features.0.hop_lenght",
        "features.0.name",
        "features.1.n_mels",
        "features.1.n_mfcc",
        "features.2",
        "features.3.dtpye",
        "features.4.n_fft",
    ]
    allowed = "dtype, encoding, kind, level, loudness_lufs, name, peak, sample"
    assert f"did you mean dtype? allowed: {allowed}" in str(raised.value)


def test_librosas_own_scale_of_pcen_is_a_recipe() -> None:
    entry = "{name: p, kind: pcen, power: 1, sample_scale: 2147483648.0}"
    (feature,) = load_config(None, [f"features=[{entry}]"]).feature_spec().features
    assert feature.spec == PcenSpec(power=1, sample_scale=2.0**31)


def test_a_recipe_makes_every_kind() -> None:
    kinds = [f"{{name: {kind}, kind: {kind}}}" for kind in ("mel", "mfcc", "pcen", "stft")]
    spec = load_config(None, [f"features=[{','.join(kinds)}]"]).feature_spec()
    assert spec.features == (
        Feature("mel", MelSpec()),
        Feature("mfcc", MfccSpec()),
        Feature("pcen", PcenSpec()),
        Feature("stft", StftSpec()),
    )
    assert [column.shape for column in spec.columns] == [
        (128, 130),
        (20, 130),
        (128, 130),
        (1025, 130),
    ]
