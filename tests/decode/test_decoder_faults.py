"""Tests of bad recordings: no audio is lost silently, no claim is trusted, no error is hidden."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode.decoders import MediaLimits, open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.stored_file import StoredFile
from tests.damage import strip_xing, with_data_size, with_serial, without_total
from tests.recordings import RATE, decode, decode_all, failure, rate_of
from tests.signals import constant, encode, noise, silence, song, write_audio


@pytest.fixture
def store(tmp_path: Path):
    def put(data: bytes) -> StoredObject:
        path = tmp_path / "recording"
        path.write_bytes(data)
        return StoredObject(str(path))

    return put


# Silent losses


def test_a_vbr_mp3_without_its_tag_is_read_whole(store):
    sound = song(5, RATE, channels=2)
    data = encode(sound, RATE, "mp3_vbr")
    source = store(strip_xing(data))
    decoded = decode_all(source)
    # Without the tag, nothing says that 1,105 samples before the audio are encoder padding.
    assert len(decoded) == -(-(len(sound) + 1105) // 1152) * 1152
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    assert np.abs(decoded[1105:][: len(sound)] - expected).max() < 1e-4


def test_joined_mp3s_are_read_whole(store):
    first, second = song(4, RATE), song(3, RATE, seed=1)
    source = store(encode(first, RATE, "mp3_vbr") + encode(second, RATE, "mp3_vbr"))
    decoded = decode_all(source)[:, 0]
    assert 7 * RATE <= len(decoded) <= 7 * RATE + 4 * 1152
    assert correlation(decoded[: len(first)], first) > 0.99
    assert (
        max(correlation(decoded[-len(second) - k :][: len(second)], second) for k in range(3000))
        > 0.99
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def test_chained_opus_is_read_whole(store):
    parts = [encode(song(s, 48000), 48000, "opus") for s in (2, 1)]
    source = store(parts[0] + with_serial(parts[1], 4711))
    audio = probe_audio(source)
    assert (audio.decoder, audio.frames) == ("pyav", 3 * 48000)
    assert len(decode(source, audio)) == 3 * 48000


def test_chained_vorbis_is_refused_as_such(store):
    parts = [encode(song(s, RATE), RATE, "ogg") for s in (2, 1)]
    error = failure(store(parts[0] + with_serial(parts[1], 4711)))
    assert error.cause == Cause.LENGTH_MISMATCH
    assert "chained Ogg stream" in error.message


def test_chained_streams_of_other_channels_are_refused_as_such(store):
    parts = [encode(song(1, RATE, channels=c), RATE, "ogg") for c in (1, 2)]
    error = failure(store(parts[0] + with_serial(parts[1], 4711)))
    assert error.cause == Cause.CORRUPT
    assert "chained Ogg stream" in error.message


def test_flac_from_a_pipe_is_counted(store):
    sound = song(2, RATE)
    source = store(without_total(encode(sound, RATE, "flac")))
    audio = probe_audio(source)
    assert (audio.decoder, audio.frames) == ("pyav", len(sound))
    assert np.array_equal(decode(source, audio), decode_all(store(encode(sound, RATE, "flac"))))


def test_a_wav_that_declares_nothing_is_read_to_its_end(store):
    sound = song(1, RATE, channels=2)
    data = encode(sound, RATE, "wav")
    expected = decode_all(store(data))
    assert np.array_equal(decode_all(store(with_data_size(data, 0))), expected)


@pytest.mark.parametrize("rate", [16000, 24000])
def test_opus_of_another_input_rate_is_read_at_48_khz(store, rate):
    audio = probe_audio(store(encode(song(1, rate), rate, "opus")))
    assert (audio.decoder, audio.sample_rate_hz, audio.frames) == ("pyav", 48000, 48000)


@pytest.mark.parametrize(
    "name", ["wav", "rf64", "w64", "aiff", "au", "caf", "nist", "ogg", "opus", "mp3", "m4a", "webm"]
)
def test_half_a_file_is_truncated_or_corrupt(store, name):
    data = encode(song(5, rate_of(name)), rate_of(name), name)
    error = failure(store(data[: len(data) // 2]))
    expected = Cause.UNKNOWN_FORMAT if name == "m4a" else Cause.TRUNCATED
    assert (error.stage, error.cause) == (Stage.PROBE, expected)


def test_half_a_flac_is_truncated_where_it_ends(store):
    sound = song(5, RATE)
    data = encode(sound, RATE, "flac")
    error = failure(store(data[: len(data) // 2]))
    assert (error.stage, error.cause) == (Stage.PROBE, Cause.TRUNCATED)
    assert f"counts {len(sound)} frames" in error.message
    assert RATE < error.frames < len(sound)


def test_a_flac_that_lacks_its_last_bytes_fails_at_its_last_frame(store):
    source = store(encode(song(5, RATE), RATE, "flac")[:-100])
    audio = probe_audio(source)
    assert len(decode(source, audio, 0, RATE)) == RATE
    with pytest.raises(RecordingError) as raised:
        decode(source, audio)
    assert (raised.value.stage, raised.value.cause) == (Stage.DECODE, Cause.TRUNCATED)


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3", "opus"])
def test_junk_behind_the_audio_changes_nothing(store, name):
    data = encode(song(2, rate_of(name)), rate_of(name), name)
    expected = decode_all(store(data))
    decoded = decode_all(store(data + b"LIST\4\0\0\0INFO" + b"TAG" + bytes(125)))
    assert np.array_equal(decoded[: len(expected)], expected)
    assert len(decoded) == len(expected)


@pytest.mark.parametrize("name", ["m4a", "mp3_untagged", "mka"])
@pytest.mark.parametrize("surplus", [-5000, -1, 1, 5000])
def test_a_stream_of_another_length_is_counted_whoever_reads_it(store, name, surplus):
    source = store(encode(song(2, RATE), RATE, name))
    audio = probe_audio(source)
    wrong = replace(audio, frames=audio.frames - surplus)
    for start in (0, RATE):
        with pytest.raises(RecordingError) as raised:
            decode(source, wrong, start)
        assert raised.value.cause == Cause.LENGTH_MISMATCH
        assert raised.value.audio == audio


# False claims


def test_no_bytes(store):
    assert failure(store(b"")).cause == Cause.EMPTY_FILE


@pytest.mark.parametrize("name", ["wav", "aiff", "au", "ogg"])
def test_no_samples(store, name):
    assert failure(store(encode(np.zeros(0, np.float32), RATE, name))).cause == Cause.NO_AUDIO


@pytest.mark.parametrize(
    "data",
    [
        b"Dear Sir or Madam,\n" * 100,
        b"\0" * 5000,
        noise(0.1, RATE).tobytes(),
        b"\xff",
        b"ID3",
        b"WEBVTT\n\n00:00.000 --> 00:01.000\nla la\n",
    ],
)
def test_what_is_no_audio_is_of_unknown_format(store, data):
    assert failure(store(data)).cause == Cause.UNKNOWN_FORMAT


def test_a_playlist_opens_nothing_else(store, tmp_path, monkeypatch):
    write_audio(tmp_path / "other.wav", song(1, RATE), RATE)
    monkeypatch.chdir(tmp_path)
    assert failure(store(b"ffconcat version 1.0\nfile other.wav\n")).cause == Cause.UNKNOWN_FORMAT


@pytest.mark.parametrize("rate", [0, 1, 10**9])
def test_an_implausible_rate_is_named_with_its_limits(store, rate):
    error = failure(store(_patched(24, "<I", rate)))
    assert error.cause == Cause.IMPLAUSIBLE_HEADER
    assert f"sample rate {rate} is not within 500 to 768000" in error.message


@pytest.mark.parametrize("channels", [0, 65, 65535])
def test_an_implausible_number_of_channels_is_named_with_its_limits(store, channels):
    error = failure(store(_patched(22, "<H", channels)))
    assert error.cause == Cause.IMPLAUSIBLE_HEADER
    assert f"number of channels {channels} is not within 1 to 64" in error.message


def test_more_channels_pass_where_allowed(store):
    source = store(encode(np.zeros((100, 80), np.float32), RATE, "wav"))
    assert failure(source).cause == Cause.IMPLAUSIBLE_HEADER
    assert probe_audio(source, MediaLimits(max_channels=80)).channels == 80


def test_a_million_channels_are_implausible(store):
    data = bytearray(encode(song(0.1, RATE), RATE, "au"))
    data[20:24] = struct.pack(">I", 10**6)
    assert "1000000" in failure(store(bytes(data))).message


def test_two_billion_frames_in_a_tiny_file_are_implausible(store):
    data = bytearray(encode(song(0.1, RATE), RATE, "flac"))
    data[21:26] = (data[21] & 0xF0).to_bytes(1, "big") + struct.pack(">I", 2**31)
    error = failure(store(bytes(data)))
    assert error.cause == Cause.IMPLAUSIBLE_HEADER
    assert str(2**31) in error.message


def test_long_silence_in_a_small_file_is_plausible(store):
    source = store(encode(silence(1200, 8000), 8000, "flac"))
    assert probe_audio(source).frames == 1200 * 8000


def _patched(at: int, kind: str, value: int) -> bytes:
    data = bytearray(encode(song(0.1, RATE), RATE, "wav"))
    struct.pack_into(kind, data, at, value)
    return bytes(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["wav_float", "wav_double", "aiff_float"])
def test_the_first_sample_that_is_no_number_is_named(store, name, value):
    sound = song(1, RATE, channels=2)
    sound[30_000, 1] = value
    sound[30_001, 0] = -value
    source = store(encode(sound, RATE, name))
    audio = probe_audio(source)
    assert len(decode(source, audio, 0, 30_000)) == 30_000
    with pytest.raises(RecordingError, match="sample 30000 of channel 1") as raised:
        decode(source, audio, 20_000)
    assert (raised.value.stage, raised.value.cause) == (Stage.DECODE, Cause.NON_FINITE)


def test_the_largest_numbers_are_numbers(store):
    sound = constant(0.1, RATE, level=3e38)
    assert np.array_equal(decode_all(store(encode(sound, RATE, "wav_float")))[:, 0], sound)


# Damage, storage, and our own errors


@pytest.mark.parametrize(
    "name", ["flac", "ogg", "opus", "mp3", "mp3_untagged", "caf_alac", "m4a", "webm", "wma", "mka"]
)
def test_damaged_files_give_their_samples_or_a_recording_error(store, name):
    data = encode(song(1, rate_of(name)), rate_of(name), name)
    rng = np.random.default_rng(0)
    for _ in range(10):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 20)):
            damaged[at] = rng.integers(256)
        source = store(bytes(damaged))
        with contextlib.suppress(RecordingError):
            audio = probe_audio(source)
            assert decode(source, audio).shape == (audio.frames, audio.channels)


@pytest.mark.parametrize(
    "name", ["wav", "flac", "ogg", "opus", "mp3", "mp3_untagged", "m4a", "webm"]
)
@pytest.mark.parametrize("error", [OSError(5, "I/O error"), RuntimeError("a bug")])
def test_errors_below_a_decoder_are_not_taken_for_the_end(store, name, error, monkeypatch):
    monkeypatch.setattr("melmill.transforms.store.retries.RETRYING.sleep", lambda seconds: None)
    # As for a file that is not on this machine's disks.
    monkeypatch.setattr(StoredFile, "lend_descriptor", lambda file: None)
    source = store(encode(noise(20, rate_of(name)), rate_of(name), name))
    audio = probe_audio(source)
    expected = RecordingError if isinstance(error, OSError) else RuntimeError
    with open_audio(source, audio) as reader:
        blocks = reader.blocks(0, audio.frames, 10_000)
        next(blocks)
        monkeypatch.setattr(
            "melmill.transforms.store.stored_file._PatientFile._read_here", _raise(error)
        )
        with pytest.raises(expected) as raised:
            list(blocks)
    if expected is RecordingError:
        assert (raised.value.stage, raised.value.cause) == (Stage.READ, Cause.STORAGE_ERROR)


@pytest.mark.parametrize("name", ["wav", "flac", "opus", "mp3"])
def test_a_disk_that_fails_under_a_decoder_is_not_taken_for_the_end(store, name, monkeypatch):
    monkeypatch.setattr("melmill.transforms.store.retries.RETRYING.sleep", lambda seconds: None)
    data = encode(noise(20, rate_of(name)), rate_of(name), name)
    source = store(data)
    audio = probe_audio(source)
    monkeypatch.setattr(io, "FileIO", _FailingDisk)
    with open_audio(source, audio) as reader:
        blocks = reader.blocks(0, audio.frames, 10_000)
        next(blocks)
        # libsndfile only sees the end of the file. Our code then reads again, and gets the error.
        Path(source.uri).write_bytes(data[: len(data) // 4])
        with pytest.raises(RecordingError) as raised:
            list(blocks)
    assert (raised.value.stage, raised.value.cause) == (Stage.READ, Cause.STORAGE_ERROR)


class _FailingDisk(io.FileIO):
    def read(self, size=-1):
        raise OSError(5, "I/O error")


def _raise(error: BaseException):
    def method(*arguments):
        raise error

    return method


@pytest.mark.parametrize(
    ("start", "stop", "block"), [(-1, 5, 10), (5, 4, 10), (0, 10**9, 10), (0, 5, 0)]
)
def test_reads_outside_the_recording_are_our_own_error(store, start, stop, block):
    source = store(encode(song(0.1, RATE), RATE, "wav"))
    with open_audio(source, probe_audio(source)) as reader, pytest.raises(ValueError):
        list(reader.blocks(start, stop, block))


def test_an_empty_read_is_empty(store):
    source = store(encode(song(0.1, RATE), RATE, "wav"))
    with open_audio(source, probe_audio(source)) as reader:
        assert list(reader.blocks(100, 100, 10)) == []


@pytest.mark.parametrize("name", ["wav", "m4a"])
def test_another_recording_in_its_place_is_noticed(store, name):
    source = store(encode(song(1, RATE), RATE, name))
    audio = probe_audio(source)
    store(encode(song(1, RATE, channels=2), RATE, name))
    with pytest.raises(RecordingError) as raised:
        decode(source, audio)
    assert raised.value.cause == Cause.CHANGED


def test_a_remote_recording_reads_like_a_local_one(store):
    import fsspec

    data = encode(song(1, RATE), RATE, "flac")
    fsspec.filesystem("memory").pipe("/media/a b#1.flac", data)
    remote = StoredObject("memory://media/a b#1.flac")
    assert np.array_equal(decode_all(remote), decode_all(store(data)))


def test_no_warning_is_issued(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("wav", "m4a", "ogg"):
            decode_all(store(encode(song(0.5, RATE), RATE, name)))
