"""Features are carried over from the shards of a snapshot; only the others are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from melmill.transforms.core.errors import UnavailableError
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.measures.spans import extract_and_measure, measure_spans
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.carrying import CarriedError, find_carried
from melmill.transforms.shards.extracting import SpanOutcome, write_shard
from melmill.transforms.shards.writing import read_shard
from melmill.transforms.store.folders import Store
from tests.plans import probed
from tests.shard_rows import batch_of, job_of_rows, shard_of
from tests.shards.test_written_rows import plan_of, song, write

MEL = Base(unchanged_features=("mel",))


def job_of(folder: Path, channels: str = "mono") -> ExtractJob:
    """Return a job that carries the feature ``mel`` over. A row group has three rows."""
    return replace(job_of_rows(folder, channels=channels), base=MEL)


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of(tmp_path)


def batch(job: ExtractJob, *chunks: tuple[str, int], channels: int = 1) -> RowBatch:
    """Return a row for each channel of these chunks, which are whole chunks of recordings."""
    rows = [(name, chunk, channel) for name, chunk in chunks for channel in range(channels)]
    part = batch_of(job, rows)
    return replace(part, columns={**part.columns, "valid_samples": [1000] * len(rows)})


def stored_in(job: ExtractJob, plan: str, *chunks: tuple[str, int], channels: int = 1) -> str:
    """Write the rows of these chunks to a shard, and return the name of its file."""
    summary = shard_of(job, plan, batch(job, *chunks, channels=channels))
    assert summary.parquet is not None
    return summary.parquet.name


def span_of(
    files: Sequence[str], chunks: int = 5, first: int = 0, stop: int = 5, channels: int = 1
) -> Span:
    """Return a span of ``a.wav``, whose rows these files hold."""
    a = probed("a.wav", chunks, channels, carried_from=tuple(files))
    return Span(a, 0, 1000 * chunks, first, stop)


def a(*chunks: int) -> list[tuple[str, int]]:
    return [("a.wav", chunk) for chunk in chunks]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("first", "stop"), [(0, 5), (1, 5), (2, 4), (4, 5)])
def test_the_rows_of_a_span_are_found_in_all_shards_in_their_order(
    tmp_path: Path, channels: int, first: int, stop: int
) -> None:
    job = job_of(tmp_path, "mono" if channels == 1 else "each")
    b = [("b.wav", 0), ("b.wav", 1)]
    end = stored_in(job, "1", *b, *a(3, 4), channels=channels)
    start = stored_in(job, "2", *a(0, 1, 2), ("c.wav", 0), channels=channels)
    span = span_of([end, start], first=first, stop=stop, channels=channels)
    carried = find_carried(span, job)
    assert carried is not None
    expected = batch(job, *a(*range(first, stop)), channels=channels)
    for name in ("chunk_index", "start_sample", "valid_samples", "peak_dbfs", "rms_dbfs"):
        assert getattr(carried.rows, name).tolist() == expected.columns[name]
    assert carried.rows.channel.tolist() == [*range(channels)] * (stop - first)
    mel = [part.features["mel"] for part in carried.read(("mel",))]
    np.testing.assert_array_equal(np.concatenate(mel), expected.features["mel"])


def test_features_are_read_one_row_group_at_a_time(job: ExtractJob) -> None:
    end = stored_in(job, "1", ("b.wav", 0), ("b.wav", 1), *a(3, 4))
    start = stored_in(job, "2", *a(0, 1, 2))
    carried = find_carried(span_of([end, start]), job)
    assert carried is not None
    parts = list(carried.read(("mel",)))
    assert [part.rows for part in parts] == [3, 1, 1]
    assert {name for part in parts for name in part.features} == {"mel"}


def test_features_are_carried_over_only_if_they_are_unchanged(job: ExtractJob) -> None:
    file = stored_in(job, "1", *a(0, 1))
    span = span_of([file], chunks=2, stop=2)
    assert find_carried(span, job) is not None
    assert find_carried(span, replace(job, base=Base())) is None
    assert find_carried(span_of([], chunks=2, stop=2), job) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda span: replace(span, stop_chunk=3),  # a row is missing
        lambda span: replace(span, origin_sample=1),  # other places
        lambda span: replace(span, samples=1999),  # another number of samples
        lambda span: with_files(span, "split=train/part-missing.parquet"),
    ],
)
def test_rows_other_than_those_of_the_span_are_not_carried_over(
    job: ExtractJob, change: Callable[[Span], Span]
) -> None:
    file = stored_in(job, "1", *a(0, 1), ("c.wav", 0))
    span = span_of([file], chunks=2, stop=2)
    assert find_carried(span, job) is not None
    assert find_carried(change(span), job) is None


def with_files(span: Span, *files: str) -> Span:
    recording = replace(span.probed.recording, carried_from=files)
    return replace(span, probed=replace(span.probed, recording=recording))


def test_other_channels_are_not_carried_over(tmp_path: Path) -> None:
    job = job_of(tmp_path, "each")
    file = stored_in(job, "1", *a(0, 1), channels=2)
    assert find_carried(span_of([file], 2, stop=2, channels=2), job) is not None
    assert find_carried(span_of([file], 2, stop=2, channels=1), job) is None


def test_a_shard_that_is_damaged_where_its_features_are_is_an_error_of_its_own(
    job: ExtractJob, tmp_path: Path
) -> None:
    file = stored_in(job, "1", *a(0, 1))
    carried = find_carried(span_of([file], 2, stop=2), job)
    assert carried is not None
    (tmp_path / "set" / file).write_bytes(b"PAR1")
    with pytest.raises(CarriedError, match=f"{file} is damaged"):
        list(carried.read(("mel",)))


def test_a_store_that_does_not_answer_is_not_a_damaged_shard(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stored_in(job, "1", *a(0, 1))
    span = span_of([file], 2, stop=2)
    carried = find_carried(span, job)
    assert carried is not None

    def reading_shard(store: Store, name: str) -> None:
        raise UnavailableError("busy")

    monkeypatch.setattr(Store, "reading_shard", reading_shard)
    with pytest.raises(UnavailableError, match="busy") as raised:
        list(carried.read(("mel",)))
    assert not isinstance(raised.value, CarriedError)
    other = with_files(span, "split=train/part-other.parquet")
    with pytest.raises(UnavailableError, match="busy"):
        find_carried(other, job)


# Shards with features that are carried over


class Decoder(DecoderProcess):
    """Decodes in the test's process and records what it computes."""

    def __init__(self) -> None:
        self.computed: list[tuple[list[str], tuple[str, ...]]] = []
        self.upcoming: list[list[str]] = []
        self.limits_s: set[float] = set()

    def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
        spans, names = arguments[0], tuple[str, ...]()
        if function is extract_and_measure:
            names = tuple(feature.name for feature in arguments[1].features)
        else:
            assert function is measure_spans
        self.computed.append(([span.probed.recording.relative_uri for span in spans], names))
        self.upcoming.append([source.uri for source in arguments[4]])
        self.limits_s.add(timeout_s)
        return function(*arguments)


def carried_from(
    summary: ShardSummary, recording: ProbedRecording, **values: Any
) -> ProbedRecording:
    """Return a recording whose rows are in a shard."""
    assert summary.parquet is not None
    files = (summary.parquet.name,)
    return replace(recording, recording=replace(recording.recording, carried_from=files, **values))


def with_samples(job: ExtractJob) -> ExtractJob:
    """Return a job that adds a feature before ``mel``."""
    samples = Feature("samples", WaveformSpec())
    features = replace(job.features, features=(samples, *job.features.features))
    return replace(job, features=features)


def rows_in_shard(job: ExtractJob, summary: ShardSummary) -> list[tuple[Any, ...]]:
    rows = []
    for part in read_shard(job.store, summary):
        columns = [part.columns[name] for name in sorted(part.columns)]
        arrays = [[row.tobytes() for row in part.features[n]] for n in sorted(part.features)]
        rows += list(zip(*columns, *arrays, strict=True))
    return rows


@pytest.mark.parametrize("channels", ["mono", "each"])
def test_a_shard_with_a_carried_feature_is_like_a_shard_where_all_was_computed(
    tmp_path: Path, channels: str
) -> None:
    job = replace(job_of(tmp_path, channels), meters=("level",))
    count = 1 if channels == "mono" else 2
    songs = [song(tmp_path, name, 4.5, count) for name in ("a.wav", "bb.wav")]
    before, _ = write(job, plan_of(job, *songs))
    larger_job = with_samples(job)
    expected, _ = write(larger_job, plan_of(larger_job, *songs))
    plan = plan_of(larger_job, carried_from(before, songs[0]), songs[1])
    decoder = Decoder()
    outcomes: list[SpanOutcome] = []
    fresh_job = replace(larger_job, meters=("level", "clipping"))
    summary = write_shard(plan, fresh_job, decoder, outcomes.append)
    assert decoder.computed == [(["a.wav"], ("samples",)), (["bb.wav"], ("samples", "mel"))]
    assert rows_in_shard(fresh_job, summary) == rows_in_shard(larger_job, expected)
    assert summary.recordings == expected.recordings
    assert [outcome.rows for outcome in outcomes] == [5 * count] * 2
    assert [part.recording_id for part in summary.measured] == ["id of a.wav", "id of bb.wav"]


def test_recordings_whose_features_are_all_carried_over_are_only_measured(
    job: ExtractJob, tmp_path: Path
) -> None:
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav", "ccc.wav")]
    before, _ = write(job, plan_of(job, *songs))
    known_songs = [carried_from(before, song) for song in songs]
    known_songs[1] = carried_from(before, songs[1], measures='{"level": {}}')
    measuring_job = replace(job, meters=("level",))
    decoder = Decoder()
    outcomes: list[SpanOutcome] = []
    summary = write_shard(plan_of(job, *known_songs), measuring_job, decoder, outcomes.append)
    assert decoder.computed == [(["a.wav"], ()), (["ccc.wav"], ())]
    uris = [song.recording.uri for song in songs]
    assert decoder.upcoming == [uris[1:], []]
    assert decoder.limits_s == {job.limits.timeout_s}
    assert rows_in_shard(job, summary) == rows_in_shard(job, before)
    assert [outcome.rows for outcome in outcomes] == [3, 3, 3]
    spans = plan_of(job, songs[0], songs[2]).spans
    sources = [job.source(span.probed.recording) for span in spans]
    assert list(summary.measured) == measure_spans(spans, sources, job.features, ("level",))


def test_nothing_is_decoded_if_nothing_is_measured(job: ExtractJob, tmp_path: Path) -> None:
    job = replace(job, meters=())
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav")]
    before, _ = write(job, plan_of(job, *songs))
    Path(songs[0].recording.uri).unlink()
    plan = plan_of(job, *(carried_from(before, song) for song in songs))
    decoder = Decoder()
    summary = write_shard(replace(plan, name="other"), job, decoder, lambda _: None)
    assert decoder.computed == []
    assert rows_in_shard(job, summary) == rows_in_shard(job, before)
    assert (summary.measured, summary.failures) == ((), ())


def test_a_feature_that_changed_is_not_taken_from_the_snapshot(
    job: ExtractJob, tmp_path: Path
) -> None:
    """The snapshot has a column with the same name."""
    both_job = with_samples(replace(job, base=Base(unchanged_features=("samples",)), meters=()))
    other_job = replace(both_job, features=with_other_mel(both_job.features))
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav")]
    before, _ = write(both_job, plan_of(both_job, *songs))
    expected, _ = write(other_job, plan_of(other_job, *songs))
    plan = plan_of(other_job, *(carried_from(before, song) for song in songs))
    decoder = Decoder()
    summary = write_shard(replace(plan, name="other"), other_job, decoder, lambda _: None)
    assert decoder.computed == [(["a.wav"], ("mel",)), (["bb.wav"], ("mel",))]
    assert rows_in_shard(other_job, summary) == rows_in_shard(other_job, expected)


def with_other_mel(features: FeatureSpec) -> FeatureSpec:
    samples, mel = features.features
    spec = replace(mel.spec, n_fft=512)  # type: ignore[type-var]
    return replace(features, features=(samples, replace(mel, spec=spec)))


def test_if_a_shard_of_the_snapshot_is_damaged_its_features_are_computed(
    job: ExtractJob, tmp_path: Path
) -> None:
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav")]
    before, _ = write(job, plan_of(job, *songs))
    larger_job = with_samples(replace(job, meters=()))
    expected, _ = write(larger_job, plan_of(larger_job, *songs))
    assert before.parquet is not None
    damage_mel(tmp_path / "set" / before.parquet.name)
    plan = plan_of(larger_job, *(carried_from(before, song) for song in songs))
    decoder = Decoder()
    summary = write_shard(replace(plan, name="other"), larger_job, decoder, lambda _: None)
    assert decoder.computed == [
        *[(["a.wav"], ("samples",)), (["a.wav"], ("samples", "mel"))],
        (["bb.wav"], ("samples", "mel")),
    ]
    assert rows_in_shard(larger_job, summary) == rows_in_shard(larger_job, expected)


def damage_mel(shard: Path) -> None:
    """Change a byte of the feature in the first row group; all other columns can be read."""
    metadata = pq.read_metadata(shard).row_group(0)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    (mel,) = (column for column in columns if column.path_in_schema.startswith("mel."))
    content = bytearray(shard.read_bytes())
    content[mel.data_page_offset + 60] ^= 255
    shard.write_bytes(content)
