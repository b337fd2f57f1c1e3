"""``catalogue.exclude``: recordings that the user leaves out, without erasing them from history."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.cli.snapshot_texts import refresh_text
from melmill.pipelines.config import load_config
from melmill.pipelines.extract import make_job, resolve_catalogue
from melmill.pipelines.plan import plan
from melmill.pipelines.refresh import plan_refresh
from melmill.transforms.catalogue.left_out import read_uris
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, make_test_job, refresh_here
from tests.refresh.catalogues import SMALL, rows_of, statuses_of, write_songs, write_table

FEW = (*SMALL, "output.min_shards=2", "refresh.max_removed_ratio=0.1")


def names_of(dataset: Path) -> set[str]:
    return {Path(uri).name for uri in statuses_of(dataset)}


def test_the_list_is_read_at_every_refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs, dataset = write_songs(tmp_path / "songs", 3), tmp_path / "set"
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("# not ours\n\nsongs/0.wav\n")
    monkeypatch.chdir(tmp_path)
    result = extract_here(songs, dataset, *FEW, "catalogue.exclude=excluded.txt")
    assert (result.difference["excluded"], result.difference["new"]) == (1, 2)
    assert names_of(dataset) == {"1.wav", "2.wav"}
    # The recipe has the file's absolute path. max_removed_ratio does not limit exclusions.
    monkeypatch.chdir("/")
    excluded.write_text(f"file://{songs}/./1.wav\n")
    before = rows_of(dataset)
    result = refresh_here(songs, dataset)
    assert names_of(dataset) == {"0.wav", "2.wav"}
    assert (result.difference["excluded"], result.difference["removed"]) == (1, 0)
    assert "1 left out by catalogue.exclude" in refresh_text("set", result)
    assert rows_of(dataset, 0) == before
    result = refresh_here(songs, dataset)
    assert not result.committed
    assert "1 left out by catalogue.exclude" in refresh_text("set", result)
    excluded.write_text("")
    refresh_here(songs, dataset)
    assert names_of(dataset) == {"0.wav", "1.wav", "2.wav"}
    excluded.write_text("".join(f"songs/{number}.wav\n" for number in range(3)))
    refresh_here(songs, dataset)
    assert names_of(dataset) == set()


@pytest.mark.slow
def test_plans_count_excluded_recordings(tmp_path: Path) -> None:
    songs, dataset = write_songs(tmp_path / "songs", 3), tmp_path / "set"
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("songs/0.wav\n")
    settings = (*FEW, f"catalogue.exclude={excluded}")
    planned = plan(make_test_job(songs, dataset, *settings), here())
    assert planned["recordings"] == {"planned": 2, "excluded": 1}
    extract_here(songs, dataset, *settings)
    excluded.write_text("songs/0.wav\nsongs/1.wav\n")
    recipe = recipe_of_dataset(str(dataset), None, [])
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(str(dataset)))
    planned = plan_refresh(job, recipe.as_dict(), here())
    assert (planned["todo"], planned["difference"]["excluded"]) == (True, 2)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet", "list.txt", "list"])
def test_the_list_is_a_table_or_lines(tmp_path: Path, name: str) -> None:
    uris = ["../a.wav", "/b.wav", "s3://bucket/c.wav"]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"why": [1, 2, 3], "uri": uris}), path)
    elif name.endswith("jsonl"):
        write_table(path, [{"uri": uri, "why": {"said": "x"}} for uri in uris])
    else:
        head = ["uri"] if name.endswith("csv") else ["# uri"]
        path.write_text("\n".join([*head, *uris]) + "\n")
    assert list(read_uris(str(path), ())) == [f"{tmp_path.parent}/a.wav", *uris[1:]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist"),
        ("latin.txt", "Bl\u00e4ser.wav".encode("latin-1"), "is not UTF-8"),
        ("table.csv", b"url\na.wav\n", "has no column 'uri'"),
        ("table.jsonl", b"{", "line 1 is not JSON"),
        ("short.csv", b"uri,x\na.wav,1\nb.wav\n", "line 3 has 1 values"),
        ("gap.csv", b"uri,x\na.wav,1\n,2\n", "line 3: the uri is empty"),
        ("not.parquet", b"uri", "cannot be read"),
        ("folder", b"", "cannot be read"),
    ],
)
def test_a_fault_of_the_list_is_reported_before_any_worker_starts(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    songs = write_songs(tmp_path / "songs", 1)
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    recipe = load_config(None, [f"catalogue.exclude={path}"])
    with pytest.raises(CatalogueError, match=rf"catalogue\.exclude: {path}: .*{message}.*correct"):
        resolve_catalogue(str(songs), recipe)


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl", "list.csv"])
def test_an_empty_list_excludes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("uri\n" if name.endswith("csv") else "")
    assert list(read_uris(str(tmp_path / name), ())) == []
