"""Rooms of variants: SciPy's direct convolution of the whole recording is the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from melmill.pipelines.snapshots.verify import verify
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.store.folders import Store
from tests import signals
from tests.e2e.variants import BASE, RATE, rows_in_any_shards, rows_of, run, write_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_songs(tmp_path_factory.mktemp("songs"))


def write_room(path: Path, seed: int, rate: int = RATE, seconds: float = 0.4) -> Path:
    """Write a response: a delay, the direct sound, and noise that decays by 60 dB."""
    path.parent.mkdir(exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    tail = signals.noise(seconds, rate, seed) * 10 ** (-3 * times / seconds)
    tail[: rate // 100] = 0
    tail[rate // 100] = 0.9
    signals.write_audio(path, (tail * 0.9).astype(np.float32), rate, "wav_float")
    return path


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return all of a recording in a room, from the direct sound on, without the tail."""
    wet = scipy.signal.convolve(samples, response, method="direct")
    direct = np.argmax(np.abs(response))
    return wet[direct : direct + len(samples)]


def at_rate(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(samples, rate, RATE, "HQ").astype(np.float64)


@pytest.mark.parametrize("room_rate", [RATE, 2 * RATE])
def test_a_chunk_is_a_part_of_the_recording_in_the_room_at_its_own_level(
    songs: Path, tmp_path: Path, room_rate: int
) -> None:
    room = write_room(tmp_path / "room.wav", 5, room_rate)
    run(songs, tmp_path / "set", *BASE, f"variants=[{{rir: {room}}}]")
    rows, response = rows_of(tmp_path / "set"), at_rate(room)
    for (name, variant, chunk, _), row in rows.items():
        if variant == 1:
            valid, start = row["valid_samples"], row["start_sample"]
            samples = at_rate(songs / name)
            dry, wet = (
                whole[start : start + valid] for whole in (samples, in_room(samples, response))
            )
            expected = wet * np.sqrt(np.mean(dry**2) / np.mean(wet**2))
            actual = np.array(row["samples"], np.float64)
            # Rounding to float32, and soxr in blocks: see test_resample.
            np.testing.assert_allclose(actual[:valid], expected, atol=5e-6)
            assert not actual[valid:].any()
            own = rows[name, 0, chunk, 0]
            assert row["rms_dbfs"] == pytest.approx(own["rms_dbfs"], abs=1e-4)


def test_words_apply_in_order(songs: Path, tmp_path: Path) -> None:
    rooms = [write_room(tmp_path / f"{number}.wav", number, seconds=0.2) for number in (1, 2)]
    run(songs, tmp_path / "set", *BASE, f"variants=[[{{rir: {rooms[0]}}}, {{rir: {rooms[1]}}}]]")
    responses = [at_rate(room) for room in rooms]
    for (name, variant, _, _), row in rows_of(tmp_path / "set").items():
        if variant == 1 and row["valid_samples"] == 1000 and name != "0.wav":
            samples, start = at_rate(songs / name), row["start_sample"]
            # The first room is not level: only its sound is that of the whole recording.
            whole = in_room(in_room(samples, responses[0]), responses[1])[start : start + 1000]
            actual = np.array(row["samples"], np.float64)
            scale = np.dot(actual, whole) / np.dot(whole, whole)
            np.testing.assert_allclose(actual, scale * whole, atol=1e-5)


@pytest.mark.slow
def test_bits_do_not_depend_on_shards_and_verify_agrees(songs: Path, tmp_path: Path) -> None:
    write_room(tmp_path / "rooms/a.wav", 1)
    write_room(tmp_path / "rooms/b.wav", 2, 2 * RATE, 0.1)
    variants = f"variants=[{{speed: 1.25, rir: {tmp_path}/rooms, gain_db: [-3, 3]}}]"
    rows = rows_in_any_shards(songs, tmp_path, *BASE, variants)
    result = verify(Store(str(tmp_path / "set")), 1000, 0, lambda number: None)
    assert result.passed, result.beyond
    assert result.rows == len(rows)


def test_a_silent_and_a_long_response_are_refused(songs: Path, tmp_path: Path) -> None:
    signals.write_audio(tmp_path / "silent.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(ConfigError, match=r"variants\.0: .*silent\.wav is silent"):
        run(songs, tmp_path / "set", *BASE, f"variants=[{{rir: {tmp_path}/silent.wav}}]")
    signals.write_audio(tmp_path / "long.wav", signals.noise(11.0, RATE, 3), RATE)
    with pytest.raises(ConfigError, match=r"long\.wav has 11\.0 s.* at most 10 s"):
        run(songs, tmp_path / "set", *BASE, f"variants=[{{rir: {tmp_path}/long.wav}}]")
