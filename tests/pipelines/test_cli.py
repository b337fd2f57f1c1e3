"""Tests of the command line in real processes: what it asks, refuses and prints."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.cli.pipeline_texts import plan_text
from melmill.pipelines.cli.snapshot_texts import refresh_text
from melmill.pipelines.plan import plan
from melmill.pipelines.refresh import plan_refresh
from melmill.pipelines.run.errors import TooManyFailuresError
from tests.pipeline_runs import (
    drop_privileges,
    extract_here,
    here,
    make_test_job,
    melmill,
    melmill_json,
    refresh_here,
)
from tests.refresh.catalogues import SMALL, statuses_of, write_song, write_songs


@pytest.fixture(scope="module")
def original_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``songs`` and a dataset ``set``; tests must not change it."""
    folder = tmp_path_factory.mktemp("made")
    extract_here(write_songs(folder / "songs", 3), folder / "set", *SMALL)
    return folder


@pytest.fixture
def folder(original_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original_folder, tmp_path / "copy"))


def test_a_script_says_yes_before_anything_is_erased(folder: Path) -> None:
    dataset = folder / "set"
    before = statuses_of(dataset)
    uri = min(before)
    refused = melmill("takedown", dataset, uri, stdin=subprocess.DEVNULL)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "There is no terminal to ask: add --yes" in refused.stderr
    assert "--yes" in refused.stderr
    assert statuses_of(dataset) == before
    # Do what the message says.
    takedown = melmill_json("takedown", dataset, uri, "--yes", stdin=subprocess.DEVNULL)
    assert [recording["uri"] for recording in takedown["erased"]] == [uri]


@pytest.fixture
def read_only(folder: Path) -> Iterator[Path]:
    """Yield a dataset that a process without root's privileges cannot write to."""
    paths = [folder / "set", *(folder / "set").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder / "set"
    for path in paths:
        path.chmod(0o755)


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "DATASET"),
        ("history", "DATASET"),
        ("diff", "DATASET", "0", "0"),
        ("validate", "DATASET", "--workers=1"),
        ("refresh", "CATALOGUE", "DATASET", "--plan"),
    ],
    ids=lambda command: command[0],
)
def test_a_dataset_that_may_only_be_read_is_read(
    command: tuple[str, ...], folder: Path, read_only: Path
) -> None:
    write_song(folder / "songs" / "new.wav", 9)
    places = {"DATASET": read_only, "CATALOGUE": folder / "songs"}
    arguments = [places.get(word, word) for word in command]
    result = melmill_json(*arguments, preexec_fn=drop_privileges)
    if command[0] == "refresh":
        assert result["difference"]["new"] == 1
        assert result["made"]["recordings"] == {"planned": 1}


def test_files_that_are_passed_over_are_counted_by_their_extension(folder: Path) -> None:
    for name in ("a.xyz", "b.XYZ", "x/c.xyz", "x/y/d.doc", "x/README", ".hidden.txt"):
        path = folder / "songs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    expected = {".xyz": 3, "": 1, ".doc": 1}
    text = "5 files with other extensions: .xyz 3, none 1, .doc 1"
    songs, dataset = folder / "songs", folder / "set"

    def planned(*settings: str) -> Any:
        return plan(make_test_job(songs, folder / "unused", *SMALL, *settings), here())

    assert planned()["passed_over"] == expected
    recipe = recipe_of_dataset(str(dataset), None, [])
    refresh_plan = plan_refresh(make_test_job(songs, dataset, *SMALL), recipe.as_dict(), here())
    assert refresh_plan["passed_over"] == expected
    # A real command prints what its workers count.
    settings = [f"--set={setting}" for setting in SMALL]
    extraction = melmill_json("extract", songs, folder / "new", *settings, "--workers=2")
    assert extraction["passed_over"] == expected
    assert text in refresh_text(str(dataset), refresh_here(songs, dataset))
    # As the message advises, add an extension to the catalogue's extensions.
    assert planned("catalogue.extensions=[wav,xyz]")["passed_over"] == {"": 1, ".doc": 1}


@pytest.mark.parametrize(
    ("command", "status", "absent"),
    [
        (["--version"], 0, {"numpy", "fsspec", "pyarrow", "apache_beam"}),
        (["extract", "--help"], 0, {"numpy", "fsspec", "pyarrow", "apache_beam"}),
        (["gc", "--keep"], 2, {"numpy", "fsspec", "pyarrow", "apache_beam"}),
        (["extract", "a", "b", "--set=x=1"], 2, {"pandas", "apache_beam", "scipy.fft"}),
        (["refresh", "a", "b", "--set=x=1"], 2, {"pandas", "apache_beam", "scipy.fft"}),
        (["plan", "a", "--set=x=1"], 2, {"pandas", "apache_beam", "scipy.fft"}),
        (["history", "DATASET"], 0, {"pandas", "apache_beam", "scipy.fft"}),
        (["inspect", "DATASET"], 0, {"pandas", "apache_beam", "scipy.fft"}),
    ],
)
def test_a_command_imports_only_what_it_needs(
    original_folder: Path, command: list[str], status: int, absent: set[str]
) -> None:
    arguments = [str(original_folder / "set") if word == "DATASET" else word for word in command]
    code = (
        "import sys\n"
        "from melmill.__main__ import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        f"print(status or 0, *sorted({absent!r} & {{*sys.modules}}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == str(status)


@pytest.mark.parametrize(
    ("option", "meant"),
    [("--confg", "--config"), ("--runer", "--runner"), ("--regoin", "--region")],
)
def test_a_misspelt_option_is_compared_with_the_commands_own(option: str, meant: str) -> None:
    refused = melmill("extract", "songs", "set", option, "x")
    assert refused.returncode == 2
    assert f"did you mean {meant}?" in refused.stderr


def test_failures_are_listed_as_lines_as_csv_and_as_json(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 2)
    (songs / "bad, very.wav").write_bytes(b"RIFF, and nothing more")
    extract_here(songs, tmp_path / "set", *SMALL)
    command = ("failures", tmp_path / "set")
    uri = str(songs / "bad, very.wav")
    assert melmill(*command).stdout.startswith(f"{uri}: unknown_format: ")
    (row,) = csv.DictReader(melmill(*command, "--csv").stdout.splitlines())
    (line,) = melmill(*command, "--json").stdout.splitlines()
    assert row == {name: str(value) for name, value in json.loads(line).items()}
    assert (row["uri"], row["stage"], row["attempts"]) == (uri, "probe", "1")


def test_a_plan_says_whether_the_extraction_would_commit(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 2)
    (songs / "bad.wav").write_bytes(b"RIFF, and nothing more")

    def refused(ratio: float) -> str:
        settings = (*SMALL, f"limits.max_failure_ratio={ratio}")
        planned = plan(make_test_job(songs, tmp_path / "unused", *settings), here())
        reason: str = planned["refused"]
        line = f"  melmill extract would commit nothing: {reason}; change something first"
        assert (line in plan_text("songs", planned).splitlines()) == bool(reason)
        assert not planned["refusal_may_pass"]
        return reason

    def extract(ratio: float) -> None:
        extract_here(songs, tmp_path / "set", *SMALL, f"limits.max_failure_ratio={ratio}")

    reason = "1 of 3 recordings fail (33.3%), and limits.max_failure_ratio allows 5.0%"
    assert refused(0.05) == reason
    with pytest.raises(TooManyFailuresError, match=r"limits\.max_failure_ratio allows 5\.0%"):
        extract(0.05)
    # Do what the message suggests.
    assert refused(0.4) == ""
    extract(0.4)
    for name in ("0.wav", "1.wav"):
        (songs / name).unlink()
    assert refused(1.0) == "no recording has any rows"
