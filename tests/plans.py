"""Make recordings, plans and summaries for tests from a name and a few numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.errors import Cause, Stage
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo, Failure, ProbedRecording, Recording
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.features.mel_spec import MelSpec
from melmill.transforms.index.tables import recording_row, shard_row, write_part
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.store.folders import Store
from tests.mel_features import mel_features

if TYPE_CHECKING:
    from apache_beam.testing.test_pipeline import TestPipeline

#: One chunk has 1,000 samples, which is one second.
FEATURES = mel_features(
    MelSpec(n_fft=256, n_mels=8), sample_rate_hz=1000, chunk=ChunkSpec(1000, 1000)
)


def recording(name: str = "a.wav", **values: Any) -> Recording:
    return Recording(digest(name), f"/songs/{name}", name, "1-1", 100, **values)


def probed(
    name: str = "a.wav", seconds: float = 10, channels: int = 1, **values: Any
) -> ProbedRecording:
    """Return a probed recording with a sample rate of 2,000 Hz."""
    audio = AudioInfo("wav", "pcm_16", "libsndfile", 2000, channels, round(seconds * 2000))
    return ProbedRecording(recording(name, **values), audio)


def planned(
    name: str = "a.wav", chunks: int = 10, rows_per_chunk: int = 1, split: str = "train"
) -> PlannedRecording:
    samples = chunks * FEATURES.chunk.hop
    probed_recording = probed(name, seconds=chunks, channels=rows_per_chunk)
    return PlannedRecording(probed_recording, split, 0, samples, chunks, rows_per_chunk)


def failure(name: str = "a.wav", cause: Cause = Cause.CORRUPT, message: str = "bad") -> Failure:
    failed = recording(name)
    return Failure(
        failed.recording_id, failed.uri, failed.fingerprint, Stage.DECODE, cause, message
    )


def summary(name: str = "s", split: str = "train", rows: int = 2, **values: Any) -> ShardSummary:
    """Return the summary of a shard with two mel bands and `rows` rows of ``a.wav``."""
    default = ShardSummary(
        name=digest(name),
        plan=digest(name),
        split=split,
        rows=rows,
        parquet=FileEntry(f"split={split}/part-{digest(name)}.parquet", 1000, "0" * 64),
        tfrecord=None,
        recordings=(RecordingRows(digest("a.wav"), rows, -3.0),) if rows else (),
        failures=(),
        null_labels=(),
        count=4 * rows,
        mean=(-20.0, -30.5),
        m2=(1.0, 0.1),
        low=-80.0,
        high=0.0,
    )
    return replace(default, **values)


def lay_down(store: Store, index: str, *shards: ShardSummary) -> None:
    """Write shard files filled with zeros, and the index that describes them, into a store."""
    rows: Counter[str] = Counter()
    for shard in shards:
        rows.update({entry.recording_id: entry.rows for entry in shard.recordings if shard.rows})
        for file in (shard.parquet, shard.tfrecord):
            if file is not None:
                store.put(file.name, bytes(file.size_bytes))
    recordings = [
        recording_row(planned(), (), "f") | {"recording_id": name, "rows": number, "status": "ok"}
        for name, number in rows.items()
    ]
    write_part(store, index, "recordings", 0, recordings)
    write_part(store, index, "shards", 0, [shard_row(shard) for shard in shards])


def in_memory_pipeline() -> TestPipeline:
    """Return a pipeline on Beam's own runner in this process."""
    # These imports take two seconds; tests that need no pipeline should not wait for them.
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.testing.test_pipeline import TestPipeline

    flags = ["--runner=FnApiRunner", "--direct_running_mode=in_memory"]
    return TestPipeline(options=PipelineOptions(flags))
