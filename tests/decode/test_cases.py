"""Tests that each recording in ``../shared/cases`` gives its frames, or says why it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause, RecordingError
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
from tests.recordings import decode, failure

CASES = Path(__file__).parents[3] / "shared/cases/audio"

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="there is no folder shared/cases/audio")

#: Number of frames in each file, at the file's own rate.
FRAMES = {
    "wav_mp3_ffmpeg.wav": 133_632,
    "mp3_info_frames_zero.mp3": 132_527,
    "mp3_info_frames_half.mp3": 132_300,
    "flac_total_half.flac": 132_300,
    "opus_live_start.opus": 144_000,
    "wav_ffmpeg_pipe.wav": 64_000,
    "wav_header_says_half.wav": 64_000,
    "wav_data_0_then_list.wav": 64_000,
    "au_zero.au": 64_000,
    "opus_no_eos.ogg": 144_000,
    "webm_starts_at_5s.webm": 144_000,
    "joined_tagged.mp3": 221_231,
    "id3v24_appended_text.mp3": 133_632,
    "mp3_leading_zeros_info.mp3": 132_300,
    "vorbis_short_first_block.ogg": 44_100,
    "asf_preroll.asf": 46_080,
    "mp3_vbr_short.mp3": 529,
}

#: Cause of each file's failure, and a part of the message.
FAILURES = {
    "nist_8_bytes.wav": (Cause.UNKNOWN_FORMAT, "NIST"),
    "stub_45.mp3": (Cause.TRUNCATED, "Info tag"),
    "w64_chunk.w64": (Cause.UNKNOWN_FORMAT, ""),
    "flac_stereo_then_mono_streamed.flac": (Cause.CORRUPT, "at frame 132300"),
    "mp3_mono_then_stereo_notag.mp3": (Cause.CORRUPT, "at frame 133632"),
    "mp3_stereo_then_mono_notag.mp3": (Cause.CORRUPT, "at frame 133632"),
}


def test_every_case_is_here():
    names = {path.name for path in CASES.iterdir()}
    assert names == {*FRAMES, *FAILURES, "opus_chained_same_serial.opus"}


@pytest.mark.parametrize("name", FRAMES)
def test_a_case_gives_its_frames_twice_the_same(name):
    source = StoredObject(str(CASES / name))
    audio = probe_audio(source)
    decoded = decode(source, audio)
    assert (audio.frames, len(decoded)) == (FRAMES[name], FRAMES[name])
    assert np.array_equal(decode(source, audio), decoded)


@pytest.mark.parametrize("name", FAILURES)
def test_a_case_fails_for_good_and_says_why(name):
    error = failure(StoredObject(str(CASES / name)))
    cause, words = FAILURES[name]
    assert error.cause == cause
    assert cause not in TRANSIENT_CAUSES
    assert words in error.message


def test_joined_streams_of_one_serial_number_are_counted_whole():
    source = StoredObject(str(CASES / "opus_chained_same_serial.opus"))
    with pytest.raises(RecordingError) as raised:
        decode(source, probe_audio(source))
    error = raised.value
    assert (error.cause, error.frames) == (Cause.LENGTH_MISMATCH, 240_000)
    assert len(decode(source, error.audio)) == 240_000


def test_a_stream_cut_from_a_live_one_is_not_shifted():
    live, plain = (
        StoredObject(str(CASES / name)) for name in ("opus_live_start.opus", "opus_no_eos.ogg")
    )
    assert np.abs(decode(live, probe_audio(live)) - decode(plain, probe_audio(plain))).max() < 1e-3
