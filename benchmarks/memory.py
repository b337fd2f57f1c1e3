"""Peak memory of ``melmill extract``: ten-hour files beside one-minute files, and tiny ones.

    python benchmarks/memory.py [--hours 10] [--tiny 20000] [--only flac,mp3,wav,tiny]

The files are made on the fly: a minute of music-like tones and noise, 44.1 kHz stereo, over
and over. Ten hours of such a WAV are 6 GB and so an RF64; the MP3 repeats frames that need
no bits of their neighbours, under a Xing header that counts them. Needs 8 GB of disk.
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
    """Make a minute of decaying chords over noise: int16 [samples, 2]."""
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
    """Write the loop so many times, as FLAC or WAV."""
    samples = loop()
    with soundfile.SoundFile(str(path), "w", RATE_HZ, 2, **how) as file:
        for _ in range(minutes):
            file.write(samples)


def write_mp3(path: Path, minutes: int) -> None:
    """Encode the loop once, and write its frames so many times."""
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
    """Add a stream of constant bit rate whose frames are each whole in themselves."""
    options = {"reservoir": "0"}
    stream = output.add_stream("libmp3lame", rate=RATE_HZ, layout="stereo", options=options)
    stream.codec_context.bit_rate = 128_000
    stream.codec_context.format = "s16p"
    return stream


def encode_mp3(samples: np.ndarray) -> Iterator[bytes]:
    """Encode samples; give the frames in the middle, without what ends are padded with."""
    with av.open("/dev/null", "w", format="mp3") as output:
        stream = add_mp3_stream(output)
        stream.codec_context.open()
        found = []
        for start in range(0, len(samples) - MP3_FRAME + 1, MP3_FRAME):
            planes = np.ascontiguousarray(samples[start : start + MP3_FRAME].T)
            frame = av.AudioFrame.from_ndarray(planes, "s16p", "stereo")
            frame.sample_rate, frame.pts = RATE_HZ, start
            found += [bytes(packet) for packet in stream.encode(frame)]
    yield from found[2:]


WRITERS = {
    "flac": lambda path, minutes: write_sound(path, minutes, format="FLAC", compression_level=0),
    "mp3": write_mp3,
    "wav": lambda path, minutes: write_sound(path, minutes, format="RF64", subtype="PCM_16"),
}


def write_tiny(folder: Path, number: int) -> None:
    """Write short sounds of a fifth of a second to one second, WAV and FLAC in turn."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 3 * 22_050).clip(-1, 1)
    for index in range(number):
        start, length = int(rng.integers(22_050)), int(22_050 * rng.uniform(0.2, 1.0))
        path = folder / str(index // 1000) / f"{index}.{'wav' if index % 2 else 'flac'}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(str(path), noise[start : start + length], 22_050)


def extract(catalogue: Path, arguments: argparse.Namespace) -> Cost:
    """Extract a catalogue into a folder that is thrown away, watching its memory."""
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    options = ("--quiet", "--json", "--workers", arguments.workers, *settings)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as output:
        return run(melmill("extract", catalogue, output, *options), watch_s=0.25)


def measure_format(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Measure a minute and hours of one format."""
    for minutes in (1, round(60 * arguments.hours)):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            path = Path(folder) / f"long.{name}"
            WRITERS[name](path, minutes)
            length = f"{minutes / 60:g} h" if minutes > 1 else "1 min"
            yield cost_row(f"{name.upper()}, {length}", extract(path, arguments))


def measure_tiny(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Measure many tiny files."""
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
    parser.add_argument("--hours", type=float, default=10.0, help="of the long files")
    parser.add_argument("--tiny", type=int, default=20_000, help="number of tiny files")
    parser.add_argument("--only", default="flac,mp3,wav,tiny", help="some of these")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="where to make files and datasets")
    return parser.parse_args()


if __name__ == "__main__":
    main()
