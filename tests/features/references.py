"""The references of the shipped recipes that install without torch, and the chunks to compare on.

Run as a program, the module prints the table of docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import pytest

from melmill.pipelines.config import load_config
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.spec import FeatureSpec
from tests.features.front_ends import FORMULAS, Array, Values, stacked
from tests.mel_features import mel_of
from tests.signals import noise, song

Samples = npt.NDArray[np.float32]

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
RECORDINGS = sorted((ROOT.parent / "shared/data").rglob("*.ogg"))


def features_of(name: str) -> FeatureSpec:
    return load_config(name).feature_spec()


def ours(samples: Samples, spec: FeatureSpec, valid: int | None = None) -> Samples:
    """Return the only feature of a chunk of any length."""
    spec = replace(spec, chunk=replace(spec.chunk, length=len(samples)))
    lengths = [len(samples) if valid is None else valid]
    (values,) = extract_features(samples[np.newaxis], lengths, spec).values()
    return values[0]


def chunks_for(spec: FeatureSpec) -> Iterator[Samples]:
    """Yield a chunk of a synthesised song, and of each real recording."""
    rate, length = spec.sample_rate_hz, spec.chunk.length
    seconds = length / rate
    synthetic = song(seconds, rate, 0) + noise(seconds, rate, 0, amplitude=0.01)
    yield np.float32(synthetic[:length])
    for path in RECORDINGS[:: 1 if seconds < 10 else 3]:
        samples, _ = librosa.load(path, sr=rate, offset=1.0, duration=seconds + 1)
        yield np.pad(samples, (0, length))[:length]


def kaldi_native(**changes: Any) -> Callable[[Samples], Any]:
    def features(chunk: Samples) -> Any:
        knf = pytest.importorskip("kaldi_native_fbank")
        options = knf.FbankOptions()
        options.frame_opts.dither = 0
        options.frame_opts.window_type = changes.get("window", "povey")
        options.frame_opts.snip_edges = changes.get("snip_edges", True)
        options.mel_opts.num_bins = changes["n_mels"]
        options.mel_opts.high_freq = changes.get("high", 0)
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(16000, (chunk * np.float32(changes.get("scale", 32768))).tolist())
        fbank.input_finished()
        return np.array([fbank.get_frame(index) for index in range(fbank.num_frames_ready)]).T

    return features


def kaldi_mfcc(n_mels: int, n_mfcc: int, *, high: float, energy: bool) -> Callable[[Samples], Any]:
    def features(chunk: Samples) -> Any:
        knf = pytest.importorskip("kaldi_native_fbank")
        options = knf.MfccOptions()
        options.frame_opts.dither = 0
        options.num_ceps, options.use_energy = n_mfcc, energy
        options.mel_opts.num_bins, options.mel_opts.high_freq = n_mels, high
        mfcc = knf.OnlineMfcc(options)
        mfcc.accept_waveform(16000, (chunk * np.float32(32768)).tolist())
        mfcc.input_finished()
        return np.array([mfcc.get_frame(index) for index in range(mfcc.num_frames_ready)]).T

    return features


def minus_mean(features: Callable[[Samples], Any]) -> Callable[[Samples], Any]:
    def centred(chunk: Samples) -> Any:
        values = features(chunk)
        return values - values.mean(axis=1, keepdims=True)

    return centred


def transformers_own(class_name: str, key: str = "input_features", **how: Any) -> Any:
    def features(chunk: Samples) -> Any:
        transformers = pytest.importorskip("transformers")
        settings = how.get("settings", {})
        call = {"sampling_rate": how.get("rate", 16000), "return_tensors": "np"}
        extractor = getattr(transformers, class_name)(**settings)
        return np.asarray(extractor(chunk, **call, **how.get("call", {}))[key][0], np.float64).T

    return features


def codec(class_name: str, rate: int) -> Callable[[Samples], Any]:
    own = transformers_own(
        class_name, "input_values", rate=rate, settings={"sampling_rate": rate, "hop_length": 512}
    )
    return lambda chunk: own(chunk).ravel()


def univnet(**settings: Any) -> Callable[[Samples], Any]:
    def features(chunk: Samples) -> Any:
        transformers = pytest.importorskip("transformers")
        # Its call would cut the chunk, and scale the values.
        return transformers.UnivNetFeatureExtractor(**settings).mel_spectrogram(chunk).T

    return features


def speecht5(chunk: Samples) -> Any:
    transformers = pytest.importorskip("transformers")
    extractor = transformers.SpeechT5FeatureExtractor()
    return extractor(audio_target=chunk, sampling_rate=16000, return_tensors="np")["input_values"][
        0
    ].T


def whisper(n_mels: int) -> Callable[[Samples], Any]:
    own = transformers_own("WhisperFeatureExtractor", settings={"feature_size": n_mels})
    return lambda chunk: own(chunk).T


def panns(chunk: Samples) -> Any:
    mel = librosa.feature.melspectrogram(
        *(),
        y=chunk,
        sr=32000,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        fmin=50,
        fmax=14000,
        pad_mode="reflect",
    )
    return librosa.power_to_db(mel, top_db=None)


REFERENCES: dict[str, Callable[[Samples], Any]] = {
    "bigvgan-24k-100": univnet(),
    "bigvgan-44k-128": univnet(
        sampling_rate=44100, num_mel_bins=128, filter_length=2048, win_length=2048, hop_length=512
    ),
    "gemma3n": transformers_own("Gemma3nAudioFeatureExtractor", call={"pad_to_multiple_of": None}),
    "hifigan": univnet(sampling_rate=22050, num_mel_bins=80, fmax=8000),
    "kaldi-fbank-23": kaldi_native(n_mels=23),
    "kaldi-fbank-80": kaldi_native(n_mels=80, high=-400, scale=1, snip_edges=False),
    "kaldi-mfcc-13": kaldi_mfcc(23, 13, high=0, energy=True),
    "kaldi-mfcc-40": kaldi_mfcc(40, 40, high=-400, energy=False),
    "panns": panns,
    "seamless": transformers_own("SeamlessM4TFeatureExtractor"),
    "speech2text": transformers_own("Speech2TextFeatureExtractor"),
    "speecht5": speecht5,
    "wespeaker": minus_mean(kaldi_native(n_mels=80, window="hamming")),
    "waveform-dac-44k": codec("DacFeatureExtractor", 44100),
    "waveform-encodec-24k": codec("EncodecFeatureExtractor", 24000),
    "waveform-mimi-24k": codec("EncodecFeatureExtractor", 24000),
    "waveform-moonshine": transformers_own(
        "Wav2Vec2FeatureExtractor", "input_values", settings={"do_normalize": False}
    ),
    "waveform-wav2vec2": transformers_own("Wav2Vec2FeatureExtractor", "input_values"),
    "whisper-128": whisper(128),
    "whisper-80": whisper(80),
}


def expected(name: str, chunk: Samples, spec: FeatureSpec) -> tuple[Array, Array]:
    """Return the values of a recipe's formula, and their tolerances, with stacked frames."""
    front_end = FORMULAS[name](chunk.astype(np.float64))
    if isinstance(front_end, Values):
        return front_end.values, front_end.tolerance
    number = mel_of(spec).stack_frames
    return stacked(front_end.values, number), stacked(front_end.tolerance, number)


def table(names: Iterable[str]) -> Iterator[str]:
    """Yield the rows of a Markdown table: the differences from the formulas."""
    yield "| recipe | melmill: largest, 99.9 %, mean | reference: largest, 99.9 %, mean |"
    yield "|---|---|---|"
    for name in names:
        spec = features_of(name)
        functions = [partial(ours, spec=spec), REFERENCES.get(name)]
        yield f"| `{name}` | " + " | ".join(_figures(name, spec, own) for own in functions) + " |"


def _figures(name: str, spec: FeatureSpec, own: Callable[[Samples], Any] | None) -> str:
    if own is None:
        return "none without torch"
    differences = []
    for chunk in chunks_for(spec):
        values, _ = expected(name, chunk, spec)
        differences.append(np.abs(own(chunk) - values).ravel())
    together = np.concatenate(differences)
    figures = together.max(), np.quantile(together, 0.999), together.mean()
    return ", ".join(f"{figure:.1e}" for figure in figures)


if __name__ == "__main__":
    print("\n".join(table(sorted(FORMULAS))))
