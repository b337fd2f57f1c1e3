"""Tests that any file gives rows or one of our failures, and the same in a second decode."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause, RecordingError
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.decode.headers import examine_header
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.stored_file import StoredFile
from tests.recordings import rate_of
from tests.signals import encode, noise, song

#: Every container whose header, length or tags our own code reads.
NAMES = ("wav", "wavex", "wav_ima_adpcm", "rf64", "w64", "aiff", "au", "caf", "nist")
NAMES += ("flac", "ogg", "opus", "mp3", "mp3_vbr", "mp3_untagged")
NAMES += ("wma", "avi", "voc", "8svx", "sox", "avr")
#: Formats that only FFmpeg reads, not our own code; so they get fewer mutations here.
FFMPEG_NAMES = ("m4a", "mka", "webm", "aac", "ac3", "wv", "tta", "amr", "flv")
MUTATIONS = dict.fromkeys(NAMES, 300) | dict.fromkeys(FFMPEG_NAMES, 100)
SLOW_MUTATIONS = 30_000
#: Causes that the content of a file must not give, since such failures are retried.
TRANSIENT = {str(cause) for cause in TRANSIENT_CAUSES} - {"out_of_memory"}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    process = DecoderProcess(1 << 30)
    yield process
    process.close()


def original(name: str) -> bytes:
    """Return a file of a format, with tags before and after the audio if that is usual."""
    rate = rate_of(name)
    channels = 1 if name in ("8svx", "amr") else 2
    data = encode(song(0.15, rate, channels=channels), rate, name)
    if name.startswith("mp3"):
        data = b"ID3\4\0\0\0\0\0\x20" + bytes(32) + data + b"TAG" + bytes(125)
    return data


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_is_read_or_is_our_failure(name):
    data = original(name)
    for size in range(1, min(4096, len(data)) + 1):
        read_header(data[:size])


@pytest.mark.parametrize("name", NAMES)
def test_every_mutated_header_is_read_or_is_our_failure(name):
    for data in itertools.islice(mutations(original(name), seed=1), 2000):
        read_header(data)


def read_header(data: bytes) -> None:
    with contextlib.suppress(RecordingError):
        examine_header(StoredFile(io.BytesIO(data)))


@pytest.mark.parametrize("name", NAMES)
def test_every_size_of_a_tag_at_the_end_is_read_or_is_our_failure(name):
    data = original(name)
    # All sizes that reach into the header, and some other sizes.
    sizes = {*range(len(data) - 200, len(data) + 200), *range(0, len(data), 97)}
    for size in sizes:
        for footer in footers(max(0, size)):
            read_header(data + footer)


@pytest.mark.parametrize("name", NAMES)
def test_every_sixteenth_prefix_decodes_or_is_our_failure(decoder, tmp_path, name):
    sizes = range(1, min(4096, len(original(name))) + 1, 16)
    outcomes = decoder.call(300, survey_prefixes, name, sizes, tmp_path / "recording")
    assert sum(outcomes.values()) == len(sizes)


@pytest.mark.parametrize("name", NAMES + FFMPEG_NAMES)
def test_a_mutated_file_decodes_or_is_our_failure(decoder, tmp_path, name):
    number = MUTATIONS[name]
    outcomes = decoder.call(300, survey_mutations, name, 0, number, tmp_path / "recording")
    assert sum(outcomes.values()) == number


@pytest.mark.parametrize(
    "name",
    ["mp3", "mp3_vbr", "mp3_untagged", "mp2", "flac", "ogg", "opus", "wv", "tta", "ac3", "eac3"],
)
def test_a_hole_in_the_middle_never_passes_for_sound(decoder, tmp_path, name):
    outcomes = decoder.call(300, survey_holes, name, 24, tmp_path / "recording")
    assert sum(outcomes.values()) == 24
    assert set(outcomes) <= {"corrupt", "truncated"}


@pytest.mark.slow
def test_many_mutated_files_decode_or_are_our_failures(decoder, tmp_path):
    outcomes: Counter[str] = Counter()
    each = SLOW_MUTATIONS // len(NAMES + FFMPEG_NAMES)
    for name in NAMES + FFMPEG_NAMES:
        counts = decoder.call(3600, survey_mutations, name, 7, each, tmp_path / "recording")
        print(name, dict(counts), flush=True)
        outcomes += counts
    print(dict(outcomes))
    assert sum(outcomes.values()) == each * len(NAMES + FFMPEG_NAMES) >= 20_000


def survey_prefixes(name: str, sizes: range, path: Path) -> Counter[str]:
    data = original(name)
    return survey((data[:size] for size in sizes), path)


def survey_mutations(name: str, seed: int, number: int, path: Path) -> Counter[str]:
    return survey(itertools.islice(mutations(original(name), seed), number), path)


def survey_holes(name: str, number: int, path: Path) -> Counter[str]:
    rate = rate_of(name)
    return survey(itertools.islice(holes(encode(noise(3, rate), rate, name)), number), path)


def holes(data: bytes) -> Iterator[bytes]:
    """Yield files in which a part was overwritten by zeros or by random bytes."""
    rng = np.random.default_rng(3)
    while True:
        at, size = rng.integers(len(data) // 5, len(data) // 2), rng.integers(1000, len(data) // 4)
        filled = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
        yield data[:at] + filled + data[at + size :]


def survey(files: Iterator[bytes], path: Path) -> Counter[str]:
    """Decode each file twice, with different block sizes, and count the outcomes."""
    outcomes: Counter[str] = Counter()
    for number, data in enumerate(files):
        path.write_bytes(data)
        source = StoredObject(str(path))
        first, second = (outcome_of(source, block) for block in (10_000, 1537))
        if first != second:
            raise AssertionError(f"file {number} gave {first}, then {second}")
        assert first[0] not in TRANSIENT, first
        outcomes[first[0]] += 1
    return outcomes


def outcome_of(source: StoredObject, block_frames: int) -> tuple[object, ...]:
    """Return what a file gives; if a failure says that frames can be read, check that they can."""
    try:
        audio = probe_audio(source)
        return "rows", audio, digest(source, audio, block_frames)
    except RecordingError as error:
        readable = remains(source, error.audio, block_frames) if error.audio else ""
        return str(error.cause), error.message, error.audio, readable
    except MemoryError:  # the decoder process reports this as a failure
        return (str(Cause.OUT_OF_MEMORY),)


def remains(source: StoredObject, audio, block_frames: int) -> str:
    """Return the digest of a damaged file's intact frames, or the message on infinite samples."""
    try:
        return digest(source, audio, block_frames)
    except RecordingError as error:
        if error.cause is not Cause.NON_FINITE:
            raise
        return error.message


def digest(source: StoredObject, audio, block_frames: int) -> str:
    state, frames = hashlib.sha256(), 0
    with open_audio(source, audio) as reader:
        blocks = reader.blocks(0, audio.frames, block_frames)
        if block_frames < 10_000:  # a reader that has the last frame need not read on
            blocks = itertools.islice(blocks, -(-audio.frames // block_frames))
        for block in blocks:
            assert np.isfinite(block).all()
            state.update(np.ascontiguousarray(block))
            frames += len(block)
        reader.finish()
    assert frames == audio.frames
    return state.hexdigest()


def footers(size: int) -> list[bytes]:
    """Return the ends of tags that claim to begin `size` bytes earlier."""
    syncsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return [
        b"APETAGEX" + struct.pack("<IIII8x", 2000, size, 1, 0),
        b"APETAGEX" + struct.pack("<IIII8x", 2000, size, 1, 1 << 31),
        b"3DI\4\0\0" + syncsafe,
        b"%06dLYRICS200" % size,
    ]


def mutations(data: bytes, seed: int) -> Iterator[bytes]:
    """Yield files with bytes changed, removed, repeated or inserted, mostly near the start."""
    rng = np.random.default_rng(seed)
    while True:
        changed = bytearray(data)
        if rng.random() < 0.1:
            changed += footers(int(rng.integers(0, len(data) + 100)))[rng.integers(4)]
        for _ in range(rng.integers(1, 6)):
            end = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
            at = int(rng.integers(0, max(1, end)))
            size = int(rng.choice([1, 2, 4, 8, 100]))
            change(changed, at, size, rng)
        yield bytes(changed)


def change(data: bytearray, at: int, size: int, rng: np.random.Generator) -> None:
    kind = rng.integers(6)
    if kind == 0:
        data[at : at + size] = rng.bytes(min(size, len(data) - at))
    elif kind == 1:
        data[at : at + size] = bytes([rng.choice(EXTREMES)]) * min(size, len(data) - at)
    elif kind == 2:
        del data[at : at + size]
    elif kind == 3:
        data[at:at] = data[:size]
    elif kind == 4 and at < len(data):
        data[at] ^= 1 << int(rng.integers(8))
    elif rng.random() < 0.2:
        del data[at + size :]
