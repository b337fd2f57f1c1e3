"""Tests of TFRecord shards: their bytes are TensorFlow's, and TensorFlow reads them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.columns import LABEL_TYPES, LabelColumn
from melmill.transforms.rows.parquet import ParquetShard, read_rows
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.tfrecord import (
    TFRecordShard,
    _masked_crc,
    encode_examples,
    parse_example,
    read_records,
)

LABELS = tuple(LabelColumn(f"label {kind}", kind) for kind in LABEL_TYPES)
# "zeta" comes after "mel" in the sorted keys. The long name needs a length of two bytes.
NAMED = (LabelColumn("zeta", "int64"), LabelColumn("é" * 70, "string"))
SCHEMA = RowSchema((FeatureColumn("mel", (3, 5)),), labels=LABELS + NAMED, per_channel=True)

VALUES = {
    "string": st.text(max_size=8) | st.text(min_size=130, max_size=140),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "bool": st.booleans(),
}


def column_values(kind: str, *, nullable: bool) -> st.SearchStrategy:
    scalar = VALUES[kind.removeprefix("list<").removesuffix(">")]
    values = st.lists(scalar, max_size=3) if kind.startswith("list<") else scalar
    return st.none() | values if nullable else values


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


PLAIN = RowSchema(
    (FeatureColumn("mel", (4, 6)),),
    labels=(
        LabelColumn("genre", "string"),
        LabelColumn("tags", "list<string>"),
        LabelColumn("year", "int64"),
        LabelColumn("live", "bool"),
    ),
)


def plain_batch(rows: int = 6) -> RowBatch:
    index = np.arange(rows)
    columns = {
        "recording_id": [f"{i // 4:016x}" for i in index],
        "uri": [f"s3://songs/{i // 4}.flac" for i in index],
        "chunk_index": index,
        "start_sample": index * 66150,
        "valid_samples": np.full(rows, 66150),
        "sample_rate_hz": np.full(rows, 22050),
        "peak_dbfs": np.full(rows, -1.5),
        "rms_dbfs": np.full(rows, -20.25),
        "genre": [f"genre {i % 3}" for i in index],
        "tags": [None if i == 3 else [f"tag {i % 2}"] * (i % 3) for i in index],
        "year": [None if i == 3 else 1990 + int(i) for i in index],
        "live": [bool(i % 2) for i in index],
    }
    return RowBatch(columns, {"mel": mel_noise(rows, PLAIN)})


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "part-0.tfrecord"
    with TFRecordShard(path, PLAIN) as file:
        file.add(plain_batch())
        file.add(plain_batch(2))
    return path


def reference(tf, schema: RowSchema, batch: RowBatch, row: int):
    """Return the Example of one row, built with protobuf's own classes."""
    example = tf.train.Example()
    feature = example.features.feature
    feature["mel"].float_list.value.extend(batch.features["mel"][row].ravel().tolist())
    for name, kind in schema.columns().items():
        value = batch.columns[name][row]
        if value is None:
            continue
        values = value if kind.startswith("list<") else [value]
        scalar = kind.removeprefix("list<").removesuffix(">")
        if scalar == "string":
            feature[name].bytes_list.value.extend(v.encode() for v in values)
            feature[name].bytes_list.SetInParent()
        elif scalar in ("float", "double"):
            feature[name].float_list.value.extend(values)
            feature[name].float_list.SetInParent()
        else:
            feature[name].int64_list.value.extend(map(int, values))
            feature[name].int64_list.SetInParent()
    return example


# --- Examples ------------------------------------------------------------------------------


def test_examples_are_byte_for_byte_those_of_protobuf(tf):
    @settings(max_examples=150, deadline=None)
    @given(batch=batches())
    def check(batch):
        examples = list(encode_examples(batch, SCHEMA))
        assert len(examples) == batch.rows
        for row, example in enumerate(examples):
            expected = reference(tf, SCHEMA, batch, row)
            assert example == expected.SerializeToString(deterministic=True)

    check()


def test_a_large_mel_is_byte_for_byte_that_of_protobuf(tf):
    schema = RowSchema((FeatureColumn("mel", (128, 130)),), PLAIN.labels)
    batch = RowBatch(plain_batch(1).columns, {"mel": mel_noise(1, schema)})
    (example,) = encode_examples(batch, schema)
    assert example == reference(tf, schema, batch, 0).SerializeToString(deterministic=True)


def test_a_parsed_example_has_the_values_that_protobuf_parses(tf):
    @settings(max_examples=50, deadline=None)
    @given(batch=batches())
    def check(batch):
        for data in encode_examples(batch, SCHEMA):
            parsed = parse_example(data)
            expected = tf.train.Example.FromString(data).features.feature
            assert set(parsed) == set(expected)
            for name, values in parsed.items():
                kind = expected[name].WhichOneof("kind")
                np.testing.assert_array_equal(values, getattr(expected[name], kind).value)

    check()


def test_zero_and_negative_zero_stay_apart():
    schema = RowSchema((FeatureColumn("mel", (4, 6)),), labels=(LabelColumn("x", "double"),))
    plain = plain_batch(2)
    columns = {name: plain.columns.get(name, [0.0, -0.0]) for name in schema.columns()}
    values = [
        parse_example(e)["x"] for e in encode_examples(RowBatch(columns, plain.features), schema)
    ]
    assert [bool(np.signbit(x[0])) for x in values] == [False, True]


def test_features_are_sorted_by_name_where_one_name_begins_another(tf):
    # Protobuf's C runtime writes a longer key of a map before the key that it begins with.
    labels = tuple(LabelColumn(name, "int64") for name in ("key_id", "key", "mel_2", "a", "aa"))
    schema = RowSchema((FeatureColumn("mel", (4, 6)),), labels=labels)
    plain = plain_batch(2)
    columns = {name: plain.columns.get(name, [1, 2]) for name in schema.columns()}
    for row, example in enumerate(encode_examples(RowBatch(columns, plain.features), schema)):
        names = list(parse_example(example))
        assert names == sorted([*schema.columns(), "mel"])
        expected = reference(tf, schema, RowBatch(columns, plain.features), row)
        assert tf.train.Example.FromString(example) == expected


def test_a_null_is_absent_and_an_empty_list_is_not():
    examples = [parse_example(data) for data in encode_examples(plain_batch(), PLAIN)]
    assert "year" not in examples[3]
    assert "tags" not in examples[3]
    assert examples[0]["tags"] == []
    assert examples[2]["tags"] == [b"tag 0", b"tag 0"]


def test_a_feature_that_is_a_number_is_a_float_or_absent():
    schema = RowSchema((FeatureColumn("quality_level_rms", ()),), labels=PLAIN.labels)
    values = np.array([-20.5, np.nan], np.float32)
    batch = RowBatch(plain_batch(2).columns, {"quality_level_rms": values})
    first, second = (parse_example(data) for data in encode_examples(batch, schema))
    assert first["quality_level_rms"].tolist() == [-20.5]
    assert "quality_level_rms" not in second


def test_a_null_inside_a_list_is_refused_by_name():
    batch = plain_batch(2)
    batch = RowBatch(
        {**batch.columns, "tags": [["a"], ["b", None]]}, {"mel": batch.features["mel"]}
    )
    with pytest.raises(CatalogueError, match="'tags' has a missing value inside a list"):
        list(encode_examples(batch, PLAIN))


def test_a_batch_of_another_schema_is_refused():
    batch = plain_batch(2)
    with pytest.raises(ValueError, match="not the schema's"):
        list(encode_examples(RowBatch({}, batch.features), PLAIN))
    with pytest.raises(ValueError, match="not C-contiguous float32"):
        list(encode_examples(RowBatch(batch.columns, {"mel": batch.features["mel"][:, :3]}), PLAIN))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes_that_are_no_example_raise_value_error_or_parse(data):
    (example,) = encode_examples(plain_batch(1), PLAIN)
    damaged = bytearray(example)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for junk in (bytes(damaged), data.draw(st.binary(max_size=40))):
        with contextlib.suppress(ValueError):
            parse_example(junk)


@pytest.mark.parametrize("junk", [b"\x0a", b"\x0a\x05\x0a", b"\x12\x00", b"\x0a" + b"\xff" * 11])
def test_cut_or_foreign_bytes_are_no_example(junk):
    with pytest.raises(ValueError, match="not an Example"):
        parse_example(junk)


def test_an_example_cut_anywhere_is_refused():
    (example,) = encode_examples(plain_batch(1), PLAIN)
    for cut in range(1, len(example)):
        with pytest.raises(ValueError, match="not an Example"):
            parse_example(example[:cut])


# --- files ---------------------------------------------------------------------------------


def test_the_file_is_the_one_that_tensorflow_writes(tf, shard, tmp_path):
    examples = [e for b in (plain_batch(), plain_batch(2)) for e in encode_examples(b, PLAIN)]
    expected = str(tmp_path / "expected")
    with tf.io.TFRecordWriter(expected) as file:
        for example in examples:
            file.write(example)
    assert shard.read_bytes() == Path(expected).read_bytes()


def test_records_read_back_in_order(shard):
    with shard.open("rb") as file:
        records = list(read_records(file))
    assert records == [
        e for b in (plain_batch(), plain_batch(2)) for e in encode_examples(b, PLAIN)
    ]


def test_the_records_are_the_rows_of_the_parquet_twin(shard, tmp_path):
    with ParquetShard(tmp_path / "a.parquet", PLAIN) as twin:
        twin.add(plain_batch())
        twin.add(plain_batch(2))
    rows = read_rows(tmp_path / "a.parquet")
    with shard.open("rb") as file:
        assert list(read_records(file)) == [e for b in rows for e in encode_examples(b, PLAIN)]


def test_an_exception_leaves_no_file(tmp_path):
    path = tmp_path / "a.tfrecord"
    with pytest.raises(ValueError, match="not the schema's"), TFRecordShard(path, PLAIN) as shard:
        shard.add(RowBatch({}, {"mel": plain_batch().features["mel"]}))
    assert not path.exists()


def record_offsets(data: bytes) -> list[int]:
    offsets = [0]
    while offsets[-1] < len(data):
        start = offsets[-1]
        offsets.append(start + 16 + int.from_bytes(data[start : start + 8], "little"))
    return offsets


@pytest.mark.parametrize(
    ("position", "message"),
    [(0, "the length"), (8, "the length"), (12, "the data"), (-1, "the data")],
)
def test_a_flipped_bit_names_the_record(shard, position, message):
    data = bytearray(shard.read_bytes())
    start, end = record_offsets(data)[2:4]
    data[(end if position < 0 else start) + position] ^= 1
    records = read_records(io.BytesIO(bytes(data)))
    assert [len(next(records)) > 0 for _ in range(2)] == [True, True]
    with pytest.raises(ValueError, match=f"record at byte {start}: the checksum of {message}"):
        next(records)


@given(cut=st.integers(1, 2 * 356 - 1))
def test_a_file_cut_inside_a_record_is_refused(cut):
    file = io.BytesIO()
    for _ in range(2):
        file.write(framed(b"x" * 340))
    data = file.getvalue()[:cut]
    records = read_records(io.BytesIO(data))
    if cut == 356:
        assert len(list(records)) == 1
    else:
        with pytest.raises(
            ValueError, match=f"byte {cut // 356 * 356}: the file ends inside the record"
        ):
            list(records)


def framed(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    return length + _masked_crc(length) + data + _masked_crc(data)


def test_a_length_that_no_record_has_is_refused_before_memory_is_asked_for():
    length = (2**60).to_bytes(8, "little")
    with pytest.raises(ValueError, match="bytes; at most 2,147,483,647 are allowed"):
        next(read_records(io.BytesIO(length + _masked_crc(length))))


# --- TensorFlow reads ----------------------------------------------------------------------


def test_tf_data_parses_every_column(tf, shard):
    spec = {
        "uri": tf.io.FixedLenFeature([], tf.string),
        "start_sample": tf.io.FixedLenFeature([], tf.int64),
        "rms_dbfs": tf.io.FixedLenFeature([], tf.float32),
        "genre": tf.io.FixedLenFeature([], tf.string),
        "live": tf.io.FixedLenFeature([], tf.int64),
        "tags": tf.io.VarLenFeature(tf.string),
        "year": tf.io.VarLenFeature(tf.int64),
        "mel": tf.io.FixedLenFeature([4, 6], tf.float32),
    }
    data = tf.data.TFRecordDataset(str(shard)).map(lambda x: tf.io.parse_single_example(x, spec))
    rows = list(data.take(6))
    batch = plain_batch()
    np.testing.assert_array_equal([row["mel"].numpy() for row in rows], batch.features["mel"])
    for name in ("start_sample", "rms_dbfs", "live"):
        assert [row[name].numpy() for row in rows] == list(batch.columns[name])
    assert [row["genre"].numpy().decode() for row in rows] == batch.columns["genre"]
    years = [row["year"].values.numpy().tolist() for row in rows]
    assert years == [[] if year is None else [year] for year in batch.columns["year"]]
    tags = [[tag.decode() for tag in row["tags"].values.numpy()] for row in rows]
    assert tags == [tag or [] for tag in batch.columns["tags"]]


def test_a_null_label_is_an_error_or_the_default_that_was_asked_for(tf):
    null = list(encode_examples(plain_batch(), PLAIN))[3]
    with pytest.raises(tf.errors.InvalidArgumentError, match="year"):
        tf.io.parse_single_example(null, {"year": tf.io.FixedLenFeature([], tf.int64)})
    with_default = {"year": tf.io.FixedLenFeature([], tf.int64, default_value=-1)}
    assert tf.io.parse_single_example(null, with_default)["year"].numpy() == -1
