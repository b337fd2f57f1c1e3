"""Tests of damaged recordings: a failure says what is missing; audio before it can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode import damage as damage_module
from melmill.transforms.decode import mpeg, ogg
from melmill.transforms.decode.damage import explain
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject
from tests import damage
from tests.recordings import RATE, decode, decode_all, rate_of, read
from tests.signals import FORMATS, encode, noise, song, tone

#: Formats that store their length in a header or in their pages.
COUNTED = sorted({*FORMATS, "tta", "wv", "voc", "avi", "flv"} - {"m4a", "mp4", "m4a_alac"})


@pytest.fixture
def store(tmp_path: Path):
    def put(data: bytes) -> StoredObject:
        (tmp_path / "recording").write_bytes(data)
        return StoredObject(str(tmp_path / "recording"))

    return put


def decode_error(source: StoredObject, start: int = 0) -> RecordingError:
    with pytest.raises(RecordingError) as raised:
        decode(source, probe_audio(source), start)
    return raised.value


def sound(name: str, seconds: float = 7) -> np.ndarray:
    return song(seconds, rate_of(name), channels=2)


@pytest.mark.parametrize("share", [0.35, 0.8])
@pytest.mark.parametrize("name", sorted(set(COUNTED) - {"aac", "ac3", "mp3_untagged"}))
def test_what_is_before_a_cut_can_be_read(store, name, share):
    data = encode(sound(name), rate_of(name), name)
    whole = decode_all(store(data))
    source = store(data[: int(share * len(data))])
    error = decode_error(source)
    assert error.cause in (Cause.TRUNCATED, Cause.CORRUPT)
    assert (share - 0.2) * len(whole) < error.frames < (share + 0.05) * len(whole)
    remains = decode(source, error.audio)
    # Sometimes FFmpeg decodes instead of libsndfile; with MP3, their samples differ by less than
    # 1e-4. The last frame before the cut may lack its overlap with the next frame.
    sound_frames = max(0, error.frames - 4096)
    assert len(remains) == error.frames
    assert np.abs(remains[:sound_frames] - whole[:sound_frames]).max() < 1e-4


@pytest.mark.parametrize("name", ["wv", "tta", "ac3", "eac3", "mka", "ogx"])
def test_one_bit_fails_a_stream_with_checksums_and_what_is_before_it_is_the_same(store, name):
    data = encode(sound(name, 5), rate_of(name), name)
    whole = decode_all(store(data))
    for at in np.linspace(0.4, 0.9, 12) * len(data):  # frames have up to a second
        damaged = bytearray(data)
        damaged[int(at)] ^= 1 << int(at) % 8
        source = store(bytes(damaged))
        error = decode_error(source)
        assert (error.cause, 0 < error.frames < len(whole)) == (Cause.CORRUPT, True), at
        assert np.array_equal(decode(source, error.audio), whole[: error.frames])


@pytest.mark.parametrize("name", ["flac", "flac24", "mp3_vbr", "ogg", "opus", "m4a_alac", "mka"])
def test_what_is_before_a_damage_can_be_read_and_is_the_same_from_any_span(store, name):
    data = bytearray(encode(sound(name), rate_of(name), name))
    whole = decode_all(store(bytes(data)))
    middle = len(data) // 2
    data[middle : middle + 9000] = np.random.default_rng(0).bytes(9000)
    source = store(bytes(data))
    errors = [decode_error(source, start) for start in (0, 10_000, len(whole) // 2 - 90_000)]
    assert {error.cause for error in errors} <= {Cause.CORRUPT, Cause.TRUNCATED}
    assert len({(error.frames, error.message) for error in errors}) == 1
    frames = errors[0].frames
    assert 0.3 * len(whole) < frames < 0.7 * len(whole)
    remains = decode(source, errors[0].audio)
    assert np.abs(remains - whole[:frames]).max() < 1e-4
    tail = decode(source, errors[0].audio, frames - 1000)
    assert np.array_equal(tail, remains[-1000:])


@pytest.mark.parametrize("share", [0.03, 0.25])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("name", ["mp3", "mp3_vbr", "mp3_untagged", "mp2", "mp3_wrong_tag"])
def test_an_overwritten_part_of_an_mp3_is_no_junk(store, name, fill, share):
    """No tag counts these frames: only the frames around the hole show that some are missing."""
    data = encode(noise(7, RATE, channels=2), RATE, name.removesuffix("_wrong_tag"))
    if name in ("mp3", "mp3_vbr"):
        data = damage.strip_xing(data)
    if name == "mp3_wrong_tag":
        data = bytes(300) + damage.with_xing(data, frames=40)
    whole = decode_all(store(data))
    middle, size = len(data) // 2, round(share * len(data))
    hole = bytes(size) if fill == "zeros" else np.random.default_rng(0).bytes(size)
    source = store(data[:middle] + hole + data[middle + size :])
    errors = [decode_error(source, start) for start in (0, 10_000)]
    assert {error.cause for error in errors} == {Cause.CORRUPT}
    assert len({(error.frames, error.message) for error in errors}) == 1
    assert "is neither a frame nor a tag" in errors[0].message
    frames = errors[0].frames
    assert 0.4 * len(whole) < frames < 0.52 * len(whole)
    remains = decode(source, errors[0].audio)
    assert np.abs(remains - whole[:frames]).max() < 1e-4


@pytest.mark.parametrize("name", ["mp3_vbr", "ogg", "opus"])
def test_a_damage_that_was_found_needs_no_second_decode(store, monkeypatch, name):
    """A decoder that conceals missing frames could give as many frames as the header counts."""
    calls = []
    monkeypatch.setattr(damage_module, "ask_other", lambda *arguments: calls.append(arguments))
    data = bytearray(encode(noise(7, rate_of(name)), rate_of(name), name))
    data[len(data) // 2 : len(data) // 2 + 9000] = bytes(9000)
    assert decode_error(store(bytes(data))).cause == Cause.CORRUPT
    assert not calls


def test_one_lost_frame_of_an_mp3_is_damage(store):
    data = encode(noise(7, RATE), RATE, "mp3_vbr")
    at = 0
    while at < len(data) // 2:
        at += mpeg.parse_frame(data[at : at + 4]).size_bytes
    error = decode_error(store(data[:at] + bytes(4) + data[at + 4 :]))
    assert error.cause == Cause.CORRUPT
    assert f"the data at byte {at} is neither a frame nor a tag" in error.message


@pytest.mark.parametrize("between", [bytes(999), b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\x20"])
@pytest.mark.parametrize("before", [b"", bytes(500)])
def test_a_joined_mp3_may_begin_in_mid_stream_behind_a_tag(store, between, before):
    data = damage.strip_xing(encode(noise(2, RATE), RATE, "mp3"))
    cut = 0
    while cut < len(data) // 2:
        cut += mpeg.parse_frame(data[cut : cut + 4]).size_bytes
    padding = bytes(32) if between.startswith(b"ID3") else b""
    source = store(data + before + between + padding + data[cut:])
    if between.startswith(b"\0"):
        assert decode_error(source).cause == Cause.CORRUPT
    else:
        assert len(decode_all(source)) > 1.4 * len(decode_all(store(data)))


@pytest.mark.parametrize("name", ["ogg", "opus", "opus_live"])
def test_a_missing_page_is_reported(store, name):
    data = encode(noise(12, 48000), 48000, name.removesuffix("_live"))
    if name == "opus_live":  # FFmpeg decodes this stream, and gives the remaining audio
        data = damage.with_granules_moved(data, 48000)
    error = decode_error(store(damage.without_page(data, 5)))
    assert error.cause == Cause.CORRUPT
    assert "Ogg pages are missing before byte" in error.message
    assert 0 < error.frames < 11 * 48000
    assert len(decode(store(damage.without_page(data, 5)), error.audio)) == error.frames


@pytest.mark.parametrize("point", [(441_000, 100), (110_250, 1_500_000), (4096, 1_521_078)])
@pytest.mark.parametrize("start", [5000, 42_000, 441_007, 873_000])
def test_a_flac_that_cannot_be_searched_is_read_from_its_start(store, point, start):
    """A wrong seek table misleads libsndfile, although every frame of the file is intact."""
    data = encode(noise(20, RATE), RATE, "flac")
    source = store(damage.with_seek_point(data, *point))
    audio = probe_audio(source)
    whole = decode(source, audio)
    with open_audio(source, audio) as reader:
        for first in (start, 3000, start):
            assert np.array_equal(read(reader, first, first + 9000), whole[first : first + 9000])


def test_a_damaged_flac_that_cannot_be_searched_says_the_same_from_any_span(store):
    data = bytearray(damage.with_seek_point(encode(noise(20, RATE), RATE, "flac"), 441_000, 100))
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    errors = [decode_error(store(bytes(data)), start) for start in (0, 5000, 400_000)]
    assert len({(error.cause, error.frames, error.message) for error in errors}) == 1
    assert 0.45 * 20 * RATE < errors[0].frames < 10 * RATE


@pytest.mark.parametrize("late", [0, 5000])
@pytest.mark.parametrize("moved", [0, 48000, 10**7])
def test_the_links_of_a_chain_before_a_missing_page_are_counted(store, moved, late):
    first, second = (encode(noise(s, 48000, seed=s), 48000, "opus") for s in (3, 8))
    first = damage.with_numbers_moved(damage.with_granules_moved(first, moved), late)
    second = damage.with_numbers_moved(damage.with_granules_moved(second, moved), late)
    error = decode_error(store(first + damage.without_page(second, 6)))
    assert error.cause == Cause.CORRUPT
    assert "Ogg pages are missing" in error.message
    assert 3 * 48000 + 3 * 40_000 < error.frames < 10 * 48000
    whole = decode_all(store(first + second))
    remains = decode(store(first + damage.without_page(second, 6)), error.audio)
    assert np.abs(remains - whole[: error.frames]).max() < 0.02


@pytest.mark.parametrize("moved", [(0, 0), (10**7, 48000), (48000, 10**7)])
def test_streams_side_by_side_are_counted_apart(store, moved):
    streams = [
        damage.pages_of(damage.with_granules_moved(encode(noise(8, 48000), 48000, "opus"), by))
        for by in moved
    ]
    del streams[0][6]
    pages = [page for pair in zip(*streams, strict=False) for page in pair]
    with store(b"".join(pages)).open() as file:
        frames, message = ogg.first_damage(file, 0)
    assert "Ogg pages are missing" in message
    assert 4 * 47000 - 312 <= frames <= 4 * 48000


def test_a_message_names_the_decoder_and_what_is_missing(store):
    data = bytearray(encode(song(5, RATE), RATE, "flac"))
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    error = decode_error(store(bytes(data)))
    assert "libsndfile" in error.message
    assert f"the first {error.frames} frames are intact" in error.message


def test_a_decoder_that_falls_short_is_not_believed_alone(store):
    """The probe chose the wrong decoder, as may happen with an unknown kind of file."""
    source = store(encode(tone(440, 1, RATE), RATE, "ogg"))
    audio = probe_audio(source)
    assert audio.decoder == "libsndfile"  # the whole stream is in one page
    with pytest.raises(RecordingError) as raised:
        decode(source, replace(audio, decoder="pyav"))
    assert raised.value.cause == Cause.LENGTH_MISMATCH
    assert raised.value.audio == audio


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "opus", "m4a"])
def test_a_healthy_recording_read_in_part_gives_just_that(store, name):
    source = store(encode(sound(name, 3), rate_of(name), name))
    audio = probe_audio(source)
    part = replace(audio, frames=50_000, decoder=audio.decoder + "+partial")
    assert np.array_equal(decode(source, part), decode(source, audio)[:50_000])


@pytest.mark.parametrize("name", ["mp3_vbr", "opus", "ogg"])
def test_reading_on_to_the_end_notices_what_no_chunk_comes_to(store, name):
    parts = [encode(song(s, 48000), 48000, name) for s in (3, 2)]
    whole = parts[0] + damage.with_serial(parts[1], 0) if name != "mp3_vbr" else parts[0]
    if name == "mp3_vbr":
        source = store(damage.with_xing(whole, frames=60))
    else:
        source = store(damage.with_serial(parts[0], 7) + damage.with_serial(parts[1], 7))
    audio = probe_audio(source)
    with open_audio(source, audio) as reader:
        list(reader.blocks(0, audio.frames - 5000, 10_000))
        with pytest.raises(RecordingError) as raised:
            reader.finish()
    assert raised.value.cause == Cause.LENGTH_MISMATCH


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_something_between_two_pages_is_no_missing_page(store, name):
    data = encode(noise(12, 48000), 48000, name)
    at = damage.last_page(data).start
    source = store(data[:at] + b"TAG" + bytes(125) + data[at:])
    assert np.abs(decode_all(source) - decode_all(store(data))).max() < 1e-6


def test_zeros_in_a_container_are_no_junk(store):
    data = bytearray(encode(sound("m4a_alac", 6), RATE, "m4a_alac"))
    data[len(data) // 2 : len(data) // 2 + 40_000] = bytes(40_000)
    assert decode_error(store(bytes(data))).cause == Cause.CORRUPT


def test_decoders_that_disagree_do_not_pass_for_a_changed_file(store):
    """libsndfile may read an MP3 differently through a descriptor than through a file object."""
    source = store(encode(noise(1, RATE), RATE, "mp3_vbr"))
    audio = probe_audio(source)
    error = RecordingError(Stage.DECODE, Cause.CHANGED, "opened as something else")
    with source.open() as file:
        assert explain(file, audio, error).cause == Cause.LENGTH_MISMATCH
        assert explain(file, replace(audio, frames=7), error).cause == Cause.CHANGED
