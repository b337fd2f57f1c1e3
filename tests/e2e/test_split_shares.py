"""Empty splits are said loudly: in the plan, at the end of a run, in the card; or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.pipelines.cli.pipeline_texts import extraction_text, plan_text
from melmill.pipelines.cli.snapshot_texts import inspection_json, inspection_text, refresh_text
from melmill.pipelines.plan import plan
from melmill.pipelines.run.errors import TooManyFailuresError
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.records import Recording
from melmill.transforms.plan.splits import SplitSpec, assign_split
from melmill.transforms.snapshot.delta import read_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, make_test_job, melmill, refresh_here
from tests.refresh.catalogues import write_song, write_table

RATE = 4000
SETTINGS = (
    *(f"audio.sample_rate_hz={RATE}", "chunk.seconds=0.5", "output.min_shards=1"),
    *("mel.n_fft=256", "mel.hop_length=128", "mel.n_mels=8"),
)
GROUP = ("split.by=group", "split.group=speaker")
EMPTY = "split test is empty: split.fractions asks for 10.0% of 6 recordings"


NAMES = ("ann", "bob", "cat", "dan", "eve", "fay")


@pytest.fixture
def speakers(tmp_path: Path) -> Path:
    """Return a catalogue of six speakers."""
    for number, name in enumerate(NAMES):
        write_song(tmp_path / "songs" / f"{name}.wav", number, 0.6, RATE)
    rows = [{"uri": f"{name}.wav", "speaker": name} for name in NAMES]
    return write_table(tmp_path / "songs" / "songs.jsonl", rows)


def seed_without_test() -> str:
    """Return the setting of a seed with which no speaker is in the split test."""
    speakers = [Recording(n, n, n, labels=(("speaker", n),)) for n in NAMES]
    for seed in range(100):
        rule = SplitSpec(by="group", group="speaker", seed=seed)
        if {assign_split(speaker, rule) for speaker in speakers} == {"train", "validation"}:
            return f"split.seed={seed}"
    raise AssertionError("no such seed")


def test_an_empty_split_is_said_in_the_plan_at_the_end_and_in_the_card(
    speakers: Path, tmp_path: Path
) -> None:
    settings = (*SETTINGS, *GROUP, seed_without_test())
    planned = plan(make_test_job(speakers, tmp_path / "unused", *settings), here())
    assert EMPTY in planned["split_warnings"]
    assert f"  WARNING: {EMPTY}" in plan_text("songs", planned).splitlines()
    assert planned["refused"] == ""
    extraction = extract_here(speakers, tmp_path / "set", *settings)
    line = f"  WARNING: {EMPTY}"
    assert line in extraction_text("set", extraction).splitlines()
    assert line in refresh_text("set", extraction).splitlines()
    assert f"**Warning: {EMPTY}.**" in (tmp_path / "set" / "README.md").read_text()
    opened = OpenSnapshot.current(Store(str(tmp_path / "set")))
    assert line in inspection_text("set", opened).splitlines()
    assert EMPTY in inspection_json("set", opened)["split_warnings"]


def test_too_small_a_split_is_refused_and_a_smaller_limit_commits_the_finished_shards(
    speakers: Path, tmp_path: Path
) -> None:
    settings = (*SETTINGS, *GROUP, seed_without_test())
    strict = (*settings, "split.min_recordings=1")
    planned = plan(make_test_job(speakers, tmp_path / "unused", *strict), here())
    reason = "split.min_recordings is 1, and the split test has 0 recordings with rows"
    assert (planned["refused"], planned["refusal_may_pass"]) == (reason, False)
    with pytest.raises(ConfigError, match=f"{reason}; nothing was committed"):
        extract_here(speakers, tmp_path / "set", *strict)
    assert read_snapshot(Store(str(tmp_path / "set"))) is None
    extraction = extract_here(speakers, tmp_path / "set", *settings)
    assert extraction.committed
    assert extraction.metrics.counters["shards_reused"] > 0
    write_song(tmp_path / "songs" / "ann.wav", 9, 0.7, RATE)
    with pytest.raises(ConfigError, match=reason):
        refresh_here(speakers, tmp_path / "set", "split.min_recordings=1")


def test_splits_of_the_catalogue_are_not_compared_with_fractions(tmp_path: Path) -> None:
    for number in range(4):
        write_song(tmp_path / "songs" / f"{number}.wav", number, 0.6, RATE)
    rows = [{"uri": f"{n}.wav", "split": "train" if n else "dev"} for n in range(4)]
    table = write_table(tmp_path / "songs" / "songs.jsonl", rows)
    planned = plan(make_test_job(table, tmp_path / "unused", *SETTINGS), here())
    assert planned["split_warnings"] == []
    extraction = extract_here(table, tmp_path / "set", *SETTINGS)
    assert "WARNING" not in extraction_text("set", extraction)
    assert "Warning" not in (tmp_path / "set" / "README.md").read_text()
    strict = make_test_job(table, tmp_path / "unused", *SETTINGS, "split.min_recordings=2")
    assert "the split dev has 1 recording" in plan(strict, here())["refused"]


@pytest.mark.parametrize(("content", "status"), [(None, 1), (b"RIFF, and nothing more", 2)])
def test_a_plan_exits_as_the_extraction_would(
    tmp_path: Path, content: bytes | None, status: int
) -> None:
    """Missing files may come back; files that are no audio may not."""
    names = ("a.wav", "b.wav")
    table = write_table(tmp_path / "songs.jsonl", [{"uri": name} for name in names])
    for name in names if content else ():
        (tmp_path / name).write_bytes(content or b"")
    planned = melmill("plan", table, "--quiet")
    assert planned.returncode == status, planned.stderr
    assert "melmill extract would commit nothing: 2 of 2 recordings fail (100.0%)" in planned.stdout
    assert "of CPU time: " in planned.stdout
    with pytest.raises(TooManyFailuresError) as raised:
        extract_here(table, tmp_path / "set")
    assert raised.value.may_pass == (status == 1)
