"""Features with equal spectra share one transform, and are bit for bit what each is alone."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.pipelines.config import load_config
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.stft import StftExtractor, extract_together
from tests.signals import noise

#: Groups of presets with equal spectra, and presets that have their own.
WHISPER = ("whisper-80", "whisper-128")
KALDI = ("kaldi-fbank-23", "kaldi-mfcc-13", "beats", "speech2text")
OTHERS = ("kaldi-fbank-80", "parakeet")


def features_of(*names: str, edges: str = "pad") -> FeatureSpec:
    entries = ", ".join(f"{{preset: {name}, name: f{i}}}" for i, name in enumerate(names))
    settings = ["audio.sample_rate_hz=16000", "chunk.seconds=2", f"features=[{entries}]"]
    return load_config(None, (*settings, f"chunk.edges={edges}")).feature_spec()


def test_shared_spectra_give_the_bits_of_each_feature_alone() -> None:
    names = [*WHISPER, *KALDI, *OTHERS]
    chunks = np.stack([noise(2.0, 16_000, seed=seed) for seed in range(3)]).astype(np.float32)
    chunks[1, 20_000:] = 0
    filled = [32_000, 20_000, 32_000]
    together = extract_features(chunks, filled, features_of(*names))
    assert list(together) == [f"f{number}" for number in range(len(names))]
    for number, name in enumerate(names):
        alone = extract_features(chunks, filled, features_of(name))["f0"]
        np.testing.assert_array_equal(together[f"f{number}"], alone, err_msg=name)


def test_neighbours_share_spectra_too() -> None:
    samples = noise(3.0, 16_000, seed=1).astype(np.float32)
    chunk, windows = samples[None, 8_000:40_000].copy(), [(samples, 8_000)]
    names = KALDI[:3]
    together = extract_features(chunk, [32_000], features_of(*names, edges="neighbours"), windows)
    for number, name in enumerate(names):
        alone = extract_features(chunk, [32_000], features_of(name, edges="neighbours"), windows)
        np.testing.assert_array_equal(together[f"f{number}"], alone["f0"], err_msg=name)


def test_each_block_of_frames_is_transformed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[int] = []
    transform = StftExtractor._transform

    def counted(extractor: StftExtractor, block: np.ndarray) -> np.ndarray:
        frames.append(len(block))
        return transform(extractor, block)

    monkeypatch.setattr(StftExtractor, "_transform", counted)
    chunk = noise(2.0, 16_000).astype(np.float32)[None]
    extract_features(chunk, [32_000], features_of("whisper-80"))
    alone, frames[:] = sum(frames), []
    extract_features(chunk, [32_000], features_of(*WHISPER))
    assert sum(frames) == alone


def test_extractors_with_other_spectra_are_refused() -> None:
    extractors = [MelExtractor(MelSpec(n_fft=n), 16_000, 16_000) for n in (512, 1_024)]
    with pytest.raises(ValueError, match="different spectra"):
        extract_together(extractors, np.zeros((1, 16_000), np.float32))
