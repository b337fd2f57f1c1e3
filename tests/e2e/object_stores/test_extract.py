"""The same command gives the same rows on every store; its options come from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from melmill.pipelines.dataset import Dataset
from tests.e2e.object_stores.conftest import new_place, upload
from tests.e2e.object_stores.servers import Place
from tests.e2e.rows import Rows, assert_same_rows, from_arrow
from tests.e2e.songs import SETTINGS, Songs
from tests.pipeline_runs import melmill

#: Columns that differ between stores; the order of rows follows from them and differs, too.
STORE_COLUMNS = ("uri",)


def run(*arguments: str | Path, places: tuple[Place, ...], status: int = 0) -> Any:
    """Run the command in the environment of a user of these stores."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AZURE_"))
    }
    for place in places:
        environment |= place.environment
    result = melmill(*arguments, env=environment)
    assert result.returncode == status, result.stderr
    return result


# The tests of refreshes cover S3 to S3, and the Dataflow test covers Google's store to itself. The
# tests of reading cover recordings on Azure.
MORE = [
    pytest.param(source, target, marks=pytest.mark.slow)
    for source, target in (("s3", "s3"), ("gcs", "s3"), ("azure", "gcs"))
]


@pytest.mark.parametrize(("source", "target"), [("s3", "azure"), *MORE])
def test_a_catalogue_and_a_dataset_on_any_store(
    source: str, target: str, endpoints: dict[str, str], songs: Songs, rows: Rows, tmp_path: Path
) -> None:
    places = (new_place(source, endpoints), new_place(target, endpoints))
    upload(places[0], songs.table.parent, "music")
    output = f"{places[1].root}/sets/dataset"
    command = ("extract", f"{places[0].root}/music/songs.jsonl", output, *SETTINGS)
    assert "Committed version 0" in run(*command, places=places).stdout

    opened = Dataset(output, places[1].options)
    actual = from_arrow(opened.as_arrow().to_table())
    assert_same_rows(actual, rows, ignore=STORE_COLUMNS)
    assert {row["uri"] for row in actual.values()} == {
        f"{places[0].root}/music/audio/{name}" for name, _ in actual
    }
    names = places[1].store("sets/dataset").top_names()
    assert names == {
        *("split=test", "split=train", "split=validation", "tfrecord", "_delta_log", "index"),
        *(".melmill", "README.md", "statistics.json"),
    }

    assert "12 recordings" in run("inspect", output, places=places).stdout
    assert "is whole" in run("validate", output, places=places).stdout
    second = run(*command, places=places)
    assert "already" in second.stdout
    view = tmp_path / "view"
    run("export", output, view, "--format", "hf", places=places)
    assert len(list(view.glob("data/*.parquet"))) == sum(map(len, map(opened.files, opened.rows)))


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("gcs", "azure")]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["s3", "gcs", "azure"], indirect=True)
def test_options_say_what_the_environment_does_not(place: Place, songs: Songs) -> None:
    upload(place, songs.table.parent / "audio", "audio")
    settings = [
        f"--set={section}.storage_options.{name}={value}"
        for section in ("catalogue", "output")
        for name, value in place.options.items()
    ]
    options = [f"--storage-option={name}={value}" for name, value in place.options.items()]
    output = f"{place.root}/dataset"
    run("extract", f"{place.root}/audio/*.flac", output, *settings, places=())
    assert "2 recordings" in run("inspect", output, *options, places=()).stdout
    assert "is whole" in run("validate", output, *options, places=()).stdout
    output_options = [option.replace("--storage", "--output-storage") for option in options]
    view = f"{place.root}/view"
    run("export", output, view, "--format", "numpy", *options, *output_options, places=())
    assert "dataset.json" in place.store("view").top_names()
    # The dataset contains no secret.
    assert not any(
        str(value) in place.store("dataset").read(name).decode(errors="replace")
        for name in place.store("dataset").names()
        for value in place.options.values()
        if value != "anon"
    )


def test_a_folder_that_holds_something_else_is_refused(place: Place, songs: Songs) -> None:
    upload(place, songs.table.parent / "audio", "audio")
    result = run("extract", songs.table, f"{place.root}/audio", places=(place,), status=2)
    assert "holds something else" in result.stderr
