"""A snapshot of a dataset, opened to train on.

    import melmill

    songs = melmill.open("dataset/")
    songs.rows, songs.shape, songs.columns, songs.statistics
    songs.as_arrow("train")                          # pyarrow.dataset.Dataset
    songs.as_tf("train", ["mel", "genre"])           # tf.data.Dataset of dictionaries
    songs.as_torch("train", ["mel", "genre"])        # torch IterableDataset of dictionaries

Thin over public libraries, and a snapshot stays what it was: its files never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import join_uri
from melmill.transforms.index.tables import SCHEMAS, read_batches
from melmill.transforms.rows.columns import is_label
from melmill.transforms.snapshot.card import FileLists, list_files, statistics
from melmill.transforms.store.folders import Store, absolute_uri


class Dataset:
    """A snapshot: the one that is current when it is opened, or an earlier one.

    Parameters
    ----------
    path
        The dataset's folder: a local path, or any URL that fsspec and delta-rs open.
    storage_options
        What fsspec and delta-rs open the dataset's store with.
    version
        Which version, of those that ``melmill history`` lists as kept; ``None`` for the current.

    Attributes
    ----------
    version
        Of the Delta table.
    configuration
        The recipe that it was made with.
    shape
        ``(n_mels, frames)`` of each row's ``mel``, float32.
    columns
        Type of every other column, by name.
    rows
        Number of rows by split.
    statistics
        Mean and standard deviation of each mel band, and the least and the largest value,
        over the training split.

    Raises
    ------
    DatasetError
        There is no snapshot (nothing was committed, or not yet), or it lacks a part.
    """

    def __init__(
        self,
        path: str | Path,
        storage_options: Mapping[str, object] | None = None,
        version: int | None = None,
    ) -> None:
        """Open the snapshot; reads the table's log alone."""
        store = Store(absolute_uri(str(path)), tuple((storage_options or {}).items()))
        if version is None:
            opened = OpenSnapshot.current(store)
        else:
            opened = OpenSnapshot.past(store, version)
        self._hold(opened)

    def _hold(self, opened: OpenSnapshot) -> None:
        self._opened, self._store = opened, opened.store
        self.version: int = opened.snapshot.version
        self.configuration: dict[str, Any] = opened.snapshot.configuration

    def __repr__(self) -> str:
        """Say which snapshot it is."""
        return f"<melmill.Dataset {self._store.root!r}, version {self.version}>"

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows' ``(n_mels, frames)``."""
        return self._opened.schema.n_mels, self._opened.schema.n_frames

    @cached_property
    def columns(self) -> dict[str, str]:
        """Type of every column but ``mel``."""
        return self._opened.schema.columns()

    @cached_property
    def rows(self) -> dict[str, int]:
        """Number of rows by split."""
        said = self._opened.snapshot.statistics or self.statistics
        return {name: split["rows"] for name, split in sorted(said["splits"].items())}

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """What normalisation needs, and how rows are distributed."""
        return statistics(self._opened.totals)

    def recordings(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read what became of every recording: status, split, length, rows, where they are.

        Parameters
        ----------
        columns
            Which columns of :data:`~melmill.transforms.index.tables.RECORDINGS`; ``None`` for
            all. The table is held in memory: about 200 bytes a recording without ``shards``
            and ``tags``.
        """
        return self._index_table("recordings", columns)

    def failures(self) -> pa.Table:
        """Read which recordings failed: URI, stage, cause, message and number of attempts."""
        return self._index_table("failures", None)

    def _index_table(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        chosen = list(columns or SCHEMAS[kind].names)
        schema = pa.schema([SCHEMAS[kind].field(name) for name in chosen])
        batches = read_batches(self._store, self._opened.snapshot.index, kind, chosen)
        return pa.Table.from_batches(
            (batch.select(chosen).cast(schema) for batch in batches), schema
        )

    def files(self, split: str, form: Literal["parquet", "tfrecord"] = "parquet") -> list[str]:
        """Name a split's files, as this machine or fsspec opens them.

        Raises
        ------
        DatasetError
            There is no such split, or it has no such files.
        """
        self._require_split(split)
        parquet, tfrecord = self._files
        names = (parquet if form == "parquet" else tfrecord).get(split, [])
        if not names:
            raise DatasetError(
                f"{self._store.root}: not every shard has a {form} file; extract it with "
                "--set 'output.formats=[parquet,tfrecord]', or export it"
            )
        if self._store.is_local:
            return [self._store.path(name) for name in names]
        return [join_uri(self._store.root.rstrip("/"), name) for name in names]

    def as_arrow(self, split: str | None = None, *, verify: bool = True) -> Any:
        """Open a split, or everything, as ``pyarrow.dataset.Dataset``.

        Parameters
        ----------
        split
            One of :attr:`rows`; ``None`` for all of them.
        verify
            Whether pages' checksums are verified, which costs about an eighth: a damaged
            shard is an ``OSError`` as it is read. Without, it may go unnoticed.
        """
        if split is not None:
            self._require_split(split)
        filesystem, root = self._store.filesystem()
        if self._store.is_local:
            arrows = pyarrow.fs.LocalFileSystem()
        else:
            arrows = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))
        scan = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=verify)
        form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=scan)
        fragments = [
            form.make_fragment(f"{root}/{name}", arrows, pyarrow.dataset.field("split") == part)
            for part, names in self._files[0].items()
            if split in (None, part)
            for name in names
        ]
        schema = self._opened.schema.table()
        return pyarrow.dataset.FileSystemDataset(fragments, schema, form, arrows)

    def as_tf(self, split: str, columns: Sequence[str] | None = None) -> Any:
        """Open a split's TFRecord files as ``tf.data.Dataset``.

        Rows come as dictionaries, in the order of the files: a seeded shuffle of
        recordings, though chunks of one stand together. Their number is known to it, and
        fewer or more of them are an error as they are read. ``shuffle``, ``batch`` and
        ``prefetch`` are yours.

        Parameters
        ----------
        split
            One of :attr:`rows`.
        columns
            Which columns; ``None`` for ``mel`` and every label that each row has.
            ``mel`` is float32 [n_mels, frames], a list label a vector, all else scalars;
            floats are float32, integers and booleans int64, as TFRecord has them.

        Raises
        ------
        DatasetError
            No such split or column, no TFRecord files, or a label that some rows lack.
        """
        import tensorflow as tf

        if not self._store.is_local and not self._store.root.startswith("gs://"):
            raise DatasetError(
                f"{self._store.root}: TensorFlow reads local files and gs://; "
                "copy the dataset, or take its rows from as_arrow()"
            )
        files = self.files(split, "tfrecord")
        features = {name: self._example_feature(name, tf) for name in self._choose(split, columns)}
        # Counted before they are parsed: behind it, tf.data could not fuse parsing and batching.
        records = tf.data.TFRecordDataset(files)
        counted = records.apply(tf.data.experimental.assert_cardinality(self.rows[split]))
        return counted.map(
            lambda record: tf.io.parse_single_example(record, features),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def as_torch(
        self,
        split: str,
        columns: Sequence[str] | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
    ) -> Any:
        """Open a split as a ``torch.utils.data.IterableDataset`` of dictionaries.

        Hand it to ``DataLoader(rows, batch_size=64, num_workers=4)``: all workers of all
        ranks together read each row once. ``rows.set_epoch(n)`` changes the order of files.

        Parameters
        ----------
        split
            One of :attr:`rows`.
        columns
            Which columns; ``None`` for ``mel`` and every label that each row has, but for
            lists, which PyTorch's own ``collate`` cannot stack. ``mel`` is a float32 tensor
            [n_mels, frames], all else plain Python values, which ``collate`` makes tensors
            of (int64, float64, bool) or, of strings, lists.
        rank, world_size
            Which of the processes that train together this one is.
        verify
            As in :meth:`as_arrow`; a shard that cannot be read is named.

        Raises
        ------
        DatasetError
            No such split or column, or a label that some rows lack.
        """
        from melmill.pipelines.torch_rows import Share, SplitRows

        self._require_split(split)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not within 0 to {world_size - 1}")
        chosen = self._choose(split, columns, lists=False)
        parquet, _ = self._files
        share = Share(rank, world_size)
        return SplitRows(self._store, parquet[split], chosen, share, verify)

    @cached_property
    def _files(self) -> tuple[FileLists, FileLists]:
        return list_files(self._store, self._opened.snapshot)

    def _require_split(self, split: str) -> None:
        if split not in self.rows:
            known = ", ".join(self.rows)
            raise DatasetError(f"{self._store.root}: no split {split!r}; there are: {known}")

    def _choose(
        self, split: str, columns: Sequence[str] | None, *, lists: bool = True
    ) -> list[str]:
        """See that every row has the columns wanted; by default ``mel`` and all such labels."""
        lacking = {
            name
            for shard in self._opened.shards()
            if shard.split == split
            for name in shard.null_labels
        }
        if columns is None:
            kinds = {name: kind for name, kind in self.columns.items() if is_label(name)}
            fit = (name for name, kind in kinds.items() if lists or not kind.startswith("list<"))
            return ["mel", *(name for name in fit if name not in lacking)]
        known = ["mel", *self.columns]
        if unknown := [name for name in columns if name not in known]:
            some = ", ".join(known)
            raise DatasetError(f"{self._store.root}: no column {unknown[0]!r}; there are: {some}")
        if absent := [name for name in columns if name in lacking]:
            raise DatasetError(
                f"{self._store.root}: label {absent[0]!r} has no value in some rows of {split}, "
                "which a tensor cannot say; leave it out, or take those rows from as_arrow()"
            )
        return list(columns)

    def _example_feature(self, name: str, tf: Any) -> Any:
        if name == "mel":
            return tf.io.FixedLenFeature(self.shape, tf.float32)
        kind = self.columns[name]
        scalar = kind.removeprefix("list<").removesuffix(">")
        dtype = {"string": tf.string, "float": tf.float32, "double": tf.float32}
        tensor = dtype.get(scalar, tf.int64)
        if kind.startswith("list<"):
            return tf.io.RaggedFeature(tensor)
        return tf.io.FixedLenFeature([], tensor)
