"""Tests that every default extension decodes, and that a cut file does not pass for whole."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from melmill.transforms.catalogue.parts import DEFAULT_EXTENSIONS
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
from tests.recordings import decode, rate_of
from tests.signals import FORMATS, RARE_FORMATS, encode, song, tone

#: Format in tests.signals of each extension whose format has a different name.
FORMAT_NAMES = {
    **dict.fromkeys(("wave", "bwf"), "wav"),
    **dict.fromkeys(("aif", "aifc"), "aiff"),
    **{"snd": "au", "sph": "nist", "oga": "ogg", "m4b": "m4a", "wmv": "wma", "asf": "wma"},
    **{"mpga": "mp3", "m4v": "mp4", "mpeg": "mpg"},
}
#: Extensions for which the tests have no encoder. spx, ape, tak, mpc, dsf and dff were tried by
#: hand with mutagen's test files, and decode. FFmpeg lists decoders for the others.
NO_ENCODER = {"spx", "ape", "tak", "mpc", "dsf", "dff"}
NO_ENCODER |= {"mp1", "dts", "dtshd", "mlp", "thd", "awb", "shn", "oma", "aa3", "qcp", "ogv"}
#: Formats that are only a sequence of frames. If a file is cut between two frames, nothing shows
#: that audio is missing.
UNCOUNTED = {"ac3", "eac3", "aac", "mp2", "m2ts", "mpg", "vob", "rm"}
ENCODED = sorted({*FORMATS, *RARE_FORMATS})


def test_every_extension_is_tried():
    assert set(DEFAULT_EXTENSIONS) - {*ENCODED, *FORMAT_NAMES, *NO_ENCODER} == set()
    assert set(RARE_FORMATS) <= set(DEFAULT_EXTENSIONS)


@pytest.fixture
def store(tmp_path):
    def put(data: bytes) -> StoredObject:
        (tmp_path / "recording").write_bytes(data)
        return StoredObject(str(tmp_path / "recording"))

    return put


@pytest.mark.parametrize("name", RARE_FORMATS)
def test_a_rare_format_holds_the_tone_that_was_put_in(store, name):
    rate = rate_of(name)
    source = store(encode(tone(440, 2, rate), rate, name))
    audio = probe_audio(source)
    decoded = decode(source, audio)[:, 0]
    assert audio.sample_rate_hz == rate
    assert 2 * rate <= len(decoded) < 2.1 * rate
    middle = decoded[rate // 2 : rate // 2 + rate]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(rate))) ** 2
    # RealAudio's speech codec at 14,400 bits per second adds the most noise: 0.043 of the power.
    assert spectrum[435:446].sum() > 0.95 * spectrum.sum()


@pytest.mark.parametrize("name", sorted({*RARE_FORMATS, *FORMATS} - UNCOUNTED - {"mp3_untagged"}))
def test_half_a_file_does_not_pass_for_whole(store, name):
    data = encode(song(3, rate_of(name)), rate_of(name), name)
    source = store(data[: len(data) // 2])
    with pytest.raises(RecordingError) as raised:
        decode(source, probe_audio(source))
    causes = {Cause.TRUNCATED, Cause.CORRUPT, Cause.UNKNOWN_FORMAT, Cause.NO_AUDIO}
    assert raised.value.cause in causes


def test_a_dsf_is_read_and_a_cut_one_is_truncated(store):
    data = dsf(seconds=0.1)
    audio = probe_audio(store(data))
    assert (audio.container, audio.sample_rate_hz, audio.channels) == ("dsf", 352_800, 1)
    with pytest.raises(RecordingError, match="dsf header") as raised:
        probe_audio(store(data[:-5000]))
    assert raised.value.cause == Cause.TRUNCATED


def dsf(seconds: float) -> bytes:
    """Return a DSF file of silence: one bit per sample at 2.8 MHz, 0 and 1 in turn."""
    blocks = round(2_822_400 * seconds / 8 / 4096)
    sound = b"\x55" * 4096 * blocks
    form = struct.pack("<IIIIIIQII", 1, 0, 1, 1, 2_822_400, 1, 8 * len(sound), 4096, 0)
    chunks = b"fmt " + struct.pack("<Q", 12 + len(form)) + form
    chunks += b"data" + struct.pack("<Q", 12 + len(sound)) + sound
    return b"DSD " + struct.pack("<QQQ", 28, 28 + len(chunks), 0) + chunks
