"""Tests that headers are read correctly, and compared with the bytes in the file."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode import mpeg, ogg
from melmill.transforms.decode.headers import Header, read_header
from melmill.transforms.store.objects import StoredObject
from tests.damage import ogg_page, strip_xing, with_data_size, with_serial, without_total
from tests.signals import encode, noise, song

RATE = 44100
SIZED = ("wav", "wav24", "wavex", "wav_float", "rf64", "w64", "aiff", "aiff_float", "au", "caf")
APE = bytes(2000) + b"APETAGEX" + struct.pack("<IIII8x", 2000, 2032, 1, 0)
ID3 = b"ID3\4\0\0\0\0\x01\x00" + bytes(128)


@pytest.fixture
def header(tmp_path: Path):
    def read(data: bytes) -> Header:
        path = tmp_path / "recording"
        path.write_bytes(data)
        with StoredObject(str(path)).open() as file:
            return read_header(file)

    return read


@pytest.mark.parametrize("name", [*SIZED, "nist"])
def test_rate_channels_and_end_are_read(header, name):
    result = header(encode(song(0.1, RATE, channels=2), RATE, name))
    assert (result.sample_rate_hz, result.channels, result.irregularity) == (RATE, 2, "")
    assert result.data_end is not None


def test_flac_says_rate_and_channels(header):
    result = header(encode(song(0.1, 96000, channels=2), 96000, "flac"))
    assert result == Header("flac", 96000, 2)


@pytest.mark.parametrize("name", [*SIZED, "nist", "caf_alac", "wav_ima_adpcm"])
@pytest.mark.parametrize("lost", [1, 1000])
def test_a_file_shorter_than_declared_is_truncated(header, name, lost):
    data = encode(song(0.5, RATE), RATE, name)
    whole = header(data)
    with pytest.raises(RecordingError) as raised:
        header(data[: whole.data_end - lost])
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.TRUNCATED)
    assert str(whole.data_end) in raised.value.message


@pytest.mark.parametrize("name", [*SIZED, "nist"])
def test_a_file_that_ends_where_declared_is_whole(header, name):
    data = encode(song(0.5, RATE), RATE, name)
    assert header(data[: header(data).data_end]) == header(data + b"junk" * 300)


def test_a_wav_that_claims_four_gigabytes_is_truncated(header):
    with pytest.raises(RecordingError, match="4294967"):
        header(with_data_size(encode(song(0.1, RATE), RATE, "wav"), 0xFFFFFFFE))


def test_a_wav_that_declares_nothing_before_its_samples_is_mended(header):
    data = encode(song(0.1, RATE), RATE, "wav")
    assert "no audio" in header(with_data_size(data, 0)).mended
    assert not header(with_data_size(data[:44], 0)).mended


def test_odd_chunks_before_the_audio_are_stepped_over(header):
    data = encode(song(0.1, RATE), RATE, "wav")
    odd_chunk = b"junk" + struct.pack("<I", 3) + b"abc\0"
    assert header(data[:12] + odd_chunk + data[12:]).data_end == len(data) + len(odd_chunk)


def test_a_chunk_that_runs_backwards_ends_the_search(header):
    data = bytearray(encode(song(0.1, RATE), RATE, "caf"))
    at = data.index(b"desc")
    data[at : at + 12] = b"back" + struct.pack(">q", -100)
    assert header(bytes(data)).data_end is None


def test_endless_empty_chunks_end_the_search(header):
    data = encode(song(0.1, RATE), RATE, "wav")
    assert header(data[:12] + b"none\0\0\0\0" * 5000 + data[12:]).data_end is None


@pytest.mark.parametrize("name", ["wav", "rf64", "w64", "aiff", "au", "caf", "nist", "flac", "ogg"])
@pytest.mark.parametrize("size", [4, 17, 30, 50])
def test_a_stump_of_a_header_is_read_or_reported(header, name, size):
    result = None
    with contextlib.suppress(RecordingError):
        result = header(encode(song(0.1, RATE), RATE, name)[:size])
    assert result is None or result.container in (name, "")


def test_flac_from_a_pipe_is_irregular(header):
    assert "length" in header(without_total(encode(song(0.1, RATE), RATE, "flac"))).irregularity


def test_unknown_bytes_are_left_to_the_decoders(header):
    assert header(b"Dear Sir or Madam,\n" * 100) == Header()


# MPEG audio


@pytest.mark.parametrize("name", ["mp3", "mp3_vbr"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_tagged_mp3_is_regular(header, name, channels, rate):
    data = encode(song(1, rate, channels=channels), rate, name)
    assert header(data) == Header("mp3", rate, channels)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ID3, b""),
        (ID3 + ID3, b""),
        (b"", b"TAG" + bytes(125)),
        (b"", APE),
        (b"", bytes(32) + APE[:-12] + b"\0\0\0\x80" + bytes(8)),
        (b"", b"LYRICSBEGIN" + bytes(10) + b"000021LYRICS200TAG" + bytes(125)),
        (ID3, APE + b"TAG" + bytes(125)),
    ],
    ids=["id3v2", "two id3v2", "id3v1", "apev2", "apev2 with head", "lyrics3", "all"],
)
def test_tags_around_an_mp3_do_not_count(header, before, after):
    data = encode(noise(1, RATE), RATE, "mp3_vbr")
    assert header(before + data + after).irregularity == ""


def test_an_mp3_without_its_tag_is_irregular(header):
    assert "without" in header(strip_xing(encode(song(1, RATE), RATE, "mp3_vbr"))).irregularity
    assert "without" in header(encode(song(1, RATE), RATE, "mp3_untagged")).irregularity


def test_joined_mp3s_are_irregular(header):
    part = encode(song(1, RATE), RATE, "mp3_vbr")
    assert f"counts {len(part)} bytes" in header(part + part).irregularity


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_mp3_is_reported(header, share):
    data = encode(song(1, RATE), RATE, "mp3_vbr")
    with pytest.raises(RecordingError, match="are missing") as raised:
        header(data[: int(share * len(data))])
    assert raised.value.cause == Cause.TRUNCATED


def test_an_mp3_that_lacks_its_last_bytes_only_is_irregular(header):
    assert header(encode(song(1, RATE), RATE, "mp3")[:-10]).irregularity


@pytest.mark.parametrize(
    "head", ["fffb9064", "fff38064", "fffd9064", "ffe39064", "fffb90c4", "ffff9064"]
)
def test_frame_headers_parse(head):
    frame = mpeg.parse_frame(bytes.fromhex(head))
    assert frame is not None
    assert frame.size_bytes > 0


@pytest.mark.parametrize(
    "head", ["", "fffb", "ffeb9064", "fff99064", "fffbf064", "fffb0064", "fffb9c64"]
)
def test_what_is_no_frame_header_does_not_parse(head):
    assert mpeg.parse_frame(bytes.fromhex(head)) is None


# Ogg


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_a_whole_ogg_is_regular(header, name):
    assert header(encode(song(1, 48000), 48000, name)) == Header("ogg", promised=48_000)


@pytest.mark.parametrize("name", ["ogg", "opus"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_ogg_is_reported(header, name, share):
    data = encode(song(3, 48000), 48000, name)
    with pytest.raises(RecordingError, match="Ogg page") as raised:
        header(data[: int(share * len(data))])
    assert raised.value.cause == Cause.TRUNCATED


def test_an_ogg_whose_last_page_is_not_marked_is_no_truncation(header):
    data = encode(song(3, 48000), 48000, "ogg")
    assert "not marked" in header(data[: data.rindex(b"OggS")]).mended


@pytest.mark.parametrize("size", [1, 4, 5, 26, 27])
def test_an_ogg_cut_within_a_pages_header_is_reported(header, size):
    data = encode(song(3, 48000), 48000, "ogg")
    with pytest.raises(RecordingError, match="Ogg page"):
        header(data[: data.rindex(b"OggS") + size])


def test_a_chained_ogg_is_irregular_and_its_frames_are_added_up(header):
    first, second = (encode(song(s, 48000), 48000, "opus") for s in (2, 1))
    result = header(first + with_serial(second, 4711))
    assert (result.irregularity, result.frames) == ("a chained Ogg stream", 3 * 48000)


def test_a_tag_behind_an_ogg_does_not_count(header):
    data = encode(song(1, 48000), 48000, "ogg")
    assert header(data + b"TAG" + bytes(125)) == Header("ogg", promised=48_000)


def test_streams_side_by_side_are_irregular(header):
    sound = encode(song(1, 48000), 48000, "ogg")
    page = ogg.parse_page(sound, 0, 0)
    picture = with_serial(sound[: page.end], 4711)
    assert "side by side" in header(picture + sound).irregularity


def test_a_last_page_of_the_largest_size_is_found(header):
    sound = encode(song(1, 48000), 48000, "ogg")
    first = ogg.parse_page(sound, 0, 0)
    largest = ogg_page(bytes(64_900), flags=4, serial=first.serial)
    assert header(sound + largest + bytes(60_000)) == Header("ogg", promised=1)


def test_the_magic_word_inside_a_page_is_no_page(tmp_path):
    data = ogg_page(b"x" * 100 + b"OggS\0" + b"\4" * 150) + ogg_page(b"y", flags=4)
    path = tmp_path / "a.ogg"
    path.write_bytes(data[1:])
    with StoredObject(str(path)).open() as file:
        assert [page.flags for page in ogg.tail_pages(file, 10**6)] == [4]
