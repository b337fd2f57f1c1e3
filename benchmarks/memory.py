"""Measures peak memory of ``melmill extract`` on ten-hour, one-minute and many tiny files.

    python benchmarks/memory.py [--hours 10] [--tiny 20000] [--only flac,mp3,wav,tiny]

The script makes the files: they repeat a minute of music-like tones and noise, 44.1 kHz
stereo. Ten hours of WAV are 6 GB, so the format is RF64. The MP3 repeats frames that need no
bits of their neighbours, and has a Xing header that counts them. Needs 8 GB of disk.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
from measure import COST_HEADER, Cost, cost_row, describe_machine, melmill, print_table, run

RATE_HZ = 44_100
LOOP_SECONDS = 60
MP3_FRAME = 1152


def loop() -> np.ndarray:
    """Return a minute of decaying chords and noise: int16 [samples, 2]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    seconds = []
    for _ in range(LOOP_SECONDS):
        pitches_hz = 110 * 2 ** (rng.integers(0, 36, 4) / 12)
        chord = sum(np.sin(2 * np.pi * pitch * time_s) for pitch in pitches_hz)
        seconds.append(0.1 * chord * np.exp(-3 * time_s))
    mono = np.concatenate(seconds)[:, np.newaxis]
    return ((mono + rng.normal(0, 0.001, (len(mono), 2))) * 32767).astype(np.int16)


def write_sound(path: Path, minutes: int, **how: object) -> None:
    """Write the loop as FLAC or WAV, once per minute."""
    samples = loop()
    with soundfile.SoundFile(str(path), "w", RATE_HZ, 2, **how) as file:
        for _ in range(minutes):
            file.write(samples)


def write_mp3(path: Path, minutes: int) -> None:
    """Encode the loop once, and write its frames as MP3, once per minute."""
    packets = list(encode_mp3(loop()))
    with av.open(str(path), "w", format="mp3") as output:
        stream = add_mp3_stream(output)
        stream.codec_context.open()
        number = 0
        for _ in range(minutes):
            for data in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, stream.codec_context.time_base
                packet.pts = packet.dts = number * MP3_FRAME
                packet.duration = MP3_FRAME
                output.mux(packet)
                number += 1


def add_mp3_stream(output: av.container.OutputContainer) -> av.AudioStream:
    """Return a new stream of constant bit rate, in which each frame decodes independently."""
    options = {"reservoir": "0"}
    stream = output.add_stream("libmp3lame", rate=RATE_HZ, layout="stereo", options=options)
    stream.codec_context.bit_rate = 128_000
    stream.codec_context.format = "s16p"
    return stream


def encode_mp3(samples: np.ndarray) -> Iterator[bytes]:
    """Yield the encoded frames of samples, without the padding at the ends."""
    with av.open("/dev/null", "w", format="mp3") as output:
        stream = add_mp3_stream(output)
        stream.codec_context.open()
        packets: list[bytes] = []
        for start in range(0, len(samples) - MP3_FRAME + 1, MP3_FRAME):
            planes = np.ascontiguousarray(samples[start : start + MP3_FRAME].T)
            frame = av.AudioFrame.from_ndarray(planes, "s16p", "stereo")
            frame.sample_rate, frame.pts = RATE_HZ, start
            packets += [bytes(packet) for packet in stream.encode(frame)]
    yield from packets[2:]


WRITERS = {
    "flac": lambda path, minutes: write_sound(path, minutes, format="FLAC", compression_level=0),
    "mp3": write_mp3,
    "wav": lambda path, minutes: write_sound(path, minutes, format="RF64", subtype="PCM_16"),
}


def write_tiny(folder: Path, number: int) -> None:
    """Write short sounds of a fifth of a second to one second, alternately WAV and FLAC."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 3 * 22_050).clip(-1, 1)
    for index in range(number):
        start, length = int(rng.integers(22_050)), int(22_050 * rng.uniform(0.2, 1.0))
        path = folder / str(index // 1000) / f"{index}.{'wav' if index % 2 else 'flac'}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(str(path), noise[start : start + length], 22_050)


def extract(catalogue: Path, arguments: argparse.Namespace) -> Cost:
    """Return the cost of extracting a catalogue, including its memory; the output is deleted."""
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    options = ("--quiet", "--json", "--workers", arguments.workers, *settings)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as output:
        return run(melmill("extract", catalogue, output, *options), watch_s=0.25)


def measure_format(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the table rows for a one-minute file and for a long file of a format."""
    for minutes in (1, round(60 * arguments.hours)):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            path = Path(folder) / f"long.{name}"
            WRITERS[name](path, minutes)
            length = f"{minutes / 60:g} h" if minutes > 1 else "1 min"
            yield cost_row(f"{name.upper()}, {length}", extract(path, arguments))


def measure_tiny(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Yield the table row for many tiny files."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        write_tiny(Path(folder), arguments.tiny)
        yield cost_row(f"{arguments.tiny:,} tiny files", extract(Path(folder), arguments))


def main() -> None:
    arguments = _parse()
    print(f"{describe_machine()}; {arguments.workers} worker(s)\n", flush=True)
    rows: list[tuple[str, ...]] = []
    for name in arguments.only.split(","):
        measured = measure_tiny(arguments) if name == "tiny" else measure_format(name, arguments)
        for row in measured:
            print("  ".join(row), flush=True)
            rows.append(row)
    print()
    print_table(COST_HEADER, rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=10.0, help="length of the long files")
    parser.add_argument("--tiny", type=int, default=20_000, help="number of tiny files")
    parser.add_argument("--only", default="flac,mp3,wav,tiny", help="kinds of files to measure")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files and datasets")
    return parser.parse_args()


if __name__ == "__main__":
    main()
