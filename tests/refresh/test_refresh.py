"""A refresh computes only the change, and the dataset equals a new extraction."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from deltalake import DeltaTable

from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.commit import begin, commit_index, read_outcome
from melmill.pipelines.extract import build_pipeline, make_job, resolve_catalogue
from melmill.pipelines.refresh import plan_refresh
from melmill.pipelines.snapshots.open import OpenSnapshot, start_from
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    failures_of,
    files_of,
    rows_of,
    statuses_of,
    write_song,
    write_songs,
    write_table,
)

COUNTED_KINDS = ("new", "changed", "removed", "retried", "relabelled", "recomputed", "unchanged")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    return write_songs(tmp_path / "songs")


@pytest.fixture
def dataset(songs: Path, tmp_path: Path) -> Path:
    extract_here(songs, tmp_path / "set", *SMALL, "output.formats=[parquet,tfrecord]")
    return tmp_path / "set"


def counts(difference: dict[str, object]) -> dict[str, object]:
    return {kind: difference[kind] for kind in COUNTED_KINDS if difference[kind]}


def faults(dataset: Path) -> list[str]:
    return validate(Store(str(dataset)), 1, lambda number: None)


def test_nothing_to_do_makes_no_snapshot(songs: Path, dataset: Path) -> None:
    before = files_of(dataset)
    result = refresh_here(songs, dataset)
    assert (result.committed, counts(result.difference)) == (False, {"unchanged": 6})
    assert DeltaTable(dataset).version() == 0
    assert files_of(dataset) == before


def test_only_the_change_is_computed(songs: Path, dataset: Path, tmp_path: Path) -> None:
    write_song(songs / "new.wav", 77)
    write_song(songs / "1.wav", 78)
    (songs / "2.wav").unlink()
    result = refresh_here(songs, dataset)
    assert counts(result.difference) == {"new": 1, "changed": 1, "removed": 1, "unchanged": 4}
    # The run read two headers and decoded two recordings. It carried over all others.
    counters = result.metrics.counters
    assert (counters["recordings_out.probe"], counters["recordings_out.extract"]) == (2, 2)
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)
    assert faults(dataset) == []
    assert DeltaTable(dataset).version() == 1


def test_untouched_shards_stay_and_rewriting_decodes_nothing(songs: Path, dataset: Path) -> None:
    before = {name for name in files_of(dataset) if "part-" in name}
    (songs / "2.wav").unlink()
    result = refresh_here(songs, dataset)
    assert "recordings_out.extract" not in result.metrics.counters
    current_files = set(DeltaTable(dataset).file_uris())
    old_files = {str(dataset / name) for name in before if name.endswith(".parquet")}
    assert len(current_files & old_files) > 0
    assert result.metrics.counters["shards_rewritten"] == len(old_files - current_files)


def test_the_first_refresh_is_an_extraction(songs: Path, tmp_path: Path) -> None:
    result = refresh_here(songs, tmp_path / "set", *SMALL)
    assert (result.committed, result.difference["new"]) == (True, 6)
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "fresh", *SMALL)


def test_the_dataset_remembers_its_recipe(songs: Path, dataset: Path) -> None:
    refresh_here(songs, dataset, "chunk.seconds=0.25")
    assert not refresh_here(songs, dataset).committed


# Failures


def test_a_failure_that_may_pass_is_tried_again_up_to_a_bound(songs: Path, dataset: Path) -> None:
    (songs / "gone.wav").symlink_to(songs / "nowhere")
    results = [refresh_here(songs, dataset, "refresh.max_attempts=3") for _ in range(5)]
    assert [result.committed for result in results] == [True, True, True, False, False]
    assert [result.difference["waiting"] for result in results] == [0, 0, 0, 1, 1]
    assert failures_of(dataset) == {str(songs / "gone.wav"): "not_found"}
    write_song(songs / "mended.wav", 5)
    (songs / "mended.wav").rename(songs / "nowhere")
    assert counts(refresh_here(songs, dataset).difference) == {"changed": 1, "unchanged": 6}
    assert failures_of(dataset) == {}


def test_a_lasting_failure_is_retried_only_if_requested(songs: Path, dataset: Path) -> None:
    (songs / "bad.wav").write_bytes(b"no audio")
    assert refresh_here(songs, dataset).committed
    assert not refresh_here(songs, dataset).committed
    result = refresh_here(songs, dataset, retry_failed=True)
    assert counts(result.difference) == {"retried": 1, "unchanged": 6}
    write_song(songs / "bad.wav", 5)
    assert counts(refresh_here(songs, dataset).difference) == {"changed": 1, "unchanged": 6}


def test_a_failure_does_not_stop_the_refresh_of_other_recordings(
    songs: Path, dataset: Path
) -> None:
    # Half of the new recordings fail, but only an eighth of the dataset's recordings.
    limits = ("limits.max_failure_ratio=0.2",)
    (songs / "bad.wav").write_bytes(b"no audio")
    write_song(songs / "good.wav", 9)
    result = refresh_here(songs, dataset, *limits)
    assert statuses_of(dataset)[str(songs / "good.wav")] == ("ok", 8)
    assert result.totals.recordings == {"ok": 7, "failed": 1}


def test_a_recording_that_became_unreadable_leaves(
    songs: Path, dataset: Path, tmp_path: Path
) -> None:
    (songs / "3.wav").write_bytes(b"no audio")
    refresh_here(songs, dataset)
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


# Changed configurations


@pytest.mark.parametrize(
    ("setting", "counted", "probed"),
    [
        ("mel.f_min_hz=100", {"recomputed": 6}, 0),
        ("split.seed=5", None, 0),
        ("output.formats=[parquet]", {"unchanged": 6}, 0),
        # These settings rewrite shards by the same code as the setting above.
        pytest.param("output.compression_level=5", {"unchanged": 6}, 0, marks=pytest.mark.slow),
        pytest.param("output.row_group_rows=7", {"unchanged": 6}, 0, marks=pytest.mark.slow),
    ],
)
def test_only_what_depends_on_a_setting_is_done_again(
    songs: Path,
    dataset: Path,
    tmp_path: Path,
    setting: str,
    counted: dict[str, int] | None,
    probed: int,
) -> None:
    result = refresh_here(songs, dataset, setting)
    assert result.committed
    if counted is not None:
        assert counts(result.difference) == counted
    assert result.metrics.counters.get("recordings_out.probe", 0) == probed
    decoded = result.metrics.counters.get("recordings_out.extract", 0)
    assert decoded == result.difference["recomputed"]
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, setting)
    assert faults(dataset) == []
    assert not refresh_here(songs, dataset).committed


def test_another_schema_starts_a_new_dataset_version(songs: Path, dataset: Path) -> None:
    result = refresh_here(songs, dataset, "mel.n_mels=5")
    assert (result.new_schema, result.snapshot.dataset_version) == (True, 2)
    assert result.features[0].shape[0] == 5
    second = refresh_here(songs, dataset, "output.compression_level=2")
    assert (second.new_schema, second.snapshot.dataset_version) == (False, 2)


def test_a_shorter_limit_removes_long_recordings_and_a_longer_limit_restores_them(
    songs: Path, dataset: Path, tmp_path: Path
) -> None:
    limit = f"limits.max_duration_hours={1.1 / 3600}"
    assert counts(refresh_here(songs, dataset, limit).difference)["recomputed"] == 3
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL, limit)
    result = refresh_here(songs, dataset, "limits.max_duration_hours=1")
    assert counts(result.difference) == {"retried": 3, "unchanged": 3}
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


def test_a_newer_extractor_computes_everything_again(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melmill.transforms.features.spec.EXTRACTOR_VERSION", 99)
    result = refresh_here(songs, dataset)
    assert counts(result.difference) == {"recomputed": 6}
    assert '"extractor_version":99' in result.snapshot.features


# Labels


@pytest.fixture
def table(songs: Path) -> Path:
    return write_table(songs / "songs.jsonl", [label(i, "rock") for i in range(4)])


def label(number: int, genre: str, **labels: object) -> dict[str, object]:
    return {"uri": f"{number}.wav", "genre": genre, **labels}


@pytest.mark.parametrize(
    "rows",
    [
        [label(0, "jazz"), *(label(i, "rock") for i in range(1, 4))],
        # That a row goes to another split is also tested with another seed of the splits, above.
        pytest.param(
            [label(0, "rock", split="mine"), *(label(i, "rock") for i in range(1, 4))],
            marks=pytest.mark.slow,
        ),
        [label(i, "rock", year=1970 + i) for i in range(4)],
        pytest.param([{"uri": f"{i}.wav"} for i in range(4)], marks=pytest.mark.slow),
        pytest.param([label(i, 7) for i in range(4)], marks=pytest.mark.slow),  # type: ignore[arg-type]
    ],
    ids=["a label", "a split", "another column", "a column less", "another type"],
)
def test_other_labels_decode_nothing(
    table: Path, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    extract_here(table, tmp_path / "set", *SMALL)
    write_table(table, rows)
    result = refresh_here(table, tmp_path / "set")
    assert result.committed
    assert "recordings_out.extract" not in result.metrics.counters
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *SMALL)
    assert not refresh_here(table, tmp_path / "set").committed


def test_labels_of_every_type_are_carried_over(songs: Path, tmp_path: Path) -> None:
    together = (*SMALL, "split.fractions={train: 1.0}", "output.min_shards=1")
    labels = {"year": 1971, "tempo": 120.5, "live": True, "tags": ["a", "b"], "codes": [1, 2]}
    rows = [label(i, "rock", **labels) for i in range(4)]
    table = write_table(songs / "songs.jsonl", rows)
    extract_here(table, tmp_path / "set", *together)
    write_table(table, rows[1:])
    refresh_here(table, tmp_path / "set")
    assert_as_fresh(table, tmp_path / "set", tmp_path / "fresh", *together)


def test_a_catalogue_that_moved_is_the_same(songs: Path, dataset: Path, tmp_path: Path) -> None:
    songs.rename(tmp_path / "elsewhere")
    result = refresh_here(tmp_path / "elsewhere", dataset)
    assert counts(result.difference) == {"relabelled": 6}
    assert_as_fresh(tmp_path / "elsewhere", dataset, tmp_path / "fresh", *SMALL)


# Safety


def test_too_many_removals_stop(songs: Path, dataset: Path) -> None:
    for i in range(2):
        (songs / f"{i}.wav").unlink()
    message = r"lacks 2 of the 6 recordings of version 0 \(33\.3%.*max_removed_ratio allows 20\.0%"
    with pytest.raises(DatasetError, match=message):
        refresh_here(songs, dataset, "refresh.max_removed_ratio=0.2")
    assert DeltaTable(dataset).version() == 0


def test_an_empty_catalogue_does_not_empty_the_dataset(songs: Path, dataset: Path) -> None:
    for path in songs.iterdir():
        path.unlink()
    with pytest.raises(CatalogueError, match="holds no files"):
        refresh_here(songs, dataset)
    assert len(rows_of(dataset)) > 0


def test_a_renamed_file_is_computed_again(songs: Path, dataset: Path, tmp_path: Path) -> None:
    (songs / "2.wav").rename(songs / "two.wav")
    result = refresh_here(songs, dataset)
    assert counts(result.difference) == {"new": 1, "removed": 1, "unchanged": 5}
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


@pytest.mark.parametrize("year", [pytest.param(1999, marks=pytest.mark.slow), 2150])
def test_impossible_times_do_no_harm(songs: Path, dataset: Path, tmp_path: Path, year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    os.utime(songs / "2.wav", (seconds, seconds))
    assert counts(refresh_here(songs, dataset).difference) == {"changed": 1, "unchanged": 5}
    assert not refresh_here(songs, dataset).committed
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


def test_a_change_within_a_second_is_found_where_times_are_whole_seconds(
    songs: Path, dataset: Path, tmp_path: Path
) -> None:
    # Both the extracted file and the file that replaces it get this modification time.
    modified = int(time.time()) + 3
    os.utime(songs / "2.wav", (modified, modified))
    refresh_here(songs, dataset)
    size = (songs / "2.wav").stat().st_size
    write_song(songs / "2.wav", 99, 1.0)
    assert (songs / "2.wav").stat().st_size == size
    os.utime(songs / "2.wav", (modified, modified))
    assert counts(refresh_here(songs, dataset).difference) == {"changed": 1, "unchanged": 5}
    assert_as_fresh(songs, dataset, tmp_path / "fresh", *SMALL)


def test_a_shard_that_is_missing_is_named(songs: Path, dataset: Path) -> None:
    for path in dataset.glob("split=*/part-*"):
        path.unlink()
    (songs / "2.wav").unlink()
    with pytest.raises(DatasetError, match=r"shard split=\w+/part-\w+\.parquet is missing"):
        refresh_here(songs, dataset)
    assert DeltaTable(dataset).version() == 0


def test_a_card_that_a_killed_run_did_not_write_is_written(songs: Path, dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    (dataset / "README.md").write_text("of some snapshot before")
    assert not refresh_here(songs, dataset).committed
    assert (dataset / "README.md").read_text() == card


# The plan


def plan_here(songs: Path, dataset: Path) -> dict[str, Any]:
    recipe = recipe_of_dataset(str(dataset), None, [])
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(str(dataset)))
    job = replace(job, refresh=recipe.refresh.spec())
    return plan_refresh(job, recipe.as_dict(), here())


def test_the_plan_is_what_is_done(songs: Path, dataset: Path) -> None:
    write_song(songs / "new.wav", 77)
    (songs / "bad.wav").write_bytes(b"no audio")
    (songs / "2.wav").unlink()
    before = files_of(dataset)
    planned = plan_here(songs, dataset)
    assert files_of(dataset) == before
    result = refresh_here(songs, dataset)
    assert planned["difference"] == result.difference
    assert planned["shards_rewritten"] == result.metrics.counters["shards_rewritten"]
    assert sum(planned["made"]["rows"].values()) == result.metrics.counters["rows_written"]
    assert planned["made"]["failures"] == {"unknown_format": 1}
    assert sum(planned["made"]["shards"].values()) == result.metrics.counters["shards_written"]


# Contents


HASHED = (*SMALL, "catalogue.content_hashes=true", "split.fractions={train: 0.5, test: 0.5}")


@pytest.fixture
def hashed(songs: Path, tmp_path: Path) -> Path:
    extract_here(songs, tmp_path / "hashed", *HASHED)
    return tmp_path / "hashed"


def test_a_renamed_file_is_a_move_where_contents_are_hashed(
    songs: Path, hashed: Path, tmp_path: Path
) -> None:
    for i in range(3):
        (songs / f"{i}.wav").rename(songs / f"renamed {i}.wav")
    planned = plan_here(songs, hashed)
    result = refresh_here(songs, hashed)
    assert result.metrics.counters["recordings_moved"] == planned["moved"] == 3
    assert planned["shards_rewritten"] == result.metrics.counters["shards_rewritten"]
    assert "recordings_out.extract" not in result.metrics.counters
    assert_as_fresh(songs, hashed, tmp_path / "fresh", *HASHED)
    assert faults(hashed) == []
    assert not refresh_here(songs, hashed).committed


def test_a_file_that_was_only_touched_is_the_same(
    songs: Path, hashed: Path, tmp_path: Path
) -> None:
    before = {name for name in files_of(hashed) if "part-" in name}
    for i in range(3):
        os.utime(songs / f"{i}.wav", (1e9 + i, 1e9 + i))
    result = refresh_here(songs, hashed)
    assert result.metrics.counters["recordings_moved"] == 3
    assert {name for name in files_of(hashed) if "part-" in name} == before
    assert_as_fresh(songs, hashed, tmp_path / "fresh", *HASHED)
    assert not refresh_here(songs, hashed).committed


def test_contents_that_swap_names_and_copies_are_told_apart(
    songs: Path, hashed: Path, tmp_path: Path
) -> None:
    (songs / "0.wav").rename(songs / "x.wav")
    (songs / "1.wav").rename(songs / "0.wav")
    (songs / "x.wav").rename(songs / "1.wav")
    (songs / "copy.wav").write_bytes((songs / "3.wav").read_bytes())
    (songs / "4.wav").unlink()
    write_song(songs / "5.wav", 55)
    refresh_here(songs, hashed)
    assert_as_fresh(songs, hashed, tmp_path / "fresh", *HASHED)
    assert faults(hashed) == []


def test_adopted_recordings_count_where_failures_are_weighed(songs: Path, tmp_path: Path) -> None:
    settings = (*HASHED, "limits.max_failure_ratio=0.25")
    for i in range(2):
        (songs / f"bad {i}.wav").write_bytes(b"no audio")
    for i in range(6, 10):
        write_song(songs / f"{i}.wav", i)
    extract_here(songs, tmp_path / "set", *settings)
    for path in songs.iterdir():
        os.utime(path, (1e9, 1e9))
    write_song(songs / "new.wav", 70)
    refresh_here(songs, tmp_path / "set")
    assert statuses_of(tmp_path / "set")[str(songs / "new.wav")] == ("ok", 8)


def test_contents_stay_known_when_everything_is_computed_again(songs: Path, hashed: Path) -> None:
    refresh_here(songs, hashed, "mel.f_min_hz=50")
    (songs / "0.wav").rename(songs / "renamed.wav")
    assert refresh_here(songs, hashed).metrics.counters["recordings_moved"] == 1


def test_other_settings_of_refreshes_do_not_change_the_dataset(songs: Path, dataset: Path) -> None:
    assert not refresh_here(songs, dataset, "refresh.max_attempts=9").committed
    assert not refresh_here(songs, dataset, "retention.keep_snapshots=3").committed


def test_a_failed_row_of_a_table_is_not_taken_for_changed(songs: Path, tmp_path: Path) -> None:
    (songs / "bad.wav").write_bytes(b"no audio")
    table = write_table(songs / "songs.jsonl", [{"uri": "0.wav"}, {"uri": "bad.wav"}])
    extract_here(table, tmp_path / "set", *SMALL)
    assert not refresh_here(table, tmp_path / "set").committed


def test_a_commit_that_a_worker_repeats_is_made_once(songs: Path, dataset: Path) -> None:
    write_song(songs / "new.wav", 70)
    recipe = recipe_of_dataset(str(dataset), None, [])
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(str(dataset)))
    current = OpenSnapshot.current(job.store)
    started = start_from(job, current, recipe.as_dict())
    begin(started)
    with TestPipeline(options=here()) as pipeline:
        build_pipeline(pipeline, started)
    index = read_outcome(started).index
    for _ in range(2):
        assert commit_index(index, started, recipe.as_dict(), began_with=0) == 1
    assert require_snapshot(job.store).parts == 1


def test_a_failure_after_the_commit_is_no_conflict(
    songs: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_song(songs / "new.wav", 70)

    def fail(*_: object) -> None:
        raise DatasetError("the card cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.pipelines.snapshots.open.write_card", fail)
        with pytest.raises(DatasetError, match="the card cannot be written"):
            refresh_here(songs, dataset)
    stale = faults(dataset)
    assert stale
    assert all("the next refresh writes it again" in fault for fault in stale)
    assert not refresh_here(songs, dataset).committed
    assert faults(dataset) == []
