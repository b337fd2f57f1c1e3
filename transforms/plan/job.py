"""One extraction, as a value: all that a worker needs to know, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from melmill.transforms.catalogue.left_out import LeftOut, read_left_out
from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Recording
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.planning import Damaged, ShardSpec, SplitSpec
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import StoredObject

Format = Literal["parquet", "tfrecord"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one recording may cost, and how many may fail.

    Attributes
    ----------
    timeout_s
        Wall-clock seconds for reading one header, or one span.
    max_seconds
        Longest recording (or segment) that is taken.
    memory_bytes
        What the decoder process may allocate.
    max_failure_ratio
        Share of the recordings that may fail before nothing is committed.
    damaged
        Whether a recording of which something is missing or damaged fails, or the rows before
        the damage are kept.
    """

    timeout_s: float
    max_seconds: float
    memory_bytes: int
    max_failure_ratio: float
    damaged: Damaged = "fail"


@dataclass(frozen=True, slots=True)
class WriterSpec:
    """How rows become files.

    Attributes
    ----------
    formats
        ``parquet`` always, ``tfrecord`` beside it where asked for.
    row_group_rows
        Rows of a Parquet row group.
    compression_level
        Of zstd.
    """

    formats: tuple[Format, ...]
    row_group_rows: int
    compression_level: int


@dataclass(frozen=True, slots=True)
class RefreshSpec:
    """How far a refresh may go.

    Attributes
    ----------
    max_removed_ratio
        Share of a snapshot's recordings that one refresh may remove.
    max_attempts
        How often a recording is tried whose failure may pass.
    retry_failed
        Whether all that failed are tried once more, whatever the cause.
    """

    max_removed_ratio: float = 0.2
    max_attempts: int = 5
    retry_failed: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """The snapshot that a job starts from, and what of it can be carried over.

    Attributes
    ----------
    version
        Version of the snapshot; −1 where there is none yet.
    index, parts, listed_ms
        See :class:`~melmill.transforms.snapshot.delta.Snapshot`. The index is ``""`` for a job
        that carries nothing over: an extraction, of a new dataset or over one.
    same_features
        Whether its rows hold what the job would compute; else all are computed again.
    same_files
        Whether its shards are laid out as the job writes them; else all are written anew.
    same_split
        Whether it was divided as the job divides; else each recording's split is drawn again.
    max_seconds
        Longest recording that it took.
    configured
        Whether its whole configuration is the job's.
    damaged
        What became of damaged recordings; see :class:`Limits`.
    """

    version: int = -1
    index: str = ""
    parts: int = 1
    listed_ms: int = 0
    same_features: bool = True
    same_files: bool = True
    same_split: bool = True
    max_seconds: float = 0.0
    configured: bool = True
    damaged: Damaged = "fail"

    @property
    def is_nothing(self) -> bool:
        """Whether no recording, row or shard can be carried over."""
        return not self.index


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """What is extracted from where to where, and how.

    Attributes
    ----------
    catalogue, store
        Where the recordings come from, and the dataset.
    features, split, shards, writer, limits, refresh
        The recipe, as the steps take it.
    progress
        Address at which the launcher listens; ``""`` where it does not.
    base
        The snapshot that the job starts from.
    operation
        The command, where it is neither an extraction nor a refresh.
    attempt
        Name of this attempt. Several runs may work for the same end, in the same staging folder.
    began_ms
        When the first of them began, in milliseconds since 1970; 0 if unknown.
    taken_down, exclude
        The dataset's list of recordings that stay away, and the user's list; ``""`` for none.
    content_hashes
        Whether files are also told apart by their content.
    """

    catalogue: Catalogue
    store: Store
    features: FeatureSpec
    split: SplitSpec
    shards: ShardSpec
    writer: WriterSpec
    limits: Limits
    progress: str = ""
    base: Base = Base()
    operation: str = ""
    attempt: str = ""
    began_ms: int = 0
    refresh: RefreshSpec = RefreshSpec()
    taken_down: str = ""
    exclude: str = ""
    content_hashes: bool = False

    @property
    def stores(self) -> tuple[tuple[str, StorageOptions], ...]:
        """URLs of all that is read and written, each with its store's options."""
        catalogue = self.catalogue.uri, self.catalogue.storage_options
        excluded = ((self.exclude, self.catalogue.storage_options),) if self.exclude else ()
        return catalogue, (self.store.root, self.store.storage_options), *excluded

    @property
    def schema(self) -> RowSchema:
        """Columns of the rows."""
        n_mels, n_frames = self.features.shape
        labels = self.catalogue.label_columns
        return RowSchema(n_mels, n_frames, labels, self.features.channels == "each")

    @property
    def writer_key(self) -> str:
        """What the bytes of a shard depend on, beside its rows."""
        return repr((self.schema, self.writer.row_group_rows, self.writer.compression_level))

    @property
    def run_id(self) -> str:
        """Name of the run: the same for the same command on the same snapshot.

        An interrupted run is found by it, and resumed. It is part of every shard's name: no
        other run gives a file the same name, so a run that was overtaken can remove its own.
        """
        start = (self.base.version, self.base.index, self.operation)
        parts = (self.catalogue, self.split, self.shards, self.writer_key, *start)
        return digest(
            self.features.digest(), *(repr(part) for part in (*parts, self.writer.formats))
        )[:16]

    @property
    def staging(self) -> str:
        """Folder of the run's working files in the dataset."""
        return f"staging/{self.run_id}"

    @property
    def outcome(self) -> str:
        """File where an attempt's pipeline says what it has left; others work for the same end."""
        return f"{self.staging}/outcomes/{self.attempt or self.run_id}.json"

    def left_out(self) -> LeftOut:
        """Read which recordings stay out of the dataset, whatever the catalogue lists."""
        options = self.catalogue.storage_options
        return read_left_out(self.store, self.taken_down, self.exclude, options)

    def source(self, recording: Recording) -> StoredObject:
        """Say where a recording is, in the version that was listed or probed."""
        options = self.catalogue.storage_options
        return StoredObject(recording.uri, recording.size_bytes, options, recording.fingerprint)

    def in_its_version(self, recording: Recording) -> Recording:
        """Tell which version of a recording is there, where its listing did not."""
        if recording.fingerprint or recording.fault:
            return recording
        try:
            size_bytes, fingerprint = self.source(recording).stat()
        except RecordingError:
            # Reading its header fails the same way, and that is recorded.
            return recording
        return replace(recording, size_bytes=size_bytes, fingerprint=fingerprint)
