"""Stratified splits: each class has the shares, and no recording moves as the catalogue grows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import melmill
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import CatalogueError, ConfigError
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, make_test_job, refresh_here
from tests.refresh.catalogues import write_song, write_table

RATE = 4000
SETTINGS = (
    *(f"audio.sample_rate_hz={RATE}", "chunk.seconds=0.25", "output.min_shards=1"),
    *("mel.n_fft=256", "mel.hop_length=128", "mel.n_mels=8"),
)
STRATIFIED = "split.stratify=genre"
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def song(number: int, **values: Any) -> dict[str, Any]:
    genre = "rare" if number % 3 == 0 else "common"
    return {"uri": f"{number:02}.wav", "genre": genre, **values}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(42):
        write_song(tmp_path / "songs" / f"{number:02}.wav", number, 0.3, RATE)
    return tmp_path / "songs"


def catalogue(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return write_table(folder / "songs.jsonl", rows)


def splits_of(dataset: Path) -> dict[str, str]:
    """Return the split of each file; check that its rows are in no other split."""
    rows = melmill.open(dataset).as_arrow().to_table(["uri", "split"]).to_pylist()
    pairs = {(Path(row["uri"]).name, row["split"]) for row in rows}
    assert len(dict(pairs)) == len(pairs)
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    return dict(pairs)


def assert_stratified(splits: dict[str, str], rows: list[dict[str, Any]]) -> None:
    for genre in ("rare", "common"):
        names = [row["uri"] for row in rows if row["genre"] == genre]
        numbers = Counter(splits[name] for name in names)
        for split, share in SHARES.items():
            assert abs(numbers[split] - share * len(names)) <= 1


def test_no_recording_moves_as_the_catalogue_grows_and_classes_keep_their_shares(
    folder: Path, tmp_path: Path
) -> None:
    dataset, few = tmp_path / "set", [song(number) for number in range(21)]
    extract_here(catalogue(folder, few), dataset, *SETTINGS, STRATIFIED)
    before = splits_of(dataset)
    assert_stratified(before, few)
    write_song(folder / "03.wav", 99, 0.6, RATE)  # changed
    many = [song(number) for number in range(42)]
    many[4]["genre"] = "rare"  # relabelled
    result = refresh_here(catalogue(folder, many), dataset)
    assert (result.difference["new"], result.difference["changed"]) == (21, 1)
    after = splits_of(dataset)
    assert {name: after[name] for name in before} == before
    many[4]["genre"] = "common"
    assert_stratified(after, many)
    assert not refresh_here(folder / "songs.jsonl", dataset).committed


def test_the_division_does_not_depend_on_how_the_work_is_divided(
    folder: Path, tmp_path: Path
) -> None:
    rows = [song(number) for number in range(18)]
    one, other = tmp_path / "one", tmp_path / "other"
    extract_here(catalogue(folder, rows), one, *SETTINGS, STRATIFIED)
    extract_here(catalogue(folder, rows[::-1]), other, *SETTINGS, STRATIFIED, "output.min_shards=9")
    assert splits_of(one) == splits_of(other)


def test_a_dataset_that_is_stratified_later_moves_nothing(folder: Path, tmp_path: Path) -> None:
    dataset, rows = tmp_path / "set", [song(number) for number in range(12)]
    extract_here(catalogue(folder, rows), dataset, *SETTINGS)
    before = splits_of(dataset)
    rows += [song(number) for number in range(12, 18)]
    refresh_here(catalogue(folder, rows), dataset, STRATIFIED)
    after = splits_of(dataset)
    assert {name: after[name] for name in before} == before
    fractions = "split.fractions={train: 0.5, validation: 0.4, test: 0.1}"
    refresh_here(folder / "songs.jsonl", dataset, fractions)
    assert splits_of(dataset) == after


def test_segments_of_a_file_stay_together_also_those_that_are_added(
    folder: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "set"
    rows = [song(number, start=0.0, end=0.14) for number in range(12)]
    settings = (*SETTINGS, STRATIFIED, "split.fractions={a: 0.5, b: 0.5}")
    extract_here(catalogue(folder, rows), dataset, *settings)
    before = splits_of(dataset)
    later = [song(number, start=0.15, end=0.29, genre="common") for number in range(12)]
    refresh_here(catalogue(folder, rows + later), dataset)
    assert splits_of(dataset) == before
    assert melmill.open(dataset).recordings(["uri"]).num_rows == 24


def test_what_cannot_be_stratified_is_refused(folder: Path, tmp_path: Path) -> None:
    table = catalogue(folder, [song(0, tempo=1.5, split="train"), song(1, tempo=2.5, split="a")])

    def refused(*settings: str) -> str:
        with pytest.raises((CatalogueError, ConfigError)) as raised:
            make_test_job(table, tmp_path / "set", *settings)
        return str(raised.value)

    assert "split.stratify: 'mood': " in refused("split.stratify=mood", "split.by=recording")
    assert "it has: genre" in refused("split.stratify=tempo", "split.by=recording")
    assert "gives each recording a split" in refused(STRATIFIED)
    assert "split.by: 'catalogue': must be auto or recording" in refused(
        STRATIFIED, "split.by=catalogue"
    )
    together = "split.keep_together=duplicates"
    assert "split.keep_together: 'duplicates': must be null" in refused(STRATIFIED, together)
    assert "dedupe: 'mark': must be off" in refused(STRATIFIED, "dedupe=mark")
    hashes = "catalogue.content_hashes=true"
    assert "catalogue.content_hashes: true: must be false" in refused(STRATIFIED, hashes)


def test_a_label_with_too_many_values_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melmill.transforms.stratify_splits.MAX_CLASSES", 3)
    rows = [song(number, genre=str(number)) for number in range(4)]
    with pytest.raises(CatalogueError, match="has more than 3 values of this label"):
        extract_here(catalogue(folder, rows), tmp_path / "set", *SETTINGS, STRATIFIED)
