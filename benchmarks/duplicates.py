"""Measures ``melmill duplicates``: which copies it finds, what it takes for copies, and its cost.

    python benchmarks/duplicates.py FOLDER... [--only recall,scale] [--seconds 30] [--pairs 12]
        [--fingerprints 2500,5000,10000] [--seed 0]

The folders hold real recordings; those below a folder ``speech`` are speech.

``recall``: an excerpt of each recording is written as a file, and again for each kind of copy: each
codec, each change of the sound, and some of both. melmill extracts all files and looks for
duplicates. The recall is the share of copies that are in the group of their excerpt. A second
figure is the share that a catalogue of the two files alone would show, where no other copy leads to
them. Excerpts that are silent, or shorter than 10 s, are left out. Then pairs of sounds are made of
the same recordings, which are alike and yet no copies of each other. Two recordings in one group
that are no copies of each other are a false pair.

``scale``: ``melmill duplicates`` runs on synthetic indexes of fingerprints of three minutes. A
fingerprint follows the words of real fingerprints: after each second word, on average, it goes
on at another place, with a word that is like the next one; and 2 % of its bits are flipped. One
fingerprint in 100 is a copy of another one, with 10 % of its bits flipped.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

# One thread per process, as in melmill's own workers.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import av
import numpy as np
import soundfile
import soxr
from measure import (
    audio_files,
    describe_machine,
    melmill,
    print_table,
    run,
    write_catalogue,
)
from refresh import make_shard, shard_row, write_song
from scipy.signal import fftconvolve

from melmill.pipelines.api import duplicates, extract
from melmill.pipelines.duplicates import RecordingMatch
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.duplicates.candidates import key_bits, pick, postings, vote
from melmill.transforms.duplicates.verification import Match, compare
from melmill.transforms.index.tables import (
    read_index,
    read_shards,
    recordings_per_part,
    write_part,
)
from melmill.transforms.measures.acoustic_fingerprint import WORDS_PER_SECOND, read_fingerprint
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store

Samples = np.ndarray
Words = np.ndarray
Random = np.random.Generator

#: Settings for very small features, so that little time is spent on them.
SETTINGS = ("quality=[acoustic]", "mel.n_mels=8", "chunk.short=pad", "limits.max_failure_ratio=1")
LEAST_SECONDS = 10
#: Shorter excerpts are not trimmed, because less than 80 % of them would be left: a part, no copy.
LEAST_TRIMMED_SECONDS = 13
#: Excerpts whose RMS is lower are silent.
LEAST_RMS = 10 ** (-65 / 20)


@dataclass(frozen=True)
class Sound:
    """A sound: float32 [frames, channels]."""

    samples: Samples
    rate_hz: int


# Copies

Write = Callable[[Path, Sound], None]
Change = Callable[[Sound], Sound]


def with_libsndfile(path: Path, sound: Sound, **how: Any) -> None:
    soundfile.write(str(path), sound.samples, sound.rate_hz, **how)


def with_ffmpeg(path: Path, sound: Sound, container: str, codec: str, kilobits: float = 0) -> None:
    planes = np.ascontiguousarray(sound.samples.T, np.float32)
    layout = "mono" if len(planes) == 1 else "stereo"
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=sound.rate_hz, layout=layout)
        if kilobits:
            stream.codec_context.bit_rate = round(1000 * kilobits)
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(planes, "fltp", layout)
        frame.sample_rate, frame.pts = sound.rate_hz, 0
        frame.time_base = Fraction(1, sound.rate_hz)
        sample_format, size = stream.codec_context.format.name, stream.codec_context.frame_size
        resampler = av.AudioResampler(sample_format, layout, sound.rate_hz, size)
        for piece in chain(resampler.resample(frame), resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))


def at_rate(sound: Sound, rate_hz: int) -> Sound:
    return Sound(soxr.resample(sound.samples, sound.rate_hz, rate_hz), rate_hz)


def as_mono(sound: Sound) -> Sound:
    return replace(sound, samples=sound.samples.mean(axis=1, keepdims=True))


def louder(sound: Sound, db: float) -> Sound:
    return replace(sound, samples=np.clip(sound.samples * np.float32(10 ** (db / 20)), -1, 1))


def trimmed(sound: Sound) -> Sound:
    """Remove 1.45 s at the start and 1 s at the end."""
    return replace(sound, samples=sound.samples[round(1.45 * sound.rate_hz) : -sound.rate_hz])


def left_channel(sound: Sound) -> Sound:
    return replace(sound, samples=sound.samples[:, :1])


def noisy(sound: Sound) -> Sound:
    """Add noise at a signal-to-noise ratio of 20 dB."""
    level = 0.1 * np.sqrt(np.square(sound.samples).mean())
    noise = np.random.default_rng(0).normal(0, level, sound.samples.shape)
    return replace(sound, samples=np.clip(sound.samples + noise, -1, 1).astype(np.float32))


def through_mp3(sound: Sound) -> Sound:
    """Encode as MP3 of 128 kbit/s, and decode."""
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        with_ffmpeg(Path(file.name), sound, "mp3", "libmp3lame", 128)
        samples, rate_hz = soundfile.read(file.name, dtype="float32", always_2d=True)
    return Sound(samples, rate_hz)


def _ffmpeg(suffix: str, container: str, codec: str, kilobits: float = 0) -> tuple[str, Write]:
    return suffix, partial(with_ffmpeg, container=container, codec=codec, kilobits=kilobits)


def _libsndfile(suffix: str, container: str, subtype: str, **how: Any) -> tuple[str, Write]:
    return suffix, partial(with_libsndfile, format=container, subtype=subtype, **how)


FLAC = _libsndfile("flac", "FLAC", "PCM_16", compression_level=0.0)
_MP3 = partial(_ffmpeg, "mp3", "mp3", "libmp3lame")
_AAC = partial(_ffmpeg, "m4a", "ipod", "aac")
_OPUS = partial(_ffmpeg, "opus", "ogg", "libopus")
_AMR = _ffmpeg("amr", "amr", "libopencore_amrnb", 12.2)
_VORBIS = _libsndfile("ogg", "OGG", "VORBIS", compression_level=1.0)
_TO_8_KHZ, _TO_16_KHZ, _TO_48_KHZ = (
    partial(at_rate, rate_hz=rate_hz) for rate_hz in (8000, 16_000, 48_000)
)
_TELEPHONE = (as_mono, _TO_8_KHZ)

#: Kind of copy -> file suffix and encoder, and changes before encoding.
COPIES: Mapping[str, tuple[tuple[str, Write], tuple[Change, ...]]] = {
    "MP3 128": (_MP3(128), ()),
    "MP3 32, mono": (_MP3(32), (as_mono,)),
    "MP2 96": (_ffmpeg("mp2", "mp2", "mp2", 96), (_TO_48_KHZ,)),
    "AAC 96": (_AAC(96), ()),
    "AAC 48": (_AAC(48), ()),
    "Opus 48": (_OPUS(48), (_TO_48_KHZ,)),
    "Opus 16": (_OPUS(16), (_TO_48_KHZ,)),
    "Vorbis, lowest quality": (_VORBIS, ()),
    "WMA 64": (_ffmpeg("wma", "asf", "wmav2", 64), ()),
    "AC-3 96": (_ffmpeg("ac3", "ac3", "ac3", 96), (_TO_48_KHZ,)),
    "FLAC, 16 bits": (FLAC, ()),
    "ALAC": (_ffmpeg("m4a", "ipod", "alac"), ()),
    "WAV, 8 bits": (_libsndfile("wav", "WAV", "PCM_U8"), ()),
    "IMA ADPCM": (_libsndfile("wav", "WAV", "IMA_ADPCM"), ()),
    "MS ADPCM": (_libsndfile("wav", "WAV", "MS_ADPCM"), ()),
    "µ-law, 8 kHz mono": (_libsndfile("wav", "WAV", "ULAW"), _TELEPHONE),
    "GSM 6.10, 8 kHz mono": (_libsndfile("wav", "WAV", "GSM610"), _TELEPHONE),
    "AMR 12.2, 8 kHz mono": (_AMR, _TELEPHONE),
    "RealAudio 14.4, 8 kHz mono": (_ffmpeg("ra", "rm", "real_144", 8), _TELEPHONE),
    "−12 dB": (FLAC, (partial(louder, db=-12),)),
    "+9 dB, clipped": (FLAC, (partial(louder, db=9),)),
    "8 kHz": (FLAC, (_TO_8_KHZ,)),
    "16 kHz": (FLAC, (_TO_16_KHZ,)),
    "48 kHz": (FLAC, (_TO_48_KHZ,)),
    "trimmed": (FLAC, (trimmed,)),
    "left channel": (FLAC, (left_channel,)),
    "noise at 20 dB": (FLAC, (noisy,)),
    "MP3 128, then Opus 16": (_OPUS(16), (through_mp3, _TO_48_KHZ)),
    "MP3 32 mono, trimmed": (_MP3(32), (trimmed, as_mono)),
    "Opus 16, trimmed": (_OPUS(16), (trimmed, _TO_48_KHZ)),
    "Vorbis, lowest, trimmed": (_VORBIS, (trimmed,)),
    "AMR 12.2, trimmed": (_AMR, (trimmed, *_TELEPHONE)),
    "AAC 48, left channel": (_AAC(48), (left_channel,)),
}
ORIGINAL = "original"


@dataclass(frozen=True)
class Written:
    """A file of the catalogue.

    Attributes
    ----------
    path
        The file.
    origin
        Name of the sound: two files with the same name are copies of each other.
    kind
        Kind of copy, or kind of pair.
    """

    path: Path
    origin: str
    kind: str


def read_excerpt(path: Path, seconds: float) -> Sound | None:
    """Return the middle of a recording; ``None`` if it is too short or silent."""
    info = soundfile.info(path)
    frames = min(info.frames, round(seconds * info.samplerate))
    start = (info.frames - frames) // 2
    samples, rate_hz = soundfile.read(path, frames, start, dtype="float32", always_2d=True)
    is_silent = np.sqrt(np.square(samples).mean()) < LEAST_RMS
    if is_silent or frames < LEAST_SECONDS * rate_hz:
        return None
    sound = Sound(samples[:, :2], rate_hz)
    return at_rate(sound, 48_000) if rate_hz > 48_000 else sound


def write_copies(number: int, path: Path, folder: Path, seconds: float) -> list[Written]:
    """Write an excerpt of a recording, and all copies of it."""
    original = read_excerpt(path, seconds)
    if original is None:
        return []
    origin = f"{number:03d}-{path.stem}"
    place = folder / origin
    place.mkdir(parents=True)
    written = [Written(place / "original.flac", origin, ORIGINAL)]
    with_libsndfile(written[0].path, original, format="FLAC", subtype="PCM_24")
    for index, (kind, ((suffix, write), changes)) in enumerate(COPIES.items()):
        if not _has_copy(original, changes):
            continue
        sound = original
        for change in changes:
            sound = change(sound)
        written.append(Written(place / f"{index:02d}.{suffix}", origin, kind))
        write(written[-1].path, sound)
    return written


def _has_copy(original: Sound, changes: tuple[Change, ...]) -> bool:
    """Return whether a sound has a left channel, or is long enough to be trimmed."""
    frames, channels = original.samples.shape
    is_short = frames < LEAST_TRIMMED_SECONDS * original.rate_hz
    return not (left_channel in changes and channels == 1) and not (trimmed in changes and is_short)


# Pairs that are no copies

RATE_HZ = 22_050


@dataclass(frozen=True)
class Sources:
    """The recordings of which pairs are made, and a source of random numbers."""

    music: tuple[Path, ...]
    speech: tuple[Path, ...]
    random: Random

    @classmethod
    def of(cls, files: list[Path], seed: int) -> Sources:
        """Sort recordings into speech and long other recordings."""
        speech = tuple(path for path in files if path.parent.name == "speech")
        others = [path for path in files if path not in speech]
        music = tuple(path for path in others if soundfile.info(path).duration >= 100)
        return cls(music or tuple(files), speech or tuple(files), np.random.default_rng(seed))

    def two(self) -> list[Path]:
        """Return two different recordings of music."""
        places = self.random.permutation(len(self.music))
        return [self.music[place] for place in np.resize(places, 2)]

    def cut(self, path: Path, seconds: float) -> Samples:
        """Return a random part of a recording that is not silent, mono, with short fades."""
        info = soundfile.info(path)
        frames = min(info.frames, round(seconds * info.samplerate))
        for _ in range(100):
            start = self.random.integers(0, info.frames - frames + 1)
            part, rate_hz = soundfile.read(path, frames, start, dtype="float32", always_2d=True)
            if np.sqrt(np.square(part).mean()) > 10 ** (-40 / 20):
                break
        return _level(soxr.resample(part.mean(axis=1), rate_hz, RATE_HZ))

    def talk(self, path: Path, seconds: float) -> Samples:
        """Return phrases of a speaker in random order."""
        phrases: list[Samples] = []
        while sum(map(len, phrases)) < seconds * RATE_HZ:
            phrases.append(self.cut(path, self.random.uniform(1.5, 3)))
        return np.concatenate(phrases)[: round(seconds * RATE_HZ)]

    def noise(self, seconds: float, db: float) -> Samples:
        return self.random.normal(0, 10 ** (db / 20), round(seconds * RATE_HZ))

    def seconds(self, least: float = 10, most: float = 30) -> float:
        return float(self.random.uniform(least, most))


Pair = tuple[Samples, Samples]


def _level(samples: Samples) -> Samples:
    """Return samples with an RMS of −20 dBFS, with fades of 10 ms."""
    fade = np.minimum(1, np.arange(len(samples)) / (0.01 * RATE_HZ))
    level = max(np.sqrt(np.square(samples).mean()), 1e-6)
    return samples * (fade * fade[::-1] * 0.1 / level)


def silences(sources: Sources) -> Pair:
    """Return zeros of two lengths, or dither of the last bit."""
    is_dithered = sources.random.integers(2)
    first, second = (sources.noise(sources.seconds(), -98) * is_dithered for _ in range(2))
    return first, second


def room_tones(sources: Sources) -> Pair:
    """Return noise of one room, with the spectrum of a real recording, at −60 to −40 dBFS."""
    room = sources.cut(sources.two()[0], 1)
    db = sources.random.uniform(-40, -20)
    tones = [fftconvolve(sources.noise(sources.seconds(), 0), room, "valid") for _ in range(2)]
    first, second = (_level(tone) * 10 ** (db / 20) for tone in tones)
    return first, second


def stings(sources: Sources) -> Pair:
    """Return two recordings with 5 s in common at the start, or at the start and at the end."""
    sting = sources.cut(sources.random.choice(sources.music), 5)
    ends = sting[: len(sting) * sources.random.integers(2)]
    first, second = (
        np.concatenate([sting, sources.cut(path, sources.seconds(7, 25)), ends])
        for path in sources.two()
    )
    return first, second


def loops(sources: Sources) -> Pair:
    """Return two tracks of loops of one pack: in one order each, some above a common loop."""
    pack = [sources.cut(sources.two()[0], 2) for _ in range(6)]
    base = pack[0] * sources.random.integers(2)

    def track() -> Samples:
        orders = sources.random.integers(1, len(pack), (12, 2))
        return np.concatenate([base + pack[a] + 0.5 * pack[b] for a, b in orders])

    return track(), track()


def tones(sources: Sources) -> Pair:
    """Return tones of the same or of another pitch; some are beeps, two a second."""
    hz = float(sources.random.uniform(200, 2000))
    is_beeping, semitones = sources.random.integers(2), sources.random.choice([0, 1, 7])

    def tone(pitch_hz: float) -> Samples:
        seconds = np.arange(round(sources.seconds() * RATE_HZ)) / RATE_HZ
        sounds = (2 * seconds % 1 < 0.5) | (not is_beeping)
        return 0.3 * np.sin(2 * np.pi * pitch_hz * seconds + sources.random.uniform(0, 6)) * sounds

    # Two beeps of the same pitch are copies of each other, two tones of a pitch have no content.
    return tone(hz), tone(hz * 2 ** (max(semitones, is_beeping) / 12))


def hums(sources: Sources) -> Pair:
    """Return mains hum above noise, in two recordings."""
    parts = sources.random.uniform(0.001, 0.02, 12)

    def hum() -> Samples:
        noise = sources.noise(sources.seconds(), -70)
        seconds = np.arange(len(noise)) / RATE_HZ
        phases = sources.random.uniform(0, 6, len(parts))
        return noise + sum(
            part * np.sin(2 * np.pi * 50 * number * seconds + phase)
            for number, (part, phase) in enumerate(zip(parts, phases, strict=True), 1)
        )

    return hum(), hum()


def karaoke(sources: Sources, db: float) -> Pair:
    """Return a song without and with a voice, whose level is `db` above the song's."""
    song = sources.cut(sources.two()[0], 30)
    voice = sources.talk(sources.random.choice(sources.speech), len(song) / RATE_HZ)
    return song, song + voice[: len(song)] * 10 ** (db / 20)


def talks(sources: Sources) -> Pair:
    """Return two talks of one speaker, with an introduction of 5 to 8 s in common."""
    speaker = sources.random.choice(sources.speech)
    intro = sources.talk(speaker, sources.seconds(5, 8))
    first, second = (
        np.concatenate([intro, sources.talk(speaker, sources.seconds(8, 25))]) for _ in range(2)
    )
    return first, second


#: Kind of pair -> a function that returns two sounds which are no copies of each other.
PAIRS: Mapping[str, Callable[[Sources], Pair]] = {
    "silences": silences,
    "room tones": room_tones,
    "shared stings of 5 s": stings,
    "loops of a pack": loops,
    "tones": tones,
    "hum": hums,
    "karaoke, voice +6 dB": partial(karaoke, db=6),
    "karaoke, voice 0 dB": partial(karaoke, db=0),
    "karaoke, voice −6 dB": partial(karaoke, db=-6),
    "speech with a common intro": talks,
}


def write_pairs(sources: Sources, pairs: int, folder: Path) -> list[Written]:
    """Write pairs of each kind; the two files of a pair are neighbours."""
    written = []
    for kind, make in PAIRS.items():
        for number in range(pairs):
            place = folder / f"{kind} {number}"
            place.mkdir(parents=True)
            for name, samples in zip("ab", make(sources), strict=True):
                path = place / f"{name}.flac"
                sound = Sound((0.5 * samples).clip(-1, 1)[:, None], RATE_HZ)
                FLAC[1](path, sound)
                written.append(Written(path, f"{place.name} {name}", kind))
    return written


# Recall


@dataclass(frozen=True)
class Outcome:
    """What a search found among some files.

    Attributes
    ----------
    files
        Files by path.
    groups
        Number of the group by path; paths without a group are missing.
    matches
        Match by the paths of two recordings.
    prints
        Fingerprints by path; recordings that are silent have none.
    """

    files: dict[str, Written]
    groups: dict[str, int]
    matches: dict[frozenset[str], RecordingMatch]
    prints: dict[str, Words]

    def is_grouped(self, first: Written, second: Written) -> bool:
        """Return whether two files are in one group."""
        number = self.groups.get(str(first.path))
        return number is not None and number == self.groups.get(str(second.path))

    def match(self, first: Written, second: Written) -> RecordingMatch | None:
        """Return the match of two files in the search."""
        return self.matches.get(frozenset((str(first.path), str(second.path))))

    def try_alone(self, first: Written, second: Written) -> Trial:
        """Return what a search among only two files finds, with the keys of the whole search."""
        extra_bits = key_bits(sum(map(len, self.prints.values())))
        none = np.empty(0, np.uint32)
        words = [self.prints.get(str(file.path), none) for file in (first, second)]
        return Trial.of(words[0], words[1], extra_bits)

    def false_pairs(self) -> Iterator[tuple[Written, Written]]:
        """Yield the pairs of files in one group that are no copies of each other."""
        groups: defaultdict[int, list[Written]] = defaultdict(list)
        for path, number in self.groups.items():
            groups[number].append(self.files[path])
        for members in groups.values():
            for first, second in combinations(members, 2):
                if first.origin != second.origin:
                    yield first, second


@dataclass(frozen=True)
class Trial:
    """A comparison of two fingerprints: the match, or ``None`` and why there is none."""

    match: Match | None
    cause: str = ""

    @classmethod
    def of(cls, first: Words, second: Words, extra_bits: int) -> Trial:
        rows = [postings(number, words, extra_bits) for number, words in enumerate((first, second))]
        offsets = pick(vote(np.concatenate(rows)))["offset"].tolist()
        matches = [compare(first, second, offset) for offset in offsets]
        same = [match for match in matches if match is not None and match.kind == "same"]
        if same:
            return cls(min(same, key=lambda match: match.error))
        if any(matches):
            return cls(None, "contained")
        errors = [_errors(first, second, o + shift) for o in offsets for shift in (-1, 0, 1)]
        error, *worst = min(errors, default=(1.0,))
        if error > 0.4:
            return cls(None, "no votes for the right offset")
        second_error, quarter_error = worst
        return cls(
            None,
            f"error {error:.3f}, in the worst second {second_error:.3f}, in the worst quarter of "
            f"the bands {quarter_error:.3f}",
        )


def _errors(first: Words, second: Words, offset: int) -> tuple[float, float, float]:
    """Return the error of two fingerprints at an offset, of the worst second and quarter of bands.

    These are the figures that decide about a match.
    """
    first, second = first[max(0, -offset) :], second[max(0, offset) :]
    length = min(len(first), len(second))
    informative = (first[:length] != 0) & (second[:length] != 0)
    differing = (first[:length] ^ second[:length])[informative]
    shares = np.bitwise_count(differing[:, None].view(np.uint8)) / 8
    seconds = len(shares) // WORDS_PER_SECOND
    if not seconds:
        return 1.0, 1.0, 1.0
    whole = shares[: seconds * WORDS_PER_SECOND].reshape(seconds, -1)
    return float(shares.mean()), float(whole.mean(axis=1).max()), float(shares.mean(axis=0).max())


def find(files: list[Written], folder: Path, workers: int) -> Outcome:
    """Extract files, look for duplicates, and print how long it took."""
    started = time.perf_counter()
    folder.mkdir(exist_ok=True)
    catalogue = write_catalogue(folder / "songs.csv", [file.path for file in files])
    dataset = extract(catalogue, folder / "set", settings=SETTINGS, workers=workers)
    extracted = time.perf_counter()
    found = duplicates(folder / "set", workers=workers)
    searched_s, extracted_s = time.perf_counter() - extracted, extracted - started
    counts = dataset.extraction.totals.recordings
    states = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    times = f"extracted in {extracted_s:.0f} s, searched in {searched_s:.1f} s"
    print(f"{len(files):,} files ({states}); {times}", flush=True)
    return Outcome(
        {str(file.path): file for file in files},
        {member.uri: number for number, group in enumerate(found.groups) for member in group},
        {frozenset((match.first.uri, match.second.uri)): match for match in found.matches},
        dict(read_prints(folder / "set")),
    )


def read_prints(dataset: Path) -> Iterator[tuple[str, Words]]:
    """Yield the URI and the fingerprint of each recording that has any."""
    store = Store(str(dataset))
    index = require_snapshot(store).index
    for row in read_index(store, index, "recordings", ["uri", "measures"]):
        text = ((row["measures"] or {}).get("acoustic") or {}).get("fingerprint")
        if text:
            yield row["uri"], read_fingerprint(text)


def measure_recall(files: list[Path], arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder, started = Path(scratch), time.perf_counter()
        copies = write_all_copies(files, folder / "copies", arguments)
        sources = Sources.of(files, arguments.seed)
        pairs = write_pairs(sources, arguments.pairs, folder / "pairs")
        print(f"files written in {time.perf_counter() - started:.0f} s", flush=True)
        # Apart, because a song of a pair can be the same part of a recording as an excerpt.
        report_copies(copies, find(copies, folder / "1", arguments.workers))
        report_pairs(pairs, find(pairs, folder / "2", arguments.workers))


def write_all_copies(
    files: list[Path], folder: Path, arguments: argparse.Namespace
) -> list[Written]:
    write = partial(write_copies, folder=folder, seconds=arguments.seconds)
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawning) as processes:
        written = processes.map(write, range(len(files)), files)
        return list(chain.from_iterable(written))


def report_copies(copies: list[Written], outcome: Outcome) -> None:
    """Print the recall of each kind of copy, and the copies that were missed."""
    originals = {file.origin: file for file in copies if file.kind == ORIGINAL}
    print(f"{len(originals)} excerpts\n")
    others = [file for file in copies if file.kind != ORIGINAL]
    trials = {file.path: outcome.try_alone(originals[file.origin], file) for file in others}
    grouped = {f.path for f in others if outcome.is_grouped(f, originals[f.origin])}
    rows = []
    for kind in (*COPIES, "all"):
        of_kind = [file.path for file in others if kind in (file.kind, "all")]
        matches = [match for path in of_kind if (match := trials[path].match)]
        errors = sorted(match.error for match in matches)
        shares = (len(grouped.intersection(of_kind)), len(matches))
        recalls = (f"{share / max(1, len(of_kind)):.3f}" for share in shares)
        figures = (f"{errors[len(errors) // 2]:.3f}", f"{errors[-1]:.3f}") if errors else ("", "")
        rows.append((kind, len(of_kind), *recalls, *figures))
    errors_of = "median error", "largest error"
    print_table(("copy", "files", "recall", "recall of two files alone", *errors_of), rows)
    missed = [file for file in others if not (trials[file.path].match and file.path in grouped)]
    print(f"\nmissed alone or in the search: {len(missed)}")
    for file in missed:
        how = "missed" if file.path not in grouped else "found through other copies"
        print(f"- {file.kind}, {file.origin}: {how}; {trials[file.path].cause or 'matches alone'}")
    print()
    report_false_pairs(outcome)


def report_pairs(pairs: list[Written], outcome: Outcome) -> None:
    """Print how many pairs of each kind were taken for copies."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    print()
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        match = outcome.match(first, second)
        counts[first.kind]["pairs"] += 1
        counts[first.kind]["false"] += outcome.is_grouped(first, second)
        counts[first.kind]["contained"] += match is not None and match.kind == "contained"
    columns = "pairs", "false", "contained"
    rows = [(kind, *(counts[kind][column] for column in columns)) for kind in PAIRS]
    print_table(("no copies", "pairs", "false pairs", "contained"), rows)
    print()
    report_false_pairs(outcome)


def report_false_pairs(outcome: Outcome, most: int = 40) -> None:
    false = list(outcome.false_pairs())
    sizes = Counter(file.origin for file in outcome.files.values()).values()
    files = len(outcome.files)
    unrelated = (files**2 - sum(size**2 for size in sizes)) // 2
    print(f"false pairs: {len(false)} of {unrelated:,} pairs of files that are no copies")
    for first, second in false[:most]:
        match = outcome.match(first, second)
        how = f"{match.kind}, error {match.error:.3f}" if match else "through other files"
        print(f"- {first.origin} ({first.kind}) and {second.origin} ({second.kind}): {how}")
    print(flush=True)


# Scale

WORDS = 180 * WORDS_PER_SECOND
#: Share of words after which a fingerprint goes on elsewhere, and number of places to choose from.
JUMPS, PLACES, LOOKED_AT = 0.5, 32, 256
#: Share of bits that are flipped; share of copies; share of flipped bits in a copy.
FLIPPED, COPIED, COPY_FLIPPED = 0.02, 0.01, 0.1
RECORDINGS_PER_SHARD = 1000


def make_prints(real: Words, jumps: np.ndarray, fingerprints: int, seed: int) -> Words:
    """Return synthetic fingerprints, uint32 [fingerprints, words]; the last ones are copies."""
    random = np.random.default_rng(seed)
    originals = fingerprints - round(COPIED * fingerprints)
    prints = np.zeros((fingerprints, WORDS), np.uint32)
    places = random.integers(0, len(real), originals)
    for word in range(WORDS):
        prints[:originals, word] = flip(real[places], FLIPPED, random)
        elsewhere = jumps[places, random.integers(0, PLACES, originals)]
        jumped = random.random(originals) < JUMPS
        places = np.where(jumped, elsewhere, (places + 1) % len(real))
    for copy in range(originals, fingerprints):
        prints[copy] = flip(prints[copy - originals], COPY_FLIPPED, random)
    return prints


def find_jumps(real: Words, random: Random) -> np.ndarray:
    """Return some places of other words, int64 [words, places], that are like the next word.

    Each is the most similar of some random places. It differs from the next word by fewer bits than
    two words in a row.
    """
    following = np.roll(real, -1)[:, None]
    jumps = []
    for _ in range(PLACES):
        places = random.integers(0, len(real), (len(real), LOOKED_AT))
        nearest = np.bitwise_count(real[places] ^ following).argmin(axis=1)
        jumps.append(places[np.arange(len(real)), nearest])
    return np.stack(jumps, axis=1)


def flip(words: Words, share: float, random: Random) -> Words:
    """Return words of which a share of the bits is flipped; 0 has no information and stays."""
    flips = pack(random.random((len(words), 32), np.float32) < share)
    return np.where(words == 0, np.uint32(0), words ^ flips)


def pack(bits: np.ndarray) -> Words:
    """Return words, uint32 [words], from their bits, bool [words, 32]."""
    return np.packbits(bits, axis=1, bitorder="little").view("<u4").reshape(-1)


def real_prints(files: list[Path]) -> list[Words]:
    """Return the fingerprints of the first three minutes of recordings."""
    prints = []
    for path in files:
        frames = 180 * soundfile.info(path).samplerate
        samples, rate_hz = soundfile.read(path, frames, dtype="float32", always_2d=True)
        text = measure_samples(samples, rate_hz, ("acoustic",))["acoustic.fingerprint"]
        if isinstance(text, str):
            prints.append(read_fingerprint(text))
    return prints


def describe_prints(prints: list[Words], extra_bits: int) -> tuple[str, ...]:
    """Return what the cost depends on, as texts.

    These are the share of words that inform, the share of bits that change from word to word, the
    number of votes (different offsets) of two fingerprints, and their number of candidates.
    """
    words = np.concatenate(prints)
    inform = words != 0
    pairs = np.stack([words[:-1], words[1:]])[:, inform[:-1] & inform[1:]]
    changed = np.bitwise_count(pairs[0] ^ pairs[1]).mean() / 32
    posted = [postings(number, each, extra_bits) for number, each in enumerate(prints)]
    votes = vote(np.concatenate(posted))
    count = max(1, len(prints) * (len(prints) - 1) // 2)
    per_pair = f"{len(votes) / count:.2f}", f"{len(pick(votes)) / count:.4f}"
    return f"{inform.mean():.3f}", f"{changed:.3f}", *per_pair


def write_dataset(
    folder: Path,
    prints: Sequence[Any] | np.ndarray,
    row_of: Callable[[int, Any], dict[str, object]] | None = None,
) -> Path:
    """Return the folder of a dataset whose index has some fingerprints.

    All shards of the dataset are the same real shard. `row_of` returns the row of a recording from
    its number and its fingerprint.
    """
    row_of = row_of or recording_row
    fingerprints = len(prints)
    songs, dataset = folder / "songs", folder / "dataset"
    write_song(songs / "0.wav", 0)
    extract(songs, dataset, settings=SETTINGS, workers=1)
    store = Store(str(dataset))
    snapshot = require_snapshot(store)
    real = next(read_shards(store, snapshot.index))
    schema = OpenSnapshot(store, snapshot).schema.table()
    parts = 1 + fingerprints // recordings_per_part(["acoustic"])
    names: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(fingerprints):
        names[bucket(digest(str(number)), parts)].append(number)
    for part, numbers in names.items():
        rows = [row_of(number, prints[number]) for number in numbers]
        write_part(store, "f" * 32, "recordings", part, rows)
    shards = []
    for start in range(0, fingerprints, RECORDINGS_PER_SHARD):
        stop = min(fingerprints, start + RECORDINGS_PER_SHARD)
        ids = [digest(str(number)) for number in range(start, stop)]
        shards.append(shard_row(make_shard(store, real, _shard_name(start), ids)))
    write_part(store, "f" * 32, "shards", 0, shards)
    commit(store, replace(snapshot, index="f" * 32, parts=parts), schema)
    return dataset


def _shard_name(number: int) -> str:
    return digest("shard", str(number // RECORDINGS_PER_SHARD))


def recording_row(number: int, words: Words) -> dict[str, object]:
    text = base64.b64encode(words.astype("<u4").tobytes()).decode()
    measures = {"digest": digest("samples", str(number)), "fingerprint": text}
    return {
        "recording_id": digest(str(number)),
        "uri": str(number),
        "fingerprint": str(number),
        "feature_key": digest(str(number), "features"),
        **{"status": "ok", "split": "train", "labels_digest": "", "container": "wav"},
        **{"codec": "pcm_16", "decoder": "libsndfile", "size_bytes": 1, "channels": 1},
        **{"sample_rate_hz": RATE_HZ, "frames": 180 * RATE_HZ, "seconds": 180.0, "rows": 1},
        **{"shards": [_shard_name(number)], "peak_dbfs": -3.0, "tags": []},
        "measures": {"acoustic": measures},
    }


def measure_scale(files: list[Path], arguments: argparse.Namespace) -> None:
    prints = real_prints(files)
    real = np.concatenate(prints)
    jumps = find_jumps(real, np.random.default_rng(arguments.seed))
    sizes = [int(size) for size in arguments.fingerprints.split(",")]
    compare_prints(
        prints, make_prints(real, jumps, 60, arguments.seed), key_bits(max(sizes) * WORDS)
    )
    rows = []
    for fingerprints in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            synthetic = make_prints(real, jumps, fingerprints, arguments.seed)
            dataset = write_dataset(Path(folder), synthetic)
            del synthetic
            rows.append(search(dataset, fingerprints, arguments.workers))
        print("  ".join(rows[-1]), flush=True)
    print()
    all_at_once = "all processes at once, MiB"
    peaks = "launcher, MiB", "largest worker, MiB"
    print_table(("fingerprints", "s", "CPU s", *peaks, all_at_once, "recall", "false"), rows)


def compare_prints(real: list[Words], synthetic: Words, extra_bits: int) -> None:
    """Print statistics of real and synthetic fingerprints; only the long real ones are alike."""
    long = [words for words in real if len(words) > 0.8 * WORDS] or real
    header = "words that inform", "bits that change", "votes a pair", "candidates a pair"
    rows = [
        (f"{len(prints)} {name}", *describe_prints(prints, extra_bits))
        for name, prints in (("real", long), ("synthetic", list(synthetic)))
    ]
    print_table(("fingerprints", *header), rows)
    print()


def search(dataset: Path, fingerprints: int, workers: int) -> tuple[str, ...]:
    """Return the table row for a search in a dataset."""
    command = melmill("duplicates", dataset, "--json", "--quiet", f"--workers={workers}")
    cost = run(command, watch_s=0.1)
    found = {
        (min(pair), max(pair))
        for match in json.loads(cost.output)["matches"]
        for pair in [(int(match["first"]["uri"]), int(match["second"]["uri"]))]
        if match["kind"] == "same"
    }
    originals = fingerprints - round(COPIED * fingerprints)
    copies = {(number - originals, number) for number in range(originals, fingerprints)}
    recall = f"{len(found & copies) / max(1, len(copies)):.3f}"
    peaks = cost.peaks()
    largest = max((peak for role, peak in peaks.items() if role != "launcher"), default=0)
    memory = [peaks.get("launcher", 0), largest, cost.tree_mib]
    times = f"{cost.wall_s:.1f}", f"{cost.cpu_s:.1f}"
    sizes = (f"{mib:,.0f}" for mib in memory)
    return f"{fingerprints:,}", *times, *sizes, recall, str(len(found - copies))


PARTS = {"recall": measure_recall, "scale": measure_scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of real recordings")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure")
    parser.add_argument("--seconds", type=float, default=30, help="length of an excerpt")
    parser.add_argument("--pairs", type=int, default=12, help="number of pairs of each kind")
    parser.add_argument("--fingerprints", default="2500,5000,10000", help="sizes of the indexes")
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0: automatic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="folder for temporary files")
    arguments = parser.parse_args()
    files = [path for folder in arguments.folders for path in audio_files(folder)]
    if not files:
        sys.exit(f"{', '.join(map(str, arguments.folders))}: no audio files")
    print(f"{describe_machine()}\n{len(files)} files, seed {arguments.seed}\n", flush=True)
    for part in arguments.only.split(","):
        PARTS[part](files, arguments)


if __name__ == "__main__":
    main()
