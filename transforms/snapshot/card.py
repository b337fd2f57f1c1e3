"""The dataset card: describes the current snapshot and how to load it, for people and tools.

Hugging Face ``datasets`` reads the file lists and the features' shapes from the card's head. The
card and its side files are derived from a snapshot. Each names the snapshot that it describes, and
all can be written again at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.variants_spec import variant_text
from melmill.transforms.index.tables import read_shards
from melmill.transforms.plan.split_shares import share_warnings
from melmill.transforms.rows.distribution import (
    DURATION_EDGES_S,
    LEVEL_EDGES_DBFS,
    VARIANTS,
    balance,
)
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.rows.tfds import features as tfds_features
from melmill.transforms.side_tables.side_table import list_parts
from melmill.transforms.snapshot.card_head import FileLists, card_head, feature_entries, title
from melmill.transforms.snapshot.card_loading import loading_text, view_loading_text
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.provenance import plain_markdown, provenance_text
from melmill.transforms.snapshot.totals import SplitContent, Totals, training_split
from melmill.transforms.store.folders import Store

#: Key in a side file that names its index; no split can have this name.
_MARK = "_index"
_STATISTICS = "statistics.json"
#: Last part of the name of the picture that a card shows.
PICTURE = "spectrograms.png"
_FILE_LISTS, _TFDS_FEATURES = "tfrecord/files.json", "tfrecord/features.json"

#: Maximum number of classes of a label that the card describes and the commit holds.
_FEW = 20
#: Maximum number of classes that a line names.
_SHOWN = 3


def write_card(store: Store, snapshot: Snapshot, totals: Totals, schema: RowSchema) -> None:
    """Write ``README.md``, ``statistics.json`` and, for TFRecord, features and file lists.

    The card shows the picture of the snapshot (:func:`picture_name`) if the dataset has it.
    """
    parquet, tfrecord = list_files(store, snapshot)
    mark = {_MARK: snapshot.index}
    if tfrecord:
        store.put(_TFDS_FEATURES, to_json(tfds_features(schema)))
    if tfrecord or store.size(_FILE_LISTS) is not None:
        store.put(_FILE_LISTS, to_json({**tfrecord, **mark}))
    store.put(_STATISTICS, to_json({**statistics(totals), **mark}))
    card = _card(parquet, snapshot, totals, schema, _picture(store, snapshot), bool(tfrecord))
    store.put("README.md", card.encode())


def picture_name(snapshot: Snapshot) -> str:
    """Return the name of the picture of a snapshot; it is a part of its index, and goes with it."""
    return f"index/{snapshot.index}/{PICTURE}"


def _picture(store: Store, snapshot: Snapshot) -> str:
    name = picture_name(snapshot)
    return name if store.size(name) is not None else ""


def stale_files(store: Store, snapshot: Snapshot, schema: RowSchema) -> list[str]:
    """Return the names of the card and the side files that do not describe the snapshot."""
    _, tfrecord = list_files(store, snapshot)
    stale = [] if _card_describes(store, snapshot) else ["README.md"]
    marked = [_STATISTICS]
    # If an earlier snapshot left file lists, they must be replaced, even by empty lists.
    if tfrecord or store.size(_FILE_LISTS) is not None:
        marked.append(_FILE_LISTS)
    stale += [name for name in marked if _read_json(store, name).get(_MARK) != snapshot.index]
    if tfrecord and _read_json(store, _TFDS_FEATURES) != tfds_features(schema):
        stale.append(_TFDS_FEATURES)
    return stale


def _card_describes(store: Store, snapshot: Snapshot) -> bool:
    try:
        text = store.read("README.md").decode(errors="replace")
    except FileNotFoundError:
        return False
    picture = picture_name(snapshot)
    return _mark(snapshot) in text and (picture not in text or bool(_picture(store, snapshot)))


def _read_json(store: Store, name: str) -> dict[str, Any]:
    """Return the object in a small JSON file; ``{}`` if the file is missing or unreadable."""
    try:
        content = json.loads(store.read(name))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def list_files(store: Store, snapshot: Snapshot) -> tuple[FileLists, FileLists]:
    """Return the names of the snapshot's Parquet files and TFRecord files, by split.

    If any shard has no TFRecord file, no TFRecord files are returned: they would lack rows.
    """
    parquet: FileLists = {}
    tfrecord: FileLists = {}
    for shard in read_shards(store, snapshot.index):
        for lists, file in ((parquet, shard.parquet), (tfrecord, shard.tfrecord)):
            if file:
                lists.setdefault(shard.split, []).append(file.name)
    twins = {split: len(names) for split, names in tfrecord.items()}
    if twins != {split: len(names) for split, names in parquet.items()}:
        tfrecord = {}
    return _sorted(parquet), _sorted(tfrecord)


def _sorted(lists: FileLists) -> FileLists:
    return {split: sorted(lists[split]) for split in sorted(lists)}


def to_json(value: Any) -> bytes:
    """Return the content of a small JSON file that people may also read."""
    return (json.dumps(value, indent=1) + "\n").encode()


def statistics(totals: Totals) -> dict[str, Any]:
    """Return the statistics of a snapshot: bands for normalisation, and distributions.

    Returns
    -------
    dict
        Keys of :func:`band_statistics`, and ``splits`` and ``balance`` (see
        :func:`label_balance`). ``splits`` has for each split: ``recordings``, ``rows``,
        ``seconds``; the histogram ``seconds_histogram`` of its recordings, and the histograms
        ``peak_dbfs`` and ``rms_dbfs`` of its rows; ``labels`` (``value``, ``rows`` and
        ``recordings`` of each class; ``null`` if there are too many classes); with variants, the
        same for their numbers in ``variants``.
    """
    splits = {name: _split_statistics(split) for name, split in sorted(totals.splits.items())}
    return {**band_statistics(totals), "splits": splits, "balance": label_balance(totals)}


def brief_statistics(totals: Totals) -> dict[str, Any]:
    """Return the :func:`statistics` for a commit, without labels of many classes.

    Every reader of a Delta table reads its commits, so they must stay small.
    """
    full = statistics(totals)
    labels = [name for name, entry in full["balance"].items() if entry["classes"] <= _FEW]
    splits = {
        name: {**split, "labels": {label: split["labels"].get(label) for label in labels}}
        for name, split in full["splits"].items()
    }
    return {**full, "splits": splits, "balance": {name: full["balance"][name] for name in labels}}


def band_statistics(totals: Totals) -> dict[str, Any]:
    """Return mean and standard deviation of each band over the training split.

    They are those of the first feature; the other features' are in ``features``, by name.
    """
    if not totals.moments:
        return {}
    others = {name: _bands(moments) for name, moments in totals.moments.items() if name}
    return {
        "split": training_split(totals.splits),
        **_bands(totals.moments[""]),
        **({"features": others} if others else {}),
    }


def _bands(moments: Moments) -> dict[str, Any]:
    if not moments.count:  # a measure that is null in all rows: JSON has no NaN
        nothing = [None] * len(moments.mean)
        return {"values_per_band": 0, "mean": nothing, "std": nothing, "min": None, "max": None}
    return {
        "values_per_band": moments.count,
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "min": moments.low,
        "max": moments.high,
    }


def label_balance(totals: Totals) -> dict[str, dict[str, Any]]:
    """Return how evenly classes are divided among the splits, by label.

    See :func:`~melmill.transforms.rows.distribution.balance`.
    """
    splits = sorted(totals.splits.items())
    return balance({name: content.distribution for name, content in splits})


def _split_statistics(content: SplitContent) -> dict[str, Any]:
    distribution = content.distribution
    labels: dict[str, Any] = dict.fromkeys(distribution.many)
    for entry in sorted(distribution.classes, key=lambda entry: -entry.rows):
        counts = {"value": entry.value, "rows": entry.rows, "recordings": entry.recordings}
        labels.setdefault(entry.column, []).append(counts)
    variants = labels.pop(VARIANTS, None)
    return {
        "recordings": content.recordings,
        "rows": content.rows,
        "seconds": content.seconds,
        "seconds_histogram": _histogram(DURATION_EDGES_S, content.durations.tolist()),
        "peak_dbfs": _histogram(LEVEL_EDGES_DBFS, distribution.peak_dbfs),
        "rms_dbfs": _histogram(LEVEL_EDGES_DBFS, distribution.rms_dbfs),
        "labels": labels,
        **({"variants": variants} if variants else {}),
    }


def _histogram(edges: Sequence[float], counts: Sequence[int]) -> dict[str, Sequence[float]]:
    """Return a histogram; the first and last bins are open, so counts exceed edges by one."""
    return {"edges": list(edges), "counts": list(counts)}


def view_card(
    files: FileLists,
    snapshot: Snapshot,
    totals: Totals,
    schema: RowSchema,
    normalize: str,
    left_out: str = "",
    *,
    has_picture: bool = False,
) -> bytes:
    """Return the card of a view in Hugging Face's layout, with its Parquet files.

    Parameters
    ----------
    files, snapshot, totals, schema
        Files of the view by split, the snapshot, the totals of the view, and the columns.
    normalize
        Normalisation of the features that have bands.
    left_out
        Sentence about what the view leaves out of the snapshot; ``""`` if it has all.
    has_picture
        Whether the view has a picture, :data:`PICTURE`.
    """
    picture = PICTURE if has_picture else ""
    about = _about(snapshot, totals, schema, picture, twins=False)
    about += f"\n{left_out}\n" * bool(left_out)
    if normalize != "none":
        names = [f"`{c.name}`" for c in schema.features if c.has_bands]
        how = f"normalised: {normalize}, each band to mean 0 and deviation 1"
        about += f"\n{', '.join(names)} {'is' if len(names) == 1 else 'are'} {how}.\n"
    split = training_split(files)
    about += view_loading_text(split) if split else ""
    return (card_head(files, snapshot, totals, schema) + about + _recipe(snapshot)).encode()


def past_card(
    store: Store, snapshot: Snapshot, totals: Totals, schema: RowSchema
) -> tuple[bytes, dict[str, FileLists]]:
    """Return the card and the file lists of any snapshot, which may be an earlier snapshot.

    Both contain absolute paths or URLs, not paths relative to the card.
    """
    root = store.path("") if store.is_local else f"{store.root}/"
    parquet, tfrecord = (
        {split: [root + name for name in names] for split, names in lists.items()}
        for lists in list_files(store, snapshot)
    )
    picture = _picture(store, snapshot)
    about = _about(snapshot, totals, schema, picture and root + picture) + _added_columns(snapshot)
    files = {"parquet": parquet, "tfrecord": tfrecord}
    if snapshot.side_tables:
        files["columns"] = {
            name: [root + part for part in list_parts(store, table)]
            for table in snapshot.side_tables
            for name in table.columns
        }
    head = card_head(parquet, snapshot, totals, schema)
    return (head + about + _recipe(snapshot)).encode(), files


def _card(
    files: FileLists,
    snapshot: Snapshot,
    totals: Totals,
    schema: RowSchema,
    picture: str,
    has_tfrecord: bool,
) -> str:
    head = card_head(files, snapshot, totals, schema)
    about = _about(snapshot, totals, schema, picture)
    loading = loading_text(schema, training_split(files) if has_tfrecord else None)
    parts = head, about, loading, _added_columns(snapshot), _recipe(snapshot), _mark(snapshot)
    return "".join(parts)


def _mark(snapshot: Snapshot) -> str:
    """Return the end of the card, which says what the card describes."""
    tables = (f"`columns/{t.name}` ({', '.join(t.columns)})" for t in snapshot.side_tables)
    added = f"; added columns: {', '.join(tables)}" if snapshot.side_tables else ""
    return _SNAPSHOT.format(index=snapshot.index, added=added)


def _added_columns(snapshot: Snapshot) -> str:
    lines = []
    for table in snapshot.side_tables:
        key = ", ".join(f"`{name}`" for name in table.key)
        for name, kind in table.columns.items():
            lines.append(f"| `{name}` | {kind} | {key} | `columns/{table.name}/` |\n")
    return _ADDED.format(lines="".join(lines)) if lines else ""


def features_json(schema: RowSchema) -> dict[str, Any]:
    """Return the shape and type of the first feature, and of all features by name."""
    features = {c.name: {"shape": list(c.shape), "dtype": c.dtype} for c in schema.features}
    return {**next(iter(features.values())), "features": features}


def _about(
    snapshot: Snapshot,
    totals: Totals,
    schema: RowSchema,
    picture: str = "",
    *,
    twins: bool = True,
) -> str:
    splits = "\n".join(
        f"| {name} | {content.recordings:,} | {content.rows:,} | {content.shards:,} "
        f"| {(content.parquet_bytes + twins * content.tfrecord_bytes) / 1e6:,.1f} |"
        for name, content in sorted(totals.splits.items())
    )
    return _ABOUT.format(
        rows=totals.rows,
        hours=totals.seconds / 3600,
        features="\n".join(_feature_line(snapshot, column) for column in schema.features),
        title=title(snapshot),
        picture=f"\n![Spectrograms of some chunks]({picture})\n" if picture else "",
        splits=splits,
        failed=totals.recordings["failed"],
        skipped=totals.recordings["skipped"],
        deselected=_deselected(snapshot, totals),
        labels=_labels(totals),
        provenance=provenance_text(totals),
        warnings=_split_warnings(snapshot, totals),
        variants="".join(f"\n- {line}" for line in variant_lines(snapshot.features, totals)),
    )


def _split_warnings(snapshot: Snapshot, totals: Totals) -> str:
    numbers = {name: content.recordings for name, content in totals.splits.items()}
    lines = share_warnings(snapshot.asked_shares, numbers)
    return "".join(f"\n**Warning: {line}.**\n" for line in lines)


def _deselected(snapshot: Snapshot, totals: Totals) -> str:
    reasons = {
        "deselected": f"refused by `select: {snapshot.recipe['select']}`",
        "duplicate": f"left out as duplicates by `dedupe: {snapshot.recipe['dedupe']}`",
    }
    numbers = ((totals.recordings[status], reason) for status, reason in reasons.items())
    return "".join(f"\n{number:,} are {reason}." for number, reason in numbers if number)


def _feature_line(snapshot: Snapshot, column: FeatureColumn) -> str:
    entry = feature_entries(snapshot)[column.name]
    if column.is_number:
        how = "of one chunk, at the recording's own sample rate, of all channels"
        return f"- `{column.name}` is {column.dtype}: `{entry['measure']}` {how}."
    rate = f"{entry['sample_rate_hz']:,} Hz" if "sample_rate_hz" in entry else ""
    meaning = {
        "waveform": f"samples of one chunk at {rate or 'the sample rate of the row'}",
        "model": "output of the model for one chunk" + (f" at {rate}" if rate else ""),
    }.get(entry["kind"], "bands × frames of one chunk" + (f" at {rate}" if rate else ""))
    meaning += ", as FLAC" * bool(column.flac_rate_hz)
    if column.valid:
        meaning += f"; the first `{column.valid}` of them are valid, the others are padding"
    return f"- `{column.name}` is {column.dtype} [{', '.join(map(str, column.shape))}]: {meaning}."


def _labels(totals: Totals) -> str:
    lines = [f"- {plain_markdown(line)}\n" for line in balance_lines(label_balance(totals))]
    return "\n## Labels\n\n" + "".join(lines) if lines else ""


def balance_lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each label with few classes: how evenly the splits share its classes."""
    for column, entry in found.items():
        if entry["classes"] > _FEW:
            continue
        most = entry["largest_difference"]
        line = (
            f"{column}: {entry['classes']:,} classes; shares differ by at most "
            f"{100 * abs(most['share'] - most['overall']):.1f} points ({_class(most['value'])}: "
            f"{most['share']:.1%} of {most['split']}, {most['overall']:.1%} of all)"
        )
        for split, values in entry["missing"].items():
            shown = ", ".join(_class(value) for value in values[:_SHOWN])
            line += f"; {split} lacks {len(values):,}: {shown}{', …' * (len(values) > _SHOWN)}"
        yield line


def variant_lines(features: str, totals: Totals) -> Iterator[str]:
    """Yield a line for each variant with its number of rows; none for a recipe without variants.

    `features` is the canonical JSON of the feature configuration.
    """
    entries = json.loads(features).get("variants", [])
    texts = [variant_text(entry) for entry in entries]
    if not texts:
        return
    rows = Counter[object]()
    for content in totals.splits.values():
        for entry in content.distribution.classes:
            rows[entry.value] += entry.rows * (entry.column == VARIANTS)
    for number, text in enumerate(["the recordings as they are", *texts]):
        yield f"variant {number}, {text}: {rows[number]:,} rows"


def _class(value: object) -> str:
    return "no value" if value is None else str(value)


def _recipe(snapshot: Snapshot) -> str:
    version = json.loads(snapshot.features).get("extractor_version", "unknown")
    recipe = yaml.safe_dump(
        snapshot.recipe, sort_keys=False, width=100, allow_unicode=True, default_flow_style=None
    )
    return _RECIPE.format(version=version, recipe=recipe)


_RECIPE = """
## Recipe

Saved as `recipe.yaml`, this gives the same rows again, with version {version} of the extractor:
`melmill extract CATALOGUE DATASET --recipe recipe.yaml`. Storage options, which may be secret, are
not in it, nor are the folders that `catalogue.publish_root` hides: set them again.

```yaml
{recipe}```
"""

_SNAPSHOT = """
## Snapshot

Index `index/{index}`{added}.
"""

_ADDED = """
## Added columns

These columns were added after the extraction. They are not in the rows: join them by their key.

| column | type | key | files |
|---|---|---|---|
{lines}"""

_ABOUT = """# {title}

{rows:,} rows from {hours:,.2f} hours of audio.

{features}
{picture}
| split | recordings | rows | shards | MB |
|---|---|---|---|---|
{splits}
{warnings}
{failed:,} recordings failed and {skipped:,} were too short.{deselected}{variants}
{labels}{provenance}"""
