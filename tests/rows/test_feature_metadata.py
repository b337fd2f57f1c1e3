"""Shards say which column counts the valid frames of a feature; older shards have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.rows.feature_metadata import from_metadata, to_metadata
from melmill.transforms.rows.parquet import ParquetShard, read_schema
from melmill.transforms.rows.schema import RowSchema


@pytest.mark.parametrize("name", ["mel", "fine"])
def test_a_schema_with_columns_that_count_what_is_valid_is_read_back(
    tmp_path: Path, name: str
) -> None:
    schema = RowSchema(
        (
            FeatureColumn(name, (4, 6), valid=f"{name}_frames"),
            *((FeatureColumn("wave", (9,), valid="valid_samples"),) if name == "fine" else ()),
        ),
        labels=(LabelColumn("valid_frames", "int64"),),
    )
    names = list(schema.columns())
    assert names[names.index("valid_samples") + 1] == f"{name}_frames"
    assert schema.columns()[f"{name}_frames"] == "int32"
    ParquetShard(tmp_path / "shard", schema).close()
    assert read_schema(tmp_path / "shard")[0] == schema


def test_a_label_cannot_have_the_name_of_a_column_that_counts() -> None:
    mel = FeatureColumn("mel", (4, 6), valid="valid_frames")
    with pytest.raises(ValueError, match="two columns have the same name"):
        RowSchema((mel,), labels=(LabelColumn("valid_frames", "int64"),))


@pytest.mark.parametrize("name", ["mel", "fine"])
def test_the_metadata_of_columns_without_counts_are_those_of_older_shards(name: str) -> None:
    columns = (FeatureColumn(name, (4, 6)),)
    metadata = to_metadata(columns)
    assert b"valid" not in b"".join([*metadata, *metadata.values()])
    assert from_metadata(metadata) == columns
