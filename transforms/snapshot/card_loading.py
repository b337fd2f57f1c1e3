"""The part of a dataset card that says how to load the rows."""

from __future__ import annotations

from melmill.transforms.rows.schema import RowSchema


def loading_text(schema: RowSchema, tfrecord_split: str | None) -> str:
    """Return how to load a dataset, with the mask of the first feature that has one.

    Parameters
    ----------
    schema
        Columns of the rows.
    tfrecord_split
        Split whose TFRecord files are an example; ``None`` if there are none.
    """
    masked = [column for column in schema.features if column.valid]
    mask = ""
    if masked:
        name, valid, length = masked[0].name, masked[0].valid, masked[0].shape[-1]
        mask = _MASK.format(name=name, valid=valid, length=length)
    counted = " over its valid frames" if masked else ""
    tfrecord = _tfrecord_text(schema, tfrecord_split) if tfrecord_split else ""
    return _DATASET.format(counted=counted, tfrecord=tfrecord, mask=mask)


def view_loading_text(split: str) -> str:
    """Return how to load a view of Parquet files; a split of it is an example."""
    return _VIEW.format(split=split)


def _tfrecord_text(schema: RowSchema, split: str) -> str:
    column = schema.features[0]
    is_float = column.dtype == "float32" and not column.flac_rate_hz
    kind = f"{list(column.shape)}, tf.float32" if is_float else "[], tf.string"
    lines = [f'features = {{"{column.name}": tf.io.FixedLenFeature({kind})}}']
    if column.valid:
        lines.append(f'features["{column.valid}"] = tf.io.FixedLenFeature([], tf.int64)')
    return _TFRECORD.format(split=split, features="\n".join(lines))


_DATASET = """
`index/` says which recordings failed and why. `statistics.json` holds mean and standard
deviation of each band{counted}.

## How to load

The current snapshot is what the Delta table says; files that it does not name are not in it. Its
Parquet files:

```python
import polars
polars.read_delta("DATASET")

from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
# Use Arrow's own filesystem: delta-rs's filesystem may abort Python when it exits.
files = SubTreeFileSystem("DATASET", LocalFileSystem())
DeltaTable("DATASET").to_pyarrow_dataset(filesystem=files)

import datasets
datasets.load_dataset("DATASET")          # splits and shapes come from the head of this file
```
{tfrecord}{mask}"""

_TFRECORD = """
Its TFRecord files, which `tfrecord/files.json` lists:

```python
import json, tensorflow as tf
names = json.load(open("DATASET/tfrecord/files.json"))["{split}"]
{features}
rows = tf.data.TFRecordDataset(["DATASET/" + name for name in names])
rows = rows.map(lambda row: tf.io.parse_single_example(row, features))
```
"""

_MASK = """
A mask for a batch of rows, false where `{name}` is padding:

```python
import numpy as np
mask = np.arange({length}) < np.array(rows["{valid}"])[:, np.newaxis]   # [rows, {length}]
```
"""

_VIEW = """
## How to load

Every library that reads Parquet reads the files:

```python
import datasets
datasets.load_dataset("FOLDER")           # splits and shapes come from the head of this file

import polars
polars.read_parquet("FOLDER/data/{split}-*.parquet")
```
"""
