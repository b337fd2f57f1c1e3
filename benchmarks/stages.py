"""Measures each stage separately, in audio-seconds per CPU-second.

    python benchmarks/stages.py FOLDER [--rounds 3] [--files 9] [--stages decode,mel]

The stages are: decoding each format with soundfile and with melmill; resampling; mel features
of three-second chunks with melmill and with librosa; encoding rows as Parquet and as TFRecord;
a complete span, in this process and in a decoder process; and measures: a span with each quality, a
span whose chunks are measured, and each meter alone on samples.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from unittest import mock

# One thread per process, as in melmill's own workers.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import psutil
import soundfile
import soxr
from baseline_decode import BLOCK_FRAMES, decode
from measure import audio_files, cpu_of, describe_machine, interleave, median, print_table, spread

from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.decoders import open_audio, probe_object
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features import resample
from melmill.transforms.features.chunks import count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Span, read_chunks
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.features.resample import Conversion, resample_stream
from melmill.transforms.features.spans import extract_spans
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.measures.registry import CHUNK_MEASURES, QUALITIES, chunk_measures
from melmill.transforms.measures.spans import extract_and_measure
from melmill.transforms.rows.parquet import ParquetShard
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.tfrecord import TFRecordShard
from melmill.transforms.store.objects import StoredObject

FEATURES = FeatureSpec()
ROW_GROUP_ROWS = 128
MEMORY_BYTES = 1 << 30
FEED_SAMPLES = 1 << 15

#: Function that runs a stage and returns its CPU seconds.
Run = Callable[[], float]


@dataclass(frozen=True)
class Song:
    """A file, with the results of its probe."""

    path: Path

    @cached_property
    def source(self) -> StoredObject:
        return StoredObject(str(self.path))

    @cached_property
    def probed(self) -> ProbedRecording:
        audio, size_bytes, fingerprint, _ = probe_object(self.source)
        name = str(self.path)
        return ProbedRecording(Recording(name, name, name, fingerprint, size_bytes), audio)

    @property
    def seconds(self) -> float:
        audio = self.probed.audio
        return audio.frames / audio.sample_rate_hz

    @property
    def span(self) -> Span:
        audio = self.probed.audio
        samples = resampled_length(audio.frames, audio.sample_rate_hz, FEATURES.sample_rate_hz)
        return Span(self.probed, 0, samples, 0, count_chunks(samples, FEATURES.chunk))


@dataclass(frozen=True)
class Stage:
    """A stage to measure, and the seconds of audio that each run processes."""

    name: str
    seconds: float
    run: Run


def cpu_only(function: Callable[[], object]) -> float:
    return cpu_of(function)[0]


def decode_with_melmill(song: Song) -> None:
    with open_audio(song.source, song.probed.audio) as reader:
        for _ in reader.blocks(0, song.probed.audio.frames, BLOCK_FRAMES):
            pass


def decode_stages(songs: list[Song]) -> Iterator[Stage]:
    for suffix in sorted({song.path.suffix for song in songs}):
        of_format = [song for song in songs if song.path.suffix == suffix]
        seconds, name = sum(song.seconds for song in of_format), suffix[1:].upper()
        for tool, function in (("soundfile", _decode_file), ("melmill", decode_with_melmill)):
            run = partial(cpu_only, partial(_run_each, function, of_format))
            yield Stage(f"decode {name}: {tool}", seconds, run)


def _decode_file(song: Song) -> None:
    decode(song.path)


def _run_each(function: Callable[[Song], object], songs: list[Song]) -> None:
    for song in songs:
        function(song)


def resample_stages(songs: list[Song]) -> Iterator[Stage]:
    rate_hz, seconds = 44_100, 300.0
    rng = np.random.default_rng(0)
    mono = rng.normal(0, 0.1, (int(rate_hz * seconds), 1)).astype(np.float32)
    tools = {
        "soxr": _resample_at_once,
        "melmill": _resample,
        "melmill, in one block": _resample_in_one_block,
    }
    for tool, function in tools.items():
        run = partial(cpu_only, partial(function, mono))
        yield Stage(f"resample 44.1 kHz: {tool}", seconds, run)


def _resample_at_once(mono: np.ndarray) -> None:
    """Convert without melmill's blocks, in pieces of the size that melmill passes to soxr."""
    stream = soxr.ResampleStream(44_100, 22_050, 1, dtype="float32", quality="soxr_hq")
    for start in range(0, len(mono), FEED_SAMPLES):
        stream.resample_chunk(mono[start : start + FEED_SAMPLES])
    stream.resample_chunk(mono[:0], last=True)


def _resample(mono: np.ndarray) -> None:
    blocks = (mono[i : i + BLOCK_FRAMES] for i in range(0, len(mono), BLOCK_FRAMES))
    for _ in resample_stream(blocks, 0, len(mono) // 2, Conversion(44_100, 22_050)):
        pass


def _resample_in_one_block(mono: np.ndarray) -> None:
    """Convert as melmill does, but without what its blocks cost."""
    with mock.patch.object(resample, "BLOCK_SAMPLES", len(mono)):
        _resample(mono)


def _first_chunks(songs: list[Song], number: int) -> np.ndarray:
    """Return the first chunks of the songs: float32 [number, samples]."""
    chunks: list[np.ndarray] = []
    for song in songs:
        for ((_, chunk),) in read_chunks(song.span, FEATURES, song.source):
            chunks.append(chunk[:, 0])
            if len(chunks) == number:
                return np.stack(chunks)
    return np.stack(chunks)


def mel_stages(songs: list[Song]) -> Iterator[Stage]:
    chunks = _first_chunks(songs, 100)
    extractor = MelExtractor(MelSpec(), FEATURES.sample_rate_hz, FEATURES.chunk.length)
    extractor(chunks[:1])
    _librosa_mel(chunks[:1])  # the first call compiles
    for tool, function in (("librosa", _librosa_mel), ("melmill", extractor)):
        run = partial(cpu_only, partial(function, chunks))
        yield Stage(f"mel of a chunk: {tool}", len(chunks) * 3.0, run)


def _librosa_mel(chunks: np.ndarray) -> None:
    import librosa

    for chunk in chunks:
        mel = librosa.feature.melspectrogram(y=chunk, sr=FEATURES.sample_rate_hz)
        librosa.power_to_db(mel)


def encode_stages(songs: list[Song]) -> Iterator[Stage]:
    chunks = _first_chunks(songs, 4 * ROW_GROUP_ROWS)
    mel = extract_features(chunks, [FEATURES.chunk.length] * len(chunks), FEATURES)["mel"]
    schema = RowSchema(FEATURES.columns)
    for name, shard in (("Parquet", ParquetShard), ("TFRecord", TFRecordShard)):
        run = partial(cpu_only, partial(_encode, shard, schema, mel))
        yield Stage(f"encode {name}: melmill", len(mel) * 3.0, run)


def _encode(shard: type, schema: RowSchema, mel: np.ndarray) -> None:
    with tempfile.NamedTemporaryFile() as file, shard(Path(file.name), schema) as writer:
        for start in range(0, len(mel), ROW_GROUP_ROWS):
            writer.add(_batch(mel[start : start + ROW_GROUP_ROWS], start))


def _batch(mel: np.ndarray, start: int) -> RowBatch:
    rows = len(mel)
    columns = {
        "recording_id": ["0" * 32] * rows,
        "uri": ["songs/song.flac"] * rows,
        "chunk_index": list(range(start, start + rows)),
        "start_sample": list(range(start, start + rows)),
        "valid_samples": [66_150] * rows,
        "valid_frames": [130] * rows,
        "sample_rate_hz": [22_050] * rows,
        "peak_dbfs": [-1.0] * rows,
        "rms_dbfs": [-12.0] * rows,
    }
    return RowBatch(columns, {"mel": mel})


def span_stages(songs: list[Song]) -> Iterator[Stage]:
    seconds = sum(song.seconds for song in songs)
    spool = Path(tempfile.mkdtemp()) / "spool"
    decoder = DecoderProcess(MEMORY_BYTES)
    decoder.call(600.0, extract_spans, [songs[0].span], FEATURES, [songs[0].source], spool)
    decode_all = partial(_run_each, _decode_file, songs)
    yield Stage("span: decoding alone", seconds, partial(cpu_only, decode_all))
    yield Stage("span: this process", seconds, partial(_extract_here, songs, spool))
    yield Stage("span: decoder process", seconds, partial(_extract_in_child, songs, spool, decoder))


def _extract_here(songs: list[Song], spool: Path) -> float:
    return cpu_only(
        lambda: [extract_spans([song.span], FEATURES, [song.source], spool) for song in songs]
    )


def _extract_in_child(songs: list[Song], spool: Path, decoder: DecoderProcess) -> float:
    child = psutil.Process(decoder._child.pid)
    child_start_s = sum(child.cpu_times()[:2])
    parent_s = cpu_only(
        lambda: [
            decoder.call(600.0, extract_spans, [song.span], FEATURES, [song.source], spool)
            for song in songs
        ]
    )
    return parent_s + sum(child.cpu_times()[:2]) - child_start_s


def measure_stages(songs: list[Song]) -> Iterator[Stage]:
    """Yield a pass over the songs with each quality, with chunks measured, and each meter alone."""
    seconds = sum(song.seconds for song in songs)
    spool = Path(tempfile.mkdtemp()) / "spool"
    for quality, meters in QUALITIES.items():
        run = partial(cpu_only, partial(_measure_songs, songs, FEATURES, meters, spool))
        yield Stage(f"quality: {quality}", seconds, run)
    for name, meters in {"basic": QUALITIES["basic"], "all": tuple(CHUNK_MEASURES)}.items():
        quality = Feature("quality", MeasuresSpec(chunk_measures(meters)))
        features = replace(FEATURES, features=(*FEATURES.features, quality))
        run = partial(cpu_only, partial(_measure_songs, songs, features, (), spool))
        yield Stage(f"chunks: {name}", seconds, run)
    samples = np.concatenate(
        [soundfile.read(s.path, dtype="float32", always_2d=True)[0] for s in songs]
    )
    for name in QUALITIES["full"]:
        run = partial(cpu_only, partial(measure_samples, samples, 44_100, (name,)))
        yield Stage(f"meter {name}", len(samples) / 44_100, run)


def _measure_songs(
    songs: list[Song], features: FeatureSpec, meters: tuple[str, ...], spool: Path
) -> None:
    for song in songs:
        extract_and_measure([song.span], features, [song.source], spool, (), "", meters)


STAGES = {
    "decode": decode_stages,
    "resample": resample_stages,
    "mel": mel_stages,
    "encode": encode_stages,
    "span": span_stages,
    "measure": measure_stages,
}


def pick_songs(folder: Path, number: int) -> list[Song]:
    """Return evenly spaced songs of a folder whose length equals the probed length."""
    files = audio_files(folder)
    step = max(1, len(files) // number)
    songs = [Song(path) for path in files[::step][:number]]
    return [song for song in songs if decode(song.path) == song.probed.audio.frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of FLAC, MP3 and Ogg files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=9, help="number of files to use")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to measure")
    arguments = parser.parse_args()
    songs = pick_songs(arguments.folder, arguments.files)
    minutes = sum(song.seconds for song in songs) / 60
    print(f"{describe_machine()}\n{len(songs)} files, {minutes:.0f} minutes\n")
    for name in arguments.stages.split(","):
        report(list(STAGES[name](songs)), arguments.rounds)


def report(stages: list[Stage], rounds: int) -> None:
    """Measure stages and print a table.

    A stage is compared with the first stage that has the same name before the colon.
    """
    measured = interleave(rounds, {stage.name: stage.run for stage in stages})
    rates = {s.name: [s.seconds / cpu_s for cpu_s in measured[s.name]] for s in stages}
    firsts: dict[str, list[float]] = {}
    rows = []
    for name, stage_rates in rates.items():
        first = firsts.setdefault(name.split(":")[0], stage_rates)
        ratio = median(a / b for a, b in zip(stage_rates, first, strict=True))
        cell = "" if stage_rates is first else f"{ratio:.2f}"
        rows.append((name, spread(stage_rates, 0), cell))
    print_table(("stage", "audio-seconds per CPU-second", "× the first of its name"), rows)
    print()


if __name__ == "__main__":
    main()
