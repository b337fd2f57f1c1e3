"""A catalogue of every kind of good and bad recording, extracted once; a test for each file.

Good recordings must have all their rows, whatever recordings are beside them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from deltalake import DeltaTable

from melmill.pipelines.extract import Extraction
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.index.tables import read_index
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here

RATE = 22_050
#: Length of a chunk, in seconds.
CHUNK = 1.0


def song(format: str, seconds: float = 2.5, rate: int = RATE, channels: int = 1) -> bytes:
    return signals.encode(signals.song(seconds, rate, channels=channels), rate, format)


def truncated(format: str, share: float = 0.6) -> bytes:
    whole = song(format, rate=48_000 if format == "opus" else RATE)
    return whole[: int(len(whole) * share)]


def wav_claiming(data_bytes: int) -> bytes:
    """Return a WAV with one second of audio, whose header claims `data_bytes` bytes of audio."""
    whole = bytearray(song("wav", 1.0))
    struct.pack_into("<I", whole, 4, min(data_bytes + 36, 2**32 - 1))
    struct.pack_into("<I", whole, 40, data_bytes)
    return bytes(whole)


def float_wav(*changes: tuple[int, float], level: float = 1.0, subtype: str = "wav_float") -> bytes:
    samples = signals.tone(440, 2.5, RATE) * np.float32(level)
    for position, value in changes:
        samples[position] = value
    return signals.encode(samples, RATE, subtype)


def flac_of_silence(frames: int, rate: int) -> bytes:
    """Return hours of silence in a few kilobytes: constant blocks of the largest size in FLAC."""
    block = 65_535
    assert frames % block == 0
    packed = rate << 44 | 0 << 41 | 15 << 36 | frames
    info = struct.pack(">HH6xQ16x", block, block, packed)
    blocks = [_flac_block(number, block) for number in range(frames // block)]
    return b"fLaC\x80\0\0\x22" + info + b"".join(blocks)


def _flac_block(number: int, frames: int) -> bytes:
    head = b"\xff\xf8\x70\x08" + chr(number).encode() + struct.pack(">H", frames - 1)
    body = head + bytes([_crc(head, 8, 0x07)]) + b"\0\0\0"
    return body + struct.pack(">H", _crc(body, 16, 0x8005))


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value = 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) & 1 else 0)
            value &= (1 << bits) - 1
    return value


def flac_with_a_broken_end(format: str = "flac") -> bytes:
    """Return a FLAC whose header is correct and whose last third is random bytes."""
    whole = song(format, 4.0)
    cut = len(whole) * 2 // 3
    return whole[:cut] + np.random.default_rng(0).bytes(len(whole) - cut)


#: Names that a file system allows and that a careless program handles wrongly.
ODD_NAMES = (
    "two words.wav",
    'it\'s "quoted".wav',
    "\N{GUITAR} \N{LATIN SMALL LETTER U WITH DIAERESIS}.wav",
    "two\nlines.wav",
    "#1 100%25?.wav",
    "[live] {a}*.wav",
    "a::b.wav",
    "-rf.wav",
    "x" * 251 + ".wav",
)

GOOD: dict[str, Callable[[], bytes]] = {
    "good.wav": lambda: song("wav"),
    "good.flac": lambda: song("flac"),
    "good.mp3": lambda: song("mp3"),
    "good.ogg": lambda: song("ogg"),
    "8-bit.wav": lambda: song("wav8"),
    "24-bit.wav": lambda: song("wav24"),
    "32-bit float.wav": lambda: song("wav_float"),
    "64-bit float.wav": lambda: song("wav_double"),
    "6 channels.wav": lambda: song("wav", channels=6),
    "1 kHz.wav": lambda: song("wav", rate=1_000),
    "384 kHz.wav": lambda: song("wav", rate=384_000),
    "one sample.wav": lambda: song("wav", 1 / RATE),
    "disc 1/one basename.wav": lambda: song("wav"),
    "disc 2/one basename.wav": lambda: song("wav", 1.5),
    **{name: lambda: song("wav") for name in ODD_NAMES},
}

#: For each name: the content, the cause, and values that the message must contain.
BAD: dict[str, tuple[Callable[[], bytes], str, tuple[str, ...]]] = {
    "a text.mp3": (lambda: b"Verse 1: la la la\n" * 50, "unknown_format", ()),
    "zeros.wav": (lambda: bytes(5000), "unknown_format", ()),
    "zero bytes.wav": (lambda: b"", "empty_file", ("no bytes",)),
    "only RIFF.wav": (lambda: b"RIFF", "unknown_format", ()),
    "truncated.wav": (lambda: truncated("wav"), "truncated", ("110294", "66176")),
    "truncated.flac": (lambda: truncated("flac"), "truncated", ()),
    "truncated.mp3": (lambda: truncated("mp3"), "truncated", ("missing",)),
    "truncated.ogg": (lambda: truncated("ogg"), "truncated", ()),
    "truncated.opus": (lambda: truncated("opus"), "truncated", ()),
    "broken end.flac": (flac_with_a_broken_end, "corrupt", ()),
    "claims 4 GB.wav": (
        lambda: wav_claiming(2**32 - 2),
        "truncated",
        (str(44 + 2**32 - 2), str(44 + 2 * RATE)),
    ),
    "NaN.wav": (lambda: float_wav((30_000, np.nan)), "non_finite", ("30000", "nan")),
    "infinity.wav": (lambda: float_wav((7, -np.inf)), "non_finite", ("7", "-inf")),
    "NaN 64-bit.wav": (
        lambda: float_wav((0, np.nan), subtype="wav_double"),
        "non_finite",
        ("sample 0", "nan"),
    ),
    "huge samples.wav": (lambda: float_wav(level=2e30), "non_finite", ("chunk 0", "1e+30")),
    "0 samples.wav": (lambda: song("wav", 0), "no_audio", ("no samples",)),
    "0 samples.flac": (lambda: flac_of_silence(0, 1_000), "no_audio", ()),
    "ten hours.flac": (
        lambda: flac_of_silence(550 * 65_535, 1_000),
        "too_long",
        ("36044 s", "max_duration_hours", "36000 s"),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """The result of the catalogue's extraction."""

    extraction: Extraction
    recordings: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, list[Mapping[str, Any]]]
    store: Store


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    root = tmp_path_factory.mktemp("bad")
    catalogue, output = root / "catalogue", root / "dataset"
    contents = GOOD | {name: content for name, (content, _, _) in BAD.items()}
    for name, content in contents.items():
        path = catalogue / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content())
    os.mkfifo(catalogue / "fifo.wav")
    extraction = extract_here(
        catalogue,
        output,
        f"chunk.seconds={CHUNK}",
        "limits.max_failure_ratio=1",
        "limits.max_duration_hours=10",
        "split.fractions={train: 1.0}",
        "output.min_shards=2",
    )
    store, index = Store(str(output)), extraction.snapshot.index
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in DeltaTable(str(output)).to_pyarrow_table().to_pylist():
        rows.setdefault(row["uri"].removeprefix(f"{catalogue}/"), []).append(row)
    return Outcome(
        extraction,
        _by_name(read_index(store, index, "recordings"), catalogue),
        _by_name(read_index(store, index, "failures"), catalogue),
        rows,
        store,
    )


def _by_name(entries: Any, catalogue: Path) -> dict[str, Mapping[str, Any]]:
    return {entry["uri"].removeprefix(f"{catalogue}/"): entry for entry in entries}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_is_a_failure_that_says_why(name: str, outcome: Outcome) -> None:
    _, cause, values = BAD[name]
    failure = outcome.failures[name]
    assert failure["cause"] == cause, failure["message"]
    for value in values:
        assert value in failure["message"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recording_has_no_row_and_is_in_the_index_once(name: str, outcome: Outcome) -> None:
    assert name not in outcome.rows
    assert (outcome.recordings[name]["status"], outcome.recordings[name]["rows"]) == ("failed", 0)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_recording_beside_bad_ones_has_all_its_rows(name: str, outcome: Outcome) -> None:
    recording, rows = outcome.recordings[name], outcome.rows[name]
    chunks = max(1, int(recording["frames"] / recording["sample_rate_hz"] / CHUNK))
    assert recording["status"] == "ok"
    assert sorted(row["chunk_index"] for row in rows) == list(range(chunks))
    assert recording["rows"] == chunks
    assert all(np.isfinite(row["mel"]).all() for row in rows)


def test_nothing_is_lost_and_nothing_is_invented(outcome: Outcome) -> None:
    assert outcome.recordings.keys() == GOOD.keys() | BAD.keys()
    assert outcome.failures.keys() == BAD.keys()
    assert outcome.rows.keys() == GOOD.keys()


def test_the_snapshot_is_whole(outcome: Outcome) -> None:
    assert validate(outcome.store, 1, lambda number: None) == []


def test_the_totals_count_failures_by_cause(outcome: Outcome) -> None:
    totals = outcome.extraction.totals
    assert totals.failures.total() == len(BAD)
    assert totals.recordings["failed"] == len(BAD)
    assert totals.recordings["ok"] == len(GOOD)


def test_one_basename_in_two_directories_is_two_recordings(outcome: Outcome) -> None:
    first, second = (outcome.recordings[f"disc {i}/one basename.wav"] for i in (1, 2))
    assert first["recording_id"] != second["recording_id"]
    assert (first["rows"], second["rows"]) == (2, 1)


def test_our_flac_of_silence_is_valid() -> None:
    """Our own code computes the checksums, so the reference implementation checks them here."""
    samples, rate = soundfile.read(io.BytesIO(flac_of_silence(3 * 65_535, 1_000)))
    assert (rate, len(samples), np.abs(samples).max()) == (1_000, 3 * 65_535, 0)
