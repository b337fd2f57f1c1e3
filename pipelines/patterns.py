"""Patterns of a dataset: its unusual recordings and chunks, similar ones, and groups of them."""

from __future__ import annotations

import shlex

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.patterns.clusters import Centres
from melmill.transforms.patterns.describing import Describer
from melmill.transforms.patterns.reading import Source
from melmill.transforms.patterns.recordings import RecordingIndex
from melmill.transforms.patterns.results import Patterns
from melmill.transforms.patterns.scanning import Report, ShardScan
from melmill.transforms.patterns.searching import Search, mean_points
from melmill.transforms.patterns.space import Points, Space
from melmill.transforms.patterns.vectors import form_of
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.store.folders import Store

#: Number of recordings whose readings say what is usual.
_READINGS = 10_000


def find_patterns(
    store: Store,
    *,
    like: str | None = None,
    clusters: int | None = None,
    feature: str | None = None,
    top: int = 20,
    split: str | None = None,
    version: int | None = None,
    report: Report = lambda _: None,
) -> Patterns:
    """Find the patterns of a dataset's snapshot; nothing is decoded.

    All shards are read once, and a sample of their rows once more. Memory grows with the number of
    shards, not with the number of rows.

    Parameters
    ----------
    store
        Dataset.
    like
        Recording to compare with: its URI, the end of its URI, or its id; ``None`` for the most
        unusual recordings.
    clusters
        Number of groups to make; ``None`` for none.
    feature
        Feature to compare; ``None`` for the first that is no measure.
    top
        Number of recordings and of chunks to list.
    split
        Split whose rows are read; ``None`` for all.
    version
        Version of the dataset; ``None`` for the current one.
    report
        See :data:`~melmill.transforms.patterns.scanning.Report`.

    Raises
    ------
    ConfigError
        An argument is wrong.
    DatasetError
        There is no dataset or no such version, it has no rows, or a shard is damaged.
    """
    for name, number in (("top", top), ("clusters", clusters)):
        if number is not None and number < 1:
            raise ConfigError(f"{name}: {number}: must be at least 1")
    opened = OpenSnapshot.at(store, version)
    scan = ShardScan(store, _shards(opened, split), _source(opened, feature))
    index = RecordingIndex(store, opened.snapshot.index, opened.parts, split)
    target = None if like is None else index.find(like)
    compared, in_several = index.count()
    if clusters is not None and clusters > compared:
        raise ConfigError(f"clusters: {clusters}: must be at most {compared}, the number compared")
    space, centres = _fit(opened, scan, clusters)
    origin: Points | float = 0.0
    if target is not None:
        own = [shard for shard in opened.shards() if shard.name in target.shards]
        origin = scan.point_of(target.recording_id, own, space)
    search = Search(space, origin, target, centres, top, min(1.0, _READINGS / compared))
    for recording in scan.recordings(space, search.scores, in_several, report):
        search.add(recording)
    found = Describer.read(search, index)
    return Patterns(
        dataset=store.root,
        version=opened.snapshot.version,
        feature=scan.source.feature,
        compared=compared,
        compared_chunks=sum(shard.rows for shard in scan.shards),
        like=found.like(),
        recordings=found.recordings(),
        chunks=found.chunks(opened.recipe.feature_spec().sample_rate_hz),
        clusters=found.clusters(),
        measured=found.measured,
    )


def _shards(opened: OpenSnapshot, split: str | None) -> list[ShardSummary]:
    shards = [shard for shard in opened.shards() if shard.parquet]
    splits = sorted({shard.split for shard in shards})
    if not shards:
        folders = opened.snapshot.catalogue, opened.store.root
        command = shlex.join(["melmill", "refresh", *folders, "--set", "select=null"])
        raise DatasetError(f"{opened.store.root}: has no rows to compare; make them: {command}")
    if split not in (None, *splits):
        raise ConfigError(
            f"split: {split!r}: {opened.store.root} has no such split with rows; there are: "
            f"{', '.join(splits)}"
        )
    return [shard for shard in shards if split in (None, shard.split)]


def _source(opened: OpenSnapshot, feature: str | None) -> Source:
    """Return the feature to compare: that with a name, or the first that is no measure."""
    spec = opened.recipe.feature_spec()
    kinds = {name: known.kind for name, known in spec.by_column.items()}
    columns = {column.name: column for column in opened.schema.features}
    forms = {name: form_of(column, kinds[name]) for name, column in columns.items()}
    works = ", ".join(name for name, form in forms.items() if form) or "none"
    arrays = (column.name for column in columns.values() if not column.is_number)
    name = feature or next(arrays, next(iter(columns)))
    if name not in columns:
        raise ConfigError(
            f"feature: {name!r}: {opened.store.root} has no such feature; these can be compared: "
            f"{works}"
        )
    form = forms[name]
    if form is None:
        shape = "" if columns[name].is_number else f" with the shape {columns[name].shape},"
        raise ConfigError(
            f"feature: {name!r}: its kind, {kinds[name]},{shape} "
            f"cannot be compared; spectrograms and embeddings can; of {opened.store.root}: {works}"
        )
    return Source(name, form, spec.chunk)


def _fit(
    opened: OpenSnapshot, scan: ShardScan, clusters: int | None
) -> tuple[Space, Centres | None]:
    """Return the space of a sample of the chunks, and the centres of clusters of its recordings."""
    column = next(c for c in opened.schema.features if c.name == scan.source.feature)
    dimensions = 2 * column.bands if scan.source.form == "bands" else column.shape[0]
    ids, sample = scan.sample(dimensions)
    space = Space.fit(sample)
    if clusters is None:
        return space, None
    points = mean_points(ids, space.points(sample))
    if clusters > len(points):
        raise ConfigError(
            f"clusters: {clusters}: must be at most {len(points)}, the number sampled"
        )
    return space, Centres.find(space.unscaled(points), clusters)
