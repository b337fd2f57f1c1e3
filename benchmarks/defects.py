"""Measures how well defects are found: precision and recall of each detector, on injected defects.

    python benchmarks/defects.py FOLDER [--each 100] [--seed 0] [--essentia]

FOLDER holds clean recordings. Excerpts of them get one defect each, of a stated severity; twice as
many other excerpts, and synthetic sounds that are often taken for defects, get none. Each detector
is a measure with a limit. Its recall is the share of its defects that it finds. Its precision is
the share of its flags that are such defects, where a quarter of all excerpts has the defect and the
rest are clean or synthetic. Clicks have no limit: their figure is the probability that an excerpt
with clicks has more of them per minute than an excerpt without (area under the curve).

``--essentia`` runs the detectors of essentia beside melmill's, on the same excerpts, with their own
default settings. They read the left channel; each defect that is compared is in all channels. An
excerpt is flagged if a detector finds anything in it (FalseStereoDetector: in half of the frames).
essentia's licence is AGPL-3.0, so melmill never depends on it. Install it for this benchmark, into
an environment of its own:

    uv venv --python 3.11 /tmp/essentia
    uv pip install --python /tmp/essentia/bin/python -e . essentia==2.1b6.dev1389
    /tmp/essentia/bin/python benchmarks/defects.py FOLDER --each 300 --essentia
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

# One thread per process, as in melmill's own workers.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import soundfile
import soxr
from measure import audio_files, describe_machine, print_table

from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.measures.registry import meters_of

Samples = np.ndarray
Random = np.random.Generator

SECONDS = 12
FADE_SECONDS = 0.25
#: Excerpts whose RMS is lower are too quiet for a defect of the stated severity.
LEAST_RMS = 10 ** (-45 / 20)


@dataclass(frozen=True)
class Detector:
    """A measure with a limit, and the defect that it is for.

    Attributes
    ----------
    name, severity
        Name of the defect, and severity of those that are injected.
    measure
        Measure that shows the defect.
    limit
        Sign and number that a reading is compared with; true counts as 1.
    inject
        Function that returns a stereo excerpt with the defect; ``None`` if the excerpt is too quiet
        for it.
    """

    name: str
    severity: str
    measure: str
    limit: str
    inject: Callable[[Samples, int, Random], Samples | None]

    def flags(self, reading: float | None) -> bool:
        sign, number = self.limit.split()
        if reading is None:
            return False
        return reading > float(number) if sign == ">" else reading < float(number)


def clip(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Clip at the level that 0.2 to 2 % of the samples exceed, and change the level."""
    limit = np.quantile(np.abs(samples), 1 - random.uniform(0.002, 0.02))
    return as_16_bits(np.clip(samples, -limit, limit) * random.uniform(0.3, 1.0) / limit)


def drop_out(samples: Samples, rate_hz: int, random: Random) -> Samples | None:
    """Replace 10 to 500 ms by silence or by the last sample, where the sound is loud.

    Return ``None`` if no loud place is found.
    """
    length = round(random.uniform(0.01, 0.5) * rate_hz)
    around = round(0.005 * rate_hz)
    for _ in range(1000):
        start = random.integers(rate_hz, len(samples) - rate_hz - length)
        beside = samples[start - around : start], samples[start + length :][:around]
        loud = min(np.sqrt(np.square(part).mean()) for part in beside) > 10 ** (-30 / 20)
        level = random.integers(0, 2) * samples[start]
        edges = samples[start - 1], beside[1][0]
        jump = max(np.abs(edge - level).min() for edge in edges)
        if loud and jump > 0.01:
            damaged = samples.copy()
            damaged[start : start + length] = level
            return damaged
    return None


def hum(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Add six harmonics of the mains at −12 to −6 dB of the excerpt's level."""
    mains_hz = random.choice([50, 60]) + random.uniform(-0.1, 0.1)
    seconds = np.arange(len(samples)) / rate_hz
    parts = [
        np.sin(2 * np.pi * k * mains_hz * seconds + random.uniform(0, 6)) / k for k in range(1, 7)
    ]
    tone = np.sum(parts, axis=0)
    level = np.sqrt(np.square(samples).mean()) * 10 ** (random.uniform(-12, -6) / 20)
    return samples + (tone * level / np.sqrt(np.square(tone).mean()))[:, None]


def offset(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Add 0.01 to 0.1 to a channel."""
    return samples + np.eye(2)[random.integers(2)] * random.uniform(0.01, 0.1)


def silence_a_channel(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Replace a channel by silence, or by noise 70 dB below the excerpt."""
    damaged = samples.copy()
    level = random.integers(2) * np.sqrt(np.square(samples).mean()) * 10 ** (-70 / 20)
    damaged[:, random.integers(2)] = random.normal(0, level, len(samples))
    return damaged


def invert(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Invert a channel of nearly equal channels."""
    near = mono(samples) + 0.1 * samples
    return near * random.permutation([1, -1])


def copy_a_channel(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Give both channels the same sound, and add noise of the last bit to each."""
    return mono(samples) + random.normal(0, 2**-16, samples.shape)


def cut_the_end(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Cut the excerpt where it is loud, so that it ends within the sound."""
    window = rate_hz // 100
    loud = [
        stop
        for stop in random.integers(2 * rate_hz, len(samples) - rate_hz, 200)
        if np.abs(samples[stop - window : stop]).max() > 10 ** (-20 / 20)
    ]
    return samples[: loud[0]] if loud else samples[: len(samples) // 2] / np.abs(samples).max()


def pad_bits(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Keep 16 bits of samples that have 24."""
    return as_16_bits(samples)


def upsample(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Resample to a rate of 8 kHz to 22 kHz, and back."""
    low_hz = int(random.choice([hz for hz in (8000, 11_025, 16_000, 22_050) if hz <= rate_hz / 2]))
    return soxr.resample(soxr.resample(samples, rate_hz, low_hz), low_hz, rate_hz)


def click(samples: Samples, rate_hz: int, random: Random) -> Samples:
    """Add three single samples, 24 to 40 dB above the excerpt's steps beside them."""
    damaged = samples.copy()
    for place in random.integers(rate_hz, len(samples) - rate_hz, 3):
        near = damaged[place - rate_hz // 200 : place + rate_hz // 200]
        steps = np.sqrt(np.square(np.diff(near, axis=0)).mean())
        damaged[place] += max(steps, 2**-12) * 10 ** (random.uniform(24, 40) / 20)
    return damaged


DETECTORS = (
    Detector("clipping", "0.2 to 2 % of samples", "clipping.share", "> 0.0001", clip),
    Detector("dropout", "10 to 500 ms in loud sound", "gaps.count", "> 0", drop_out),
    Detector("hum", "−12 to −6 dB of the level", "hum.harmonics", "> 0", hum),
    Detector("DC offset", "0.01 to 0.1", "noise.offset", "> 0.004", offset),
    Detector("dead channel", "silence, or −70 dB", "channels.dead", "> 0", silence_a_channel),
    Detector("inversion", "of near copies", "channels.inverted", "> 0", invert),
    Detector("dual mono", "noise of the last bit", "channels.dual_mono", "> 0", copy_a_channel),
    Detector("cut end", "10 ms above −20 dBFS", "cut.end", "> -25", cut_the_end),
    Detector("bits", "16 of 24", "origin.bits", "< 17", pad_bits),
    Detector("bandwidth", "half of it or less", "origin.bandwidth_share", "< 0.55", upsample),
)
CLICKS = Detector(
    "clicks", "three, 24 to 40 dB above the steps beside", "clicks.per_minute", "> 0", click
)

#: Detectors of essentia by the defect that they are for.
ESSENTIA = {
    "clipping": ("SaturationDetector",),
    "dropout": ("GapsDetector", "DiscontinuityDetector"),
    "hum": ("HumDetector",),
    "dual mono": ("FalseStereoDetector",),
    "cut end": ("StartStopCut",),
    "clicks": ("ClickDetector", "DiscontinuityDetector", "NoiseBurstDetector"),
}


def mono(samples: Samples) -> Samples:
    return samples.mean(axis=1, keepdims=True).repeat(2, axis=1)


def as_16_bits(samples: Samples) -> Samples:
    return np.clip(np.rint(samples * 32768), -32768, 32767) / 32768


def excerpts(files: list[Path], random: Random) -> Iterator[tuple[Samples, int]]:
    """Yield random excerpts without end: stereo, with fades, in 24 bits."""
    while True:
        path = files[random.integers(len(files))]
        rate_hz, frames = soundfile.info(path).samplerate, soundfile.info(path).frames
        length = min(frames, SECONDS * rate_hz)
        start = random.integers(0, frames - length + 1)
        samples, _ = soundfile.read(path, length, start, dtype="float32", always_2d=True)
        if np.sqrt(np.square(samples).mean()) < LEAST_RMS or length < 4 * rate_hz:
            continue
        stereo = samples[:, [0, -1]].astype(np.float64)
        if samples.shape[1] == 1:  # two places in the same room
            stereo[:, 1] = 0.8 * np.roll(stereo[:, 1], rate_hz // 200)
        yield finish(stereo, rate_hz), rate_hz


def damaged_excerpts(
    detector: Detector, source: Iterator[tuple[Samples, int]], random: Random
) -> Iterator[tuple[Samples, int]]:
    """Yield excerpts with the defect of a detector, without end."""
    for samples, rate_hz in source:
        damaged = detector.inject(samples, rate_hz, random)
        if damaged is not None:
            yield damaged, rate_hz


def finish(samples: Samples, rate_hz: int) -> Samples:
    """Return samples without offset, with fades at both ends, rounded to 24 bits."""
    samples = samples - samples.mean(axis=0)
    fade = np.minimum(1, np.arange(len(samples)) / (FADE_SECONDS * rate_hz))
    faded = samples * np.minimum(fade, fade[::-1])[:, None]
    return np.rint(faded * 2**23) / 2**23


def synthetic(random: Random) -> tuple[Samples, int]:
    """Return a sound that is often taken for a defect: a wave of a synthesiser, a drone, a bass."""
    rate_hz, kind = 44_100, random.integers(5)
    seconds = np.arange(SECONDS * rate_hz) / rate_hz
    hz = float(random.choice([41.2, 43.7, 46.2, 49.0, 55.0, 61.7, 65.4, 110, 220, 440, 880]))
    hz = rate_hz / round(rate_hz / hz)  # whole periods have no aliased tones, which may be hum
    phase = hz * seconds % 1
    if kind == 0:  # a pulse wave
        sound = np.where(phase < random.choice([0.125, 0.25, 0.5]), 0.5, -0.5)
    elif kind == 1:  # a triangle in 16 steps
        sound = np.rint((np.abs(phase - 0.5) * 4 - 1) * 7.5) / 8
    elif kind == 2:  # a drone of a tone and its harmonics
        sound = sum(np.sin(2 * np.pi * hz * k * seconds) / k**2 for k in range(1, 9)) / 3
    elif kind == 3:  # notes of a bass
        note = np.exp(-3 * (2 * seconds % 1))
        sound = note * sum(np.sin(2 * np.pi * hz * k * seconds) / k for k in range(1, 9)) / 4
    else:  # 8-bit music: pulses of three voices
        voices = [np.where(hz * k * seconds % 1 < 0.25, 1, -1) for k in (1, 1.25, 1.5)]
        sound = np.rint(np.sum(voices, axis=0) * 20) / 128
    stereo = np.stack([sound, np.roll(sound, 7) * 0.9], axis=1)
    noise = random.normal(0, 1e-3, stereo.shape)  # no bits are unused, and the band is full
    return finish(0.6 * stereo + (noise if kind in (2, 3) else 1e-4 * noise), rate_hz), rate_hz


def readings(samples: Samples, rate_hz: int, others: Sequence[str] = ()) -> dict[str, Any]:
    """Return melmill's readings, what other detectors (of essentia) find, and the duration."""
    measures = [detector.measure for detector in (*DETECTORS, CLICKS)]
    ours = measure_samples(samples.astype(np.float32), rate_hz, meters_of(measures))
    theirs = {name: ask_essentia(name, samples.astype(np.float32), rate_hz) for name in others}
    return {**ours, **theirs, "hours": len(samples) / rate_hz / 3600}


def ask_essentia(name: str, samples: Samples, rate_hz: int) -> int:
    """Return how often a detector of essentia finds its defect."""
    import essentia
    from essentia import standard

    essentia.log.infoActive = essentia.log.warningActive = False
    detector = getattr(standard, name)()
    if "sampleRate" in detector.parameterNames():
        detector.configure(sampleRate=float(rate_hz))
    left = np.ascontiguousarray(samples[:, 0])
    if name == "HumDetector":
        return len(detector(left)[1])
    if name == "StartStopCut":
        return int(detector(left)[1])
    if name == "FalseStereoDetector":
        frames = samples[: len(samples) // 512 * 512].reshape(-1, 512, 2)
        flags = [detector(np.ascontiguousarray(frame))[0] for frame in frames]
        return int(np.mean(flags) >= 0.5)
    size, hop = (2048, 1024) if name == "GapsDetector" else (512, 256)
    places = [
        detector(frame) for frame in standard.FrameGenerator(left, size, hop, startFromZero=True)
    ]
    return sum(len(place[0] if isinstance(place, tuple) else place) for place in places)


def run(files: list[Path], each: int, seed: int, essentia: bool) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    random = np.random.default_rng(seed)
    source = excerpts(files, random)
    others = ESSENTIA if essentia else {}
    every = sorted({name for names in others.values() for name in names})
    clean = [readings(*next(source), every) for _ in range(2 * each)]
    # A recording may have little treble by itself.
    narrow = [reading for reading in clean if reading["origin.bandwidth_share"] < 0.6]
    synthesised = [readings(*synthetic(random), every) for _ in range(each)]
    for detector in (*DETECTORS, CLICKS):
        names = others.get(detector.name, ())
        injected = islice(damaged_excerpts(detector, source, random), each)
        damaged = [readings(*excerpt, names) for excerpt in injected]
        counted = [r for r in clean if detector.name != "bandwidth" or r not in narrow]
        compared = (replace(detector, measure=name, limit="> 0") for name in names)
        for judge in (detector, *compared):
            yield _row(judge, damaged, counted, synthesised)


def _row(detector: Detector, *groups: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the row of a detector, from readings with its defect, without, and of synthesisers."""
    damaged, clean, synthesised = groups
    by_essentia = "." not in detector.measure
    limit = f"`{detector.measure}` {detector.limit}".removesuffix(" > 0")
    begin = detector.name, detector.severity, f"essentia {limit}" if by_essentia else limit
    if detector.name == CLICKS.name:
        with_clicks, without = ([r[detector.measure] for r in group] for group in (damaged, clean))
        return *begin, f"area {_area(with_clicks, without):.3f}", "", "", ""
    found, false, taken_for = (_count(detector, group) for group in groups)
    precision = found / max(1, found + false + taken_for)
    hours = sum(reading["hours"] for reading in clean)
    wrong = f"{false / hours:.1f}", f"{taken_for} of {len(synthesised)}"
    return *begin, f"{found / len(damaged):.3f}", f"{precision:.3f}", *wrong


def _count(detector: Detector, group: list[dict[str, Any]]) -> int:
    values = [reading[detector.measure] for reading in group]
    return sum(map(detector.flags, values))


def _area(positive: list[float], negative: list[float]) -> float:
    above = np.subtract.outer(positive, negative)
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of clean recordings")
    parser.add_argument("--each", type=int, default=100, help="number of defects of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--essentia", action="store_true", help="compare with essentia's detectors")
    arguments = parser.parse_args()
    if arguments.essentia and find_spec("essentia") is None:
        sys.exit("essentia is not installed; the head of this script says how to install it")
    files = audio_files(arguments.folder)
    if not files:
        sys.exit(f"{arguments.folder} holds no audio files")
    print(f"{describe_machine()}\n{len(files)} files, seed {arguments.seed}\n")
    false = "false alarms an hour", "false alarms, synthetic"
    header = "defect", "severity", "limit", "recall", "precision", *false
    print_table(header, run(files, arguments.each, arguments.seed, arguments.essentia))


if __name__ == "__main__":
    main()
