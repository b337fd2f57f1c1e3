"""Columns that the real command adds are read by each loader, joined to the rows."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import melmill.pipelines.cli.column_commands
from melmill.pipelines.cli.app import app
from melmill.pipelines.cli.exit_status import Exit
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import read_index
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.e2e.rows import SPLITS, by_chunk, from_arrow
from tests.pipeline_runs import melmill, melmill_json

#: The song that is rejected. All songs get a verdict, except those in the split "test".
REJECTED = "h.mp3"


def index_rows(dataset: Path) -> list[dict[str, Any]]:
    store = Store(str(dataset))
    names, index = ["recording_id", "uri", "split", "rows"], require_snapshot(store).index
    return [dict(row) for row in read_index(store, index, "recordings", names)]


def score_of(row: dict[str, Any]) -> float:
    return len(Path(row["uri"]).name) + row["chunk_index"] / 4


def tokens_of(row: dict[str, Any]) -> list[int]:
    return list(range(row["chunk_index"] + 1))


@pytest.fixture(scope="module")
def added(dataset: Path, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the dataset with verdicts by recording, and scores and tokens by row."""
    folder = tmp_path_factory.mktemp("added")
    copy = Path(shutil.copytree(dataset, folder / "dataset"))
    verdicts = Verdicts(folder / "verdicts.csv")
    for row in index_rows(copy):
        if row["split"] != "test" and row["rows"]:
            note = "hum, from 3 s" if row["uri"].endswith(REJECTED) else ""
            verdicts.judge(row["recording_id"], row["uri"], "reject" if note else "ok", note)
    result = melmill_json("add-columns", copy, folder / "verdicts.csv", "--on", "recording_id")
    assert result["columns"] == dict.fromkeys(("verdict", "note", "judged_at"), "string")
    assert result["added_columns"]["verdict"]["lacking"] > 0
    values = [
        {
            "recording_id": row["recording_id"],
            "chunk_index": row["chunk_index"],
            "score": score_of(row),
            "tokens": tokens_of(row),
        }
        for row in rows.values()
    ]
    pq.write_table(pa.Table.from_pylist(values), folder / "scores.parquet")
    result = melmill_json("add-columns", copy, folder / "scores.parquet", "--on", "row")
    assert (result["version"], result["added_columns"]["score"]["lacking"]) == (2, 0)
    return copy


@pytest.fixture(scope="module")
def verdicts(added: Path) -> dict[str, dict[str, str]]:
    with (added.parent / "verdicts.csv").open(newline="") as file:
        return {row["recording_id"]: row for row in csv.DictReader(file)}


def test_arrow_reads_the_rows_with_their_values(added: Path, rows: Any, verdicts: Any) -> None:
    read = from_arrow(Dataset(added).as_arrow().to_table())
    assert read.keys() == rows.keys()
    for key, row in read.items():
        known = verdicts.get(row["recording_id"], {})
        assert row["verdict"] == known.get("verdict")
        assert row["note"] == (known.get("note") or None)
        assert row["score"] == score_of(row)
        assert row["tokens"] == tokens_of(row)
        np.testing.assert_array_equal(row["mel"], rows[key]["mel"])
    assert Counter(row["verdict"] for row in read.values())["reject"] > 0


def test_arrow_reads_a_split_some_columns_and_a_filter(added: Path, rows: Any) -> None:
    opened = Dataset(added)
    joined = opened.as_arrow("train")
    assert isinstance(joined, pyarrow.dataset.Dataset)
    assert joined.count_rows() == SPLITS["train"]
    expected = [row for row in rows.values() if row["split"] == "train" and score_of(row) > 5.3]
    condition = pc.field("score") > 5.3
    table = joined.to_table(columns=["uri", "chunk_index"], filter=condition)
    assert table.column_names == ["uri", "chunk_index"]
    assert by_chunk(table.to_pylist()).keys() == by_chunk(expected).keys()
    assert joined.count_rows(filter=condition) == len(expected)
    doubled = joined.to_table(columns={"twice": pc.field("score") * 2, "uri": pc.field("uri")})
    assert sum(doubled["twice"].to_pylist()) == sum(
        2 * score_of(row) for row in rows.values() if row["split"] == "train"
    )
    both = condition & (pc.field("chunk_index") == 1)
    assert joined.count_rows(filter=both) == sum(row["chunk_index"] == 1 for row in expected)
    stored = pc.field("chunk_index") == 1
    first = joined.to_table(columns=["tokens"], filter=stored)["tokens"].to_pylist()
    assert first
    assert all(tokens == [0, 1] for tokens in first)
    assert joined.head(3, columns=["score"]).num_rows == 3
    assert joined.head(0).schema == joined.schema
    first = joined.head(3, filter=pc.field("chunk_index") == 1)
    assert first["score"].to_pylist() == [score_of(row) for row in first.to_pylist()]
    batches = list(joined.to_batches(columns=["score"]))
    assert sum(batch.num_rows for batch in batches) == SPLITS["train"]


@pytest.mark.parametrize(
    "read",
    [
        "rows.head(1)",
        "batches = iter(rows.to_batches()); next(batches)",
        "reader = rows.scanner().to_reader(); reader.read_next_batch()",
    ],
)
def test_an_interpreter_may_end_in_the_middle_of_a_scan(added: Path, read: str) -> None:
    program = f"import melmill; rows = melmill.open({str(added)!r}).as_arrow(); {read}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_reads_the_files_themselves_is_refused(added: Path) -> None:
    joined = Dataset(added).as_arrow()
    for read in (
        joined.get_fragments,
        lambda: joined.filter(pc.field("score") > 1),
        lambda: joined.join(joined, "uri"),
        lambda: joined.sort_by("uri"),
        lambda: joined.take([0]),
        lambda: joined.replace_schema(joined.schema),
        lambda: joined.join_asof(joined, "uri", [], 1),
    ):
        with pytest.raises(DatasetError, match=r"is not available for rows with added columns"):
            read()
    stored = Dataset(added).as_arrow(added=False)
    assert "score" not in stored.schema.names
    assert list(stored.get_fragments())


def test_polars_and_duckdb_read_the_joined_rows(added: Path, rows: Any, verdicts: Any) -> None:
    joined = Dataset(added).as_arrow()
    expected = Counter(
        (verdicts.get(row["recording_id"], {}).get("verdict"), row["split"])
        for row in rows.values()
        if score_of(row) > 5.3
    )
    frame = (
        polars.scan_pyarrow_dataset(joined)
        .filter(polars.col("score") > 5.3)
        .group_by("verdict", "split")
        .agg(polars.len())
        .collect()
    )
    assert {(verdict, split): n for verdict, split, n in frame.rows()} == expected
    relation = duckdb.sql(
        "SELECT verdict, split, count(*) FROM joined WHERE score > 5.3 GROUP BY ALL"
    )
    assert {(verdict, split): n for verdict, split, n in relation.fetchall()} == expected


def test_readers_without_melmill_join_the_files(added: Path, rows: Any) -> None:
    (scores,) = [t for t in require_snapshot(Store(str(added))).side_tables if t.is_by_row]
    files = str(added / "columns" / scores.name / "*.parquet")
    key = ["recording_id", "chunk_index"]
    frame = polars.read_delta(str(added)).join(polars.read_parquet(files), on=key, how="left")
    read = [(row["uri"], row["chunk_index"], row["score"]) for row in frame.iter_rows(named=True)]
    expected = [(row["uri"], row["chunk_index"], score_of(row)) for row in rows.values()]
    assert sorted(read) == sorted(expected)
    stored = Dataset(added).as_arrow(added=False)
    relation = duckdb.sql(
        "SELECT stored.uri, chunk_index, score FROM stored "
        f"LEFT JOIN '{files}' AS added USING (recording_id, chunk_index)"
    )
    assert stored.count_rows() == len(expected)
    assert sorted(relation.fetchall()) == sorted(expected)


def test_the_table_of_recordings_has_their_values(added: Path, verdicts: Any) -> None:
    table = Dataset(added).recordings()
    assert table.column_names[-3:] == ["verdict", "note", "judged_at"]
    known = {row["recording_id"]: row["verdict"] for row in table.to_pylist()}
    assert known == {
        name: verdicts.get(name, {}).get("verdict") for name in table["recording_id"].to_pylist()
    }
    chosen = Dataset(added).recordings(["verdict", "uri"])
    assert chosen.column_names == ["verdict", "uri"]


@pytest.mark.slow
def test_tensorflow_looks_the_values_up(added: Path, rows: Any, verdicts: Any, tf: Any) -> None:
    opened = Dataset(added)
    assert {"verdict", "score", "tokens"} <= opened.as_tf("train").element_spec.keys()
    assert "verdict" not in opened.as_tf("test").element_spec
    names = ["mel", "uri", "verdict", "score", "tokens", "chunk_index"]
    examples = list(opened.as_tf("train", names).as_numpy_iterator())
    assert len(examples) == SPLITS["train"]
    for example in examples:
        assert [*example] == names
        key = Path(example["uri"].decode()).name, int(example["chunk_index"])
        row = rows[key]
        assert example["score"] == np.float32(score_of(row))
        assert example["tokens"].tolist() == tokens_of(row)
        assert example["verdict"].decode() == verdicts[row["recording_id"]]["verdict"]
        np.testing.assert_array_equal(example["mel"], row["mel"])
    only = list(opened.as_tf("train", ["score"]).as_numpy_iterator())
    assert [*only[0]] == ["score"]
    with pytest.raises(DatasetError, match="label 'verdict' has no value in some rows of test"):
        opened.as_tf("test", ["verdict"])


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_joins_the_values(added: Path, rows: Any, verdicts: Any, workers: int) -> None:
    pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    opened = Dataset(added)
    names = ["mel", "uri", "chunk_index", "verdict", "score"]
    loader = DataLoader(opened.as_torch("train", names), batch_size=4, num_workers=workers)
    read = [
        (Path(uri).name, int(chunk), verdict, float(score))
        for batch in loader
        for uri, chunk, verdict, score in zip(*(batch[name] for name in names[1:]), strict=True)
    ]
    expected = [
        (name, chunk, verdicts[row["recording_id"]]["verdict"], score_of(row))
        for (name, chunk), row in rows.items()
        if row["split"] == "train"
    ]
    assert sorted(read) == sorted(expected)
    by_default = next(iter(opened.as_torch("train")))
    assert {"verdict", "score"} <= by_default.keys()
    assert "tokens" not in by_default
    assert next(iter(opened.as_torch("train", ["tokens"])))["tokens"][0] == 0


def test_an_export_says_what_it_lacks(added: Path, tmp_path: Path) -> None:
    result = melmill("export", added, tmp_path / "view", "--format", "hf", "--workers=1", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "without the added columns verdict, note, judged_at, score, tokens" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{v}"], "has an added column 'verdict' already; --replace replaces its values"),
        (["no.csv"], "no.csv does not exist"),
        (["{v}", "--on", "row"], "has no column 'chunk_index', which says what a row belongs to"),
        (["{v}", "--on", "song"], "--on song: unknown; allowed: recording_id, uri, row"),
        (["{v}", "--type", "note"], "--type note: must be NAME=TYPE"),
        (["{v}", "--columns", "note,x"], "has no column 'x'"),
        (["{v}", "--drop", "note"], "give a table, or the names of columns to drop"),
        ([], "give a table, or the names of columns to drop"),
        (["--drop", "x"], "--drop x: .* has no added column of this name; it has: verdict, note"),
    ],
)
def test_wrong_usage_is_refused(added: Path, arguments: list[str], message: str) -> None:
    files = sorted(added.rglob("*"))
    values = [argument.format(v=added.parent / "verdicts.csv") for argument in arguments]
    result = CliRunner().invoke(app, ["add-columns", str(added), *values])
    assert result.exit_code == Exit.USAGE
    assert re.search(message, result.stderr), result.stderr
    assert sorted(added.rglob("*")) == files


def test_the_command_says_what_it_did(added: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(added, tmp_path / "copy"))
    table = tmp_path / "by_uri.csv"
    lines = [f"audio/{Path(row['uri']).name},jazz" for row in index_rows(copy) if row["rows"]]
    table.write_text("uri,mood\n" + "\n".join(lines[1:]) + "\nno.wav,rock\n")
    result = melmill("add-columns", copy, table, "--on", "uri", "--ignore-unknown")
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == f"Committed version 3 of {copy}: added mood (string)"
    assert second.startswith(
        f"  mood: {len(lines) - 1} of {len(lines)} recordings have values; missing in 1"
    )
    assert third == f"  left out: 1 row of {table} without a place in the dataset"
    result = melmill("add-columns", copy, table, "--on", "uri", "--ignore-unknown", "--update")
    assert result.stdout == f"Nothing to do: version 3 of {copy} has these values already\n"
    result = melmill("add-columns", copy, "--drop", "mood", "--drop", "note")
    assert result.stdout == f"Committed version 4 of {copy}: dropped mood, note\n"
    assert json.loads(melmill("inspect", copy, "--json").stdout)["added_columns"].keys() == {
        "verdict",
        "judged_at",
        "score",
        "tokens",
    }
