"""A small catalogue is compared in the launcher as the pipeline would compare it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.extract import make_job, read_current, resolve_catalogue
from melmill.pipelines.refresh import plan_refresh
from melmill.pipelines.snapshots.open import start_from
from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.records import Recording
from melmill.transforms.index import comparing
from melmill.transforms.index.comparing import compare_small
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, make_test_job
from tests.refresh.catalogues import SMALL, write_song, write_table

NAMES = [f"{letter}.wav" for letter in "abcdefgh"]


def catalogue(folder: Path, genres: dict[str, str]) -> Path:
    return write_table(
        folder / "songs.jsonl", [{"uri": name, "genre": genre} for name, genre in genres.items()]
    )


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Return a catalogue of eight recordings, of which two fail, with a dataset beside it."""
    folder = tmp_path / "songs"
    for number, name in enumerate(NAMES):
        write_song(folder / name, number, 0.5)
    (folder / "g.wav").write_bytes(b"no audio")
    (folder / "h.wav").write_bytes(b"no audio")
    table = catalogue(folder, dict.fromkeys(NAMES, "rock"))
    extract_here(table, tmp_path / "set", *SMALL)
    return table


def refresh_job(songs: Path, *overrides: str) -> tuple[ExtractJob, dict[str, object]]:
    dataset = str(songs.parents[1] / "set")
    recipe = recipe_of_dataset(dataset, None, list(overrides))
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(dataset))
    current = read_current(job)
    assert current is not None
    return start_from(job, current, recipe.as_dict()), recipe.as_dict()


def change(songs: Path) -> None:
    """Add, change, remove, relabel, exclude and repair recordings."""
    folder = songs.parent
    write_song(folder / "new.wav", 99, 0.5)
    write_song(folder / "a.wav", 98, 0.7)
    write_song(folder / "g.wav", 97, 0.5)
    genres = dict.fromkeys(NAMES, "rock") | {"c.wav": "jazz", "new.wav": "pop"}
    del genres["b.wav"]
    catalogue(folder, genres)


@pytest.mark.parametrize("settings", [(), ("split.seed=3",), ("mel.n_mels=5",)])
def test_the_difference_is_that_of_the_pipeline(songs: Path, settings: tuple[str, ...]) -> None:
    change(songs)
    exclude = songs.parent / "exclude.txt"
    exclude.write_text(f"{songs.parent / 'd.wav'}\n")
    job, configuration = refresh_job(songs, f"catalogue.exclude={exclude}", *settings)
    comparison = compare_small(job)
    assert comparison is not None
    planned = plan_refresh(job, configuration, here())
    assert comparison.decision.difference.to_json() == planned["difference"]
    assert comparison.decision.todo
    assert comparison.listed == 8
    kinds = ("new", "changed", "recomputed")
    assert comparison.recordings == sum(planned["difference"][kind] for kind in kinds)


def test_nothing_to_do_is_seen_without_a_pipeline(songs: Path) -> None:
    comparison = compare_small(refresh_job(songs)[0])
    assert comparison is not None
    assert not comparison.decision.todo
    assert comparison.recordings == 0


def test_a_large_catalogue_or_index_is_left_to_the_pipeline(songs: Path) -> None:
    job, _ = refresh_job(songs)
    assert compare_small(job, most=8) is not None
    assert compare_small(job, most=7) is None
    assert compare_small(replace(job, base=replace(job.base, parts=2))) is None


def test_a_new_dataset_of_many_recordings_is_not_listed_to_its_end(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.jsonl", [{"uri": f"{n}.wav"} for n in range(300)])
    job = make_test_job(table, tmp_path / "set", *SMALL)
    assert compare_small(job) is None
    few = write_table(tmp_path / "few.jsonl", [{"uri": f"{n}.wav"} for n in range(200)])
    comparison = compare_small(make_test_job(few, tmp_path / "set", *SMALL))
    assert comparison is not None
    assert (comparison.has_few_headers, comparison.is_brief) == (True, False)


def test_much_work_is_not_brief(songs: Path) -> None:
    write_song(songs.parent / "a.wav", 98, 0.7)
    brief = compare_small(refresh_job(songs)[0])
    assert brief is not None
    assert brief.is_brief
    write_song(songs.parent / "a.wav", 98, 2100)  # 16.8 MB
    assert not getattr(compare_small(refresh_job(songs)[0]), "is_brief", None)


def test_a_dataset_that_is_rewritten_must_be_small(
    songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue(songs.parent, dict.fromkeys(NAMES[1:], "rock"))
    settings = ("output.compression_level=1",), (), ("catalogue.content_hashes=true",)
    for brief in (True, False):
        for setting in settings:
            comparison = compare_small(refresh_job(songs, *setting)[0])
            assert comparison is not None
            assert comparison.is_brief == brief
        monkeypatch.setattr(comparing, "_FEW_REWRITTEN_BYTES", 1000)


def test_hashing_large_contents_is_not_planned_alone(songs: Path) -> None:
    for name in NAMES[:3]:
        write_song(songs.parent / name, 98, 700)  # 5.6 MB each
    for setting, few in (("false", True), ("true", False)):
        job, _ = refresh_job(songs, f"catalogue.content_hashes={setting}")
        comparison = compare_small(job)
        assert comparison is not None
        assert (comparison.has_few_headers, comparison.is_brief) == (few, False)


def test_a_slow_listing_is_given_up(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of_dataset(str(songs.parents[1] / "set"), None, [])
    folder = resolve_catalogue(str(songs.parent), recipe)
    job = replace(refresh_job(songs)[0], catalogue=folder)
    assert compare_small(job) is not None
    monkeypatch.setattr(comparing, "_MOST_SECONDS", 0)
    assert compare_small(job) is None
    assert compare_small(refresh_job(songs)[0]) is None


def test_few_versions_of_remote_recordings_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def in_its_version(job: ExtractJob, recording: Recording) -> Recording:
        asked.append(recording.uri)
        return recording

    monkeypatch.setattr(ExtractJob, "in_its_version", in_its_version)
    for number, requests in ((256, 256), (257, 0), (5000, 0)):
        rows = [{"uri": f"s3://bucket/{n}.wav"} for n in range(number)]
        table = write_table(tmp_path / "t.jsonl", rows)
        del asked[:]
        compare_small(make_test_job(table, tmp_path / "set", *SMALL))
        assert len(asked) == requests


def test_errors_are_those_of_the_pipeline(songs: Path) -> None:
    catalogue(songs.parent, {"a.wav": "rock"})
    with pytest.raises(DatasetError, match="lacks 7 of the 8 recordings"):
        compare_small(refresh_job(songs, "refresh.max_removed_ratio=0.2")[0])
    write_table(songs, [{"uri": "a.wav"}, {"uri": "./a.wav"}])
    job, configuration = refresh_job(songs)
    with pytest.raises(CatalogueError) as here_error:
        compare_small(job)
    with pytest.raises(CatalogueError) as error:
        plan_refresh(job, configuration, here())
    assert str(error.value).startswith(str(here_error.value))
