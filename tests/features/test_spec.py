"""Tests of the feature configuration's digest, which identifies the stored rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.standardization import StandardizationSpec
from melmill.transforms.features.variants_spec import Speed, VariantSpec
from melmill.transforms.features.waveform import WaveformSpec
from tests.mel_features import mel_features, mel_of

OTHER_VALUES: dict[str, Any] = {
    "sample_rate_hz": 16_000,
    "channels": "each",
    "resampler": "soxr_vhq",
    "resolution": 1 / 64,
    "chunk.length": 1,
    "chunk.hop": 1,
    "chunk.tail": "pad",
    "chunk.short": "drop",
    "chunk.pad_value": 0.5,
    "chunk.edges": "neighbours",
    "chunk.long": "first",
    "mel.n_fft": 1024,
    "mel.win_length": 512,
    "mel.hop_length": 256,
    "mel.window": "hamming",
    "mel.center": False,
    "mel.pad_mode": "reflect",
    "mel.power": 1,
    "mel.n_mels": 64,
    "mel.f_min_hz": 20.0,
    "mel.f_max_hz": 8000.0,
    "mel.scale": "htk",
    "mel.norm": "none",
    "mel.log.kind": "ln",
    "mel.log.ref": "max",
    "mel.log.floor": 1e-5,
    "mel.log.offset": 1.0,
    "mel.log.top_db": None,
    "mel.log.gain": 2.0,
    "mel.log.range": 8.0,
    "mel.log.range_top": 1.5,
    "mel.periodic": False,
    "mel.window_position": "left",
    "mel.pad_samples": 10,
    "mel.snip_edges": False,
    "mel.drop_last_frame": True,
    "mel.sample_scale": 32768.0,
    "mel.remove_dc_offset": True,
    "mel.preemphasis": 0.97,
    "mel.preemphasis_over": "chunk",
    "mel.magnitude_epsilon": 1e-9,
    "mel.triangles": "mel",
    "mel.empty_bands": True,
    "mel.standardization": StandardizationSpec(),
    "mel.padded_frames": 0.0,
    "mel.stack_frames": 2,
    "variants": (VariantSpec((Speed(0.9),)),),
}


def keys(spec: Any, prefix: str = "") -> Iterator[str]:
    for item in fields(spec):
        value = getattr(spec, item.name)
        if item.name == "features":
            yield from keys(mel_of(spec), "mel.")
        elif is_dataclass(value):
            yield from keys(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def changed(spec: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    if name == "mel":
        mel = changed(mel_of(spec), rest, value)
        return replace(spec, features=(Feature("mel", mel),))
    return replace(spec, **{name: changed(getattr(spec, name), rest, value) if rest else value})


def test_the_default_digest_is_what_it_was() -> None:
    # A different digest makes every stored row stale. Change this digest only together with
    # EXTRACTOR_VERSION, or because a key was added, and write it in the changelog.
    assert FeatureSpec().digest() == "62f0c78a844711cbca81a4d3e3310f83"


@pytest.mark.parametrize("key", list(keys(FeatureSpec())))
def test_every_key_changes_the_digest(key: str) -> None:
    assert changed(FeatureSpec(), key, OTHER_VALUES[key]).digest() != FeatureSpec().digest()


def test_all_digests_differ() -> None:
    specs = [
        FeatureSpec(),
        *(changed(FeatureSpec(), key, OTHER_VALUES[key]) for key in OTHER_VALUES),
    ]
    assert len({spec.digest() for spec in specs}) == len(OTHER_VALUES) + 1


def test_the_extractors_version_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FeatureSpec().digest()
    monkeypatch.setattr("melmill.transforms.features.spec.EXTRACTOR_VERSION", 99)
    assert FeatureSpec().digest() != before


def test_defaults_written_out_have_the_same_digest() -> None:
    written = mel_features(
        MelSpec(n_mels=128, log=LogSpec("db")), chunk=ChunkSpec(length=66_150, hop=66_150)
    )
    assert written.digest() == FeatureSpec().digest()


def test_the_canonical_form_says_everything() -> None:
    settings = json.loads(FeatureSpec().canonical())
    assert settings.pop("extractor_version") == 3
    chunk, mel = settings.pop("chunk"), settings.pop("mel")
    log = LogSpec(**mel.pop("log"))
    mel_spec = MelSpec(**mel, log=log)
    assert mel_features(mel_spec, chunk=ChunkSpec(**chunk), **settings) == FeatureSpec()


def test_the_shape_is_bands_by_frames() -> None:
    assert FeatureSpec().columns == (FeatureColumn("mel", (128, 130), valid="valid_frames"),)


QUALITY = Feature("quality", MeasuresSpec(("level.rms", "clipping.share")))


def test_measures_are_columns_of_numbers_and_belong_to_no_rate() -> None:
    high = Feature("high", WaveformSpec(), 44_100)
    spec = FeatureSpec(features=(*FeatureSpec().features, QUALITY, high))
    assert spec.columns[1:3] == (
        FeatureColumn("quality_level_rms", ()),
        FeatureColumn("quality_clipping_share", ()),
    )
    assert [column.row_bytes for column in spec.columns[1:3]] == [4, 4]
    assert spec.columns_of(["quality", "high"]) == (
        *("quality_level_rms", "quality_clipping_share", "high"),
    )
    assert spec.by_column["quality_level_rms"] == QUALITY
    assert [[f.name for f in at_rate.features] for at_rate in spec.by_rate] == [["mel"], ["high"]]


def test_another_measure_changes_only_the_measures() -> None:
    with_measures = replace(FeatureSpec(), features=(*FeatureSpec().features, QUALITY))
    assert FeatureSpec().unchanged_since(with_measures.canonical()) == ("mel",)
    more = Feature("quality", MeasuresSpec(("level.rms",)))
    changed_measures = with_measures.without(["quality"])
    changed_measures = replace(changed_measures, features=(*changed_measures.features, more))
    assert changed_measures.unchanged_since(with_measures.canonical()) == ("mel",)
    assert with_measures.unchanged_since(with_measures.canonical()) == ("mel", "quality")
    assert changed_measures.digest() != with_measures.digest()
