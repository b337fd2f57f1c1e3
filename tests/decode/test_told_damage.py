"""Test what decoders tell of damage: why there is no measure of decoder errors (docs/measures.md).

python -m pytest -m slow tests/decode/test_told_damage.py -s
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av.logging
import numpy as np
import pytest

from melmill.transforms.core.errors import RecordingError
from melmill.transforms.store.objects import StoredObject
from tests.recordings import decode_all, rate_of
from tests.signals import encode, song

FILES = 300
CHECKED = ("flac", "mka", "ogx", "ogg", "opus", "wv", "tta", "ac3", "eac3", "vob")
UNCHECKED = ("mp3", "mp3_vbr", "mp3_low", "mp3_untagged", "mp2", "avi", "mpg", "aac", "m4a", "m2ts")
UNCHECKED += ("webm", "wma", "m4a_alac", "caf_alac")


@pytest.fixture
def ffmpeg_errors() -> Iterator[list[tuple[int, str, str]]]:
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as messages:
        yield messages
    av.logging.set_level(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_damage_never_passes_for_sound_where_there_are_checksums(
    ffmpeg_errors, capfd, tmp_path, name
):
    outcomes = survey(name, tmp_path / "recording", ffmpeg_errors, capfd)
    assert (outcomes["changed"], outcomes["fails"] > 0.9 * FILES) == (0, True)


@pytest.mark.slow
def test_decoders_tell_of_few_damages_where_there_are_no_checksums(ffmpeg_errors, capfd, tmp_path):
    outcomes: Counter[str] = Counter()
    for name in UNCHECKED:
        outcomes += survey(name, tmp_path / "recording", ffmpeg_errors, capfd)
    assert outcomes["changed"] > 0.5 * FILES * len(UNCHECKED)
    assert outcomes["told"] < 0.1 * outcomes["changed"]


def survey(
    name: str, path: Path, ffmpeg_errors: list[tuple[int, str, str]], capfd: pytest.CaptureFixture
) -> Counter[str]:
    """Return how many damaged files fail, have the same sound, or another one; and what is told.

    ``told`` counts files of another sound for which FFmpeg logs an error or libmpg123 prints one.
    """
    path.write_bytes(data := encode(song(3, rate_of(name), channels=2), rate_of(name), name))
    whole = decode_all(source := StoredObject(str(path)))
    outcomes: Counter[str] = Counter()
    for damaged in damages(data):
        path.write_bytes(damaged)
        ffmpeg_errors.clear()
        capfd.readouterr()
        try:
            changed = not np.array_equal(decode_all(source), whole)
        except RecordingError:
            outcomes["fails"] += 1
            continue
        outcomes["changed" if changed else "same"] += 1
        outcomes["told"] += changed and bool(ffmpeg_errors or "error" in capfd.readouterr().err)
    with capfd.disabled():
        print(f"{name}: {dict(outcomes)}")
    return outcomes


def damages(data: bytes) -> Iterator[bytes]:
    """Yield files in which a bit, 4 bytes, or 200 bytes were changed."""
    rng = np.random.default_rng(1)
    for number in range(FILES):
        at, size = int(rng.integers(len(data) // 5, len(data) * 4 // 5)), (1, 4, 200)[number % 3]
        bit = bytes([data[at] ^ 1 << int(rng.integers(8))])
        yield data[:at] + (bit if size == 1 else rng.bytes(size)) + data[at + size :]
