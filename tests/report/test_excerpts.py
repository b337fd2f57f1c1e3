"""Excerpts: the right seconds of the right channel, marked, and as an MP3 file that plays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from melmill.pipelines.report.axes import hz_ticks, second_ticks
from melmill.pipelines.report.excerpts import Excerpt, Place, encode_mp3, make_excerpt, place_around
from melmill.pipelines.sound.png import MARK
from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
from tests import signals

RATE = 16_000


def excerpt(path: Path, place: Place) -> Excerpt:
    source = StoredObject(str(path))
    return make_excerpt(source, probe_audio(source), source.stat()[1], place)


def strongest_hz(sound: bytes) -> float:
    samples, rate = soundfile.read(io.BytesIO(sound), always_2d=True)
    spectrum = np.abs(np.fft.rfft(samples[:, 0]))
    return float(np.argmax(spectrum) * rate / len(samples))


def pixels(made: Excerpt) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(made.png)))


def test_the_sound_is_of_the_place(tmp_path: Path) -> None:
    tones = [signals.tone(hz, 3.0, RATE) for hz in (300, 900, 2700)]
    path = signals.write_audio(tmp_path / "a.flac", np.concatenate(tones), RATE)
    for number, hz in enumerate((300, 900, 2700)):
        made = excerpt(path, Place(3 * number * RATE, 3 * (number + 1) * RATE))
        assert strongest_hz(made.mp3) == pytest.approx(hz, abs=2)
        info = soundfile.info(io.BytesIO(made.mp3))
        assert (info.format, info.samplerate, info.channels) == ("MP3", 24_000, 1)
        assert info.duration == pytest.approx(3.0, abs=0.06)  # LAME fills its last frame


def test_the_mark_is_at_its_frame(tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a.wav", signals.noise(3.0, RATE), RATE)
    made = excerpt(path, Place(0, 3 * RATE, mark=RATE))
    columns = np.flatnonzero((pixels(made) == MARK).all(axis=0))
    assert columns.tolist() == [159, 160]  # of 480 columns
    assert not (pixels(excerpt(path, Place(0, 3 * RATE))) == MARK).any()


def test_a_loud_tone_is_bright_at_its_frequency(tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a.wav", signals.tone(1000, 3.0, RATE, 0.9), RATE)
    made = excerpt(path, Place(0, 3 * RATE))
    (tick,) = (tick for tick in hz_ticks(made) if tick.text == "1 kHz")
    brightest = pixels(made)[:, 240].argmax() / len(pixels(made))
    assert brightest == pytest.approx(tick.share, abs=0.015)


@pytest.mark.parametrize(("channels", "played"), [(1, 1), (2, 2), (6, 1)])
def test_one_or_two_channels_are_played_as_they_are(
    channels: int, played: int, tmp_path: Path
) -> None:
    samples = signals.noise(1.0, RATE, channels=channels)
    made = excerpt(signals.write_audio(tmp_path / "a.wav", samples, RATE), Place(0, RATE))
    assert soundfile.info(io.BytesIO(made.mp3)).channels == played


def test_a_chosen_channel_is_drawn_and_played_alone(tmp_path: Path) -> None:
    tones = [signals.tone(300 * (k + 1), 1.0, RATE) for k in range(6)]
    path = signals.write_audio(tmp_path / "a.wav", np.stack(tones, axis=1), RATE)
    made = excerpt(path, Place(0, RATE, channel=4))
    assert strongest_hz(made.mp3) == pytest.approx(1500, abs=2)


def test_not_a_number_is_silent(tmp_path: Path) -> None:
    samples = signals.tone(440, 1.0, RATE)
    samples[:4000] = np.nan
    path = signals.write_audio(tmp_path / "a.wav", samples, RATE, "wav_float")
    sound, _ = soundfile.read(io.BytesIO(excerpt(path, Place(0, RATE)).mp3))
    assert np.isfinite(sound).all()
    assert np.abs(sound[:4000]).max() < 0.02 < np.abs(sound[12_000:20_000]).max()


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.1])
def test_a_very_short_recording_has_an_excerpt(seconds: float, tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a.wav", signals.tone(440, seconds, RATE), RATE)
    frames = round(seconds * RATE)
    made = excerpt(path, Place(0, frames, mark=frames - 1))
    assert pixels(made).shape[1] == min(480, frames)


def test_a_file_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a.wav", signals.tone(440, 1.0, RATE), RATE)
    source = StoredObject(str(path))
    audio = probe_audio(source)
    with pytest.raises(RecordingError) as changed:
        make_excerpt(source, audio, "mtime:1:2", Place(0, RATE))
    assert changed.value.cause is Cause.CHANGED
    path.unlink()
    with pytest.raises(RecordingError) as gone:
        make_excerpt(source, audio, "mtime:1:2", Place(0, RATE))
    assert gone.value.cause is Cause.NOT_FOUND


def test_loud_samples_do_not_wrap() -> None:
    sound, _ = soundfile.read(
        io.BytesIO(encode_mp3(signals.constant(1.0, RATE, 3.0)[:, None], RATE))
    )
    assert np.median(sound[2000:-2000]) > 0.9


@given(
    rate=st.integers(500, 768_000),
    frames=st.integers(1, 10**9),
    share=st.floats(0, 1.2),
    has_second=st.booleans(),
)
def test_a_place_is_within_the_recording_and_has_its_mark(
    rate: int, frames: int, share: float, has_second: bool
) -> None:
    audio = AudioInfo("wav", "pcm_16", "libsndfile", rate, 1, frames)
    place = place_around(audio, 0, frames, share * frames / rate if has_second else None)
    assert 0 <= place.start < place.stop <= frames
    assert place.stop - place.start == min(frames, 3 * rate)
    assert (place.mark is not None) == has_second
    assert place.mark is None or place.start <= place.mark < place.stop


@given(start=st.integers(0, 10**8), length=st.integers(2, 10**6), rate=st.integers(500, 768_000))
def test_ticks_are_in_the_picture_and_say_their_second(start: int, length: int, rate: int) -> None:
    made = Excerpt(b"", b"", Place(start, start + length), rate, 1.0, 0.3)
    ticks = second_ticks(made)
    assert len(ticks) <= 8
    for tick in ticks:
        assert -1e-6 <= tick.share <= 1 + 1e-6
        second = made.start_second + tick.share * (made.stop_second - made.start_second)
        assert float(tick.text) == pytest.approx(second, abs=1e-6 + 1e-9 * start)
    assert all(0.3 <= tick.share <= 1 for tick in hz_ticks(made))
