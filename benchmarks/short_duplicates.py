"""Measures ``melmill duplicates`` on short clips: which copies it finds, false pairs, and its cost.

    python benchmarks/short_duplicates.py FOLDER... [--only recall,alike,scale] [--most 1000]
        [--pairs 50] [--clips 20000,100000] [--whole FOLDER...] [--seed 0]

The folders hold real recordings.

``recall``: the recordings are cut into clips of 0.3 to 4 s, all of other places. Each is written as
a file, and again for each kind of copy of ``duplicates.py`` that is not trimmed. melmill extracts
all files and looks for duplicates. The recall is the share of copies that are in the group of
their clip; a second figure is the share that two files alone would show. All other pairs are no
copies. Clips whose offset (DC) is larger than their sound are counted apart.

``alike``: pairs of sounds that are alike, and no copies.

``whole``: if ``--whole`` names folders, the groups among their short recordings are counted, with
the share of pairs whose samples are equal, but for the level. They have no known answer.

``scale``: ``melmill duplicates`` runs on synthetic indexes of waveforms of one second. A waveform
is a mixture of three places of the recordings; one in 100 is a copy of another one with noise at
20 dB, 20 ms later.
"""

from __future__ import annotations

import argparse
import base64
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, combinations
from pathlib import Path

# One thread per process, as in melmill's own workers.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import soundfile
import soxr
from duplicates import (
    COPIED,
    COPIES,
    FLAC,
    ORIGINAL,
    RATE_HZ,
    SETTINGS,
    Sound,
    Written,
    at_rate,
    left_channel,
    recording_row,
    search,
    trimmed,
    with_libsndfile,
    write_dataset,
)
from measure import audio_files, describe_machine, print_table, write_catalogue
from scipy.signal import butter, sosfilt

from melmill.pipelines.api import duplicates, extract
from melmill.transforms.duplicates.candidates import pick, vote
from melmill.transforms.duplicates.correlation import compare_waveforms
from melmill.transforms.duplicates.waveform_candidates import waveform_key_bits, waveform_postings
from melmill.transforms.index.tables import read_index
from melmill.transforms.measures.short_waveforms import RATE_HZ as WAVEFORM_HZ
from melmill.transforms.measures.short_waveforms import Waveform, read_waveform
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store

Samples = np.ndarray
Random = np.random.Generator

#: Lengths of clips in seconds, in turn: 0.8 on average.
LENGTHS = (0.3, 0.5, 0.4, 1.0, 0.7, 0.3, 2.0, 0.5, 1.0, 0.3, 4.0, 0.5, 0.7, 1.0, 0.4, 0.3, 1.0, 0.5)
#: Clips whose RMS without their offset is lower are silent.
LEAST_RMS = 10 ** (-60 / 20)
#: Share of the sound that an offset has, at least, in a clip with a strong one.
STRONG_OFFSET = 1.0
KINDS = {kind: copy for kind, copy in COPIES.items() if trimmed not in copy[1]}


def cut_clips(files: list[Path]) -> Iterator[tuple[str, Sound]]:
    """Yield clips of all places of recordings, with their names."""
    number = 0
    for path in files:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        start = 0
        while start < len(samples):
            frames = round(LENGTHS[number % len(LENGTHS)] * rate_hz)
            clip = Sound(samples[start : start + frames, :2], rate_hz)
            start, number = start + frames, number + 1
            if len(clip.samples) == frames and clip.samples.std() >= LEAST_RMS:
                clip = at_rate(clip, 48_000) if rate_hz > 48_000 else clip
                offset = np.abs(clip.samples.mean()) > STRONG_OFFSET * clip.samples.std()
                yield f"{'offset ' if offset else ''}{number:05d}-{path.stem}", clip


def write_copies(clip: tuple[str, Sound], folder: Path) -> list[Written]:
    """Write a clip, and all copies of it."""
    origin, original = clip
    place = folder / origin
    place.mkdir(parents=True)
    written = [Written(place / "original.flac", origin, ORIGINAL)]
    with_libsndfile(written[0].path, original, format="FLAC", subtype="PCM_24")
    for index, (kind, ((suffix, write), changes)) in enumerate(KINDS.items()):
        if left_channel in changes and original.samples.shape[1] == 1:
            continue
        sound = original
        for change in changes:
            sound = change(sound)
        written.append(Written(place / f"{index:02d}.{suffix}", origin, kind))
        write(written[-1].path, sound)
    return written


# Pairs that are no copies


def _noise(seconds: float, random: Random, low_hz: float = 20, high_hz: float = 10_000) -> Samples:
    band = butter(2, (low_hz, high_hz), "bandpass", fs=RATE_HZ, output="sos")
    return sosfilt(band, random.normal(0, 0.1, round(seconds * RATE_HZ)))


def _seconds(samples: int) -> Samples:
    return np.arange(samples) / RATE_HZ


def _hit(random: Random, hz: float, decay_s: float, sweep: float) -> Samples:
    """Return a hit of a drum: a decaying tone and noise; each hit differs a little."""
    times = _seconds(round(0.5 * RATE_HZ))
    tone_hz = hz * random.uniform(0.97, 1.03) * (1 + sweep * np.exp(-times / 0.03))
    tone = np.sin(2 * np.pi * np.cumsum(tone_hz) / RATE_HZ)
    decay = np.exp(-times / (decay_s * random.uniform(0.95, 1.05)))
    return decay * (0.5 * tone + _noise(0.5, random, 200, 8000))


def silences(random: Random) -> tuple[Samples, Samples]:
    """Return dither of the last bits."""
    level = 2.0 ** random.uniform(-16, -12)
    first, second = (random.normal(0, level, RATE_HZ) for _ in range(2))
    return first, second


def noises(random: Random) -> tuple[Samples, Samples]:
    """Return two noises of one band."""
    low_hz = float(random.uniform(20, 2000))
    high_hz = low_hz * float(random.uniform(1.3, 5))
    seconds = float(random.choice([0.3, 1, 4]))
    first, second = (_noise(seconds, random, low_hz, high_hz) for _ in range(2))
    return first, second


def tones(random: Random) -> tuple[Samples, Samples]:
    """Return two tones of one pitch, of which some decay."""
    hz, decay_s = random.uniform(60, 2000), random.choice([0.2, 1, 1e9])
    times = _seconds(RATE_HZ)
    first, second = (
        0.3 * np.exp(-times / decay_s) * np.sin(2 * np.pi * hz * times + random.uniform(0, 6))
        for _ in range(2)
    )
    return first, second


def chords(random: Random) -> tuple[Samples, Samples]:
    """Return two notes of one instrument and pitch: partials with other phases."""
    hz, times = random.uniform(80, 400), _seconds(RATE_HZ)
    levels = random.uniform(0.01, 0.1, 12)
    first, second = (
        sum(
            level * np.exp(-times * number / 2) * np.sin(2 * np.pi * hz * number * times + phase)
            for number, (level, phase) in enumerate(
                zip(levels, random.uniform(0, 6, 12), strict=True), 1
            )
        )
        for _ in range(2)
    )
    return first, second


def hums(random: Random) -> tuple[Samples, Samples]:
    """Return mains hum with noise at −70 dBFS."""
    levels, times = random.uniform(0.001, 0.02, 12), _seconds(RATE_HZ)
    first, second = (
        random.normal(0, 10 ** (-70 / 20), RATE_HZ)
        + sum(
            level * np.sin(2 * np.pi * 50 * number * times + random.uniform(0, 6))
            for number, level in enumerate(levels, 1)
        )
        for _ in range(2)
    )
    return first, second


def clicks(random: Random) -> tuple[Samples, Samples]:
    """Return a click of one or more samples each."""
    first, second = np.zeros(RATE_HZ // 2), np.zeros(RATE_HZ // 2)
    for click in (first, second):
        at = random.integers(100, 3000)
        click[at : at + random.integers(1, 20)] = random.uniform(0.1, 0.9)
    return first, second


def hits(random: Random) -> tuple[Samples, Samples]:
    """Return two hits of one drum."""
    drum = random.uniform(60, 400), random.uniform(0.05, 0.3), random.uniform(0, 2)
    return _hit(random, *drum), _hit(random, *drum)


def loops(random: Random) -> tuple[Samples, Samples]:
    """Return two loops of one kit and tempo: the same samples of drums in two orders."""
    kit = [_hit(random, hz, 0.1, 1) for hz in (60, 180, 400)]
    order = random.integers(0, 3, 8)
    other = order.copy()
    other[random.integers(8)] += random.integers(1, 3)
    step = RATE_HZ // 4

    def loop(numbers: Samples) -> Samples:
        sound = np.zeros(10 * step)
        for place, number in enumerate(numbers):
            hit = kit[number % 3]
            sound[place * step : place * step + len(hit)] += hit
        return sound

    return loop(order), loop(other)


def attacks(random: Random) -> tuple[Samples, Samples]:
    """Return two sounds with one loud attack of 100 ms."""
    attack = _noise(0.1, random)
    first, second = (np.concatenate([attack, 0.4 * _noise(0.9, random)]) for _ in range(2))
    return first, second


#: Kind of pair -> a function that returns two sounds which are no copies of each other.
ALIKE: Mapping[str, Callable[[Random], tuple[Samples, Samples]]] = {
    "silences": silences,
    "noises of one band": noises,
    "tones of one pitch": tones,
    "notes of one pitch": chords,
    "hum": hums,
    "clicks": clicks,
    "two hits of a drum": hits,
    "two loops of a kit": loops,
    "one attack": attacks,
}


def measure_alike(files: list[Path], arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder, written = Path(scratch), list[Written]()
        random = np.random.default_rng(arguments.seed)
        for kind, make in ALIKE.items():
            for number in range(arguments.pairs):
                for name, samples in zip("ab", make(random), strict=True):
                    path = folder / f"{kind} {number} {name}.flac"
                    FLAC[1](path, Sound(np.clip(samples, -1, 1)[:, None], RATE_HZ))
                    written.append(Written(path, path.stem, kind))
        groups, _ = find(written, folder, arguments.workers)
        pairs = Counter[tuple[str, str]]()
        for members in groups:
            for pair in combinations(sorted(file.kind for file in members), 2):
                pairs[pair] += 1
        rows = [(kind, arguments.pairs, pairs.pop((kind, kind), 0)) for kind in ALIKE]
        rows.append(("all others", "", sum(pairs.values())))
        print_table(("no copies", "pairs", "files in one group"), rows)
        print(flush=True)


# Recall


def find(
    files: list[Written], folder: Path, workers: int
) -> tuple[list[list[Written]], dict[Path, Waveform]]:
    """Return the groups among files, and the waveforms by path."""
    started = time.perf_counter()
    catalogue = write_catalogue(folder / "clips.csv", [file.path for file in files])
    extract(catalogue, folder / "set", settings=SETTINGS, workers=workers)
    extracted = time.perf_counter()
    found = duplicates(folder / "set", workers=workers)
    searched_s, extracted_s = time.perf_counter() - extracted, extracted - started
    print(f"{len(files):,} files; extracted in {extracted_s:.0f} s, searched in {searched_s:.1f} s")
    by_path = {str(file.path): file for file in files}
    groups = [[by_path[member.uri] for member in group] for group in found.groups]
    return groups, dict(read_waveforms(folder / "set"))


def read_waveforms(dataset: Path) -> Iterator[tuple[Path, Waveform]]:
    """Yield the path and the waveform of each recording that has one."""
    store = Store(str(dataset))
    index = require_snapshot(store).index
    for row in read_index(store, index, "recordings", ["uri", "measures"]):
        text = ((row["measures"] or {}).get("acoustic") or {}).get("waveform")
        if text:
            yield Path(row["uri"]), read_waveform(text)


def measure_recall(files: list[Path], arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        clips = list(cut_clips(files))[: arguments.most]
        write = partial(write_copies, folder=folder / "copies")
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=spawning) as processes:
            written = list(chain.from_iterable(processes.map(write, clips, chunksize=8)))
        groups, waveforms = find(written, folder, arguments.workers)
    report_recall(written, groups, waveforms)


def report_recall(
    written: list[Written], groups: list[list[Written]], waveforms: dict[Path, Waveform]
) -> None:
    """Print the recall of each kind of copy, without and with a strong offset, and false pairs."""
    originals = {file.origin: file for file in written if file.kind == ORIGINAL}
    place = {file.path: number for number, group in enumerate(groups) for file in group}
    counts: defaultdict[tuple[bool, str], Counter[str]] = defaultdict(Counter)
    for file in written:
        original = originals[file.origin]
        count = counts[file.origin.startswith("offset"), file.kind]
        count["files"] += 1
        number = place.get(file.path, -1)
        count["found"] += number >= 0 and number == place.get(original.path, -2)
        count["alone"] += match_alone(waveforms, original.path, file.path, len(written))
    for has_offset in (False, True):
        clips = counts[has_offset, ORIGINAL]["files"]
        if not clips:
            continue
        print(f"\n{clips} clips{' with a strong offset' * has_offset}\n")
        rows = []
        for kind in KINDS:
            count = counts[has_offset, kind]
            shares = (count[name] / max(1, count["files"]) for name in ("found", "alone"))
            rows.append((kind, count["files"], *(f"{share:.3f}" for share in shares)))
        print_table(("copy", "files", "recall", "recall of two files alone"), rows)
    false = [
        (first, second)
        for group in groups
        for first, second in combinations(group, 2)
        if first.origin != second.origin
    ]
    sizes = Counter(file.origin for file in written).values()
    unrelated = (len(written) ** 2 - sum(size**2 for size in sizes)) // 2
    print(f"\nfalse pairs: {len(false)} of {unrelated:,} pairs of files that are no copies")
    for first, second in false[:20]:
        print(f"- {first.origin} ({first.kind}) and {second.origin} ({second.kind})")
    print(flush=True)


def match_alone(waveforms: dict[Path, Waveform], first: Path, second: Path, files: int) -> bool:
    """Return whether two files match, with the keys of the whole search."""
    if first not in waveforms or second not in waveforms:
        return False
    bits = waveform_key_bits(files)
    rows = [waveform_postings(n, waveforms[path], bits) for n, path in enumerate((first, second))]
    candidates = pick(vote(np.concatenate(rows)))
    return len(candidates) > 0 and (
        compare_waveforms(waveforms[first], waveforms[second]) is not None
    )


# Whole recordings


def measure_whole(files: list[Path], arguments: argparse.Namespace) -> None:
    for catalogue in arguments.whole:
        short = [path for path in audio_files(catalogue) if _is_short(path)]
        if not short:
            sys.exit(f"--whole {catalogue}: no recordings of at most six seconds")
        written = [Written(path, path.stem, ORIGINAL) for path in short]
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            groups, _ = find(written, Path(scratch), arguments.workers)
        pairs = [pair for group in groups for pair in combinations(group, 2)]
        equal = sum(_are_equal(*(file.path for file in pair)) for pair in pairs)
        print(f"{catalogue}: {len(short):,} recordings, {len(groups)} groups, {len(pairs)} pairs")
        print(f"of which {equal} have equal samples, but for the level")
        for group in groups[:40]:
            print(f"- {', '.join(file.path.name for file in group)}")
        print(flush=True)


def _is_short(path: Path) -> bool:
    try:
        return soundfile.info(path).duration <= 6
    except soundfile.LibsndfileError:
        return False


def _are_equal(first: Path, second: Path) -> bool:
    """Return whether the samples of two files have a correlation of 0.999 without a lag."""
    sounds = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in (first, second)]
    length = min(map(len, sounds))
    one, other = (sound[:length].mean(axis=1) for sound in sounds)
    return np.array_equal(one, other) or abs(np.corrcoef(one, other)[0, 1]) > 0.999


# Scale


class Mixtures:
    """Synthetic waveforms of one second; the last ones are copies of the first ones."""

    def __init__(self, real: Samples, clips: int, seed: int) -> None:
        self._real, self._clips, self._seed = real, clips, seed
        self._originals = clips - round(COPIED * clips)

    def __len__(self) -> int:
        return self._clips

    def __getitem__(self, number: int) -> Samples:
        if number >= self._originals:
            random = np.random.default_rng((self._seed, number))
            sound = np.pad(self._mix(number - self._originals), (80, 0))
            return _scaled(sound + random.normal(0, 0.1 * sound.std(), len(sound)))
        return _scaled(self._mix(number))

    def _mix(self, number: int) -> Samples:
        random = np.random.default_rng((self._seed, number))
        starts = random.integers(0, len(self._real) - WAVEFORM_HZ, 3)
        parts = [self._real[start : start + WAVEFORM_HZ] for start in starts]
        return sum(part * (10 ** random.uniform(-0.6, 0) / max(1e-3, part.std())) for part in parts)


def _scaled(sound: Samples) -> Samples:
    return np.rint(sound * (127 / np.abs(sound).max())).astype(np.int8)


def waveform_row(number: int, waveform: Samples) -> dict[str, object]:
    row = recording_row(number, np.zeros(0, np.uint32))
    text = base64.b64encode(waveform.tobytes()).decode()
    digest = row["measures"]["acoustic"]["digest"]  # type: ignore[index]
    measures = {"acoustic": {"digest": digest, "fingerprint": None, "waveform": text}}
    seconds = len(waveform) / WAVEFORM_HZ
    return row | {"measures": measures, "seconds": seconds, "frames": round(seconds * RATE_HZ)}


def measure_scale(files: list[Path], arguments: argparse.Namespace) -> None:
    sounds = (soundfile.read(path, dtype="float32", always_2d=True) for path in files)
    low = [soxr.resample(s.mean(axis=1) - s.mean(), hz, WAVEFORM_HZ) for s, hz in sounds]
    real, rows = np.concatenate(low), []
    for clips in map(int, arguments.clips.split(",")):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            synthetic = Mixtures(real, clips, arguments.seed)
            dataset = write_dataset(Path(folder), synthetic, waveform_row)
            index = sum(path.stat().st_size for path in dataset.glob("index/f*/*"))
            rows.append((*search(dataset, clips, arguments.workers), f"{index / 1e6:,.0f}"))
        print("  ".join(rows[-1]), flush=True)
    all_at_once = "all processes at once, MiB"
    peaks = "launcher, MiB", "largest worker, MiB"
    columns = "clips", "s", "CPU s", *peaks, all_at_once, "recall", "false", "index, MB"
    print_table(columns, rows)


PARTS = {
    "recall": measure_recall,
    "alike": measure_alike,
    "whole": measure_whole,
    "scale": measure_scale,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of real recordings")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure")
    parser.add_argument("--most", type=int, default=1000, help="largest number of clips")
    parser.add_argument("--pairs", type=int, default=50, help="number of pairs of each kind")
    parser.add_argument("--clips", default="20000,100000", help="sizes of the indexes")
    parser.add_argument("--whole", type=Path, nargs="*", default=[], help="folders of clips")
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
