"""The job: everything that a worker must know, as a value that is checked before the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from melmill.transforms.catalogue.left_out import LeftOut, read_left_out
from melmill.transforms.catalogue.licenses import ANY_LICENSE, LicenseRule
from melmill.transforms.catalogue.parts import Catalogue
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Recording
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.group_decisions import Dedupe
from melmill.transforms.plan.packing import ShardSpec
from melmill.transforms.plan.recordings import Damaged
from melmill.transforms.plan.splits import SplitSpec
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import StoredObject

Format = Literal["parquet", "tfrecord"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for each recording, and for the number of failures.

    Attributes
    ----------
    timeout_s
        Maximum wall-clock time in seconds to read one header or one span.
    max_seconds
        Maximum length of a recording or a segment.
    memory_bytes
        Maximum memory that the decoder process may allocate.
    max_failure_ratio
        Maximum share of failed recordings; if more fail, nothing is committed.
    damaged
        Treatment of a recording that is damaged or cut off: ``fail``, or ``keep`` the rows
        before the damage.
    min_split_recordings
        Smallest number of recordings with rows that a split may have; if one has fewer, nothing is
        committed.
    """

    timeout_s: float
    max_seconds: float
    memory_bytes: int
    max_failure_ratio: float
    damaged: Damaged = "fail"
    min_split_recordings: int = 0

    def too_many_failed(self, failed: int, recordings: int) -> bool:
        """Return whether so many of the recordings failed that nothing may be committed."""
        # A product instead of a ratio could round differently.
        return failed / max(1, recordings) > self.max_failure_ratio


@dataclass(frozen=True, slots=True)
class WriterSpec:
    """The format of a shard's files.

    Attributes
    ----------
    formats
        Formats to write: always ``parquet``, and optionally ``tfrecord``.
    row_group_rows
        Number of rows in a Parquet row group.
    compression_level
        Compression level of zstd.
    """

    formats: tuple[Format, ...]
    row_group_rows: int
    compression_level: int


@dataclass(frozen=True, slots=True)
class RefreshSpec:
    """The limits of a refresh.

    Attributes
    ----------
    max_removed_ratio
        Maximum share of the snapshot's recordings that one refresh may remove.
    max_attempts
        Maximum number of attempts for a recording whose failure may be temporary.
    retry_failed
        Whether all failed recordings are retried, whatever the cause.
    """

    max_removed_ratio: float = 0.2
    max_attempts: int = 5
    retry_failed: bool = False


def is_matching(dedupe: str, keep_together: str | None) -> bool:
    """Return whether a recipe's runs look for duplicates.

    >>> is_matching("off", None), is_matching("mark", None), is_matching("off", "duplicates")
    (False, True, True)
    """
    return dedupe != "off" or keep_together is not None


@dataclass(frozen=True, slots=True)
class Base:
    """The snapshot that a job starts from, and which parts of it can be carried over.

    Attributes
    ----------
    version
        Version of the snapshot; −1 if there is none yet.
    index, parts, listed_ms
        See :class:`~melmill.transforms.snapshot.delta.Snapshot`. The index is ``""`` if the job
        carries nothing over: an extraction into a new dataset, or over an existing dataset.
    same_features
        Whether the feature configuration is the same, and all that is to be measured was measured;
        if not, all rows are computed again.
    unchanged_features
        Names of the features that are the same although others are not; they are carried over.
    unchanged_variants
        Numbers of the variants whose rows may be carried over; 0 for the recordings as they are.
    same_files
        Whether the shards' layout is the same; if not, all shards are rewritten.
    same_split
        Whether the split configuration is the same; if not, each recording gets a new split.
    max_seconds
        Maximum length of a recording, when the snapshot was made.
    configured
        Whether the whole configuration is the same.
    damaged
        Treatment of damaged recordings, when the snapshot was made; see :class:`Limits`.
    meters
        Meters that measured its recordings.
    select, dedupe
        Expression that selected its recordings, and treatment of duplicates; see
        :class:`ExtractJob`.
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
    unchanged_features: tuple[str, ...] = ()
    meters: tuple[str, ...] = ()
    select: str = ""
    dedupe: Dedupe = "off"
    unchanged_variants: tuple[int, ...] = (0,)

    @property
    def is_nothing(self) -> bool:
        """Whether no recording, row or shard can be carried over."""
        return not self.index


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """The description of one run: its input, its output and its settings.

    Attributes
    ----------
    catalogue, store
        Catalogue of the recordings, and store of the dataset.
    features, split, shards, writer, limits, refresh
        Settings of the steps.
    progress
        Address at which the launcher listens; ``""`` if it does not listen.
    base
        Snapshot that the job starts from.
    operation
        Name of the command; ``""`` for an extraction or a refresh.
    attempt
        Name of this attempt. Several attempts of one run may share its staging folder.
    began_ms
        Time when the first attempt began, in milliseconds since 1970; 0 if unknown.
    taken_down, exclude
        File that lists the recordings which were taken down, and the user's list of
        recordings to exclude; ``""`` for none.
    licenses
        Licences that recordings may have.
    content_hashes
        Whether files are also compared by their content.
    meters
        Meters that measure the recordings; see :mod:`~melmill.transforms.measures.measuring`.
    select
        Expression that selects recordings by their measures; see
        :class:`~melmill.transforms.measures.expressions.Selection`. ``""`` selects all.
    dedupe
        Treatment of duplicates.
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
    licenses: LicenseRule = ANY_LICENSE
    content_hashes: bool = False
    meters: tuple[str, ...] = ()
    select: str = ""
    dedupe: Dedupe = "off"

    @property
    def asked_shares(self) -> dict[str, float]:
        """Share of each split that the recipe asks for; none if the catalogue gives the splits."""
        by = self.split.by
        is_given = by == "catalogue" or (by == "auto" and self.catalogue.gives_splits)
        return {} if is_given else dict(self.split.fractions)

    @property
    def is_matching(self) -> bool:
        """Whether the run looks for duplicates."""
        return is_matching(self.dedupe, self.split.keep_together)

    @property
    def matches_base(self) -> bool:
        """Whether new recordings are matched with those that are carried over."""
        return self.is_matching and self.base.same_features and not self.base.is_nothing

    @property
    def stores(self) -> tuple[tuple[str, StorageOptions], ...]:
        """URLs of the catalogue, the dataset and the exclude list, with their storage options."""
        catalogue = self.catalogue.uri, self.catalogue.storage_options
        excluded = ((self.exclude, self.catalogue.storage_options),) if self.exclude else ()
        return catalogue, (self.store.root, self.store.storage_options), *excluded

    @property
    def schema(self) -> RowSchema:
        """Columns of the rows."""
        labels = self.catalogue.label_columns
        per_channel, with_variants = self.features.channels == "each", bool(self.features.variants)
        return RowSchema(self.features.columns, labels, per_channel, with_variants)

    @property
    def writer_key(self) -> str:
        """Text of the settings that a shard's bytes depend on, in addition to its rows."""
        settings = self.writer.row_group_rows, self.writer.compression_level
        return f"({self.schema.text}, {', '.join(map(repr, settings))})"

    @property
    def run_id(self) -> str:
        """Name of the run: the same for the same command on the same snapshot.

        The same command finds an interrupted run by this name, and resumes it. The name is part
        of every shard's name, so no other run writes a file with the same name. If another run
        commits first, this run can therefore remove its own files.
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
        """File in which an attempt's pipeline writes its result; each attempt has its own."""
        return f"{self.staging}/outcomes/{self.attempt or self.run_id}.json"

    def left_out(self) -> LeftOut:
        """Return the recordings that stay out of the dataset, even if the catalogue lists them."""
        options = self.catalogue.storage_options
        return read_left_out(self.store, self.taken_down, self.exclude, options)

    def source(self, recording: Recording) -> StoredObject:
        """Return the stored object of a recording, in the version that was listed or probed."""
        options = self.catalogue.storage_options
        version = recording.fingerprint, recording.place
        return StoredObject(recording.uri, recording.size_bytes, options, *version)

    def in_its_version(self, recording: Recording) -> Recording:
        """Return the recording with its fingerprint, which is looked up if the listing has none."""
        if recording.fingerprint or recording.fault:
            return recording
        try:
            source = self.source(recording).located()
            size_bytes, fingerprint = source.stat()
        except RecordingError:
            # Reading the header fails in the same way, and that failure is recorded.
            return recording
        return replace(
            recording, size_bytes=size_bytes, fingerprint=fingerprint, place=source.place
        )
