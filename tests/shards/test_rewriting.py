"""Rewriting removes rows, changes their values or moves them to another split, without decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Recording
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.plan.change_records import Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.rewriting import rewrite_shard
from tests.plans import recording
from tests.shard_rows import batch_of, job_of_rows, places, read_rows_of, rows_in, rows_of, shard_of

RUNS = [rows_of("a.wav", 0, 1, 2, 3), rows_of("b.wav", 5), rows_of("c.wav", 0, 1)]
LABELS = (("genre", "jazz"), ("year", 1959))


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path)


@pytest.fixture
def shard(job: ExtractJob) -> ShardSummary:
    return shard_of(job, "plan", *(batch_of(job, run) for run in RUNS))


def identity(name: str) -> str:
    return recording(name).recording_id


def touched(
    shard: ShardSummary, name: str, new_recording: Recording | None, split: str | None
) -> Touched:
    return Touched(shard.name, identity(name), new_recording, split)


def rewrite(
    shard: ShardSummary, job: ExtractJob, *changes: Touched
) -> dict[str, tuple[Rewritten, list]]:
    """Return the new shard of each split with its rows."""
    *new_shards, replaced = list(rewrite_shard(shard, changes, job))
    assert replaced == Replaced(shard.name)
    assert all(new_shard.replaced == (shard.name,) for new_shard in new_shards)
    return {
        new_shard.summary.split: (new_shard, read_rows_of(job, new_shard.summary))
        for new_shard in new_shards
    }


def test_the_rows_of_a_removed_recording_are_removed(job: ExtractJob, shard: ShardSummary) -> None:
    removal = touched(shard, "b.wav", None, None)
    ((rewritten, rows),) = rewrite(shard, job, removal).values()
    assert rows == rows_in(batch_of(job, RUNS[0]), batch_of(job, RUNS[2]))
    counts = {entry.recording_id: entry.rows for entry in rewritten.summary.recordings}
    assert counts == {identity("a.wav"): 4, identity("c.wav"): 2}
    expected = digest("rewritten", shard.name, "train", job.run_id, repr(removal))
    assert rewritten.summary.plan == expected


def test_without_rows_there_is_no_new_shard(job: ExtractJob, shard: ShardSummary) -> None:
    names = ("a.wav", "b.wav", "c.wav")
    changes = [touched(shard, name, None, None) for name in names]
    assert list(rewrite_shard(shard, changes, job)) == [Replaced(shard.name)]


def test_a_renamed_recording_gets_its_new_values(job: ExtractJob, shard: ShardSummary) -> None:
    renamed = Recording("new id", "/new.wav", "new.wav", labels=LABELS)
    ((rewritten, rows),) = rewrite(shard, job, touched(shard, "a.wav", renamed, "train")).values()
    before = rows_in(*(batch_of(job, run) for run in RUNS))
    values = {"recording_id": "new id", "uri": "/new.wav", "genre": "jazz", "year": 1959}
    assert rows == [row | values if row["uri"] == "/songs/a.wav" else row for row in before]
    entries = {entry.recording_id: entry for entry in rewritten.summary.recordings}
    old_entries = {entry.recording_id: entry for entry in shard.recordings}
    # The digest of the rows depends on their audio, not on the name of the recording.
    assert entries["new id"] == replace(old_entries[identity("a.wav")], recording_id="new id")
    assert set(entries) == {"new id", identity("b.wav"), identity("c.wav")}


def test_rows_may_move_to_another_split(job: ExtractJob, shard: ShardSummary) -> None:
    moved = recording("b.wav", labels=LABELS)
    shards = rewrite(shard, job, touched(shard, "b.wav", moved, "test"))
    assert list(shards) == ["test", "train"]
    assert places(shards["train"][1]) == [
        *(("a.wav", i) for i in range(4)),
        ("c.wav", 0),
        ("c.wav", 1),
    ]
    assert places(shards["test"][1]) == [("b.wav", 5)]
    assert shards["test"][1][0]["genre"] == "jazz"
    assert shards["test"][0].summary.plan != shards["train"][0].summary.plan


def test_a_new_column_of_the_catalogue_is_null_in_other_rows(
    job: ExtractJob, shard: ShardSummary, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    wider_job = job_of_rows(tmp_path / "more")
    table = tmp_path / "more" / "songs.csv"
    table.write_text("uri,genre,mood\na.wav,jazz,calm\n")
    from tests.pipeline_runs import make_test_job

    types = "catalogue.label_types={genre: string, mood: string}"
    catalogue = make_test_job(table, tmp_path / "set", types).catalogue
    wider_job = replace(wider_job, catalogue=catalogue, store=job.store)
    relabelled = recording("a.wav", labels=(("genre", "jazz"), ("mood", "calm")))
    ((rewritten, rows),) = rewrite(
        shard, wider_job, touched(shard, "a.wav", relabelled, "train")
    ).values()
    moods = [(Path(row["uri"]).name, row["genre"], row["mood"]) for row in rows]
    assert (
        moods
        == [("a.wav", "jazz", "calm")] * 4
        + [("b.wav", "rock", None)]
        + [("c.wav", "rock", None)] * 2
    )
    assert "year" not in rows[0]
    assert rewritten.summary.null_labels == ("mood",)


def test_the_order_of_the_changes_does_not_matter(job: ExtractJob, shard: ShardSummary) -> None:
    changes = [touched(shard, name, None, None) for name in ("a.wav", "b.wav")]
    assert rewrite(shard, job, *changes) == rewrite(shard, job, *changes[::-1])
    single_change = rewrite(shard, job, changes[0])
    ((first, _),), ((second, _),) = single_change.values(), rewrite(shard, job, *changes).values()
    assert first.summary.plan != second.summary.plan


def test_rows_that_a_shard_lacks_stop_the_rewriting(job: ExtractJob, shard: ShardSummary) -> None:
    entries = tuple(replace(entry, rows=entry.rows + 1) for entry in shard.recordings)
    wrong = replace(shard, recordings=entries)
    with pytest.raises(RuntimeError, match="must hold"):
        list(rewrite_shard(wrong, [touched(shard, "b.wav", None, None)], job))
