"""Invalid catalogues and recipes: each is refused with a message that says what to change."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from deltalake import DeltaTable

from melmill.pipelines.config import load_config
from melmill.pipelines.extract import resolve_catalogue
from melmill.pipelines.run.options import pipeline_options
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import CatalogueError, ConfigError, UserError
from melmill.transforms.index.tables import read_index
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import drop_privileges, extract_here, melmill

RATE = 22_050


def write_song(path: Path, seed: int = 0, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return signals.write_audio(path, signals.song(seconds, RATE, seed), RATE)


def refusal(catalogue: Path | str, *overrides: str) -> str:
    """Return the error message about a catalogue, which comes before any worker starts."""
    with pytest.raises(CatalogueError) as raised:
        resolve_catalogue(str(catalogue), load_config(None, overrides))
    return str(raised.value)


def table(folder: Path, text: str, name: str = "songs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "songs").startswith(
        f"{tmp_path}/songs does not exist; check the path"
    )


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "songs.csv").startswith(f"{tmp_path}/songs.csv does not exist;")


def test_an_empty_name_is_refused() -> None:
    assert "the catalogue is an empty string" in refusal("")


def test_a_path_below_a_file_is_missing(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    assert "does not exist" in refusal(tmp_path / "a.wav" / "b.wav")


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "holds no files with the extensions wav" in message


def test_a_directory_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    table(tmp_path / "notes", "la la la", "lyrics.txt")
    write_song(tmp_path / ".hidden" / "a.wav")
    assert "hidden files and directories are skipped" in refusal(tmp_path)


def test_a_directory_with_only_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert "holds no files" in refusal(tmp_path)


def test_a_glob_without_a_match_is_refused(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    assert "*.flac" in refusal(tmp_path / "*.flac")


def test_a_file_that_is_neither_audio_nor_a_table_is_refused(tmp_path: Path) -> None:
    message = refusal(table(tmp_path, "la la la", "lyrics.txt"))
    assert "neither a table" in message
    assert "catalogue.extensions" in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.csv", "", ["no column 'uri'"]),
        ("head.csv", "uri,genre\n", ["has no rows"]),
        ("no uri.csv", "path,genre\na.wav,rock\n", ["no column 'uri'", "'path', 'genre'"]),
        ("empty.jsonl", "", ["no column 'uri'"]),
        ("no uri.jsonl", '{"path": "a.wav"}\n', ["no column 'uri'", "path"]),
        ("torn.csv", "uri,genre\nb.wav\n", ["line 2", "1 values for 2 columns"]),
        ("open.csv", 'uri,genre\n"a.wav,rock\n', ["line 2", "not CSV"]),
        ("all.csv", "uri,end\na.wav,-1\n,\n", ["2 faults", "line 2, column 'end'", "line 3"]),
        ("empty cell.csv", "uri,genre\n,rock\n", ["line 2", "'uri'", "empty"]),
        ("twice.csv", "uri,genre,Genre\na.wav,x,y\n", ["more than one column", "Genre"]),
        ("reserved.csv", "uri,mel\na.wav,1\n", ["'mel'", "rename the column"]),
        ("start.csv", "uri,start,end\na.wav,2,1\n", ["line 2", "'end'", "1.0"]),
        ("inf.csv", "uri,start\na.wav,inf\n", ["line 2", "'start'"]),
        ("nested.jsonl", '{"uri": "a.wav", "m": {"a": 1}}\n', ["'m'", "cannot be a label"]),
    ],
)
def test_an_invalid_table_is_refused(
    name: str, text: str, words: Sequence[str], tmp_path: Path
) -> None:
    message = refusal(table(tmp_path, text, name))
    assert name in message
    for word in words:
        assert word in message


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_bytes(b"uri\n\xff\xfe.wav\n")
    assert "not UTF-8" in refusal(tmp_path / "songs.csv")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"la la la" * 100])
def test_a_broken_parquet_table_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "songs.parquet").write_bytes(content)
    assert "songs.parquet cannot be read" in refusal(tmp_path / "songs.parquet")


def test_a_parquet_table_without_uris_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.wav"]}), tmp_path / "songs.parquet")
    assert "no column 'uri'" in refusal(tmp_path / "songs.parquet")


def test_a_group_that_is_no_label_is_refused_and_the_labels_are_listed(tmp_path: Path) -> None:
    path = table(tmp_path, "uri,album,genre\na.wav,x,y\n")
    message = refusal(path, "split.by=group", "split.group=artist")
    assert "'artist'" in message
    assert "album, genre" in message


def test_one_uri_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    path = table(tmp_path, "uri\na.wav\nb.wav\n./a.wav\n")
    with pytest.raises(UserError) as raised:
        extract_here(path, tmp_path / "dataset")
    assert "line 2" in str(raised.value)
    assert "line 4" in str(raised.value)
    assert not DeltaTable.is_deltatable(str(tmp_path / "dataset"))


def test_a_group_without_a_value_is_refused_with_its_line(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    path = table(tmp_path, "uri,album\na.wav,\n")
    with pytest.raises(UserError, match=r"line 2.*album"):
        extract_here(path, tmp_path / "dataset", "split.by=group", "split.group=album")
    assert not DeltaTable.is_deltatable(str(tmp_path / "dataset"))


def test_a_row_of_a_missing_file_is_that_rows_failure(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav")
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    path = table(tmp_path, "uri\na.wav\nmissing.wav\nfifo.wav\nfolder.wav\na.wav/b.wav\n")
    extraction = extract_here(path, tmp_path / "dataset", "limits.max_failure_ratio=0.9")
    failures = read_index(Store(str(tmp_path / "dataset")), extraction.snapshot.index, "failures")
    causes = {Path(row["uri"]).name: (row["stage"], row["cause"]) for row in failures}
    assert causes == {
        "missing.wav": ("read", "not_found"),
        "fifo.wav": ("read", "storage_error"),
        "folder.wav": ("read", "storage_error"),
        "b.wav": ("read", "not_found"),
    }
    assert extraction.totals.rows == 1


def test_a_trailing_slash_changes_nothing(tmp_path: Path) -> None:
    write_song(tmp_path / "songs" / "a.wav")
    first = extract_here(f"{tmp_path}/songs", tmp_path / "dataset")
    second = extract_here(f"{tmp_path}/songs//", f"{tmp_path}/dataset/")
    assert (first.committed, second.committed) == (True, False)
    assert second.snapshot == first.snapshot


def test_an_output_inside_the_catalogue_is_not_listed(tmp_path: Path) -> None:
    for number in range(3):
        write_song(tmp_path / f"{number}.wav", number)
    output = tmp_path / "dataset"
    first = extract_here(tmp_path, output, "output.formats=[parquet,tfrecord]")
    second = extract_here(tmp_path, output, "output.formats=[parquet,tfrecord]")
    assert first.totals.recordings == {"ok": 3}
    assert not second.committed


def table_of_tags(folder: Path, tags: Sequence[list[str | None] | None]) -> Path:
    rows = [{"uri": f"{i}.wav", "tags": value} for i, value in enumerate(tags)]
    for number in range(len(tags)):
        write_song(folder / f"{number}.wav", number)
    return table(folder, "".join(json.dumps(row) + "\n" for row in rows), "songs.jsonl")


BOTH = "output.formats=[parquet,tfrecord]"


def test_list_labels_that_are_null_or_empty_reach_both_formats(tmp_path: Path) -> None:
    tags: list[list[str | None] | None] = [["a", "b"], [], None]
    output = tmp_path / "dataset"
    extract_here(table_of_tags(tmp_path, tags), output, BOTH)
    rows = DeltaTable(str(output)).to_pyarrow_table().to_pylist()
    assert {row["uri"][-5:]: row["tags"] for row in rows} == {
        f"{i}.wav": value for i, value in enumerate(tags)
    }
    records = [
        record for file in output.rglob("*.tfrecord") for record in read_records(file.open("rb"))
    ]
    assert len(records) == len(tags)
    assert validate(Store(str(output)), 1, lambda number: None) == []


def test_a_null_within_a_list_is_refused_for_tfrecord_alone(tmp_path: Path) -> None:
    path = table_of_tags(tmp_path, [["a", None]])
    with pytest.raises(UserError, match=r"'tags' has a missing value inside a list.*Parquet only"):
        extract_here(path, tmp_path / "both", BOTH)
    assert not DeltaTable.is_deltatable(str(tmp_path / "both"))
    extract_here(path, tmp_path / "parquet")
    (row,) = DeltaTable(str(tmp_path / "parquet")).to_pyarrow_table().to_pylist()
    assert row["tags"] == ["a", None]


def test_every_fault_of_a_configuration_is_listed(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("mel: {n_mels: -1, n_ftt: 512}\nchunk: {seconds: long}\nsplits: {}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(recipe, ["split.fractions={train: 0.5}", "limits.max_failure_ratio=5"])
    message = str(raised.value)
    assert "recipe.yaml" in message
    for key in ("mel.n_mels", "chunk.seconds", "split.fractions", "limits.max_failure_ratio"):
        assert f"  {key}: " in message
    assert "mel.n_ftt: 512: no such key; did you mean n_fft?" in message
    assert "did you mean split?" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mel.n_mel=40", "did you mean n_mels"),
        ("melon.n_mels=40", "did you mean mel"),
        ("n_mels=40", "n_mels: 40: no such key"),
        ("mel.n_mels", "section.key=value"),
        ("=3", "section.key=value"),
        ("mel.n_mels=[", "not YAML"),
        ("mel=3", "mel"),
        ("output.formats=[csv]", "output.formats"),
    ],
)
def test_an_invalid_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [override])
    assert message in str(raised.value)


def test_a_misspelt_option_is_refused_with_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"--over-write.*neither melmill nor Beam"):
        pipeline_options("direct", 1, ["--over-write"])
    with pytest.raises(ConfigError, match="did you mean --temp_location"):
        pipeline_options("direct", 1, ["--temp_locatoin=/x"])
    assert isinstance(pipeline_options("direct", 1, ["--temp_location=/x"]), PipelineOptions)


def test_the_command_says_what_is_wrong_and_ends_with_2(tmp_path: Path) -> None:
    result = melmill(
        "extract", tmp_path / "songs", tmp_path / "out", "--set", "mel.n_mel=4", "--set", "x.y=1"
    )
    assert result.returncode == 2
    assert "2 faults" in result.stderr
    assert "mel.n_mel" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_fails_alone_and_the_run_ends_with_3(tmp_path: Path) -> None:
    for number in range(3):
        write_song(tmp_path / "songs" / f"{number}.wav", number)
    (tmp_path / "songs" / "1.wav").chmod(0)
    output = tmp_path / "dataset"
    arguments = ("extract", tmp_path / "songs", output, "--json")
    ratio = ("--set", "limits.max_failure_ratio=0.5")
    result = melmill(*arguments, *ratio, preexec_fn=drop_privileges)
    assert result.returncode == 3, result.stderr
    assert json.loads(result.stdout)["failures"] == {"permission_denied": 1}
    assert DeltaTable(str(output)).to_pyarrow_table().num_rows == 2


def test_a_directory_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    write_song(tmp_path / "songs" / "a.wav")
    (tmp_path / "songs" / "secret").mkdir(mode=0)
    arguments = ("extract", tmp_path / "songs", tmp_path / "out", "--quiet")
    result = melmill(*arguments, preexec_fn=drop_privileges)
    assert (result.returncode, result.stdout) == (2, "")
    message = f"melmill: {tmp_path}/songs/secret cannot be read: permission denied\n"
    assert result.stderr == message
