"""A snapshot of a dataset, opened to train on.

    import melmill

    songs = melmill.open("dataset/")
    songs.rows, songs.shape, songs.columns, songs.statistics
    songs.as_arrow("train")                          # pyarrow.dataset.Dataset
    songs.as_tf("train", ["mel", "genre"])           # tf.data.Dataset of dictionaries
    songs.as_torch("train", ["mel", "genre"])        # torch IterableDataset of dictionaries

The class is a thin layer over public libraries. A snapshot's files never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from melmill.pipelines.added_columns import AddedColumns
from melmill.pipelines.loading.batch_stream import BatchStream
from melmill.pipelines.loading.class_weights import ClassWeights, label_of, weigh_classes
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.parts import SplitPart, open_loader, open_part
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.core.naming import join_uri
from melmill.transforms.index.tables import SCHEMAS, read_batches
from melmill.transforms.loading.row_order import RowOrder
from melmill.transforms.snapshot.card import list_files, statistics
from melmill.transforms.snapshot.card_head import FileLists
from melmill.transforms.store.folders import Store, absolute_uri


class Dataset:
    """A snapshot of a dataset: the current snapshot at the time of opening, or an earlier one.

    Parameters
    ----------
    path
        The dataset's folder: a local path, or any URL that fsspec and delta-rs open.
    storage_options
        Options of fsspec and delta-rs for the dataset's store.
    version
        The version to open, any that ``melmill history`` lists as kept; ``None`` for the current
        version.

    Attributes
    ----------
    version
        The version of the Delta table.
    configuration
        The recipe that the dataset was made with.
    features
        The shape and the type of each feature, by name.
    shape
        The shape of the first feature in each row: ``(n_mels, frames)`` of ``mel``.
    columns
        The type of every column that is not a feature, by name; added columns come last.
    rows
        The number of rows by split.
    statistics
        The mean and standard deviation of each band of the first feature, and the minimum and
        maximum, over the training split; the same for the other features in ``features``.

    Raises
    ------
    DatasetError
        The folder has no snapshot (nothing was committed yet), or a file of it is missing.
    """

    def __init__(
        self,
        path: str | Path,
        storage_options: Mapping[str, object] | None = None,
        version: int | None = None,
    ) -> None:
        """Open the snapshot; reads only the table's log."""
        store = Store(absolute_uri(str(path)), tuple((storage_options or {}).items()))
        self._set_snapshot(OpenSnapshot.at(store, version))

    def _set_snapshot(self, opened: OpenSnapshot) -> None:
        self._opened, self._store = opened, opened.store
        self.version: int = opened.snapshot.version
        self.configuration: dict[str, Any] = opened.snapshot.configuration

    def __repr__(self) -> str:
        """Return text that names the folder and the version."""
        return f"<melmill.Dataset {self._store.root!r}, version {self.version}>"

    @cached_property
    def features(self) -> dict[str, FeatureColumn]:
        """Return the columns of features, with their shape and type, by name."""
        return {column.name: column for column in self._opened.schema.features}

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first feature in each row: ``(n_mels, frames)`` of ``mel``."""
        return next(iter(self.features.values())).shape

    @cached_property
    def columns(self) -> dict[str, str]:
        """Return the type of every column that is not a feature, by name."""
        return {**self._opened.schema.columns(), **self._added.types}

    @cached_property
    def _added(self) -> AddedColumns:
        return AddedColumns(self._opened.known_recordings, self._opened.snapshot.side_tables)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Return the number of rows by split."""
        stored = self._opened.snapshot.statistics or self.statistics
        return {name: split["rows"] for name, split in sorted(stored["splits"].items())}

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Return the statistics for normalisation, and the distribution of rows."""
        return statistics(self._opened.totals)

    def recordings(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table of all recordings: status, split, length, number and place of rows.

        Parameters
        ----------
        columns
            The columns to read, of :data:`~melmill.transforms.index.tables.RECORDINGS`, and added
            columns with a value for each recording; ``None`` for all. The table is in memory:
            about 200 bytes per recording without ``shards``, ``tags`` and ``measures``, which has
            as much again or more, and without added columns.
        """
        added = [n for n in self._added.of_recordings if columns is None or n in columns]
        if not added:
            return self._index_table("recordings", columns)
        chosen = [*(SCHEMAS["recordings"].names if columns is None else columns)]
        stored = [name for name in chosen if name not in added]
        table = self._index_table("recordings", list(dict.fromkeys(["recording_id", *stored])))
        values = self._added.joining(added, None).values_of({"recording_id": table[0]})
        for name in added:
            table = table.append_column(name, values[name])
        return table.select([*chosen, *added] if columns is None else chosen)

    def failures(self) -> pa.Table:
        """Return a table of failed recordings: URI, stage, cause, message, number of attempts."""
        return self._index_table("failures", None)

    def _index_table(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        chosen = list(columns or SCHEMAS[kind].names)
        schema = pa.schema([SCHEMAS[kind].field(name) for name in chosen])
        batches = read_batches(self._store, self._opened.snapshot.index, kind, chosen)
        return pa.Table.from_batches(
            (batch.select(chosen).cast(schema) for batch in batches), schema
        )

    def files(self, split: str, form: Literal["parquet", "tfrecord"] = "parquet") -> list[str]:
        """Return the paths or URLs of a split's files, as this machine or fsspec opens them.

        Raises
        ------
        DatasetError
            The dataset has no such split, or the split has no files of this format.
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

    def as_arrow(self, split: str | None = None, *, verify: bool = True, added: bool = True) -> Any:
        """Return a split, or all splits, as a ``pyarrow.dataset.Dataset``.

        Added columns are joined while the rows are read; those that are read are in memory, for
        the whole split.

        Parameters
        ----------
        split
            A split of :attr:`rows`; ``None`` for all splits.
        verify
            Whether to verify the checksums of pages, which takes about an eighth more time. A
            damaged shard then raises ``OSError`` when it is read. Without the check, the damage
            may go unnoticed.
        added
            Whether the dataset has the added columns, which are null where there is no value.
        """
        if split is not None:
            self._require_split(split)
        # Imported here, because pyarrow.dataset imports pandas.
        from melmill.pipelines.arrow_rows import arrow_dataset

        files = {part: names for part, names in self._files[0].items() if split in (None, part)}
        rows = arrow_dataset(self._store, files, self._opened.schema.table(), verify=verify)
        if not added or not self._added.types:
            return rows
        from melmill.pipelines.joined_rows import JoinedDataset

        return JoinedDataset(rows, self._added, split)

    def as_tf(self, split: str, columns: Sequence[str] | None = None) -> Any:
        """Return a split's TFRecord files as a ``tf.data.Dataset``.

        Each row is a dictionary. Rows come in the order of the files: recordings are shuffled
        with a seed, and the chunks of a recording stay together. The dataset knows its number of
        rows (its cardinality); reading fewer or more rows is an error. Call ``shuffle``,
        ``batch`` and ``prefetch`` on the result yourself.

        Parameters
        ----------
        split
            A split of :attr:`rows`.
        columns
            The columns to read; ``None`` for the features, the numbers of their valid frames, and
            every label that has a value in each row. A feature is an array of its shape and type, a
            list label is a vector, all
            other columns are scalars; a measure that is null is NaN. Floats are float32; integers
            and booleans are int64, as in TFRecord. The files lack added columns: these are looked
            up in a table in memory.

        Raises
        ------
        DatasetError
            The split or a column does not exist, the dataset has no TFRecord files, or a label
            has no value in some rows.
        """
        if not self._store.is_local and not self._store.root.startswith("gs://"):
            raise DatasetError(
                f"{self._store.root}: TensorFlow reads local files and gs://; "
                "copy the dataset, or take its rows from as_arrow()"
            )
        files = self.files(split, "tfrecord")
        names = self._choose(split, columns)
        from melmill.pipelines.tf_rows import read_records

        kinds = {name: self.features.get(name) or self.columns[name] for name in names}
        return read_records(files, self.rows[split], kinds, self._added.joining(names, split))

    def as_torch(
        self,
        split: str,
        columns: Sequence[str] | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
        batch_size: int | None = None,
        order: RowOrder | None = None,
        class_weights: ClassWeights | None = None,
        crop: Mapping[str, int] | None = None,
        masks: bool = False,
        drop_last: bool = False,
    ) -> Any:
        """Return a split as a ``torch.utils.data.IterableDataset`` of dictionaries.

        With `batch_size`, the result is
        :class:`~melmill.pipelines.torch_rows.OrderedBatches`: whole batches in a shuffled order
        that is the same for any number of ranks and workers, and that resumes. Pass it to
        ``DataLoader(rows, batch_size=None, num_workers=4)``.

        Without `batch_size`, the result yields rows, and cannot resume. Pass it to
        ``DataLoader(rows, batch_size=64, num_workers=4)``: all workers of all
        ranks together read each row once. ``rows.set_epoch(n)`` changes the order of files.

        Parameters
        ----------
        split
            A split of :attr:`rows`.
        columns
            The columns to read; ``None`` for the features, the numbers of their valid frames, and
            every label that has a value in each row, except lists, which PyTorch's own ``collate``
            cannot stack. A feature is a
            tensor of its shape and type; measures, which are NaN for null, and all other columns
            are plain Python values. ``collate``
            turns these values into tensors (int64, float64, bool), and strings into lists. Each
            worker keeps the chosen added columns of the split in memory.
        rank, world_size
            The number of this process, and how many processes train together.
        verify
            See :meth:`as_arrow`; the error names the shard that cannot be read.
        batch_size
            The number of rows in a batch of this process; ``None`` to get rows.
        order
            The settings of the order of batches; ``None`` for ``melmill.RowOrder()``.
        class_weights
            The name of a label, whose classes then all come equally often; or for one label the
            weight of each class, ``{"genre": {"rock": 1, "folk": 3}}``: a class without a weight
            gives no rows. An epoch keeps its length, and repeats rows of rare classes.
        crop
            The length of a random part of features, in frames or samples: ``{"mel": 100}``. It lies
            at a random place of the valid part, the same place relative to each feature of a row.
        masks
            Whether to cut batches to their longest row, and to add ``NAME_length``, the number of
            valid frames or samples, and ``NAME_mask``, bool [batch, longest], for each feature.
        drop_last
            Whether to leave out the last batches, if the ranks' batches are not all full.

        Raises
        ------
        DatasetError
            The split or a column does not exist, or a label has no value in some rows.
        ConfigError
            A setting of the order needs `batch_size`, or a weight is wrong.
        """
        from melmill.pipelines.torch_rows import OrderedBatches, Share, SplitRows

        self._require_split(split)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not within 0 to {world_size - 1}")
        if batch_size is not None:
            order, cuts = order or RowOrder(), Cuts(crop or {}, masks)
            part = self._open_part(
                *(split, columns, order, cuts), class_weights=class_weights, verify=verify
            )
            loader = open_loader([part], order, cuts=cuts)
            return OrderedBatches(BatchStream(loader, batch_size, rank, world_size, drop_last))
        if order or class_weights or crop or masks or drop_last:
            raise ConfigError(
                "as_torch: order, class_weights, crop, masks and drop_last need batch_size"
            )
        chosen = self._choose(split, columns, lists=False)
        parquet, _ = self._files
        share = Share(rank, world_size)
        joining = self._added.joining(chosen, split)
        return SplitRows(self._store, parquet[split], chosen, share, verify, joining)

    def as_grain(
        self,
        split: str,
        columns: Sequence[str] | None = None,
        *,
        order: RowOrder | None = None,
        epochs: int = 1,
        class_weights: ClassWeights | None = None,
        array_record: str | Path | None = None,
    ) -> Any:
        """Return a split's rows by number: a source for grain, ``grain.MapDataset.source(rows)``.

        Row ``i`` is the row at position ``i`` of the order, so read the rows one after the other,
        and do not shuffle them again: a row of Parquet is read with its whole window. The rows of
        an ArrayRecord view are in the order of the files, and each can be read by itself: let grain
        shuffle them all.

        Parameters
        ----------
        split, columns, class_weights
            See :meth:`as_torch`. Each row is a dictionary of NumPy arrays and Python values.
        order
            The settings of the order; ``None`` for ``melmill.RowOrder()``. For grain's worker
            processes, set `lanes` to a multiple of their number, and `turn_rows` to 1.
        epochs
            The number of epochs that the rows go through, each with an order of its own.
        array_record
            The local folder of a view that ``melmill export --format arrayrecord`` made of this
            dataset, to read the rows from there.

        Raises
        ------
        DatasetError
            The split or a column does not exist, or a label has no value in some rows.
        ConfigError
            A setting is wrong, or `array_record` came with settings of the order.
        """
        from melmill.pipelines.grain_rows import OrderedRows, open_records

        if array_record is None:
            order = order or RowOrder()
            part = self._open_part(split, columns, order, Cuts(), class_weights=class_weights)
            return OrderedRows(open_loader([part], order, kept_windows=2), epochs)
        if order or class_weights or epochs != 1:
            raise ConfigError("as_grain: with array_record, let grain shuffle, repeat and weigh")
        self._require_split(split)
        chosen = self._choose(split, columns, lists=False)
        return open_records(str(array_record), split, self._opened.schema, chosen)

    def _open_part(
        self,
        split: str,
        columns: Sequence[str] | None,
        order: RowOrder,
        cuts: Cuts,
        *,
        class_weights: ClassWeights | None = None,
        verify: bool = True,
    ) -> SplitPart:
        """Return a split as a part of what a loader reads; a mixture calls this, too."""
        self._require_split(split)
        chosen = self._choose(split, columns, lists=False)
        weighting = None
        if class_weights is not None:
            self._choose(split, [label_of(class_weights)])
            weighting = weigh_classes(self.as_arrow(split), class_weights)
        features = {name: self.features[name] for name in chosen if name in self.features}
        if cuts.is_needed:
            self._require_counts(features)
        if order.bucket_by:
            self._require_number(order.bucket_by)
        lengths = [*cuts.counts(features), *filter(None, [order.bucket_by])]
        self._choose(split, lengths)
        joining = self._added.joining([*chosen, *lengths], split)
        return open_part(
            *(self._opened, split, self._files[0][split], joining, chosen),
            lengths=lengths,
            weighting=weighting,
            verify=verify,
        )

    def _require_counts(self, features: Mapping[str, FeatureColumn]) -> None:
        """Raise ``DatasetError`` if a feature with time lacks the number of valid frames."""
        of_columns = self._opened.recipe.feature_spec().by_column
        for name, column in features.items():
            if not column.valid and of_columns[name].kind not in ("model", "measures"):
                raise DatasetError(
                    f"{self._store.root}: an earlier version of melmill made the rows, which do "
                    f"not say how much of {name!r} is valid; refresh the dataset to crop or mask it"
                )

    def _require_number(self, column: str) -> None:
        kind = self.columns.get(column)
        if kind not in ("int32", "int64"):
            raise ConfigError(
                f"bucket_by: {column!r} is {kind or 'no column of the rows'}; name a column of "
                "whole numbers, such as valid_frames or valid_samples"
            )

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
        """Return the checked columns; by default features and labels without missing values.

        The columns that count the valid frames and samples of the features come with them.
        """
        if columns is None:
            stored = {label.name: label.type for label in self._opened.schema.labels}
            kinds = stored | self._added.types
            labels = [n for n, kind in kinds.items() if lists or not kind.startswith("list<")]
            incomplete = self._incomplete(split, labels)
            counts = dict.fromkeys(c.valid for c in self.features.values() if c.valid)
            return [*self.features, *counts, *(n for n in labels if n not in incomplete)]
        known = [*self.features, *self.columns]
        if unknown := [name for name in columns if name not in known]:
            listed = ", ".join(known)
            raise DatasetError(f"{self._store.root}: no column {unknown[0]!r}; there are: {listed}")
        incomplete = self._incomplete(split, columns)
        if absent := [name for name in columns if name in incomplete]:
            raise DatasetError(
                f"{self._store.root}: label {absent[0]!r} has no value in some rows of {split}, "
                "and a tensor cannot hold a missing value; leave the label out, or read the rows "
                "with as_arrow()"
            )
        return list(columns)

    def _incomplete(self, split: str, names: Sequence[str]) -> set[str]:
        """Return the labels and added columns that have no value in some rows of a split."""
        shards = (shard for shard in self._opened.shards() if shard.split == split)
        incomplete = {name for shard in shards for name in shard.null_labels}
        return incomplete | self._added.lacking(split, names)
