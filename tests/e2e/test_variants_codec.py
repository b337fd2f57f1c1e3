"""Codecs of variants, decoded again by libsndfile, which has decoders of its own."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from melmill.pipelines.config import load_config
from melmill.pipelines.snapshots.verify import verify
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features import codecs
from melmill.transforms.features.codecs import apply_codec, check_codec, try_codec
from melmill.transforms.store.folders import Store
from tests import signals
from tests.e2e.variants import BASE, rows_in_any_shards, rows_of, run

RATE = 8000
#: Seconds around a chunk that are encoded with it, and the length of a chunk.
BEFORE_S, AFTER_S, CHUNK_S = 0.2, 0.1, 0.25
SETTINGS = (*BASE, f"audio.sample_rate_hz={RATE}")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(3):
        signals.write_audio(folder / f"{seed}.wav", signals.song(1.1 + seed, RATE, seed), RATE)
    return folder


def by_libsndfile(
    samples: np.ndarray,
    rate_hz: int,
    container: str,
    encoder: str,
    sample_format: str,
    bit_rate: int,
) -> np.ndarray:
    """Return samples that FFmpeg encodes into a file, and libsndfile decodes."""
    file = io.BytesIO()
    with av.open(file, "w", container) as output:
        stream = output.add_stream(encoder, rate=rate_hz, layout="mono")
        stream.bit_rate, stream.codec_context.format = bit_rate, sample_format
        values = samples[np.newaxis].astype(np.float32)
        values = np.pad(values, ((0, 0), (0, rate_hz)))
        frame = av.AudioFrame.from_ndarray(values, "fltp", "mono")
        frame.sample_rate = rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    decoded, rate = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    assert rate == rate_hz
    return decoded[: len(samples)]


@pytest.mark.parametrize(
    ("setting", "rate_hz", "file"),
    [
        # libsndfile decodes Opus at the rate of its encoder, and FFmpeg always at 48 kHz.
        ("opus@24k", 48_000, ("ogg", "libopus", "flt", 24_000)),
        ("mp3@32k", 8000, ("mp3", "libmp3lame", "fltp", 32_000)),
    ],
)
def test_a_chunk_is_what_another_decoder_gives(
    tmp_path: Path, setting: str, rate_hz: int, file: tuple[str, str, str, int]
) -> None:
    (tmp_path / "songs").mkdir()
    for seed in range(2):
        song = signals.song(0.7 + seed, rate_hz, seed)
        signals.write_audio(tmp_path / f"songs/{seed}.wav", song, rate_hz)
    settings = (*SETTINGS, f"audio.sample_rate_hz={rate_hz}")
    run(tmp_path / "songs", tmp_path / "set", *settings, f"variants=[{{codec: {setting}}}]")
    for (name, variant, _, _), row in rows_of(tmp_path / "set").items():
        if variant == 1:
            samples, _ = soundfile.read(tmp_path / "songs" / name, dtype="float32")
            start, valid = row["start_sample"], row["valid_samples"]
            after = round(AFTER_S * rate_hz) if valid == round(CHUNK_S * rate_hz) else 0
            first = max(0, start - round(BEFORE_S * rate_hz))
            expected = by_libsndfile(samples[first : start + valid + after], rate_hz, *file)
            expected = expected[start - first :][:valid]
            actual, dry = np.array(row["samples"], np.float32), samples[start : start + valid]
            assert not actual[valid:].any()
            error = np.mean((actual[:valid] - expected) ** 2)
            # The decoders round differently; the codec itself changes a thousand times as much.
            assert error < 1e-3 * np.mean((dry - expected) ** 2)
            assert error < 1e-6


@pytest.mark.parametrize(("setting", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_telephone_codecs_are_those_of_libsndfile(setting: str, subtype: str) -> None:
    samples = signals.song(1.0, RATE, 4)
    file = io.BytesIO()
    rounded = np.rint(samples * 32768).astype(np.int16)
    soundfile.write(file, rounded, RATE, subtype, format="WAV")
    expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    actual = apply_codec(samples[:, np.newaxis], setting, RATE)[:, 0]
    # libsndfile drops two or three bits before it chooses one of 256 values; FFmpeg chooses the
    # nearest. So some values are neighbours, which are at most a sixteenth apart.
    assert np.mean(actual == expected) > 0.9
    np.testing.assert_allclose(actual, expected, rtol=1 / 16, atol=1e-3)


@pytest.mark.parametrize(
    "setting", ["opus@24k", "mp3@64k", "aac@48k", "amr@12.2k", "g722", "mulaw"]
)
@pytest.mark.parametrize("rate", [8000, 22_050])
def test_what_a_codec_gives_back_is_aligned_and_always_the_same(setting: str, rate: int) -> None:
    samples = np.stack([signals.song(1.0, rate, seed) for seed in (1, 2)], axis=1)
    coded = apply_codec(samples, setting, rate)
    assert coded.shape == samples.shape
    assert coded.dtype == np.float32
    np.testing.assert_array_equal(coded, apply_codec(samples, setting, rate))
    np.testing.assert_array_equal(coded[:, 1:], apply_codec(samples[:, 1:], setting, rate))
    lags = range(-40, 41)
    inner = samples[100:-100, 0]
    agreement = [np.dot(inner, coded[100 + lag : len(coded) - 100 + lag, 0]) for lag in lags]
    # A millisecond is 8 samples at 8 kHz; a delay that is not taken away is at least 20 samples.
    assert abs(lags[int(np.argmax(agreement))]) <= rate // 4000


@pytest.mark.slow
def test_bits_do_not_depend_on_shards_and_verify_skips(songs: Path, tmp_path: Path) -> None:
    variants = "variants=[{speed: 0.9, codec: opus@16k, gain_db: [-9, 0]}]"
    rows = rows_in_any_shards(songs, tmp_path, *SETTINGS, variants)
    result = verify(Store(str(tmp_path / "set")), 1000, 0, lambda number: None)
    (reason,) = result.skipped
    assert "variant 1 has passed a codec" in reason
    assert sum(result.skipped[reason].values()) == sum(key[1] == 1 for key in rows)
    assert result.passed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("opuss@24k", "should be one of opus, mp3"),
        ("opus@fast", "should be one of opus, mp3"),
        ("opus", "should have a bit rate, such as opus@24k"),
        ("mulaw@64k", "mulaw has no bit rate to choose"),
    ],
)
def test_a_wrong_codec_is_a_fault_of_the_recipe(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"variants\.0") as raised:
        load_config(None, [f"variants=[{{codec: {setting}}}]"])
    assert message in str(raised.value)


def test_a_codec_that_pyav_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_exists", lambda name, mode: name != "libopus")
    with pytest.raises(ConfigError, match="PyAV has no codec libopus; use one of mp3, aac"):
        try_codec("opus@24k", RATE)
    check_codec("opus@24k")  # its datasets can be read


def test_a_bit_rate_that_the_codec_refuses_is_named_before_the_run(
    songs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"variants\.0: codec: opus@9000k: FFmpeg refuses"):
        run(songs, tmp_path / "set", *SETTINGS, "variants=[{codec: opus@9000k}]")
    assert not (tmp_path / "set").exists()
