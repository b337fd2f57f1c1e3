"""Build the wheel, read its metadata, and run the command from it with pipx."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from melmill import __version__
from tests.e2e.runners.bare import ROOT, copy_source

pytestmark = pytest.mark.slow

REPOSITORY = "https://repository.example/melmill"


def build(folder: Path, repository: str) -> Path:
    """Build the wheel from a copy of the source, and return its path."""
    source = folder / "source"
    source.mkdir(parents=True)
    copy_source(source)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, source]
    environment = {**os.environ, "MELMILL_REPOSITORY": repository}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), "")


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def fields(metadata: Message, name: str) -> list[str]:
    return [str(value) for value in metadata.get_all(name, [])]


def description(metadata: Message) -> str:
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def test_the_metadata_says_what_it_is_whose_and_for_whom(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("melmill", __version__)
    assert metadata["Summary"].endswith("on Apache Beam.")
    assert metadata["Author"] == "The melmill developers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert fields(metadata, "License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"audio", "mel spectrogram", "apache beam"} <= {*metadata["Keywords"].split(",")}
    classifiers = set(fields(metadata, "Classifier"))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} < classifiers
    assert "Typing :: Typed" in classifiers
    assert {"s3", "gcs", "azure", "explore"} < set(fields(metadata, "Provides-Extra"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert description(metadata).startswith("# melmill\n")


def test_without_a_public_repository_it_invents_no_address(wheel: Path) -> None:
    assert fields(metadata_of(wheel), "Project-URL") == []
    assert metadata_of(wheel)["Home-page"] is None


def test_with_a_repository_all_links_lead_there(tmp_path: Path) -> None:
    metadata = metadata_of(build(tmp_path, f"{REPOSITORY}/"))
    assert fields(metadata, "Project-URL") == [
        f"Source, {REPOSITORY}",
        f"Documentation, {REPOSITORY}/blob/HEAD/docs/index.md",
        f"Changelog, {REPOSITORY}/blob/HEAD/CHANGELOG.md",
        f"Issues, {REPOSITORY}/issues",
    ]
    targets = re.findall(r"\]\(([^)#]+)", description(metadata))
    assert f"{REPOSITORY}/raw/HEAD/docs/pipeline.svg" in targets
    assert f"{REPOSITORY}/blob/HEAD/docs/getting-started.md" in targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_docs_name_this_wheel(wheel: Path) -> None:
    command = f"pipx run --spec dist/{wheel.name} melmill demo"
    assert command in (ROOT / "docs/getting-started.md").read_text()
    assert command in (ROOT / "README.md").read_text()


def test_pipx_runs_the_command_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    folders = {"PIPX_HOME": str(tmp_path / "pipx"), "TMPDIR": str(tmp_path)}
    environment = {**os.environ, **folders}  # pipx passes no PYTHONPATH on
    pipx = [sys.executable, "-m", "pipx", "run", "--spec", str(wheel), "melmill"]

    def run(*arguments: str) -> str:
        command = [*pipx, *arguments]
        completed = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    assert run("--version") == f"melmill {__version__}\n"
    run("demo", "small", "--songs", "3", "--quiet")
    summary = json.loads(run("inspect", "small/dataset", "--json"))
    assert summary["rows"]
    assert len(list((tmp_path / "pipx").rglob("bin/melmill"))) == 1
    shutil.rmtree(tmp_path / "pipx")  # 1.2 GB
