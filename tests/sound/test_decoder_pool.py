"""Generators run in decoder processes; a crash there ends neither the server nor other streams."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from melmill.pipelines.sound import decoder_pool
from melmill.pipelines.sound.decoder_pool import DecoderPool
from melmill.pipelines.sound.wav import WavFile, read_bytes_of
from melmill.transforms.core.errors import Cause, RecordingError, Stage, UnavailableError
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.store.objects import StoredObject
from tests.signals import song, write_audio


def count_slowly(numbers: int) -> Iterator[int]:
    import time

    for number in range(numbers):
        time.sleep(0.01)
        yield number


def fail_after(numbers: int) -> Iterator[int]:
    yield from range(numbers)
    raise RecordingError(Stage.DECODE, Cause.CORRUPT, "damaged here")


def die_once_at(number: int, mark: str) -> Iterator[int]:
    for result in count_slowly(20):
        if result == number and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield result


def die() -> Iterator[int]:
    yield 1
    os.abort()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool(processes=2)) as pool:
        yield pool


def test_the_results_of_a_generator_come_one_by_one(pool: DecoderPool) -> None:
    results = pool.stream("a", count_slowly, 30)
    assert next(results) == 0
    assert list(results) == list(range(1, 30))


def test_a_generator_that_nobody_reads_on_gives_its_process_back(pool: DecoderPool) -> None:
    for _ in range(5):
        results = pool.stream("a", count_slowly, 1_000)
        assert next(results) == 0
        results.close()
    assert list(pool.stream("b", count_slowly, 3)) == [0, 1, 2]


def test_an_error_comes_after_the_results_before_it(pool: DecoderPool) -> None:
    results, seen = pool.stream("a", fail_after, 3), []
    with pytest.raises(RecordingError, match="damaged here"):
        seen.extend(iter(results))
    assert list(itertools.islice(pool.stream("a", fail_after, 3), 3)) == [0, 1, 2]


def test_a_process_that_was_killed_is_replaced_and_no_result_is_lost(
    pool: DecoderPool, tmp_path: Path
) -> None:
    results = pool.stream("a", die_once_at, 12, str(tmp_path / "mark"))
    assert list(results) == list(range(20))


def test_a_recording_that_kills_its_decoder_is_an_error(pool: DecoderPool) -> None:
    with pytest.raises(RecordingError) as raised:
        list(pool.stream("a", die))
    assert raised.value.cause is Cause.DECODER_CRASH
    assert pool.call("a", os.getpid) != os.getpid()


def test_two_streams_at_once_have_a_process_each(pool: DecoderPool) -> None:
    streams = [pool.stream(key, count_slowly, 20) for key in "ab"]
    assert list(zip(*streams, strict=True)) == [(number, number) for number in range(20)]


def test_the_process_that_knows_a_recording_is_taken_again(pool: DecoderPool) -> None:
    first = {key: pool.call(key, os.getpid) for key in "xy"}
    assert {key: pool.call(key, os.getpid) for key in "yx"} == first


def test_who_waits_too_long_is_told_what_to_do(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "_WAIT_SECONDS", 0.01)
    streams = [pool.stream(key, count_slowly, 100) for key in "ab"]
    assert [next(stream) for stream in streams] == [0, 0]
    with pytest.raises(UnavailableError, match="all 2 decoder processes are busy: close other"):
        pool.call("c", os.getpid)
    for stream in streams:
        stream.close()


def count_opened(source: StoredObject, file: WavFile, ranges: list[tuple[int, int]]) -> int:
    """Return how often a recording was opened for some ranges of its bytes."""
    opened, open_audio = 0, decoder_pool.open_audio

    def counting(*args, **options):
        nonlocal opened
        opened += 1
        return open_audio(*args, **options)

    decoder_pool.open_audio = counting
    try:
        for first, stop in ranges:
            for _ in read_bytes_of(source, file, first, stop):
                pass
    finally:
        decoder_pool.open_audio = open_audio
        decoder_pool._close_kept()
    return opened


def test_a_recording_that_is_played_on_stays_open(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.mp3", song(2.0, 44_100), 44_100)
    source = StoredObject(str(path))
    file = WavFile(probe_audio(source))
    borders = [0, 1_044, 50_044, file.size_bytes]
    assert count_opened(source, file, list(itertools.pairwise(borders))) == 1


def test_a_recording_that_failed_is_opened_again(tmp_path: Path) -> None:
    samples = np.zeros(44_100, np.float32)
    path = write_audio(tmp_path / "a.wav", samples, 44_100)
    source = StoredObject(str(path))
    file = WavFile(probe_audio(source))
    list(read_bytes_of(source, file, 0, 1_000))
    path.write_bytes(path.read_bytes()[:2_000])  # the open file is now shorter
    with pytest.raises(RecordingError):
        list(read_bytes_of(source, file, 1_000, file.size_bytes))
    assert decoder_pool._kept is None
