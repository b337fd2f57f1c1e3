"""Tests of wrong claims in headers and tags: every kind of claim, with many wrong values."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
from tests import damage
from tests.recordings import RATE, decode, decode_all, failure
from tests.signals import encode, noise, song

PLACEHOLDERS_32_BIT = (0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000, 0x7FFFFFFF)
PLACEHOLDERS_64_BIT = (0, 2**64 - 1, 2**63 - 1, 2**63, 0xFFFFFFFF)
PLACEHOLDERS = [
    (name, size)
    for name, (_, _, form) in damage.SIZE_FIELDS.items()
    for size in (PLACEHOLDERS_64_BIT if form.endswith("Q") else PLACEHOLDERS_32_BIT)
]
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\4\0\0\0\0\x01\x00" + b"TIT2\0\0\0\x05\0\0\0abcd" + bytes(113)
APE = b"x" * 200 + b"APETAGEX" + struct.pack("<IIII8x", 2000, 232, 1, 0)
#: A tag with a picture whose bytes look like frame headers.
PICTURE = b"ID3\4\0\0\0\0\x20\x00" + b"\xff\xfb\x90\x64" * 1024


@pytest.fixture
def store(tmp_path: Path):
    def put(data: bytes) -> StoredObject:
        (tmp_path / "recording").write_bytes(data)
        return StoredObject(str(tmp_path / "recording"))

    return put


def probe_and_decode(source: StoredObject) -> tuple[AudioInfo | None, Cause | None]:
    """Return what the recording is finally decoded with, and the cause of its first failure."""
    try:
        audio = probe_audio(source)
        decode(source, audio)
    except RecordingError as error:
        return error.audio, error.cause
    return audio, None


# Sizes


@pytest.mark.parametrize(("name", "size"), PLACEHOLDERS)
def test_a_placeholder_is_no_claim(store, name, size):
    data = encode(song(1, RATE, channels=2), RATE, name)
    expected = decode_all(store(data))
    assert np.array_equal(decode_all(store(damage.with_size(data, name, size))), expected)


@pytest.mark.parametrize("name", damage.SIZE_FIELDS)
def test_audio_behind_the_claimed_size_is_read(store, name):
    data = encode(song(1, RATE, channels=2), RATE, name)
    expected = decode_all(store(data))
    half = damage.with_size(data, name, damage.size_of(data, name) // 8 * 4)
    assert np.array_equal(decode_all(store(half)), expected)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("trailer", [b"LIST", b"id3 ", b"bext", b"LISTcue "])
def test_chunks_behind_audio_of_unknown_length_are_not_played(store, size, trailer):
    data = encode(song(1, RATE), RATE, "wav")
    chunks = b"".join(
        trailer[i : i + 4] + struct.pack("<I", 26) + bytes(26) for i in range(0, len(trailer), 4)
    )
    decoded = decode_all(store(damage.with_size(data, "wav", size) + chunks))
    assert np.array_equal(decoded, decode_all(store(data)))


def test_a_chunk_as_long_as_the_audio_is_not_played(store):
    data = encode(song(1, RATE), RATE, "wav")
    chunk = b"iXML" + struct.pack("<I", len(data)) + b"<x/>" * (len(data) // 4)
    assert np.array_equal(decode_all(store(data + chunk)), decode_all(store(data)))


@pytest.mark.parametrize("lost", [0, 1, 5000])
@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_a_large_chunk_behind_odd_audio_is_not_played(store, lost, padding):
    """Some writers omit the padding byte after a chunk of odd length, and some chunks are cut."""
    data = damage.with_size(encode(song(0.2, RATE), RATE, "wav8")[: 44 + 8001], "wav", 8001)
    picture = b"id3 " + struct.pack("<I", 20_000) + noise(1, RATE).tobytes()[: 20_000 - lost]
    decoded = decode_all(store(data + padding + picture))
    assert np.array_equal(decoded, decode_all(store(data)))


def test_a_cut_file_with_a_placeholder_is_read_to_its_end(store):
    data = encode(song(1, RATE), RATE, "wav")[:-1001]
    decoded = decode_all(store(damage.with_size(data, "wav", 0xFFFFFFFF)))
    assert len(decoded) == RATE - 501


def test_joined_wavs_are_refused(store):
    error = failure(store(encode(song(1, RATE), RATE, "wav") * 2))
    assert error.cause == Cause.CORRUPT
    assert "another file begins at byte 88244" in error.message


def test_any_span_of_a_mended_file_is_a_slice_of_the_whole(store):
    source = store(damage.with_size(encode(noise(2, RATE), RATE, "wav24"), "wav24", 0))
    audio = probe_audio(source)
    whole = decode(source, audio)
    assert np.array_equal(decode(source, audio, 50_001, 60_002), whole[50_001:60_002])


@pytest.mark.parametrize("codec", ["mp3", "mp2", "ac3"])
def test_compressed_sound_in_a_wav_is_counted(store, codec):
    import av

    sound = encode(song(3, RATE), RATE, codec)
    buffer = io.BytesIO()
    with av.open(io.BytesIO(sound)) as file, av.open(buffer, "w", format="wav") as wav:
        stream = wav.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(file.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                wav.mux(packet)
    audio = probe_audio(store(buffer.getvalue()))
    assert audio.decoder == "pyav"
    assert 3 * RATE <= audio.frames < 3 * RATE + 4 * 1536


@pytest.mark.parametrize("extra", [1, 4, 8, 100])
@pytest.mark.parametrize("name", ["avi", "wma", "voc", "8svx"])
def test_a_size_that_counts_its_own_header_is_no_missing_audio(store, name, extra):
    data = encode(song(1, RATE), RATE, name)
    expected = decode_all(store(data))
    source = store(damage.with_envelope_grown(data, name, extra))
    if extra > 8:
        error = failure(source)
        assert error.cause == Cause.TRUNCATED
        assert error.frames
    else:
        assert np.array_equal(decode_all(source), expected)


@pytest.mark.parametrize("name", ["sox", "avr"])
def test_a_count_of_samples_is_exact(store, name):
    data = encode(song(1, RATE), RATE, name)
    assert decode_all(store(data)).shape == (RATE, 1)
    assert failure(store(data[:-1])).cause == Cause.TRUNCATED


# MP3


@pytest.mark.parametrize("name", ["mp3", "mp3_vbr"])
@pytest.mark.parametrize("share", [0, 0.5, 2])
def test_frames_that_a_tag_counts_wrongly(store, name, share):
    data = encode(song(3, RATE, channels=2), RATE, name)
    source = store(damage.with_xing(data, frames=round(share * 3 * RATE / 1152)))
    audio, cause = probe_and_decode(source)
    assert cause in (None, Cause.LENGTH_MISMATCH)
    assert cause is None or name == "mp3_vbr"  # the probe notices a constant bit rate
    assert 3 * RATE <= audio.frames <= 3 * RATE + 2 * 1152
    assert len(decode(source, audio)) == audio.frames


@pytest.mark.parametrize("before", [b"", ID3V2, bytes(4000), PICTURE], ids=len)
@pytest.mark.parametrize("behind", [b"", ID3V1, ID3V2, APE, APE + ID3V1, bytes(999)], ids=len)
@pytest.mark.parametrize("tagged", [True, False])
def test_tags_and_zeros_around_an_mp3_are_skipped(store, before, behind, tagged):
    data = encode(song(2, RATE), RATE, "mp3_vbr")
    data = data if tagged else damage.strip_xing(data)
    expected = decode_all(store(data))
    decoded = decode_all(store(before + data + behind))
    assert decoded.shape == expected.shape
    # If libsndfile cannot rely on the Xing tag, FFmpeg decodes. Their samples differ by less
    # than 1e-4.
    assert np.abs(decoded - expected).max() < 1e-4


@pytest.mark.parametrize(
    "between", [ID3V1, ID3V1 + ID3V2, ID3V2, APE, PICTURE, bytes(999)], ids=len
)
def test_tags_between_joined_mp3s_are_skipped(store, between):
    parts = [strip(encode(song(2, RATE, seed=s), RATE, "mp3_vbr")) for s in (1, 2)]
    alone = [len(decode_all(store(part))) for part in parts]
    decoded = decode_all(store(between.join(parts)))
    # FFmpeg takes the frame after some tags for a part of the tag.
    assert sum(alone) - 2 * 1152 <= len(decoded) <= sum(alone)


strip = damage.strip_xing


# Changes in the middle of a stream


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("flac", (RATE, 2), (RATE, 1)),
        ("flac", (RATE, 1), (RATE, 2)),
        ("flac", (RATE, 1), (48000, 1)),
        ("mp3_untagged", (RATE, 1), (RATE, 2)),
        ("mp3_untagged", (RATE, 2), (RATE, 1)),
        ("mp3_untagged", (RATE, 1), (48000, 1)),
        ("mp2", (RATE, 2), (RATE, 1)),
        ("aac", (RATE, 2), (RATE, 1)),
        ("ac3", (RATE, 1), (RATE, 2)),
        ("eac3", (RATE, 1), (48000, 1)),
    ],
)
def test_a_change_of_rate_or_channels_is_reported(store, name, first, second):
    parts = [encode(song(2, rate, channels=n), rate, name) for rate, n in (first, second)]
    if name == "flac":
        parts = [damage.without_total(parts[0]), parts[1][parts[1].index(b"\xff\xf8") :]]
    error = failure(store(b"".join(parts)))
    assert error.cause == Cause.CORRUPT
    assert "(rate, channels, sample format) changes from" in error.message
    frame = int(error.message.rpartition(" ")[2])
    assert error.frames == frame
    assert abs(frame - 2 * RATE) < 4 * 1152 + 1105


def test_joined_flacs_are_counted_whole(store):
    parts = [encode(song(s, RATE, seed=s), RATE, "flac") for s in (2, 1)]
    audio = probe_audio(store(b"".join(parts)))
    assert (audio.decoder, audio.frames) == ("pyav", 3 * RATE)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_flac_that_counts_too_few_frames_is_counted(store, share):
    sound = song(3, RATE)
    data = bytearray(encode(sound, RATE, "flac"))
    data[22:26] = struct.pack(">I", round(share * len(sound)))
    source = store(bytes(data))
    assert np.array_equal(decode_all(source)[:, 0], np.round(sound * 2**15) / np.float32(2**15))


@pytest.mark.parametrize("last", [4096, 700, 16])
def test_a_flac_of_blocks_of_any_size_is_counted(store, last):
    sizes = [4096] * 9 + [1000, 4096, 192, 3000, 4096, last]
    sound = noise(2, RATE)[: sum(sizes)]
    parts = np.split(sound, np.cumsum(sizes)[:-1])
    data = damage.variable_flac([encode(part, RATE, "flac") for part in parts], len(sound))
    audio = probe_audio(store(data))
    assert (audio.decoder, audio.frames) == ("libsndfile", len(sound))
    expected = np.round(sound * 2**15) / np.float32(2**15)
    assert np.array_equal(decode_all(store(data))[:, 0], expected)
    cut = damage.variable_flac([encode(part, RATE, "flac") for part in parts[:-1]], len(sound))
    assert failure(store(cut)).cause == Cause.TRUNCATED


@pytest.mark.parametrize("behind", [ID3V1, ID3V2, APE, bytes(300)], ids=len)
def test_tags_behind_a_flac_are_no_damage(store, behind):
    data = encode(song(1, RATE), RATE, "flac")
    assert np.array_equal(decode_all(store(data + behind)), decode_all(store(data)))


# Ogg


@pytest.mark.parametrize("name", ["ogg", "opus", "ogx"])
def test_an_unmarked_last_page_is_no_truncation(store, name):
    rate = 48000 if name == "opus" else RATE
    data = encode(song(3.21, rate), rate, name)
    expected = decode_all(store(data))
    decoded = decode_all(store(damage.without_end(data)))
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["ogg", "opus"])
@pytest.mark.parametrize("moved", [1, 4800, 10**9])
def test_a_stream_that_does_not_begin_at_0_is_read_whole(store, name, moved):
    data = encode(song(3, 48000), 48000, name)
    expected = decode_all(store(data))
    source = store(damage.with_granules_moved(data, moved))
    decoded = decode_all(source)
    assert decoded.shape == expected.shape
    if name == "ogg":
        assert np.array_equal(decoded, expected)
    else:  # FFmpeg's Opus decoder differs slightly from libopus
        assert np.abs(decoded - expected).max() < 0.02


@pytest.mark.parametrize("name", ["ogg", "opus"])
@pytest.mark.parametrize("late", [1, 2])
def test_a_stream_that_a_listener_joined_late_is_read_whole(store, name, late):
    data = encode(song(6, 48000), 48000, name)
    data = damage.with_numbers_moved(damage.with_granules_moved(data, 10**7), 5000)
    pages = damage.pages_of(data)
    source = store(b"".join(pages[:2] + pages[2 + late :]))
    audio = probe_audio(source)
    decoded = decode(source, audio)
    assert len(decoded) == audio.frames
    whole = decode_all(store(data))[-len(decoded) + 8192 :]
    assert 2 * 48000 < len(decoded) < 6 * 48000
    assert np.abs(decoded[8192:] - whole).max() < 0.02


@pytest.mark.parametrize("name", ["ogg", "opus"])
@pytest.mark.parametrize("seconds", [(3, 2), (2, 3), (2, 2)])
def test_joined_streams_of_one_serial_number_do_not_pass_for_one(store, name, seconds):
    parts = [encode(song(s, 48000), 48000, name) for s in seconds]
    source = store(b"".join(damage.with_serial(part, 7) for part in parts))
    audio, cause = probe_and_decode(source)
    assert cause == Cause.LENGTH_MISMATCH
    if name == "ogg":  # FFmpeg does not cut the last block of the first stream
        assert audio is None
    else:
        assert audio.frames == len(decode(source, audio)) == 48000 * sum(seconds)


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.2, 0.5, 1, 1.5, 2])
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_short_vorbis_is_read_whole(store, seconds, level):
    sound = noise(seconds, RATE, amplitude=level)
    sound[:5000] = 0
    source = store(encode(sound, RATE, "ogg"))
    expected, _ = soundfile.read(source.uri, dtype="float32", always_2d=True)
    assert np.abs(decode_all(source) - expected).max() < 1e-6


@pytest.mark.parametrize("container", ["matroska", "webm", "mp4", "mpegts"])
def test_a_start_time_is_no_missing_audio(store, container):
    import av

    data = encode(song(3, 48000), 48000, "webm" if container != "mpegts" else "aac")
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as file, av.open(buffer, "w", format=container) as output:
        stream = output.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(file.streams.audio[0]):
            if packet.dts is not None:
                packet.pts += round(7 / packet.time_base)
                packet.dts = packet.pts
                packet.stream = stream
                output.mux(packet)
    assert abs(probe_audio(store(buffer.getvalue())).frames - 3 * 48000) < 3000


def test_a_change_of_the_kind_of_samples_is_damage(store):
    parts = [encode(song(1, RATE), RATE, name) for name in ("flac", "flac24")]
    data = damage.without_total(parts[0]) + parts[1][parts[1].index(b"\xff\xf8") :]
    error = failure(store(data))
    assert (error.cause, error.frames) == (Cause.CORRUPT, RATE)


@pytest.mark.parametrize(("rate", "kind"), [(48000, "s16"), (RATE, "s32"), (RATE, "s16p")])
def test_the_queue_compares_rate_and_kind(rate, kind):
    """Our decoder relies on this check. The queue ignores channels, so the decoder checks them."""
    import av

    queue = av.AudioFifo()
    for frame_rate, frame_kind in ((RATE, "s16"), (rate, kind)):
        frame = av.AudioFrame(format=frame_kind, layout="mono", samples=100)
        frame.sample_rate = frame_rate
        if (frame_rate, frame_kind) == (RATE, "s16"):
            queue.write(frame)
        else:
            with pytest.raises(ValueError, match="Frame does not match"):
                queue.write(frame)
