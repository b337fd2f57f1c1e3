"""Tests of Parquet shards: their content, their readers, and equal bytes for equal rows."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.rounding import round_to_resolution
from melmill.transforms.rows.columns import LABEL_TYPES, LabelColumn
from melmill.transforms.rows.parquet import ParquetShard, read_row_ranges, read_rows, read_schema
from melmill.transforms.rows.schema import RowBatch, RowSchema, to_columns, to_table

MEL_LEAF = "mel.list.element.list.element"
LABELS = tuple(LabelColumn(f"label {kind}", kind) for kind in LABEL_TYPES)
SCHEMA = RowSchema((FeatureColumn("mel", (3, 5)),), labels=LABELS, per_channel=True)

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
TEXT = st.text(max_size=8)
VALUES = {
    "string": TEXT,
    "int32": INT32,
    "int64": INT64,
    "float": FLOAT32,
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
}


def column_values(kind: str, *, nullable: bool) -> st.SearchStrategy:
    scalar = VALUES[kind.removeprefix("list<").removesuffix(">")]
    if kind.startswith("list<"):
        return st.none() | st.lists(st.none() | scalar, max_size=3)
    return st.none() | scalar if nullable else scalar


@st.composite
def batches(draw, schema: RowSchema = SCHEMA) -> RowBatch:
    rows = draw(st.integers(1, 4))
    labels = {label.name for label in schema.labels}
    columns = {
        name: draw(
            st.lists(column_values(kind, nullable=name in labels), min_size=rows, max_size=rows)
        )
        for name, kind in schema.columns().items()
    }
    return RowBatch(columns, {"mel": mel_noise(rows, schema, draw(st.integers(0, 99)))})


def mel_noise(rows: int, schema: RowSchema, seed: int = 0) -> np.ndarray:
    shape = (rows, *schema.features[0].shape)
    return np.random.default_rng(seed).normal(-40, 15, shape).astype(np.float32)


def plain_batch(rows: int, schema: RowSchema, start: int = 0) -> RowBatch:
    """Return rows like the pipeline's, for a schema with the labels genre and tags."""
    index = np.arange(start, start + rows)
    columns = {
        "recording_id": [f"{i // 4:016x}" for i in index],
        "uri": [f"s3://songs/{i // 4}.flac" for i in index],
        "chunk_index": index % 4,
        "start_sample": index % 4 * 66150,
        "valid_samples": np.full(rows, 66150),
        "sample_rate_hz": np.full(rows, 22050),
        "peak_dbfs": np.full(rows, -1.5, np.float32),
        "rms_dbfs": np.full(rows, -20.25, np.float32),
        "genre": [None if i % 3 == 2 else f"genre {i % 3}" for i in index],
        "tags": [[f"tag {i % 2}"] * (i % 3) for i in index],
    }
    return RowBatch(columns, {"mel": mel_noise(rows, schema, start)})


PLAIN = RowSchema(
    (FeatureColumn("mel", (4, 6)),),
    labels=(LabelColumn("genre", "string"), LabelColumn("tags", "list<string>")),
)


def write(target, batches, schema=PLAIN, metadata=None):
    with ParquetShard(target, schema, metadata) as shard:
        for batch in batches:
            shard.add(batch)
    return target


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Write a shard with two row groups of 8 rows."""
    path = tmp_path / "part-0.parquet"
    return write(path, [plain_batch(8, PLAIN), plain_batch(8, PLAIN, 8)], metadata={"k": "v"})


def lists(values) -> list:
    return [value if isinstance(value, list) else np.asarray(value).tolist() for value in values]


# --- round trips ---------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(batches(), min_size=1, max_size=3))
def test_rows_read_back_are_the_rows_written(groups, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("s") / "a.parquet", groups, SCHEMA)
    batches_read = list(read_rows(path))
    assert len(batches_read) == len(groups)
    for batch_read, batch in zip(batches_read, groups, strict=True):
        assert {k: list(v) for k, v in batch_read.columns.items()} == dict(batch.columns)
        np.testing.assert_array_equal(batch_read.features["mel"], batch.features["mel"])
        assert batch_read.features["mel"].dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_any_range_of_rows_is_read_also_across_row_groups(lengths, data, tmp_path_factory):
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    groups = [plain_batch(n, PLAIN, start) for n, start in zip(lengths, starts, strict=True)]
    path = write(tmp_path_factory.mktemp("s") / "a.parquet", groups)
    first = data.draw(st.integers(0, sum(lengths) - 1))
    after = data.draw(st.integers(first + 1, sum(lengths)))
    (batch,) = read_row_ranges(path, [(first, after)], columns=["chunk_index", "mel"])
    everything = np.concatenate([group.features["mel"] for group in groups])
    np.testing.assert_array_equal(batch.features["mel"], everything[first:after])
    assert list(batch.columns["chunk_index"]) == [i % 4 for i in range(first, after)]
    with pytest.raises(ValueError, match=f"it has {sum(lengths)} rows"):
        list(read_row_ranges(path, [(first, sum(lengths) + 1)]))


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(batches(), min_size=1, max_size=3))
def test_a_shard_written_again_from_its_rows_is_the_same_file(groups, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s")
    first = write(folder / "a.parquet", groups, SCHEMA, {"config": "é", "a": "b"})
    schema, metadata = read_schema(first)
    second = write(folder / "b.parquet", read_rows(first), schema, metadata)
    assert second.read_bytes() == first.read_bytes()


def test_the_same_rows_give_the_same_bytes_in_whatever_order_metadata_comes(tmp_path):
    pairs = [("b", "1"), ("config", "{}"), ("a", "2")]
    written = {
        write(tmp_path / f"{i}", [plain_batch(8, PLAIN)], metadata=dict(order)).read_bytes()
        for i, order in enumerate(itertools.permutations(pairs))
    }
    assert len(written) == 1


def test_other_metadata_or_other_row_groups_give_other_bytes(tmp_path):
    rows = plain_batch(8, PLAIN)
    first = write(tmp_path / "1", [rows], metadata={"a": "1"}).read_bytes()
    with_other_metadata = write(tmp_path / "2", [rows], metadata={"a": "2"}).read_bytes()
    halves = [plain_batch(4, PLAIN), plain_batch(4, PLAIN, 4)]
    with_other_groups = write(tmp_path / "3", halves, metadata={"a": "1"}).read_bytes()
    assert len({first, with_other_metadata, with_other_groups}) == 3


def test_rows_can_be_read_from_an_open_file(shard):
    batches_read = list(read_rows(io.BytesIO(shard.read_bytes())))
    assert [batch.rows for batch in batches_read] == [8, 8]


# --- the file ------------------------------------------------------------------------------


def test_the_columns_are_in_order_and_split_is_not_among_them():
    per_channel_schema = RowSchema(
        (FeatureColumn("mel", (2, 3)),), labels=(LabelColumn("genre", "string"),), per_channel=True
    )
    core = ["recording_id", "uri", "chunk_index", "channel", "start_sample", "valid_samples"]
    rest = ["sample_rate_hz", "peak_dbfs", "rms_dbfs", "genre", "mel"]
    assert per_channel_schema.arrow().names == core + rest
    mono_schema = RowSchema((FeatureColumn("mel", (2, 3)),), labels=per_channel_schema.labels)
    assert mono_schema.arrow().names == [name for name in core + rest if name != "channel"]


def test_the_files_types_are_the_ones_promised(shard):
    schema = pq.read_schema(shard)
    for arrow_schema in (schema, PLAIN.arrow()):
        assert str(arrow_schema.field("mel").type) == "list<element: list<element: float>>"
    names = ["chunk_index", "start_sample", "valid_samples", "sample_rate_hz", "rms_dbfs"]
    types = [pa.int32(), pa.int64(), pa.int32(), pa.int32(), pa.float32()]
    assert [schema.field(name).type for name in names] == types


def test_each_batch_is_one_row_group(tmp_path):
    sizes = [1, 7, 300]
    path = write(tmp_path / "a", [plain_batch(n, PLAIN) for n in sizes])
    file = pq.read_metadata(path)
    assert [file.row_group(i).num_rows for i in range(file.num_row_groups)] == sizes


def test_mel_is_split_by_byte_and_has_neither_dictionary_nor_statistics(shard):
    group = pq.read_metadata(shard).row_group(0)
    chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    mel = chunks.pop(MEL_LEAF)
    assert mel.encodings == ("RLE", "BYTE_STREAM_SPLIT")
    assert mel.compression == "ZSTD"
    assert mel.statistics is None
    assert all(c.statistics.has_min_max and c.has_dictionary_page for c in chunks.values())


NUMBERS = RowSchema((FeatureColumn("quality_level_rms", ()), FeatureColumn("mel", (4, 6))))
#: NaN of two kinds stands for null.
READINGS = np.array([0.5, np.nan, -0.0], np.float32)
READINGS[1:2].view(np.uint32)[:] |= 1


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Write a shard with a feature that is a number, and null in the second row."""
    labels = {"genre", "tags"}
    plain = plain_batch(3, PLAIN)
    columns = {name: values for name, values in plain.columns.items() if name not in labels}
    features = {"quality_level_rms": READINGS, **plain.features}
    return write(tmp_path / "part.parquet", [RowBatch(columns, features)], NUMBERS)


def test_a_feature_that_is_a_number_is_a_plain_column_with_nulls(numbers):
    table = pq.read_table(numbers)
    assert table.schema.field("quality_level_rms").type == pa.float32()
    assert table["quality_level_rms"].to_pylist() == [0.5, None, -0.0]
    group = pq.read_metadata(numbers).row_group(0)
    chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    stored = chunks["quality_level_rms"]
    assert (stored.statistics.null_count, stored.statistics.max) == (1, 0.5)
    assert stored.has_dictionary_page


def test_a_null_number_reads_back_as_one_nan(numbers):
    assert read_schema(numbers)[0] == NUMBERS
    (batch,) = read_rows(numbers)
    values = batch.features["quality_level_rms"]
    expected = np.array([0.5, np.nan, -0.0], np.float32)
    assert values.view(np.uint32).tolist() == expected.view(np.uint32).tolist()
    (only,) = read_rows(numbers, columns=["quality_level_rms"])
    assert list(only.features) == ["quality_level_rms"]


def test_the_metadata_is_in_the_schemas_metadata(shard):
    assert pq.read_schema(shard).metadata[b"k"] == b"v"
    assert read_schema(shard) == (PLAIN, {"k": "v"})


def test_metadata_cannot_replace_the_schemas_own(tmp_path):
    with pytest.raises(ValueError, match="the schema's own"):
        write(tmp_path / "a", [], metadata={"melmill.n_mels": "7"})


def test_a_damaged_page_is_refused(shard):
    chunk = pq.read_metadata(shard).row_group(1).column(11 - 1)
    assert chunk.path_in_schema == MEL_LEAF
    data = bytearray(shard.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    rows = read_rows(io.BytesIO(bytes(data)))
    assert next(rows).rows == 8
    with pytest.raises(OSError, match="CRC"):
        next(rows)


def test_a_file_that_is_no_shard_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"mel": [[[1.0]]]}), path)
    with pytest.raises(ValueError, match="not a shard of melmill"):
        next(read_rows(path))
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(ValueError, match="Parquet"):
        read_schema(path)


@pytest.mark.parametrize("mel", [[[1.0] * 6] * 3, [[1.0] * 5] * 4, [[1.0] * 5 + [None]] * 4])
def test_a_mel_of_another_shape_or_with_nulls_is_refused(mel, tmp_path):
    table = to_table(plain_batch(1, PLAIN), PLAIN)
    kind = PLAIN.arrow().field("mel").type
    pq.write_table(table.set_column(10, "mel", pa.array([mel], kind)), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row group 0: mel has"):
        next(read_rows(tmp_path / "a.parquet"))


def test_an_exception_leaves_no_file(tmp_path):
    path = tmp_path / "a.parquet"
    wrong = RowBatch({}, {"mel": mel_noise(8, PLAIN)})
    with pytest.raises(ValueError, match="columns"):
        write(path, [plain_batch(8, PLAIN), wrong])
    assert not path.exists()


# --- batches -------------------------------------------------------------------------------


def test_mel_is_not_copied_on_its_way_to_arrow():
    batch = plain_batch(4, PLAIN)
    mel = to_table(batch, PLAIN).column("mel").chunk(0)
    assert mel.values.values.buffers()[1].address == batch.features["mel"].ctypes.data


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("uri", None, "are not the schema's"),
        ("surprise", [1] * 4, "are not the schema's"),
        ("uri", ["a"] * 3, "'uri' has 3 values for 4 rows"),
        ("uri", ["a", "b", None, "d"], "'uri' has 1 nulls; only labels may be null"),
        ("genre", [1, 2, 3, 4], "'genre'"),
        ("genre", ["\ud800"] * 4, "'genre'"),
        ("chunk_index", [2**31] * 4, "'chunk_index'"),
        ("chunk_index", [0, 1, 2, 1.5], "'chunk_index'"),
        ("start_sample", [2**63] * 4, "'start_sample'"),
    ],
)
def test_values_that_do_not_fit_are_refused(column, values, message):
    batch = plain_batch(4, PLAIN)
    columns = dict(batch.columns)
    if values is None:
        del columns[column]
    else:
        columns[column] = values
    to_columns(batch, PLAIN)
    with pytest.raises(ValueError, match=message):
        to_columns(RowBatch(columns, {"mel": batch.features["mel"]}), PLAIN)


@pytest.mark.parametrize(
    "mel",
    [
        np.zeros((8, 4, 5), np.float32),
        np.zeros((8, 4, 6)),
        np.zeros((4, 8, 6), np.float32).swapaxes(0, 1),
        np.zeros((0, 4, 6), np.float32),
    ],
)
def test_a_mel_that_is_not_the_schemas_is_refused(mel):
    columns = plain_batch(len(mel), PLAIN).columns
    with pytest.raises(ValueError, match="not C-contiguous float32"):
        to_table(RowBatch(columns, {"mel": mel}), PLAIN)


@pytest.mark.parametrize("labels", [("mel", "string"), ("split", "string"), ("a", "float")])
def test_a_label_with_a_taken_name_or_an_unknown_type_is_refused(labels):
    with pytest.raises(ValueError, match="label"):
        LabelColumn(*labels)


def test_two_labels_of_one_name_are_refused():
    with pytest.raises(ValueError, match="the same name"):
        RowSchema(
            (FeatureColumn("mel", (1, 1)),),
            labels=(LabelColumn("a", "string"), LabelColumn("a", "bool")),
        )


def test_writing_holds_no_more_memory_for_more_row_groups(tmp_path):
    schema = RowSchema((FeatureColumn("mel", (64, 64)),))
    core = plain_batch(64, PLAIN).columns
    columns = {name: core[name] for name in schema.columns()}
    allocated_bytes = []
    with ParquetShard(tmp_path / "a", schema) as shard:
        for seed in range(10):
            shard.add(RowBatch(columns, {"mel": mel_noise(64, schema, seed)}))
            allocated_bytes.append(pa.total_allocated_bytes())
    group_bytes = 64 * 64 * 64 * 4
    assert allocated_bytes[-1] - allocated_bytes[0] < group_bytes  # not nine row groups


# --- resolution ----------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(-200, 200, width=32), min_size=1), step=st.sampled_from([1 / 64, 1])
)
def test_rounding_moves_no_value_by_more_than_half_a_step(values, step):
    mel = np.array(values, np.float32)
    rounded = mel.copy()
    round_to_resolution(rounded, step)
    assert np.all(np.abs(rounded.astype(float) - mel) <= step / 2)
    assert np.all(np.rint(rounded / step) == rounded / step)
    again = rounded.copy()
    round_to_resolution(again, step)
    np.testing.assert_array_equal(again, rounded)


def test_no_resolution_leaves_every_bit():
    mel = mel_noise(2, PLAIN)
    expected = mel.tobytes()
    round_to_resolution(mel, None)
    assert mel.tobytes() == expected


@pytest.mark.parametrize("step", [0.0, -0.5, 0.1, float("nan"), float("inf")])
def test_a_step_that_is_no_power_of_two_is_refused(step):
    with pytest.raises(ValueError, match="not a power of two"):
        round_to_resolution(mel_noise(1, PLAIN), step)


def test_a_rounded_shard_is_about_half_the_size(tmp_path):
    schema = RowSchema((FeatureColumn("mel", (64, 64)),), PLAIN.labels)
    exact, rounded = plain_batch(64, schema), plain_batch(64, schema)
    round_to_resolution(rounded.features["mel"], 1 / 64)
    sizes = [
        write(tmp_path / str(i), [batch], schema).stat().st_size
        for i, batch in enumerate([exact, rounded])
    ]
    assert sizes[1] < 0.6 * sizes[0]


# --- other readers -------------------------------------------------------------------------


def expected_rows(shard: Path) -> tuple[np.ndarray, list, list]:
    batches_read = list(read_rows(shard))
    mel = np.concatenate([batch.features["mel"] for batch in batches_read])
    genre, tags = ([v for b in batches_read for v in b.columns[name]] for name in ("genre", "tags"))
    return mel, genre, tags


def test_pyarrow_dataset_reads_a_partitioned_table(shard, tmp_path):
    folder = tmp_path / "table" / "split=train"
    folder.mkdir(parents=True)
    shard.rename(folder / "a.parquet")
    table = pa.dataset.dataset(tmp_path / "table", partitioning="hive").to_table()
    mel, genre, tags = expected_rows(folder / "a.parquet")
    assert table.column("split").unique().to_pylist() == ["train"]
    assert table.column("genre").to_pylist() == genre
    assert table.column("tags").to_pylist() == tags
    np.testing.assert_array_equal(np.array(table.column("mel").to_pylist(), np.float32), mel)


def test_polars_reads_the_rows(shard):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(shard)
    mel, genre, tags = expected_rows(shard)
    assert frame["genre"].to_list() == genre
    assert frame["tags"].to_list() == tags
    assert frame.schema["mel"] == polars.List(polars.List(polars.Float32))
    np.testing.assert_array_equal(np.array(frame["mel"].to_list(), np.float32), mel)


def test_duckdb_reads_the_rows(shard):
    duckdb = pytest.importorskip("duckdb")
    mel, genre, tags = expected_rows(shard)
    query = f"select genre, tags, mel from '{shard}'"
    rows = duckdb.sql(query).fetchall()
    assert [(row[0], row[1]) for row in rows] == list(zip(genre, tags, strict=True))
    np.testing.assert_array_equal(np.array([row[2] for row in rows], np.float32), mel)
    assert duckdb.sql(f"select max(start_sample) from '{shard}'").fetchall() == [(3 * 66150,)]


def test_pandas_reads_the_rows(shard):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(shard)
    mel, genre, tags = expected_rows(shard)
    assert [None if pandas.isna(v) else v for v in frame["genre"]] == genre
    assert lists(frame["tags"]) == tags
    np.testing.assert_array_equal(np.array([np.stack(m) for m in frame["mel"]]), mel)


def test_hugging_face_reads_float32_arrays_where_the_card_declares_them(shard, tmp_path):
    hf = pytest.importorskip("datasets")
    kinds = {"int32": "int32", "int64": "int64", "float": "float32", "string": "string"}
    declared = {
        name: hf.List(hf.Value("string")) if name == "tags" else hf.Value(kinds[kind])
        for name, kind in PLAIN.columns().items()
    }
    declared["mel"] = hf.Array2D(shape=(4, 6), dtype="float32")
    data = hf.load_dataset(
        "parquet",
        data_files=str(shard),
        features=hf.Features(declared),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    mel, genre, tags = expected_rows(shard)
    rows = data.with_format("numpy")[0:16]
    assert rows["mel"].dtype == np.float32
    np.testing.assert_array_equal(rows["mel"], mel)
    assert data["genre"][:] == genre
    assert data["tags"][:] == tags


def test_hugging_face_gives_nested_lists_where_nothing_is_declared(shard, tmp_path):
    hf = pytest.importorskip("datasets")
    data = hf.load_dataset(
        "parquet", data_files=str(shard), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert isinstance(data[0]["mel"], list)
