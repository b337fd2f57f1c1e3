"""Twelve short songs in six formats, a table with their labels, and the command to extract them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.signals import noise, song, write_audio

#: Name, sample rate in Hz, channels, seconds, split, labels. A missing label is null.
SONGS: tuple[tuple[str, int, int, float, str, dict[str, Any]], ...] = (
    ("a.wav", 44_100, 2, 13.0, "train", {"genre": "rock", "year": 1971, "tags": ["loud", "old"]}),
    ("b.flac", 22_050, 1, 15.5, "train", {"genre": "jazz", "year": 1959, "tags": []}),
    ("c.mp3", 44_100, 2, 16.0, "validation", {"genre": "Müsette", "tempo": 180.25, "live": True}),
    ("d.ogg", 48_000, 1, 12.0, "test", {"genre": "rock", "tempo": -0.5, "live": False}),
    ("e.opus", 48_000, 2, 18.5, "train", {"year": -(2**31), "tags": ["x"]}),
    ("f.m4a", 44_100, 2, 14.0, "train", {"genre": "drone", "tempo": 1e-3, "live": True}),
    ("g.wav", 16_000, 1, 2.0, "validation", {"genre": "short", "year": 2024, "tags": ["a", "b"]}),
    ("h.mp3", 32_000, 1, 24.0, "train", {"genre": "jazz", "year": 1964, "live": True}),
    ("i.flac", 96_000, 2, 9.1, "test", {"genre": "rock", "year": 1999, "tempo": 120.0}),
    ("j.m4a", 44_100, 1, 10.0, "train", {"tags": ["ü", ""], "tempo": 99.5}),
    ("k.ogg", 44_100, 2, 13.3, "train", {"genre": "folk", "year": 2001, "live": False}),
    ("l.wav", 22_050, 1, 7.0, "test", {"genre": "folk", "year": 2002, "tags": ["z"]}),
)

LABELS = ("genre", "year", "tempo", "live", "tags")

#: Many shards, so that tests can interrupt a run between two shards; small row groups, so that a
#: shard is read in pieces.
SETTINGS = (
    *("--set", "output.min_shards=12"),
    *("--set", "output.formats=[parquet,tfrecord]"),
    *("--set", "output.row_group_rows=4"),
    *("--workers", "2"),
)


@dataclass(frozen=True)
class Songs:
    """The catalogue of songs on disk."""

    table: Path

    def path(self, name: str) -> Path:
        """Return the path of a song's audio file."""
        return self.table.parent / "audio" / name

    def command(self, output: Path | str) -> list[str]:
        """Return the arguments of ``melmill`` that make the dataset."""
        return ["extract", str(self.table), str(output), *SETTINGS]


def make_songs(folder: Path) -> Songs:
    """Encode the songs and write the table as JSON Lines, because CSV has no lists."""
    (folder / "audio").mkdir()
    lines = []
    for seed, (name, rate, channels, seconds, split, labels) in enumerate(SONGS):
        # With noise, every band stays within librosa's 80 dB, where librosa and we round alike.
        sound = song(seconds, rate, seed, channels) + noise(seconds, rate, seed, channels, 0.02)
        write_audio(folder / "audio" / name, sound, rate)
        lines.append(json.dumps({"uri": f"audio/{name}", "split": split, **labels}))
    (folder / "songs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Songs(folder / "songs.jsonl")


def python_command(*arguments: str, patch: str = "") -> list[str]:
    """Return the command that runs melmill in a new process.

    The process first runs the code `patch`, in which our modules have short names.
    """
    if not patch:
        return [sys.executable, "-m", "melmill", *arguments]
    names = "import os; from melmill.pipelines import extract; "
    names += "from melmill.pipelines.snapshots import open as snapshot_module; "
    names += "from melmill.pipelines.cli.pipeline_commands import main"
    code = f"{names}; {patch}; main()"
    return [sys.executable, "-c", code, *arguments]
