"""A catalogue and a dataset through whatever may happen to them, checked against a fresh start."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pipelines.compact import compact
from pipelines.config import RetentionConfig
from pipelines.gc import collect
from pipelines.validate import validate
from pipelines.versions import history, rollback
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    SMALL,
    assert_as_fresh,
    files_of,
    needed_files,
    rows_of,
    write_song,
    write_table,
)
from transforms.storage.card import list_files
from transforms.storage.snapshot import require_snapshot
from transforms.storage.store import Store

NAMES = st.sampled_from([f"{letter}.wav" for letter in "abcde"])
SEEDS = st.integers(0, 99)
SECONDS = st.sampled_from([0.1, 0.5, 1.0, 1.3])

#: Settings, and the values that they take in turn.
SETTINGS: dict[str, tuple[str, ...]] = {
    "chunk.seconds": ("0.125", "0.25"),
    "mel.n_mels": ("8", "5"),
    "split.seed": ("0", "3"),
    "split.fractions": ("{train: 1.0}", "{train: 0.5, test: 0.5}"),
    "output.formats": ("[parquet]", "[parquet,tfrecord]"),
    "output.compression_level": ("1", "3"),
    "output.min_shards": ("8", "2"),
    "output.order_seed": ("0", "4"),
    "limits.max_duration_hours": ("24", str(0.7 / 3600)),
}


class Killed(BaseException):
    """The machine went down."""


@contextlib.contextmanager
def killed_at(write: int) -> Iterator[None]:
    """Let the process die at the so-manieth write to the store, if it makes so many."""
    real, left = Store.publish, [write]

    def publish(store: Store, path: Path, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(store, path, name)

    with mock.patch.object(Store, "publish", publish):
        try:
            yield
        except BaseException:
            # On its way out it meets what a dead process would not have met.
            if left[0] >= 0:
                raise


@contextlib.contextmanager
def killed_at_removal(removal: int) -> Iterator[None]:
    """Let the process die before the so-manieth file is removed, if it removes so many."""
    real, left = Store.remove, [removal]

    def remove(store: Store, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(store, name)

    with mock.patch.object(Store, "remove", remove):
        try:
            yield
        except BaseException:
            # On its way out it meets what a dead process would not have met.
            if left[0] >= 0:
                raise


class DatasetMachine(RuleBasedStateMachine):
    """After each refresh the dataset holds what a fresh extraction would hold."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="melmill-machine-"))
        self.songs, self.dataset = self.folder / "songs", self.folder / "dataset"
        self.labels: dict[str, dict[str, Any]] = {}
        self.settings = {key: values[0] for key, values in SETTINGS.items()}
        self.current = False
        # A dataset of nothing is none: one recording stays.
        self.add("anchor.wav", 1, 0.5)
        self.add("a.wav", 2, 1.0)
        extract_here(self.table(), self.dataset, *self.recipe())

    def table(self) -> Path:
        rows = [{"uri": name, **self.labels[name]} for name in sorted(self.labels)]
        return write_table(self.songs / "songs.jsonl", rows)

    def recipe(self) -> list[str]:
        # What is not found is not looked for again and again.
        once = "refresh.max_attempts=1"
        return [*SMALL, once, *(f"{key}={value}" for key, value in self.settings.items())]

    @rule(name=NAMES, seed=SEEDS, seconds=SECONDS)
    def add(self, name: str, seed: int, seconds: float) -> None:
        (self.songs / name).unlink(missing_ok=True)
        write_song(self.songs / name, seed, seconds)
        self.labels.setdefault(name, {"genre": "rock"})

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.labels.pop(name, None)

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        self.songs.mkdir(exist_ok=True)
        (self.songs / name).unlink(missing_ok=True)
        (self.songs / name).write_bytes(b"RIFF, and nothing more")
        self.labels.setdefault(name, {"genre": "rock"})

    @rule(name=NAMES)
    def lose(self, name: str) -> None:
        (self.songs / name).unlink(missing_ok=True)
        self.labels.setdefault(name, {"genre": "rock"})

    @rule(name=NAMES, genre=st.sampled_from(["rock", "jazz", None]))
    def label(self, name: str, genre: str | None) -> None:
        if name in self.labels:
            self.labels[name] = {**self.labels[name], "genre": genre}

    @rule(name=NAMES, split=st.sampled_from(["mine", None]))
    def name_split(self, name: str, split: str | None) -> None:
        if name in self.labels:
            self.labels[name] = {**self.labels[name], "split": split}

    @rule(year=st.sampled_from([None, 1970]))
    def label_column(self, year: int | None) -> None:
        for name, labels in self.labels.items():
            labels.pop("year", None)
            self.labels[name] = labels | ({"year": year} if year else {})

    @rule(key=st.sampled_from(sorted(SETTINGS)), number=st.integers(0, 1))
    def configure(self, key: str, number: int) -> None:
        self.settings[key] = SETTINGS[key][number]

    @rule()
    def refresh(self) -> None:
        refresh_here(self.table(), self.dataset, *self.recipe())
        self.current = True
        assert_as_fresh(self.table(), self.dataset, self.folder / "fresh", *self.recipe())
        assert not refresh_here(self.table(), self.dataset).committed

    @rule(write=st.integers(0, 25))
    def refresh_and_be_killed(self, write: int) -> None:
        before = rows_of(self.dataset)
        version = require_snapshot(Store(str(self.dataset))).version
        with killed_at(write):
            refresh_here(self.table(), self.dataset, *self.recipe())
        after = require_snapshot(Store(str(self.dataset))).version
        assert after in (version, version + 1)
        if after == version:
            assert rows_of(self.dataset) == before

    @rule()
    def compact(self) -> None:
        before = rows_of(self.dataset)
        compact(Store(str(self.dataset)), here())
        assert rows_of(self.dataset) == before

    @rule(keep=st.integers(1, 3))
    def collect(self, keep: int) -> None:
        before = rows_of(self.dataset)
        store = Store(str(self.dataset))
        collect(store, RetentionConfig(keep_snapshots=keep, grace_hours=0))
        assert rows_of(self.dataset) == before
        kept = [one["version"] for one in history(store) if one["kept"]]
        for version in kept:
            rows_of(self.dataset, version)
        if keep == 1:
            self.only_the_current_is_left()

    def only_the_current_is_left(self) -> None:
        needed = needed_files(self.dataset)
        assert files_of(self.dataset) <= needed | {"tfrecord/files.json", "tfrecord/features.json"}

    @precondition(lambda self: len(history(Store(str(self.dataset)))) > 1)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        store = Store(str(self.dataset))
        kept = [one["version"] for one in history(store) if one["kept"]]
        version = data.draw(st.sampled_from(kept))
        wanted = rows_of(self.dataset, version)
        rollback(store, version)
        assert rows_of(self.dataset) == wanted

    @invariant()
    def what_is_there_is_whole(self) -> None:
        if hasattr(self, "dataset"):
            store = Store(str(self.dataset))
            assert validate(store, 1, lambda number: None) == []
            list_files(store, require_snapshot(store))

    def teardown(self) -> None:
        if hasattr(self, "dataset"):
            self.refresh()
            shutil.rmtree(self.folder)
