"""Tests that reads are exact from any start, and that probes describe recordings correctly."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import av
import av.stream
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject
from tests.damage import with_granules_moved
from tests.recordings import RATE, decode, decode_all, failure, rate_of, read
from tests.signals import FORMATS, constant, encode, noise, song, tone, write_audio

REAL = Path(__file__).parents[3] / "shared/data"
LOSSLESS = ("wav", "wav24", "wav32", "wavex", "rf64", "w64", "aiff", "au", "caf", "caf_alac")
LOSSLESS += ("nist", "flac", "flac24", "m4a_alac", "mka")


@pytest.fixture
def store(tmp_path: Path):
    def put(data: bytes) -> StoredObject:
        path = tmp_path / "recording"
        path.write_bytes(data)
        return StoredObject(str(path))

    return put


# Exactness


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_window_is_a_slice_of_the_whole(store, name, channels):
    source = store(encode(song(2, rate_of(name), channels=channels), rate_of(name), name))
    audio = probe_audio(source)
    whole = decode(source, audio)
    assert whole.shape == (audio.frames, channels)
    rng = np.random.default_rng(0)
    with open_audio(source, audio) as reader:
        for _ in range(12):
            start = int(rng.integers(0, audio.frames))
            stop = int(rng.integers(start, audio.frames + 1))
            block_frames = int(rng.integers(100, 50_000))
            assert np.array_equal(read(reader, start, stop, block_frames), whole[start:stop])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened")
    sources = {}
    for name in ("flac", "ogg", "opus", "mp3_vbr", "mp3_low", "mp3_untagged", "m4a"):
        sound = song(2, rate_of(name), channels=2, seed=5)
        source = StoredObject(str(write_audio(folder / name, sound, rate_of(name), name)))
        audio = probe_audio(source)
        sources[name] = source, audio, decode(source, audio)
    return sources


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_sequence_of_reads_is_exact(opened, data):
    source, audio, whole = opened[data.draw(st.sampled_from(sorted(opened)))]
    positions = st.integers(0, audio.frames)
    with open_audio(source, audio) as reader:
        for pair in data.draw(st.lists(st.tuples(positions, positions), max_size=4)):
            start, stop = sorted(pair)
            block_frames = data.draw(st.integers(1000, 10**6))
            assert np.array_equal(read(reader, start, stop, block_frames), whole[start:stop])


@pytest.mark.parametrize("name", ["flac", "ogg", "opus", "mp3", "mp3_vbr", "mp3_low", "wav24"])
@pytest.mark.parametrize("rate", [22050, 48000])
def test_a_whole_decode_equals_librosa_bit_for_bit(store, name, rate):
    if name in ("opus", "mp3_low") and rate != 48000:
        pytest.skip("libsndfile does not read this format")
    source = store(encode(song(2, rate, channels=2), rate, name))
    expected, _ = librosa.load(source.uri, sr=None, mono=False)
    assert_decoded_as(name, decode_all(source), expected.T)


def assert_decoded_as(name: str, decoded: np.ndarray, expected: np.ndarray) -> None:
    # FFmpeg's Vorbis decoder sums in a different order than libvorbis, which librosa and
    # soundfile use. The measured difference is at most 5e-7 of full scale. All other formats
    # are exactly equal.
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6 if name == "ogg" else 0)


@pytest.mark.parametrize("name", ["mp3", "mp3_vbr", "ogg"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_decode_equals_soundfile(store, name, channels):
    source = store(encode(song(2, RATE, channels=channels), RATE, name))
    expected, _ = soundfile.read(source.uri, dtype="float32", always_2d=True)
    assert_decoded_as(name, decode_all(source), expected)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_back_what_was_put_in(store, name):
    sound = np.round(noise(0.3, RATE, channels=2) * 2**15) / np.float32(2**15)
    assert np.array_equal(decode_all(store(encode(sound, RATE, name))), sound)


@pytest.mark.parametrize("name", ["wav8", "wav_ulaw", "wav_ima_adpcm", "wav_ms_adpcm"])
def test_coarse_formats_come_near(store, name):
    sound = tone(440, 0.5, RATE)
    decoded = decode_all(store(encode(sound, RATE, name)))[: len(sound), 0]
    # ADPCM begins with very small steps, so its first samples lag behind.
    assert np.abs(decoded - sound)[200:].max() < 0.05


@pytest.mark.parametrize("name", ["wav_float", "wav_double", "aiff_float"])
def test_float_formats_keep_what_exceeds_full_scale(store, name):
    sound = constant(0.1, RATE, level=3.25)
    assert np.array_equal(decode_all(store(encode(sound, RATE, name)))[:, 0], sound)


@pytest.mark.parametrize("name", ["m4a", "mp4", "aac", "webm", "wma", "ac3"])
def test_pyav_formats_hold_the_tone_that_was_put_in(store, name):
    sound = tone(440, 1, rate_of(name))
    decoded = decode_all(store(encode(sound, rate_of(name), name)))[:, 0]
    spectrum = np.abs(np.fft.rfft(decoded[5000:25000] * np.hanning(20000))) ** 2
    peak = round(440 * 20000 / rate_of(name))
    assert spectrum[peak - 3 : peak + 4].sum() > 0.999 * spectrum.sum()


@pytest.mark.skipif(not REAL.exists(), reason="there is no folder shared/data")
@pytest.mark.parametrize("name", ["music/sorohan-solo-trumpet", "nature/inspectorj-robin"])
def test_real_vorbis_is_exact_up_to_its_last_page(name):
    source = StoredObject(str(REAL / f"{name}.ogg"))
    audio = probe_audio(source)
    expected, _ = soundfile.read(source.uri, dtype="float32", always_2d=True)
    for start in (0, 1, 50_000, audio.frames - 20_000, audio.frames - 100):
        assert_decoded_as("ogg", decode(source, audio, start), expected[start:])


@pytest.mark.parametrize(("moved", "left_out"), [(-128, 128), (128, 0)])
def test_vorbis_begins_at_its_position_0(store, moved, left_out):
    data = encode(song(3, RATE, channels=2), RATE, "ogg")
    whole = decode_all(store(data))
    source = store(with_granules_moved(data, moved))
    assert probe_audio(source).frames == len(whole) - left_out
    assert np.array_equal(decode_all(source), whole[left_out:])


def test_vorbis_with_more_channels_keeps_libsndfiles_order(store):
    source = store(encode(noise(1, RATE, channels=6), RATE, "ogg"))
    expected, _ = soundfile.read(source.uri, dtype="float32", always_2d=True)
    assert probe_audio(source).decoder == "libsndfile"
    assert np.array_equal(decode_all(source), expected)


# Containers that hold more than sound


def film(*sounds: np.ndarray, default: int = 0, frames: int = 5) -> bytes:
    """Return a Matroska file with a few grey pictures and lossless sound tracks."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        picture = output.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 64
        tracks = [output.add_stream("flac", rate=RATE, layout="mono") for _ in sounds]
        for number, track in enumerate(tracks):
            flags = av.stream.Disposition.default if number == default else 0
            track.disposition = av.stream.Disposition(flags)
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), "rgb24")
            image.pts = number
            output.mux(picture.encode(image))
        output.mux(picture.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(np.int16(sound * 2**15)[None], "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_sound_track_of_a_film_is_taken(store, default):
    sounds = [np.float32(np.int16(song(1, RATE, seed=s) * 2**15)) / 2**15 for s in (1, 2)]
    decoded = decode_all(store(film(*sounds, default=default)))
    assert np.array_equal(decoded[:, 0], sounds[default])


def test_a_film_without_sound_has_no_audio(store):
    assert failure(store(film())).cause == Cause.NO_AUDIO


# Results of the probe


def test_a_wav_is_described(store):
    audio = probe_audio(store(encode(song(1, 22050, channels=2), 22050, "wav")))
    assert audio == AudioInfo("wav", "pcm_16", "libsndfile", 22050, 2, 22050)


@pytest.mark.parametrize(
    ("name", "container", "codec", "decoder"),
    [
        ("wavex", "wav", "pcm_24", "libsndfile"),
        ("flac", "flac", "flac", "libsndfile"),
        ("ogg", "ogg", "vorbis", "pyav"),
        ("opus", "ogg", "opus", "libsndfile"),
        ("mp3_vbr", "mp3", "mp3", "libsndfile"),
        ("mp3_untagged", "mp3", "mp3", "pyav"),
        ("m4a", "m4a", "aac", "pyav"),
        ("webm", "matroska", "opus", "pyav"),
        ("wma", "asf", "wmav2", "pyav"),
    ],
)
def test_container_codec_and_decoder_are_named(store, name, container, codec, decoder):
    audio = probe_audio(store(encode(song(1, rate_of(name)), rate_of(name), name)))
    assert (audio.container, audio.codec, audio.decoder) == (container, codec, decoder)


@pytest.mark.parametrize("name", ["flac", "ogg", "opus", "mp3", "mp3_vbr", "webm", "m4a_alac"])
def test_the_frames_are_those_that_were_encoded(store, name):
    sound = song(1.234, rate_of(name))
    assert probe_audio(store(encode(sound, rate_of(name), name))).frames == len(sound)


@pytest.mark.parametrize("name", ["flac", "ogg", "mp3"])
def test_tags_are_kept(tmp_path, name):
    path = tmp_path / "tagged"
    title = "Gr\t1" if name == "mp3" else "Grüße\t1"  # LAME's ID3 tags are Latin-1
    with soundfile.SoundFile(path, "w", RATE, 1, format=name.upper()) as file:
        file.title, file.artist, file.software = title, "x" * 5000, "not kept"
        file.write(song(1, RATE))
    tags = dict(probe_audio(StoredObject(str(path))).tags)
    assert tags["title"] == title
    assert tags["artist"] in ("x" * 1000, "x" * 30)
    assert not set(tags) - {"title", "artist", "comment", "date"}


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "opus", "mp3"])
def test_a_healthy_file_is_probed_from_its_ends_alone(store, name, monkeypatch):
    source = store(encode(noise(15, rate_of(name)), rate_of(name), name))
    sizes = []
    original = io.FileIO.readinto

    class Counting(io.FileIO):
        def readinto(self, buffer):
            sizes.append(original(self, buffer))
            return sizes[-1]

    monkeypatch.setattr(io, "FileIO", Counting)
    probe_audio(source)
    assert len(sizes) <= 12
    assert sum(sizes) < 500_000


def test_a_wav_is_probed_without_loading_ffmpeg(store):
    import subprocess

    source = store(encode(song(1, RATE), RATE, "wav"))
    program = f"""
import sys
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
probe_audio(StoredObject({source.uri!r}))
print(sorted({{"av", "apache_beam", "librosa", "pyarrow", "fsspec"}} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("[]\n", "")
