"""Playing, on the null device of miniaudio, which takes samples in real time and drops them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from melmill.pipelines.sound import player
from melmill.pipelines.sound.player import play
from melmill.pipelines.sound.wav import PART_SECONDS, WavFile, to_pcm
from melmill.transforms.core.errors import Cause, ConfigError, RecordingError, UserError
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.recordings import decode_all

RATE = 16_000


def stored(
    path: Path, seconds: float = 3.0, channels: int = 2, format: str = "flac"
) -> StoredObject:
    samples = signals.song(seconds, RATE, channels=channels)
    return StoredObject(str(signals.write_audio(path / f"a.{format}", samples, RATE, format)))


def played(source: StoredObject, *args: float | None, **kwargs: int | str) -> list[float]:
    """Play into the null device, and return the seconds that were reported."""
    seconds: list[float] = []
    play(source, probe_audio(source), *args, backend="null", progress=seconds.append, **kwargs)
    return seconds


def test_a_part_is_played_in_real_time_and_reported(tmp_path: Path) -> None:
    started = time.monotonic()
    seconds = played(stored(tmp_path), 1.0, 0.8)
    assert time.monotonic() - started >= 0.6
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(1.8, abs=0.001)


def test_up_to_the_end_is_played_without_a_length(tmp_path: Path) -> None:
    assert played(stored(tmp_path), 2.5)[-1] == pytest.approx(3.0, abs=0.001)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_number_of_channels_is_played(channels: int, tmp_path: Path) -> None:
    source = stored(tmp_path, 0.3, channels, "wav")
    assert played(source)[-1] == pytest.approx(0.3, abs=0.001)
    assert played(source, channel=channels - 1)[-1] == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("format", ["flac", "mp3", "m4a"])
def test_the_pieces_are_the_decoded_samples(format: str, tmp_path: Path) -> None:
    source = stored(tmp_path, format=format)
    audio = probe_audio(source)
    (part,) = player._parts(audio, None, 0.5, 2.25)
    with open_audio(source, audio) as reader:
        pieces = list(player._pieces(part[0], player.read_bytes(reader, *part)))
    samples = decode_all(source)[RATE // 2 : RATE * 9 // 4]
    assert b"".join(pieces) == to_pcm(samples)
    assert max(map(len, pieces)) == RATE // 2 * 4  # half a second


def test_a_recording_of_hours_is_played_part_after_part(tmp_path: Path) -> None:
    samples = np.zeros(500 * (PART_SECONDS + 100), np.float32)
    source = StoredObject(str(signals.write_audio(tmp_path / "a.wav", samples, 500, "wav8")))
    audio = probe_audio(source)
    parts = list(player._parts(audio, None, PART_SECONDS - 1, PART_SECONDS + 1))
    assert [file.part for file, _, _ in parts] == [0, 1]
    lengths = [(stop - first) / file.frame_bytes / file.rate_hz for file, first, stop in parts]
    assert lengths == [1.0, 1.0]
    assert played(source, PART_SECONDS - 0.2, 0.4)[-1] == pytest.approx(
        PART_SECONDS + 0.2, abs=1e-3
    )


def test_what_is_before_a_damage_is_played_and_then_the_error_comes(tmp_path: Path) -> None:
    samples = signals.noise(3.0, 48_000, channels=2)
    path = signals.write_audio(tmp_path / "a.flac", samples, 48_000)
    source = StoredObject(str(path))
    audio = probe_audio(source)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    seconds: list[float] = []
    with pytest.raises(RecordingError) as raised:
        play(source, audio, backend="null", progress=seconds.append)
    assert raised.value.cause in (Cause.LENGTH_MISMATCH, Cause.CORRUPT, Cause.TRUNCATED)
    assert 1.0 < seconds[-1] <= 1.8  # whole blocks of 2**17 samples


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    source = stored(tmp_path)
    with pytest.raises(ConfigError, match=r"--at 3: the recording has 3\.00 s"):
        played(source, 3.0)
    with pytest.raises(UserError, match="channel 2: the recording has the channels 0 to 1"):
        played(source, channel=2)
    with pytest.raises(ConfigError, match=r"--backend 'tape': must be one of .*alsa.*null"):
        play(source, probe_audio(source), backend="tape")


def test_a_machine_without_sound_is_told_what_to_do(tmp_path: Path, capfd) -> None:
    source = stored(tmp_path)
    # A sound system of another operating system, which is never there.
    with pytest.raises(ConfigError, match=r"no sound output .*melmill explore"):
        play(source, probe_audio(source), backend="audio4")
    assert capfd.readouterr().err == ""


def test_a_device_takes_one_or_two_channels_at_a_usual_rate(tmp_path: Path) -> None:
    for channels, expected in ((1, 1), (2, 2), (6, 1)):
        audio = probe_audio(stored(tmp_path, 0.1, channels, "wav"))
        assert (WavFile(audio).channels, WavFile(audio).rate_hz) == (expected, RATE)
