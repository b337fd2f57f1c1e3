"""A recording as a WAV file: any range of its bytes equals that of a whole decode."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.pipelines.sound.wav import HEADER_BYTES, WavFile, read_bytes, to_pcm
from melmill.transforms.core.errors import UserError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject
from tests.recordings import decode_all
from tests.signals import noise, song, tone, write_audio

RATE = 44_100


def stored(folder: Path, samples: np.ndarray, format: str, rate: int = RATE) -> StoredObject:
    return StoredObject(str(write_audio(folder / f"a.{format}", samples, rate, format)))


def read(source: StoredObject, file: WavFile, first: int = 0, stop: int | None = None) -> bytes:
    with open_audio(source, file.audio, must_be_finite=False) as reader:
        return b"".join(read_bytes(reader, file, first, stop or file.size_bytes))


def described(seconds: float, rate: int = RATE, channels: int = 2) -> AudioInfo:
    return AudioInfo("wav", "pcm_16", "libsndfile", rate, channels, round(seconds * rate))


@pytest.fixture(scope="module", params=["wav", "flac", "mp3", "ogg", "m4a"])
def recording(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StoredObject, WavFile, bytes]:
    samples = song(2.3, RATE, seed=5, channels=2)
    source = stored(tmp_path_factory.mktemp(request.param), samples, request.param)
    file = WavFile(probe_audio(source))
    return source, file, file.header() + to_pcm(decode_all(source))


@settings(max_examples=15)
@given(data=st.data())
def test_a_range_of_bytes_equals_that_of_the_whole_decode(recording, data) -> None:
    source, file, whole = recording
    first = data.draw(st.integers(0, file.size_bytes - 1))
    stop = data.draw(st.integers(first + 1, file.size_bytes))
    assert read(source, file, first, stop) == whole[first:stop]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("rate", [500, 4_000, 192_000, 768_000])
def test_a_rate_that_browsers_refuse_is_resampled_the_same_from_any_place(
    tmp_path_factory: pytest.TempPathFactory, rate: int, data: st.DataObject
) -> None:
    source = stored(tmp_path_factory.mktemp("rates"), noise(0.4, rate, channels=2), "wav", rate)
    file = WavFile(probe_audio(source))
    assert file.rate_hz == (8_000 if rate < 8_000 else 96_000)
    whole = read(source, file)
    samples = decode_all(source)
    expected = soxr.resample(samples, rate, file.rate_hz, "HQ")
    heard, _ = soundfile.read(io.BytesIO(whole), dtype="float32")
    assert np.abs(heard - np.clip(expected, -1, 1)).max() < 1.01 / 32768
    first = data.draw(st.integers(0, file.size_bytes - 1))
    assert read(source, file, first) == whole[first:]


def test_samples_of_16_bits_do_not_change(tmp_path: Path) -> None:
    samples = noise(0.5, RATE, seed=1, channels=2, amplitude=0.5)
    source = stored(tmp_path, samples, "wav")
    before, _ = soundfile.read(source.uri, dtype="int16")
    after, rate = soundfile.read(io.BytesIO(read(source, WavFile(probe_audio(source)))), dtype="i2")
    assert rate == RATE
    assert np.array_equal(before, after)


def test_a_chosen_channel_is_heard_alone_and_of_many_the_mean(tmp_path: Path) -> None:
    samples = np.stack([tone(300 * (k + 1), 0.1, RATE, 0.2) for k in range(64)], axis=1)
    audio = probe_audio(source := stored(tmp_path, samples, "wav_float"))
    for channel, expected in ((7, samples[:, 7]), (None, samples.mean(axis=1))):
        file = WavFile(audio, channel=channel)
        heard, _ = soundfile.read(io.BytesIO(read(source, file)), dtype="float32")
        assert heard.shape == (4_410,)
        assert np.abs(heard - expected).max() < 0.51 / 32768


def test_nan_and_infinity_become_0_and_loud_samples_are_clipped(tmp_path: Path) -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 1.5, -1.5], np.float32)
    source = stored(tmp_path, samples, "wav_float")
    heard = np.frombuffer(read(source, WavFile(probe_audio(source)))[HEADER_BYTES:], "<i2")
    assert heard.tolist() == [16384, 0, 0, 0, 32767, -32768]


def test_ten_hours_are_divided_into_parts_below_4_gib() -> None:
    for rate in (RATE, 768_000):
        files = [WavFile(described(10 * 3600 + 1.5, rate), part) for part in range(11)]
        assert files[0].parts == 11
        assert sum(file.frames for file in files) == round((10 * 3600 + 1.5) * files[0].rate_hz)
        assert all(file.first_frame == file.part * 3600 * file.rate_hz for file in files)
        assert max(file.size_bytes for file in files) < 2**32


def test_a_later_part_begins_where_the_one_before_ends(tmp_path: Path) -> None:
    samples = np.float32(np.arange(3_602 * 8_000) % 1_000 / 1_000 - 0.5)
    source = stored(tmp_path, samples, "wav", 8_000)
    file = WavFile(probe_audio(source), part=1)
    heard = np.frombuffer(read(source, file)[HEADER_BYTES:], "<i2")
    assert heard.tobytes() == to_pcm(decode_all(source)[3_600 * 8_000 :])


def test_the_tag_changes_with_the_content() -> None:
    file, audio = WavFile(described(1)), described(1)
    others = (
        WavFile(described(1), channel=1).tag("v1"),
        WavFile(described(2)).tag("v1"),
        file.tag("v2"),
    )
    assert file.tag("v1") == WavFile(audio).tag("v1")
    assert file.tag("v1") not in others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": 1}, "part 1: the recording has the parts 0 to 0"),
        ({"part": -1}, "part -1: the recording has the parts 0 to 0"),
        ({"channel": 2}, "channel 2: the recording has the channels 0 to 1"),
    ],
)
def test_a_part_or_channel_that_is_not_there_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WavFile(described(1), **options)
