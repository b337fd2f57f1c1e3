"""A state machine: a catalogue and its dataset change and are compared with a new extraction."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from deltalake import DeltaTable
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import melmill.pipelines.commit
import melmill.pipelines.extract
from melmill.pipelines.add_columns import add_columns
from melmill.pipelines.compact import compact
from melmill.pipelines.config import RetentionConfig, load_config
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.additions import Addition
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.history import checkout, history, rollback
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.catalogue.taken_down_list import TakenDown, read_taken_down
from melmill.transforms.core.errors import Cause, ConflictError, DatasetError, RecordingError, Stage
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.chunks import count_chunks
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.index.tables import read_index
from melmill.transforms.measures.spans import extract_and_measure, measure_spans
from melmill.transforms.snapshot.card import list_files
from melmill.transforms.snapshot.delta import read_history, require_snapshot
from melmill.transforms.snapshot.needed_files import needed
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from tests.damage import with_xing
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import (
    RATE,
    SMALL,
    assert_as_fresh,
    files_of,
    mentions_of,
    needed_files,
    rows_in,
    rows_of,
    statuses_of,
    write_song,
    write_table,
)
from tests.signals import encode, noise

NAMES = st.sampled_from([f"{letter}.wav" for letter in "abcde"])
SEEDS = st.integers(0, 99)
SECONDS = st.sampled_from([0.1, 0.5, 1.3, 2.1])
#: The dataset's own rate, and a rate that is resampled.
RATES = st.sampled_from([RATE, 4410])
#: The points at which a run is killed: a kind of file, and how many of them it may write.
#: If the kind is "", all files count.
KILLS = st.tuples(st.just(""), st.integers(0, 40)) | st.tuples(
    st.sampled_from(["/made/", "part-", "/shards/", "index/"]), st.integers(0, 4)
)

_MEL = "{{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: {}}}"
_SAMPLES = "{name: samples, kind: waveform, dtype: int16}"

#: Settings, and the values that the machine gives them.
SETTINGS: dict[str, tuple[str, ...]] = {
    "chunk.seconds": ("0.125", "0.25"),
    "features": (
        f"[{_MEL.format(8)}]",
        f"[{_SAMPLES}, {_MEL.format(8)}]",
        f"[{_MEL.format(5)}, {_SAMPLES}]",
    ),
    "split.seed": ("0", "3"),
    "split.fractions": ("{train: 1.0}", "{train: 0.5, test: 0.5}"),
    "output.formats": ("[parquet,tfrecord]", "[parquet]"),
    "output.compression_level": ("1", "3"),
    "output.min_shards": ("8", "2"),
    "output.shard_megabytes": ("256", "0.001"),
    "output.order_seed": ("0", "4"),
    "limits.max_duration_hours": ("24", str(0.7 / 3600)),
    "limits.damaged": ("fail", "keep"),
    "catalogue.content_hashes": ("false", "true"),
    # Half of the recordings have such a peak.
    "select": ("null", "level.peak > -8.5", "level.peak > -8"),
    # Which recording `drop` keeps depends on what was there before.
    "dedupe": ("off", "keep_best", "mark"),
}


#: The setting that makes long recordings fail.
LIMIT = "limits.max_duration_hours"
#: A missing recording is not retried in every refresh.
ONCE = "refresh.max_attempts=1"
#: Recordings so short are duplicates if all their samples are equal.
ACOUSTIC = "quality=[basic, acoustic]"


class InThisProcess:
    """A stand-in for a decoder process. Its functions run in this process and can be patched."""

    def call(self, _: float, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


#: Patches: decode in this process, and resample in blocks that are shorter than most recordings,
#: with so little context that a block in another place gives other samples.
SMALL_BLOCKS = {
    "melmill.transforms.beam.do_fns.borrow_decoder": lambda _: InThisProcess(),
    "melmill.transforms.beam.do_fns.return_decoder": lambda *_: None,
    "melmill.transforms.features.resample.BLOCK_SAMPLES": 2048,
    "melmill.transforms.features.resample.CONTEXT_SAMPLES": 64,
}


#: Functions of a decoder process that decode spans, which are their first argument.
_DECODING = (extract_and_measure, measure_spans)


class Killed(BaseException):
    """Raised where the process is killed."""


@contextlib.contextmanager
def failing_for_a_while(name: str, stage: Stage) -> Iterator[None]:
    """Let the store fail once, when the recording is probed, or when it is decoded."""
    with _failing(DecoderProcess, name, stage), _failing(InThisProcess, name, stage):
        yield


def _failing(decoder: Any, name: str, stage: Stage) -> Any:
    real, failed = decoder.call, []

    def call(self: Any, timeout_s: float, function: Any, *arguments: Any) -> Any:
        extracts, decodes = function is extract_and_measure, function in _DECODING
        target = arguments[0][0] if decodes else arguments[0]
        uri = target.probed.recording.uri if decodes else target.uri
        matches = uri.endswith(f"/{name}") and decodes == (stage is Stage.DECODE)
        # If a recording is divided among shards, only its last part fails.
        if matches and not failed and (not extracts or _holds_the_last_chunk(target, arguments[1])):
            failed.append(name)
            raise RecordingError(Stage.READ, Cause.STORAGE_ERROR, "the store is busy")
        return real(self, timeout_s, function, *arguments)

    return mock.patch.object(decoder, "call", call)


def _holds_the_last_chunk(span: Span, features: FeatureSpec) -> bool:
    return span.stop_chunk == count_chunks(span.samples, features.chunk)


@contextlib.contextmanager
def killed_at(write: int, kind: str = "") -> Iterator[None]:
    """Kill the process when it has written this many files to the store, and would write one more.

    Only files with `kind` in their names count.
    """
    real, remaining = Store.publish, [write]

    def publish(store: Store, path: Path, name: str) -> None:
        remaining[0] -= kind in name or remaining[0] < 0
        if remaining[0] < 0:
            raise Killed
        real(store, path, name)

    with mock.patch.object(Store, "publish", publish):
        try:
            yield
        except BaseException:
            # After the kill, clean-up code may raise errors that a dead process would not raise.
            if remaining[0] >= 0:
                raise


def killed(kill: tuple[str, int] | None) -> contextlib.AbstractContextManager[None]:
    """Kill the process at one of :data:`KILLS`, or not at all."""
    return killed_at(kill[1], kill[0]) if kill else contextlib.nullcontext()


@contextlib.contextmanager
def killed_after_the_commit(write: int) -> Iterator[None]:
    """Kill the process after its commit and this many more writes to the store."""
    real, killing = melmill.pipelines.commit.commit, contextlib.ExitStack()

    def commit(*arguments: Any) -> int:
        version = real(*arguments)
        killing.enter_context(killed_at(write))
        return version

    with mock.patch.object(melmill.pipelines.commit, "commit", commit), killing:
        yield


@contextlib.contextmanager
def killed_at_removal(removal: int) -> Iterator[None]:
    """Kill the process after it has removed this many files, if it removes more."""
    real, remaining = Store.remove, [removal]

    def remove(store: Store, name: str) -> None:
        remaining[0] -= 1
        if remaining[0] < 0:
            raise Killed
        real(store, name)

    def remove_files(store: Store, names: Sequence[str]) -> None:
        for name in names:
            remove(store, name)

    patched = mock.patch.multiple(Store, remove=remove, remove_files=remove_files)
    with patched:
        try:
            yield
        except BaseException:
            # After the kill, clean-up code may raise errors that a dead process would not raise.
            if remaining[0] >= 0:
                raise


class DatasetMachine(RuleBasedStateMachine):
    """After each refresh the dataset holds what a fresh extraction would hold."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="melmill-machine-"))
        self.patches = contextlib.ExitStack()
        for name, value in SMALL_BLOCKS.items():
            self.patches.enter_context(mock.patch(name, value))
        self.songs, self.dataset = self.folder / "songs", self.folder / "dataset"
        self.labels: dict[str, dict[str, Any]] = {}
        self.segments: dict[str, int] = {}
        self.erased: set[str] = set()
        self.excluded: set[str] = set()
        self.settings = {key: values[0] for key, values in SETTINGS.items()}
        self.sound: set[str] = set()
        self.may_be_stale = False
        self.erased_in = 0
        # A dataset needs at least one recording, so this recording always stays.
        self.add("anchor.wav", 1, 0.5)
        # Two are resampled. How many spans they have depends on what there is beside them.
        self.add("a.wav", 2, 2.1, 4410)
        self.add("b.wav", 3, 1.3, 4410)
        self.add("c.wav", 4, 0.5)
        extract_here(self.table(), self.dataset, *self.recipe())
        # A user may put files into the folders that melmill fills.
        for folder in ("index/songs", "staging", "runs", "split=train"):
            (self.dataset / folder).mkdir(parents=True, exist_ok=True)
            (self.dataset / folder / "mine.wav").write_bytes(b"mine")

    def table(self, *, without: frozenset[str] = frozenset(), file: str = "songs.jsonl") -> Path:
        rows = [
            {"uri": name, **self.labels[name], **segment}
            for name in sorted(self.labels.keys() - without)
            for segment in self.segments_of(name)
        ]
        return write_table(self.songs / file, rows)

    def segments_of(self, name: str) -> list[dict[str, float]]:
        """Return the segments of a recording: the whole, or segments of an eighth of a second.

        If the number is negative, the segment is impossible, which is that recording's failure.
        """
        number = self.segments.get(name, 0)
        if not number:
            return [{}]
        if number < 0:
            return [{"start": 0.0, "end": -1.0}]
        return [{"start": i / 8, "end": (i + 1) / 8} for i in range(number)]

    def recipe(self) -> list[str]:
        exclude = self.folder / "exclude.txt"
        exclude.write_text("".join(f"{self.songs / name}\n" for name in sorted(self.excluded)))
        settings = [f"{key}={value}" for key, value in self.settings.items()]
        small = [setting for setting in SMALL if not setting.startswith("mel.")]
        return [*small, ONCE, ACOUSTIC, f"catalogue.exclude={exclude}", *settings]

    @rule(name=NAMES, seed=SEEDS, seconds=SECONDS, rate=RATES)
    def add(self, name: str, seed: int, seconds: float, rate: int = RATE) -> None:
        (self.songs / name).unlink(missing_ok=True)
        write_song(self.songs / name, seed, seconds, rate)
        self.labels.setdefault(name, {"genre": "rock"})
        self.sound.add(name)

    @rule(name=NAMES, source=NAMES)
    def copy(self, name: str, source: str) -> None:
        """Write the sound of another recording, as it is now, to a file."""
        if name == source or not (self.songs / source).exists():
            return
        (self.songs / name).unlink(missing_ok=True)
        shutil.copyfile(self.songs / source, self.songs / name)
        self.labels.setdefault(name, {"genre": "rock"})
        self.sound.discard(name)
        self.sound |= {name} if source in self.sound else set()

    @rule(name=NAMES, share=st.sampled_from([0.3, 0.9]), rate=RATES)
    def truncate(self, name: str, share: float, rate: int) -> None:
        self.add(name, 7, 1.0, rate)
        content = (self.songs / name).read_bytes()
        (self.songs / name).write_bytes(content[: round(share * len(content))])
        self.sound.discard(name)

    @rule(name=NAMES, seconds=st.sampled_from([1.0, 2.5]), frames=st.integers(0, 140))
    def claim_another_length(self, name: str, seconds: float, frames: int) -> None:
        """Write an MP3 whose tag counts another number of frames than the file has."""
        (self.songs / name).unlink(missing_ok=True)
        whole = encode(noise(seconds, 16_000, frames), 16_000, "mp3_vbr")
        (self.songs / name).write_bytes(with_xing(whole, frames=frames))
        self.labels.setdefault(name, {"genre": "rock"})
        self.sound.add(name)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.labels.pop(name, None)

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        self.songs.mkdir(exist_ok=True)
        (self.songs / name).unlink(missing_ok=True)
        (self.songs / name).write_bytes(b"RIFF, and nothing more")
        self.labels.setdefault(name, {"genre": "rock"})
        self.sound.discard(name)

    @rule(name=NAMES)
    def lose(self, name: str) -> None:
        (self.songs / name).unlink(missing_ok=True)
        self.labels.setdefault(name, {"genre": "rock"})
        self.sound.discard(name)

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

    @rule(
        numbers=st.dictionaries(
            st.sampled_from(sorted(SETTINGS)), st.integers(0, 2), min_size=1, max_size=3
        )
    )
    def configure(self, numbers: dict[str, int]) -> None:
        values = {key: SETTINGS[key] for key in numbers}
        self.settings |= {key: values[key][n % len(values[key])] for key, n in numbers.items()}

    @rule(name=NAMES, number=st.integers(-1, 3))
    def segment(self, name: str, number: int) -> None:
        self.segments[name] = number

    @rule(name=NAMES, excluded=st.booleans())
    def exclude(self, name: str, excluded: bool) -> None:
        self.excluded = self.excluded | {name} if excluded else self.excluded - {name}

    @rule()
    def refresh_from_a_parent_folder(self) -> None:
        """With another root all recordings are new, but those that were taken down stay out."""
        rows = [{"uri": f"songs/{name}", "start": 0.0, "end": 0.1} for name in sorted(self.labels)]
        parent = write_table(self.folder / "parent.jsonl", rows)
        refresh_here(parent, self.dataset, *self.recipe())
        assert self.known() == self.labels.keys() - self.gone() - self.excluded
        self.refresh()

    @rule()
    def refresh(self) -> None:
        before = self.marks()
        refresh_here(self.table(), self.dataset, *self.recipe())
        after = self.marks()
        assert {name: after[name] for name in before if name in after} == {
            name: mark for name, mark in before.items() if name in after
        }
        self.is_up_to_date()

    @rule(number=st.integers(0, 4), mark=st.integers(0, 3), kill=st.none() | KILLS)
    def mark(self, number: int, mark: int, kill: tuple[str, int] | None) -> None:
        """Give a recording, with all its segments, a value in an added column."""
        names = sorted(self.known())
        if not names:
            return
        name, before = str(self.songs / names[number % len(names)]), self.marks()
        table = write_table(self.folder / "marks.jsonl", [{"uri": name, "mark": mark}])
        addition = Addition(str(table), on="uri", mode="update")
        with killed(kill):
            add_columns(Store(str(self.dataset)), addition)
        self.may_be_stale = kill is not None
        if kill is not None and self.marks() == before:
            return
        rows = Dataset(self.dataset).recordings(["recording_id", "uri"]).to_pylist()
        changed = {row["recording_id"]: mark for row in rows if row["uri"] == name}
        assert self.marks() == before | changed

    def marks(self) -> dict[str, int | None]:
        """Return the value of each recording in the added column."""
        opened = Dataset(self.dataset)
        names = ["recording_id", *({"mark"} & opened.columns.keys())]
        rows = opened.recordings(names).to_pylist()
        return {row["recording_id"]: row.get("mark") for row in rows}

    def is_up_to_date(self) -> None:
        """Assert that the dataset is what a new extraction gives, and that a refresh keeps it."""
        self.may_be_stale = False
        fresh = self.table(without=frozenset(self.gone()), file="fresh.jsonl")
        assert_as_fresh(fresh, self.dataset, self.folder / "fresh", *self.recipe())
        self.statuses_are_right()
        assert not refresh_here(self.table(), self.dataset, ONCE).committed
        # A run that committed leaves no working files, even if it was killed after its commit.
        store = Store(str(self.dataset))
        runs = {past.snapshot.run.partition("-")[0] for past in read_history(store)} - {""}
        assert [name for run in runs for name in store.names(f"staging/{run}")] == []

    def statuses_are_right(self) -> None:
        """Assert that sound recordings are ``ok`` and that no other recording is."""
        left_out = [] if self.settings["select"] == "null" else ["deselected"]
        left_out += ["duplicate"] if self.settings["dedupe"] == "keep_best" else []
        for uri, (status, _) in statuses_of(self.dataset).items():
            name = Path(uri).name
            if self.segments.get(name, 0) < 0 or name not in self.sound:
                assert status in ("failed", "partial", *left_out), name
            elif not self.segments.get(name) and self.settings[LIMIT] == SETTINGS[LIMIT][0]:
                assert status in ("ok", "skipped", *left_out), name

    @rule()
    def extract_again(self) -> None:
        recipe = load_config(None, self.recipe())
        current = require_snapshot(Store(str(self.dataset)))
        stored, requested = current.configuration, recipe.as_dict()
        same = current.features == recipe.feature_spec().canonical() and all(
            stored[section] == requested[section]
            for section in ("split", "output", "select", "dedupe")
        )
        if same and current.catalogue == str(self.table()):
            extract_here(self.table(), self.dataset, *self.recipe())
            self.is_up_to_date()
        else:
            with pytest.raises(DatasetError, match="with another"):
                extract_here(self.table(), self.dataset, *self.recipe())

    @rule(
        name=NAMES,
        stage=st.sampled_from([Stage.PROBE, Stage.DECODE]),
        seed=SEEDS,
        seconds=SECONDS,
        kill=st.none() | KILLS,
    )
    def refresh_through_failures(
        self, name: str, stage: Stage, seed: int, seconds: float, kill: tuple[str, int] | None
    ) -> None:
        self.add(name, seed, seconds)  # a file that did not change would not be read
        version = self.version()
        with failing_for_a_while(name, stage), killed(kill):
            refresh_here(self.table(), self.dataset, *self.recipe())
        # The failure may have passed. A run that goes on from a killed one finds out; otherwise a
        # refresh that allows another attempt does.
        if self.version() > version:
            refresh_here(self.table(), self.dataset, *self.recipe(), "refresh.max_attempts=9")
        self.refresh()

    @rule(name=NAMES, frames=st.integers(95, 140))
    def count_again_after_a_failure(self, name: str, frames: int) -> None:
        """A recording fails in one shard, and another shard shows that its header is wrong."""
        self.settings["output.shard_megabytes"] = SETTINGS["output.shard_megabytes"][1]
        self.claim_another_length(name, 2.5, frames)
        with failing_for_a_while(name, Stage.DECODE):
            refresh_here(self.table(), self.dataset, *self.recipe())
        refresh_here(self.table(), self.dataset, *self.recipe(), "refresh.max_attempts=9")
        self.refresh()

    @rule(name=NAMES, seed=SEEDS)
    def change_twice_within_a_second(self, name: str, seed: int) -> None:
        """Change a file again after a refresh, in a store whose times are whole seconds."""
        second = int(time.time()) + 60  # a clock that is fast, so that no slow test is too late
        for number in (seed, seed + 1):
            self.add(name, number, 0.5)
            os.utime(self.songs / name, (second, second))
            refresh_here(self.table(), self.dataset, *self.recipe())
        fresh = self.table(without=frozenset(self.gone()), file="fresh.jsonl")
        assert_as_fresh(fresh, self.dataset, self.folder / "fresh", *self.recipe())
        (self.songs / name).touch()
        self.refresh()

    @rule(seed=st.integers(5, 9))
    def refresh_beside_a_rival(self, seed: int) -> None:
        """A rival with other settings commits just before this refresh would commit."""
        real, version = melmill.pipelines.extract.require_outcome, self.version()

        def require_outcome(job: Any) -> Any:
            melmill.pipelines.extract.require_outcome = real
            outcome = real(job)
            refresh_here(self.table(), self.dataset, f"split.seed={seed}")
            return outcome

        patched = mock.patch.object(melmill.pipelines.extract, "require_outcome", require_outcome)
        with patched, self.leaving_nothing_if_overtaken():
            refresh_here(self.table(), self.dataset, *self.recipe())
            assert self.version() == version + 1
        self.refresh()

    @rule(number=st.integers(0, 4), seed=SEEDS)
    def refresh_beside_a_takedown(self, number: int, seed: int) -> None:
        """A takedown commits while a refresh holds new rows of the same recording."""
        names = sorted(self.known() - {"anchor.wav"})
        if not names:
            return
        name = names[number % len(names)]
        self.add(name, 200 + seed, 1.3)
        real = melmill.pipelines.extract.require_outcome

        def require_outcome(job: Any) -> Any:
            melmill.pipelines.extract.require_outcome = real
            takedown(Store(str(self.dataset)), [str(self.songs / name)])
            return real(job)

        patched = mock.patch.object(melmill.pipelines.extract, "require_outcome", require_outcome)
        with patched, self.leaving_nothing_if_overtaken():
            refresh_here(self.table(), self.dataset, *self.recipe())
        assert name not in self.known()
        self.erase(name)
        self.refresh()

    @rule(seed=st.integers(5, 9), rival=st.booleans())
    def replace(self, seed: int, rival: bool) -> None:
        """Replace the dataset, perhaps beside a rival that commits first."""
        real = melmill.pipelines.extract.require_outcome

        def require_outcome(job: Any) -> Any:
            melmill.pipelines.extract.require_outcome = real
            if rival:
                refresh_here(self.table(), self.dataset, f"split.seed={seed}")
            return real(job)

        patched = mock.patch.object(melmill.pipelines.extract, "require_outcome", require_outcome)
        with patched, self.leaving_nothing_if_overtaken():
            extract_here(self.table(), self.dataset, *self.recipe(), overwrite=True)
        self.refresh()

    @contextlib.contextmanager
    def leaving_nothing_if_overtaken(self) -> Iterator[None]:
        """Assert that a run which another run overtook leaves no file of its own."""
        before = files_of(self.dataset)
        try:
            yield
        except ConflictError:
            store = Store(str(self.dataset))
            # A takedown makes shards and indexes of earlier versions, too.
            need = needed(store, [past for past in read_history(store) if past.kept])
            added = files_of(self.dataset) - before - needed_files(self.dataset)
            assert {name for name in added if not need.has(name)} == set()

    @rule(name=NAMES, new=st.booleans())
    def refresh_beside_one_that_misses_a_recording(self, name: str, new: bool) -> None:
        """A rival with the same command misses a recording, and perhaps has nothing to do."""
        if new:
            self.remove(name)
            self.refresh()
            self.add(name, 8, 1.0)
        real, committed = melmill.pipelines.extract.require_outcome, []

        def require_outcome(job: Any) -> Any:
            melmill.pipelines.extract.require_outcome = real
            self.table(without=frozenset({name}))
            rival = refresh_here(self.songs / "songs.jsonl", self.dataset, *self.recipe())
            committed.append(rival.committed)
            self.table()
            return real(job)

        patched = mock.patch.object(melmill.pipelines.extract, "require_outcome", require_outcome)
        with patched, self.leaving_nothing_if_overtaken():
            refresh_here(self.table(), self.dataset, *self.recipe())
        if committed == [True]:
            self.refresh()
        else:
            self.is_up_to_date()

    def version(self) -> int:
        return require_snapshot(Store(str(self.dataset))).version

    @rule(kill=KILLS)
    def refresh_and_be_killed(self, kill: tuple[str, int]) -> None:
        before, version = rows_of(self.dataset), self.version()
        with killed(kill):
            refresh_here(self.table(), self.dataset, *self.recipe())
        assert self.version() in (version, version + 1)
        self.may_be_stale |= self.version() > version
        if self.version() == version:
            assert rows_of(self.dataset) == before

    @rule(name=NAMES, seed=SEEDS, write=st.integers(0, 4))
    def refresh_and_be_killed_behind_its_commit(self, name: str, seed: int, write: int) -> None:
        self.add(name, 400 + seed, 0.5)  # so that there is something to commit
        version = self.version()
        with killed_after_the_commit(write):
            refresh_here(self.table(), self.dataset, *self.recipe())
        self.may_be_stale |= self.version() > version

    @rule(name=NAMES, seed=SEEDS, kill=KILLS)
    def abandon_a_killed_refresh(self, name: str, seed: int, kill: tuple[str, int]) -> None:
        """No run goes on from the killed one, because the recording changes again."""
        self.add(name, 100 + seed, 1.3)
        self.refresh_and_be_killed(kill)
        self.add(name, 200 + seed, 0.5)
        self.collect(keep=1)

    @rule(number=st.integers(0, 4), seed=SEEDS, removal=st.integers(0, 12))
    def collect_and_be_killed(self, number: int, seed: int, removal: int) -> None:
        """A killed ``gc`` leaves files of an old version of a recording, which is taken down."""
        if known := sorted(self.known() - {"anchor.wav"}):
            name = known[number % len(known)]
            self.add(name, 300 + seed, 1.3)
            self.refresh()
            with killed_at_removal(removal):
                collect(Store(str(self.dataset)), RetentionConfig(keep_snapshots=1, grace_hours=0))
            if name in self.known():
                self.erase(name)

    @rule(write=st.integers(0, 12))
    def take_down_and_be_killed(self, write: int) -> None:
        if known := sorted(self.known() & {"b.wav", "d.wav"}):
            with killed_at(write):
                takedown(Store(str(self.dataset)), [str(self.songs / known[0])])
            self.erase(known[0])

    @rule(
        number=st.integers(0, 4),
        how=st.sampled_from(["{}", "file://{}"]),
        kill=st.none() | KILLS,
        back=st.sampled_from(["parent", "segments", ""]),
    )
    def take_down(self, number: int, how: str, kill: tuple[str, int] | None, back: str) -> None:
        """Erase a recording, perhaps after a killed refresh; then list it again in another way."""
        if known := sorted(self.known() - {"anchor.wav"}):
            name = known[number % len(known)]
            if kill is not None:
                self.add(name, 100 + kill[1], 1.3)
                self.refresh_and_be_killed(kill)
            self.erase(name, how)
            if back == "parent":
                self.refresh_from_a_parent_folder()
            elif back == "segments":
                self.segment(name, (self.segments.get(name, 0) + 1) % 4)
                self.refresh()

    def erase(self, name: str, how: str = "{}") -> None:
        takedown(Store(str(self.dataset)), [how.format(self.songs / name)])
        # If contents are hashed, copies are erased, too.
        self.erased = {Path(record.uri).name for record in self.taken_down()}
        assert name in self.erased
        # Other readers may no longer be able to read earlier versions.
        self.erased_in = self.version()
        self.may_be_stale = False
        assert not self.erased & self.known()
        erased = sorted(str(self.songs / name) for name in self.erased)
        store = Store(str(self.dataset))
        for index in {entry["index"] for entry in history(store) if entry["kept"]}:
            uris = {row["uri"] for row in read_index(store, index, "recordings", ["uri"])}
            assert uris.isdisjoint(erased)
        assert mentions_of(self.dataset, *erased) == []

    def taken_down(self) -> list[TakenDown]:
        store = Store(str(self.dataset))
        return read_taken_down(store, require_snapshot(store).taken_down)

    def gone(self) -> set[str]:
        """Return the names of files that stay out of the dataset: erased files and their copies."""
        if self.settings["catalogue.content_hashes"] == "false":
            return self.erased
        contents = {record.content for record in self.taken_down()} - {""}
        files = {path.name: path for path in self.songs.glob("*.wav")}
        hashes = {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        return self.erased | {name for name, content in hashes.items() if content in contents}

    def known(self) -> set[str]:
        """Return the names of the recordings in the current snapshot."""
        return {Path(uri).name for uri in statuses_of(self.dataset)}

    @rule()
    def comment_on_a_column(self) -> None:
        DeltaTable(self.dataset).alter.set_column_metadata("uri", {"comment": "mine"})

    @rule()
    def export_rows(self) -> None:
        shutil.rmtree(self.folder / "view", ignore_errors=True)
        store, view = Store(str(self.dataset)), Store(str(self.folder / "view"))
        result = export(ExportJob(store, "", view, "numpy", "view", "none"), here())
        assert sum(result.rows.values()) == len(rows_of(self.dataset))

    @rule()
    def compact(self) -> None:
        before = rows_of(self.dataset)
        compact(Store(str(self.dataset)), here())
        self.may_be_stale = False
        assert rows_of(self.dataset) == before

    @rule(keep=st.integers(1, 3))
    def collect(self, keep: int) -> None:
        before = rows_of(self.dataset)
        store = Store(str(self.dataset))
        collect(store, RetentionConfig(keep_snapshots=keep, grace_hours=0))
        self.may_be_stale = False
        assert rows_of(self.dataset) == before
        versions = [entry["version"] for entry in history(store) if entry["kept"]]
        for version in versions:
            self.rows_of(version)
        if keep == 1:
            self.only_the_current_is_left()

    def rows_of(self, version: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Read a kept version from the Delta table, or from a checkout if a takedown rewrote it."""
        if version >= self.erased_in:
            return rows_of(self.dataset, version)
        view = self.folder / "checkout"
        shutil.rmtree(view, ignore_errors=True)
        checkout(Store(str(self.dataset)), version, view)
        return rows_in(json.loads((view / "files.json").read_text())["parquet"])

    def only_the_current_is_left(self) -> None:
        needed = needed_files(self.dataset)
        files = {name for name in files_of(self.dataset) if not name.endswith("/mine.wav")}
        assert files <= needed | {"tfrecord/files.json", "tfrecord/features.json"}

    @precondition(lambda self: len(history(Store(str(self.dataset)))) > 1)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        store = Store(str(self.dataset))
        versions = [entry["version"] for entry in history(store) if entry["kept"]]
        version = data.draw(st.sampled_from(versions))
        expected = self.rows_of(version)
        rollback(store, version)
        self.may_be_stale = False
        assert rows_of(self.dataset) == expected

    @invariant()
    def what_is_there_is_whole(self) -> None:
        if hasattr(self, "dataset"):
            store = Store(str(self.dataset))
            faults = validate(store, 1, lambda number: None)
            # A run killed after its commit leaves stale files, and the next refresh fixes them.
            if self.may_be_stale:
                faults = [
                    fault for fault in faults if "the next refresh writes it again" not in fault
                ]
            assert faults == []
            list_files(store, require_snapshot(store))
            assert len(list(self.dataset.rglob("mine.wav"))) == 4

    def teardown(self) -> None:
        if hasattr(self, "dataset"):
            with self.patches:
                self.refresh()
                self.take_down_everything()
            shutil.rmtree(self.folder)

    def take_down_everything(self) -> None:
        uris = [str(self.songs / name) for name in sorted(self.known())]
        takedown(Store(str(self.dataset)), uris)
        assert rows_of(self.dataset) == {}
        assert mentions_of(self.dataset, *uris) == []
        self.may_be_stale = False
        self.what_is_there_is_whole()
        # The catalogue still lists them.
        refresh_here(self.table(), self.dataset, *self.recipe())
        assert rows_of(self.dataset) == {}
        # A refresh may leave nothing, too.
        self.add("last.wav", 500, 0.5)
        refresh_here(self.table(), self.dataset, *self.recipe())
        assert rows_of(self.dataset)
        self.remove("last.wav")
        refresh_here(self.table(), self.dataset, *self.recipe())
        assert rows_of(self.dataset) == {}
        self.what_is_there_is_whole()
