"""Build the wheel, and read its metadata."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from melmill import __version__
from tests.e2e.runners.bare import copy_source

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
