"""The results of refreshes and of snapshot commands, as text for people and JSON for scripts."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from melmill.pipelines.cli.pipeline_texts import (
    left_out_lines,
    metrics_lines,
    passed_over_lines,
    select_lines,
)
from melmill.pipelines.snapshots.coverage_texts import kept_lines
from melmill.pipelines.snapshots.summary import (
    split_warnings,
    totals_json,
    totals_lines,
    warning_lines,
)
from melmill.transforms.core.naming import number_of

if TYPE_CHECKING:
    from pathlib import Path

    from melmill.pipelines.compact import Compaction
    from melmill.pipelines.extract import Extraction
    from melmill.pipelines.presets import Preset
    from melmill.pipelines.snapshots.gc import Collected
    from melmill.pipelines.snapshots.history import RecordingChange
    from melmill.pipelines.snapshots.open import OpenSnapshot
    from melmill.pipelines.takedown import Takedown
    from melmill.transforms.core.feature_columns import FeatureColumn
    from melmill.transforms.side_tables.side_table import SideTable
    from melmill.transforms.snapshot.totals import Totals

#: Largest number of copies in a command that erases them, too.
_COPIES = 10

_DESCRIPTIONS = {
    "new": "new",
    "changed": "changed",
    "retried": "retried, because their failure may be temporary",
    "recomputed": "recomputed, because the configuration changed",
    "relabelled": "with new labels, a new URI or a new split; their rows are carried over",
    "selected": "selected by another select or by dedupe",
    "deselected": "deselected by another select; their rows are removed",
    "duplicate": "duplicates of others from now on; their rows are removed",
    "removed": "removed",
}


def refresh_text(dataset: str, made: Extraction) -> str:
    """Return text about what changed, and what the dataset holds now."""
    version = made.snapshot.version
    if not made.committed:
        return (
            f"Nothing to do: version {version} of {dataset} is what its catalogue holds"
            + waiting_line(made.difference)
            + _left_out(made.difference)
            + "".join(f"\n{line}" for line in passed_over_lines(made.metrics.passed_over))
        )
    lines = [f"Committed version {version} of {dataset}", *difference_lines(made.difference)]
    if made.new_schema:
        lines.append(f"  {_new_schema(made.snapshot.dataset_version)}")
    lines += [*totals_lines(made.totals), *metrics_lines(made.metrics), *kept_lines(made.columns)]
    lines += passed_over_lines(made.metrics.passed_over)
    return "\n".join(lines + warning_lines(split_warnings(made.snapshot.asked_shares, made.totals)))


def _new_schema(number: int) -> str:
    return f"its columns, or the shape of mel, changed: this starts dataset version {number}"


def difference_lines(difference: dict[str, Any], *, examples: bool = False) -> list[str]:
    """Return lines that count the recordings of each kind, with examples if asked."""
    lines = []
    for kind, description in _DESCRIPTIONS.items():
        if number := difference.get(kind, 0):
            lines.append(f"  {number:,} {description}")
            uris = difference.get("examples", {}).get(kind, []) if examples else []
            lines += [f"    {uri}" for uri in uris]
            if examples and number > len(uris):
                lines.append(f"    … and {number - len(uris):,} more")
    lines += left_out_lines(difference)
    unchanged = difference.get("unchanged", 0)
    return [*lines, f"  {unchanged:,} unchanged{waiting_line(difference)}"]


def _left_out(difference: dict[str, Any]) -> str:
    return "".join(f"\n{line}" for line in left_out_lines(difference))


def waiting_line(difference: dict[str, Any]) -> str:
    """Return text about the failed recordings that are not retried; ``""`` for none."""
    if not (waiting := difference.get("waiting", 0)):
        return ""
    return f" (including {waiting:,} that failed permanently; --retry-failed retries them)"


def refresh_plan_text(dataset: str, planned: dict[str, Any]) -> str:
    """Return text about what a refresh would do."""
    if not planned["todo"]:
        return (
            f"Nothing to do: version {planned['version']} of {dataset} is what its catalogue holds"
            + waiting_line(planned["difference"])
            + _left_out(planned["difference"])
        )
    extracted, rewritten = planned["made"], planned["shards_rewritten"]
    rewritten = "all shards" if rewritten == "all" else number_of(rewritten, "shard")
    lines = [
        f"A refresh would commit the version after {planned['version']} of {dataset}",
        *difference_lines(planned["difference"], examples=True),
        f"  {number_of(sum(extracted['rows'].values()), 'row')} of "
        f"{extracted['seconds'] / 3600:,.2f} h of audio would be computed, "
        f"into {number_of(sum(extracted['shards'].values()), 'new shard')}, about "
        f"{extracted['parquet_bytes'] / 1e6:,.1f} MB of Parquet",
        f"  {rewritten} would be rewritten from stored rows",
    ]
    lines += select_lines(planned)
    if moved := planned["moved"]:
        lines.append(
            f"  {moved:,} of the new and changed recordings have known contents: their rows would "
            "be carried over"
        )
    for cause, number in sorted(extracted["failures"].items()):
        lines.append(f"  {number:,} would fail: {cause}")
        lines += [f"    {uri!r}: {message}" for uri, message in extracted["examples"][cause]]
    lines += passed_over_lines(planned["passed_over"])
    if planned["new_schema"]:
        lines.append("  the columns, or the shape of mel, change: a new dataset version")
    return "\n".join(lines)


def inspection_json(root: str, opened: OpenSnapshot) -> dict[str, Any]:
    """Return a snapshot's description as plain values."""
    from melmill.transforms.snapshot.card import features_json, statistics

    schema = opened.schema
    types = {column.name: column.type for column in schema.features}
    first = features_json(schema)
    arrays = first.pop("features")
    return {
        "dataset": root,
        "version": opened.snapshot.version,
        "index": opened.snapshot.index,
        "catalogue": opened.snapshot.catalogue,
        "configuration": opened.snapshot.configuration,
        **first,
        "arrays": arrays,
        "features": json.loads(opened.snapshot.features),
        "columns": {**schema.columns(), **types},
        **_added_json(opened.snapshot.side_tables),
        **totals_json(opened.totals),
        "split_warnings": split_warnings(opened.snapshot.asked_shares, opened.totals),
        "failure_examples": opened.totals.examples,
        "statistics": statistics(opened.totals),
    }


def inspection_text(root: str, opened: OpenSnapshot) -> str:
    """Return text about what a snapshot holds."""
    from melmill.transforms.snapshot.card import band_statistics, variant_lines

    snapshot, schema = opened.snapshot, opened.schema
    columns = ", ".join(f"{name} {kind}" for name, kind in schema.columns().items())
    lines = [
        f"{root}, version {snapshot.version}, made from {snapshot.catalogue}",
        *totals_lines(opened.totals),
        *(f"  {line}" for line in variant_lines(snapshot.features, opened.totals)),
        *warning_lines(split_warnings(snapshot.asked_shares, opened.totals)),
        *map(_column_line, schema.features),
        f"  {columns}",
        *_added_lines(opened.snapshot.side_tables),
        f"  {_statistics_line(band_statistics(opened.totals))}",
        "  configuration:",
    ]
    for section, values in snapshot.configuration.items():
        lines.append(f"    {section}: {json.dumps(values, ensure_ascii=False)}")
    return "\n".join(lines)


def _added_json(tables: Sequence[SideTable]) -> dict[str, Any]:
    added = {
        name: {"type": kind, "key": list(table.key), "files": f"columns/{table.name}/"}
        for table in tables
        for name, kind in table.columns.items()
    }
    return {"added_columns": added} if added else {}


def _added_lines(tables: Sequence[SideTable]) -> list[str]:
    return [
        f"  added by {', '.join(table.key)}, in columns/{table.name}/: "
        + ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
        for table in tables
    ]


def _column_line(column: FeatureColumn) -> str:
    shape = f" {list(column.shape)}" if column.shape else ""
    return f"  {column.name}: {column.dtype}{shape}" + ", as FLAC" * bool(column.flac_rate_hz)


def _statistics_line(bands: dict[str, Any]) -> str:
    if not bands or not bands["values_per_band"]:
        return "no statistics"
    mean, std = bands["mean"], bands["std"]
    return (
        f"statistics of {bands['split']}: band means {min(mean):.2f} to {max(mean):.2f}, "
        f"standard deviations {min(std):.2f} to {max(std):.2f}, "
        f"values {bands['min']:.2f} to {bands['max']:.2f}"
    )


def presets_text(presets: list[Preset]) -> str:
    """Return a table of presets as text, one line per preset."""
    lines = [f"{'recipe':16} {'Hz':>6} {'chunk':>7} {'shape':>12} {'MB/hour':>8}  features of"]
    for preset in presets:
        shape = "x".join(map(str, preset.shape))
        lines.append(
            f"{preset.name:16} {preset.sample_rate_hz:>6} {preset.chunk_seconds:>5.5g} s "
            f"{shape:>12} {preset.bytes_per_hour / 1e6:>8.1f}  {preset.purpose}"
        )
    return "\n".join(lines)


def history_text(snapshots: list[dict[str, Any]]) -> str:
    """Return a table of snapshots as text, one line per snapshot."""
    lines = [f"{'version':>7}  {'time':25}  {'operation':11}  {'recordings':>12}  {'rows':>14}"]
    for snapshot in snapshots:
        line = (
            f"{snapshot['version']:>7}  {snapshot['time']:25}  {snapshot['operation']:11}  "
            f"{snapshot['recordings']:>12,}  {snapshot['rows']:>14,}"
        )
        if snapshot["dataset_version"] > 1:
            line += f"  dataset version {snapshot['dataset_version']}"
        lines.append(line if snapshot["kept"] else f"{line}  no longer kept")
    return "\n".join(lines)


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def change_line(change: RecordingChange, as_json: bool) -> str:
    """Return a line about how a recording changed."""
    if as_json:
        return json.dumps(asdict(change))
    rows = f"{change.rows_before} -> {change.rows_after} rows"
    return f"{_SIGNS[change.kind]} {change.uri} ({rows})"


def diff_text(before: int, after: int, counted: dict[str, Any]) -> str:
    """Return text about how two snapshots differ."""
    if not any(counted["recordings"].values()):
        return f"Versions {before} and {after} hold the same recordings"
    lines = [f"From version {before} to {after}:"]
    for kind, number in counted["recordings"].items():
        lines.append(
            f"  {number_of(number, 'recording')} {kind}, {number_of(counted['rows'][kind], 'row')}"
        )
        uris = counted["examples"].get(kind, [])
        lines += [f"    {_SIGNS[kind]} {uri}" for uri in uris]
        if number > len(uris):
            lines.append(f"    … and {number - len(uris):,} more (--list lists all)")
    return "\n".join(lines)


def snapshot_json(dataset: str, opened: OpenSnapshot) -> dict[str, Any]:
    """Return a committed snapshot as plain values."""
    snapshot = opened.snapshot
    return {
        "dataset": dataset,
        "version": snapshot.version,
        "dataset_version": snapshot.dataset_version,
        "index": snapshot.index,
        **totals_json(opened.totals),
    }


def rollback_text(dataset: str, version: int, opened: OpenSnapshot) -> str:
    """Return text about the result of a rollback."""
    head = f"Version {opened.snapshot.version} of {dataset} holds what version {version} held"
    return "\n".join([head, *totals_lines(opened.totals)])


def checkout_text(dataset: str, version: int, output: Path, totals: Totals) -> str:
    """Return text about the result of a checkout, and how to read it."""
    head = f"Wrote the card and the list of files of version {version} of {dataset} to {output}"
    code = f"  import datasets\n  data = datasets.load_dataset({str(output)!r})"
    return "\n".join([head, *totals_lines(totals), "", code])


def gc_json(dataset: str, collected: Collected, dry_run: bool) -> dict[str, Any]:
    """Return the result of ``gc`` as plain values."""
    return {"dataset": dataset, "dry_run": dry_run, **asdict(collected)}


def gc_text(dataset: str, collected: Collected, dry_run: bool) -> str:
    """Return text about what was removed."""
    verb = "Would remove" if dry_run else "Removed"
    megabytes = collected.size_bytes / 1e6
    lines = [f"{verb} {number_of(len(collected.files), 'file')}, {megabytes:,.1f} MB, of {dataset}"]
    if collected.expired:
        lines.append(f"  no longer kept: versions {_ranges(collected.expired)}")
    return "\n".join([*lines, f"  kept: versions {_ranges(collected.kept)}"])


def _ranges(numbers: list[int]) -> str:
    """Return numbers as ranges.

    >>> _ranges([1, 2, 3, 7])
    '1 to 3, 7'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges)


def compaction_json(dataset: str, made: Compaction) -> dict[str, Any]:
    """Return a compaction's result as plain values."""
    return {
        "dataset": dataset,
        "version": made.snapshot.version,
        "index": made.snapshot.index,
        "committed": made.committed,
        "merged": made.merged,
        "shards": made.shards,
        "rows": made.rows,
    }


def compaction_text(dataset: str, made: Compaction) -> str:
    """Return text about the result of a compaction."""
    version = made.snapshot.version
    if not made.committed:
        return f"Nothing to do: version {version} of {dataset} has no two small shards to merge"
    return (
        f"Committed version {version} of {dataset}: {number_of(made.merged, 'shard')} became "
        f"{made.shards:,}, with the same {number_of(made.rows, 'row')}"
    )


def takedown_json(dataset: str, made: Takedown) -> dict[str, Any]:
    """Return a takedown's result as plain values."""
    return {
        "dataset": dataset,
        "version": made.snapshot.version,
        "erased": [asdict(recording) for recording in made.erased],
        "versions": made.versions,
        "rows": made.rows,
        "files": made.files,
        "exports": [asdict(record) for record in made.exports],
        "copies": list(made.copies),
    }


def takedown_text(dataset: str, made: Takedown) -> str:
    """Return text about what was erased, and which exports may still hold it."""
    if made.erased or made.versions:
        versions = f", also from versions {_ranges(made.versions)}" if made.versions else ""
        head = (
            f"Committed version {made.snapshot.version} of {dataset}: erased "
            f"{number_of(len(made.erased), 'recording')} ({number_of(made.rows, 'row')})"
            f"{versions}; "
            f"removed {number_of(len(made.files), 'file')}"
        )
    else:
        head = f"Nothing to erase in {dataset}: no kept snapshot has these recordings any more"
        if made.files:
            head += f"; {len(made.files):,} leftover files of them were removed"
    lines = [head, *(f"  {recording.uri}" for recording in made.erased)]
    if made.exports:
        lines.append("Exports that may still hold them; delete or export these again:")
        lines += [
            f"  {record.output} ({record.format}, version {record.version})"
            for record in made.exports
        ]
    if made.copies:
        command = shlex.join(["melmill", "takedown", dataset, *made.copies[:_COPIES]])
        more = f" and {len(made.copies) - _COPIES:,} more" * (len(made.copies) > _COPIES)
        number = number_of(len(made.copies), "recording")
        lines.append(f"Not erased: {number} that sound the same. To erase them, too:")
        lines.append(f"  {command}{more and f'   #{more}; see --json'}")
    return "\n".join(lines)


def failure_line(row: Mapping[str, Any], as_json: bool) -> str:
    """Return a line about a failure.

    >>> failure_line({"uri": "/a.wav", "cause": "corrupt", "message": "no frames"}, False)
    '/a.wav: corrupt: no frames'
    """
    return json.dumps(dict(row)) if as_json else f"{row['uri']}: {row['cause']}: {row['message']}"


def write_failures_csv(rows: Iterable[Mapping[str, Any]], file: TextIO) -> None:
    """Write failures as CSV, with a header."""
    from melmill.transforms.index.tables import FAILURES

    writer = csv.DictWriter(file, FAILURES.names)
    writer.writeheader()
    writer.writerows(rows)
