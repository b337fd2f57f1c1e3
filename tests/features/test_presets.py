"""Every shipped recipe computes what its reference computes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from melmill.pipelines.presets import Preset, list_presets
from melmill.pipelines.snapshots.verify_reference import reference_row
from melmill.transforms.features.chunks import pad_chunk
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.standardization import StandardizationSpec
from tests.features.front_ends import FORMULAS
from tests.features.references import (
    RECIPES,
    REFERENCES,
    ROOT,
    chunks_for,
    expected,
    features_of,
    ours,
    table,
)
from tests.mel_features import mel_of, with_mel


def test_every_recipe_has_a_formula() -> None:
    # librosa itself judges librosa.yaml in test_mel.py.
    assert sorted({*FORMULAS, "librosa"}) == RECIPES


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"librosa"}))
def test_features_are_the_formulas(name: str) -> None:
    spec = features_of(name)
    for chunk in chunks_for(spec):
        values, tolerance = expected(name, chunk, spec)
        features = ours(chunk, spec)
        assert features.shape == values.shape
        assert (np.abs(features - values) <= tolerance).all()


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_features_are_the_references(name: str) -> None:
    spec = features_of(name)
    for chunk in chunks_for(spec):
        values, tolerance = expected(name, chunk, spec)
        reference = REFERENCES[name](chunk)
        features = ours(chunk, spec)
        assert features.shape == reference.shape
        assert (np.abs(features - values) <= tolerance).all()
        if name.startswith("waveform-"):  # transformers rounds the mean to float32
            tolerance = tolerance.max()
        # kaldi-native-fbank rounds its window and its bands to float32, too: up to 2.8 tolerances.
        assert (np.abs(reference - values) <= 4 * tolerance).all()


@pytest.mark.parametrize("name", RECIPES)
def test_verify_computes_the_same(name: str) -> None:
    spec = features_of(name)
    for chunk in islice(chunks_for(spec), 3):
        for valid in (len(chunk), len(chunk) * 2 // 3):
            padded = pad_chunk(chunk[:valid, np.newaxis], spec.chunk)[:, 0]
            row = reference_row(chunk, 0, valid, 0, spec, spec.sample_rate_hz)
            features = ours(padded, spec, valid)
            assert features.shape == row.values.shape == spec.columns[0].shape
            assert (np.abs(features - row.values) <= row.tolerance).all()


@pytest.mark.parametrize("name", ["ast", "beats", "parakeet", "whisper-80"])
def test_verify_knows_that_finished_values_are_rounded(name: str) -> None:
    spec = replace(features_of(name), resolution=1 / 64)
    chunk = next(chunks_for(spec))
    for valid in (len(chunk), len(chunk) // 2):
        padded = pad_chunk(chunk[:valid, np.newaxis], spec.chunk)[:, 0]
        row = reference_row(chunk, 0, valid, 0, spec, spec.sample_rate_hz)
        assert (np.abs(ours(padded, spec, valid) - row.values) <= row.tolerance).all()


# Chunks that are padded


@pytest.mark.parametrize("name", ["ast", "parakeet", "seamless", "speech2text", "wespeaker"])
def test_frames_of_padding_are_not_counted(name: str) -> None:
    spec = features_of(name)
    chunk = next(chunks_for(spec))
    valid = len(chunk) // 2
    chunk[valid:] = 0
    values, tolerance = expected(name, chunk[:valid], spec)
    features = ours(chunk, spec, valid)
    counted = values.shape[1]
    assert (np.abs(features[:, :counted] - values) <= tolerance).all()
    # A stacked frame may hold one frame of sound and one of padding.
    assert (features[:, counted + 1 :] == np.float32(mel_of(spec).padded_frames)).all()
    assert not np.allclose(features[:, :counted], ours(chunk, spec)[:, :counted]) or name == "ast"


def test_padding_is_as_transformers_pads() -> None:
    transformers = pytest.importorskip("transformers")
    spec = features_of("speech2text")
    chunk = next(chunks_for(spec))
    half = len(chunk) // 2
    extractor = transformers.Speech2TextFeatureExtractor()
    batch = extractor([chunk, chunk[:half]], sampling_rate=16000, padding=True, return_tensors="np")
    theirs = batch["input_features"][1].T
    padded = pad_chunk(chunk[:half, np.newaxis], spec.chunk)[:, 0]
    # Both round the same values to float32; transformers computes in double precision.
    assert np.abs(ours(padded, spec, half) - theirs).max() < 2e-3


@pytest.mark.parametrize("mean", ["band", 0.0])
def test_a_silent_band_is_standardized_to_zero(mean: Any) -> None:
    spec = features_of("speech2text")
    spec = with_mel(spec, standardization=StandardizationSpec(mean))
    assert not ours(np.zeros(spec.chunk.length, np.float32), spec).any()


@pytest.mark.parametrize("name", ["parakeet", "seamless", "speech2text"])
@pytest.mark.parametrize("valid", [1, 200, 450, 700])
def test_a_recording_of_no_frame_or_one_is_verified(name: str, valid: int) -> None:
    spec = features_of(name)
    chunk = next(chunks_for(spec))
    padded = pad_chunk(chunk[:valid, np.newaxis], spec.chunk)[:, 0]
    row = reference_row(chunk, 0, valid, 0, spec, spec.sample_rate_hz)
    assert np.isfinite(row.values).all()
    assert np.isfinite(row.tolerance).all()
    assert (np.abs(ours(padded, spec, valid) - row.values) <= row.tolerance).all()


@pytest.mark.parametrize("lengths", [[0], [48_001], [1, 2]])
def test_impossible_numbers_of_real_samples_are_refused(lengths: list[int]) -> None:
    spec = features_of("parakeet")
    extractor = MelExtractor(mel_of(spec), spec.sample_rate_hz, 48_000)
    with pytest.raises(ValueError, match="it must be 1 numbers from 1 to 48000"):
        extractor(np.zeros((1, 48_000), np.float32), valid_samples=lengths)


def test_a_batch_is_its_chunks() -> None:
    for name in ("seamless", "kaldi-fbank-80", "hifigan"):
        spec = features_of(name)
        chunk = next(chunks_for(spec))
        half = len(chunk) // 2
        padded = pad_chunk(chunk[:half, np.newaxis], spec.chunk)[:, 0]
        extractor = MelExtractor(mel_of(spec), spec.sample_rate_hz, len(chunk))
        batch = extractor(
            np.stack([chunk, padded, chunk]), valid_samples=[len(chunk), half, len(chunk)]
        )
        alone = [ours(chunk, spec), ours(padded, spec, half), ours(chunk, spec)]
        np.testing.assert_array_equal(batch, alone)


# What the documentation says of them


def _row(preset: Preset) -> str:
    shape = " × ".join(
        f"{size:,}" if len(preset.shape) == 1 else str(size) for size in preset.shape
    )
    mb = preset.bytes_per_hour / 1e6
    what = (
        f"| `{preset.name}` | {preset.sample_rate_hz:,} | {shape} | {preset.chunk_seconds:.5g} s |"
    )
    return f"{what} {mb:.0f} | {preset.purpose} |"


def test_the_page_lists_every_recipe_with_its_shape_and_its_proof() -> None:
    page = (ROOT / "docs/presets.md").read_text(encoding="utf-8")
    for preset in list_presets():
        assert _row(preset) in page
    header, line, row = table(["vggish"])
    assert header in page
    proof = page[page.index(header) :].splitlines()
    assert proof[1] == line
    assert [entry.split("|")[1].strip(" `") for entry in proof[2 : 2 + len(FORMULAS)]] == (
        sorted(FORMULAS)
    )
    assert row.startswith("| `vggish` | ")
