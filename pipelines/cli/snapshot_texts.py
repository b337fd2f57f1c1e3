"""What a person reads, and what a script reads, of refreshes and of snapshots over time."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melmill.pipelines.cli.pipeline_texts import (
    left_out_lines,
    metrics_lines,
    passed_over_lines,
)
from melmill.pipelines.snapshots.summary import totals_json, totals_lines
from melmill.transforms.snapshot.card import band_statistics, statistics

if TYPE_CHECKING:
    from pathlib import Path

    from melmill.pipelines.compact import Compaction
    from melmill.pipelines.extract import Extraction
    from melmill.pipelines.snapshots.gc import Collected
    from melmill.pipelines.snapshots.history import RecordingChange
    from melmill.pipelines.snapshots.open import OpenSnapshot
    from melmill.pipelines.takedown import Takedown
    from melmill.transforms.snapshot.totals import Totals

_SAID = {
    "new": "new",
    "changed": "changed",
    "retried": "tried again, since their failure may have passed",
    "recomputed": "to be computed again, for another configuration",
    "relabelled": "with other labels, another URI or another split; their rows are carried over",
    "removed": "removed",
}


def refresh_text(dataset: str, made: Extraction) -> str:
    """Say what changed, and what the dataset holds now."""
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
    lines += [*totals_lines(made.totals), *metrics_lines(made.metrics)]
    return "\n".join(lines + passed_over_lines(made.metrics.passed_over))


def _new_schema(number: int) -> str:
    return f"its columns, or the shape of mel, are others now: this starts dataset version {number}"


def difference_lines(difference: dict[str, Any], *, examples: bool = False) -> list[str]:
    """Say how many recordings of each kind there are, and which some of them are."""
    lines = []
    for kind, said in _SAID.items():
        if number := difference.get(kind, 0):
            lines.append(f"  {number:,} {said}")
            some = difference.get("examples", {}).get(kind, []) if examples else []
            lines += [f"    {uri}" for uri in some]
            if examples and number > len(some):
                lines.append(f"    … and {number - len(some):,} more")
    lines += left_out_lines(difference)
    unchanged = difference.get("unchanged", 0)
    return [*lines, f"  {unchanged:,} unchanged{waiting_line(difference)}"]


def _left_out(difference: dict[str, Any]) -> str:
    return "".join(f"\n{line}" for line in left_out_lines(difference))


def waiting_line(difference: dict[str, Any]) -> str:
    """Say that some failed recordings are not tried again."""
    if not (waiting := difference.get("waiting", 0)):
        return ""
    return f" ({waiting:,} that failed for good among them; --retry-failed tries them again)"


def refresh_plan_text(dataset: str, planned: dict[str, Any]) -> str:
    """Say what a refresh would do."""
    if not planned["todo"]:
        return (
            f"Nothing to do: version {planned['version']} of {dataset} is what its catalogue holds"
            + waiting_line(planned["difference"])
            + _left_out(planned["difference"])
        )
    made = planned["made"]
    lines = [
        f"A refresh would commit the version after {planned['version']} of {dataset}",
        *difference_lines(planned["difference"], examples=True),
        f"  {sum(made['rows'].values()):,} rows of {made['seconds'] / 3600:,.2f} h of audio would "
        f"be computed, into {sum(made['shards'].values()):,} new shards, about "
        f"{made['parquet_bytes'] / 1e6:,.1f} MB of Parquet",
        f"  {planned['shards_rewritten']} shards would be written anew from stored rows",
    ]
    if moved := planned["moved"]:
        lines.append(f"  {moved:,} of the new and changed have known contents: rows carried over")
    for cause, number in sorted(made["failures"].items()):
        lines.append(f"  {number:,} would fail: {cause}")
        lines += [f"    {uri!r}: {message}" for uri, message in made["examples"][cause]]
    lines += passed_over_lines(planned["passed_over"])
    if planned["new_schema"]:
        lines.append("  the columns, or the shape of mel, change: a new dataset version")
    return "\n".join(lines)


def inspection_json(root: str, opened: OpenSnapshot) -> dict[str, Any]:
    """Give a snapshot as plain values."""
    schema = opened.schema
    return {
        "dataset": root,
        "version": opened.snapshot.version,
        "index": opened.snapshot.index,
        "catalogue": opened.snapshot.catalogue,
        "configuration": opened.snapshot.configuration,
        "features": json.loads(opened.snapshot.features),
        "shape": [schema.n_mels, schema.n_frames],
        "dtype": "float32",
        "columns": {**schema.columns(), "mel": "list<list<float>>"},
        **totals_json(opened.totals),
        "failure_examples": opened.totals.examples,
        "statistics": statistics(opened.totals),
    }


def inspection_text(root: str, opened: OpenSnapshot) -> str:
    """Say what a snapshot holds."""
    snapshot, schema = opened.snapshot, opened.schema
    columns = ", ".join(f"{name} {kind}" for name, kind in schema.columns().items())
    lines = [
        f"{root}, version {snapshot.version}, made from {snapshot.catalogue}",
        *totals_lines(opened.totals),
        f"  mel: float32 [{schema.n_mels}, {schema.n_frames}]; {columns}",
        f"  {_statistics_line(band_statistics(opened.totals))}",
        "  configuration:",
    ]
    for section, values in snapshot.configuration.items():
        lines.append(f"    {section}: {json.dumps(values, ensure_ascii=False)}")
    return "\n".join(lines)


def _statistics_line(found: dict[str, Any]) -> str:
    if not found:
        return "no statistics"
    mean, std = found["mean"], found["std"]
    return (
        f"statistics of {found['split']}: band means {min(mean):.2f} to {max(mean):.2f}, "
        f"standard deviations {min(std):.2f} to {max(std):.2f}, "
        f"values {found['min']:.2f} to {found['max']:.2f}"
    )


def history_text(snapshots: list[dict[str, Any]]) -> str:
    """List snapshots, one a line."""
    lines = [f"{'version':>7}  {'time':25}  {'operation':9}  {'recordings':>12}  {'rows':>14}"]
    for one in snapshots:
        line = (
            f"{one['version']:>7}  {one['time']:25}  {one['operation']:9}  "
            f"{one['recordings']:>12,}  {one['rows']:>14,}"
        )
        if one["dataset_version"] > 1:
            line += f"  dataset version {one['dataset_version']}"
        lines.append(line if one["kept"] else f"{line}  no longer kept")
    return "\n".join(lines)


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def change_line(change: RecordingChange, as_json: bool) -> str:
    """Say how one recording changed."""
    if as_json:
        return json.dumps(asdict(change))
    rows = f"{change.rows_before} -> {change.rows_after} rows"
    return f"{_SIGNS[change.kind]} {change.uri} ({rows})"


def diff_text(before: int, after: int, counted: dict[str, Any]) -> str:
    """Say how two snapshots differ."""
    if not any(counted["recordings"].values()):
        return f"Versions {before} and {after} hold the same recordings"
    lines = [f"From version {before} to {after}:"]
    for kind, number in counted["recordings"].items():
        lines.append(f"  {number:,} recordings {kind}, {counted['rows'][kind]:,} rows")
        some = counted["examples"].get(kind, [])
        lines += [f"    {_SIGNS[kind]} {uri}" for uri in some]
        if number > len(some):
            lines.append(f"    … and {number - len(some):,} more (--list names all)")
    return "\n".join(lines)


def snapshot_json(dataset: str, opened: OpenSnapshot) -> dict[str, Any]:
    """Give a snapshot that was committed as plain values."""
    snapshot = opened.snapshot
    return {
        "dataset": dataset,
        "version": snapshot.version,
        "dataset_version": snapshot.dataset_version,
        "index": snapshot.index,
        **totals_json(opened.totals),
    }


def rollback_text(dataset: str, version: int, opened: OpenSnapshot) -> str:
    """Say what a rollback came to."""
    head = f"Version {opened.snapshot.version} of {dataset} holds what version {version} held"
    return "\n".join([head, *totals_lines(opened.totals)])


def checkout_text(dataset: str, version: int, output: Path, totals: Totals) -> str:
    """Say what a checkout came to, and how it is read."""
    head = f"Wrote the card and the list of files of version {version} of {dataset} to {output}"
    code = f"  import datasets\n  data = datasets.load_dataset({str(output)!r})"
    return "\n".join([head, *totals_lines(totals), "", code])


def gc_json(dataset: str, collected: Collected, dry_run: bool) -> dict[str, Any]:
    """Give what was removed as plain values."""
    return {"dataset": dataset, "dry_run": dry_run, **asdict(collected)}


def gc_text(dataset: str, collected: Collected, dry_run: bool) -> str:
    """Say what was removed."""
    done = "Would remove" if dry_run else "Removed"
    megabytes = collected.size_bytes / 1e6
    lines = [f"{done} {len(collected.files):,} files, {megabytes:,.1f} MB, of {dataset}"]
    if collected.expired:
        lines.append(f"  no longer kept: versions {_ranges(collected.expired)}")
    return "\n".join([*lines, f"  kept: versions {_ranges(collected.kept)}"])


def _ranges(numbers: list[int]) -> str:
    """Write numbers as ranges.

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
    """Give a compaction's result as plain values."""
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
    """Say what a compaction came to."""
    version = made.snapshot.version
    if not made.committed:
        return f"Nothing to do: version {version} of {dataset} has no two small shards to merge"
    return (
        f"Committed version {version} of {dataset}: {made.merged:,} shards became "
        f"{made.shards:,}; {made.rows:,} rows as before"
    )


def takedown_json(dataset: str, made: Takedown) -> dict[str, Any]:
    """Give a takedown's result as plain values."""
    return {
        "dataset": dataset,
        "version": made.snapshot.version,
        "erased": [asdict(one) for one in made.erased],
        "versions": made.versions,
        "rows": made.rows,
        "files": made.files,
        "exports": [asdict(one) for one in made.exports],
    }


def takedown_text(dataset: str, made: Takedown) -> str:
    """Say what was erased, and which exports are not reached."""
    if made.erased or made.versions:
        versions = f", also from versions {_ranges(made.versions)}" if made.versions else ""
        head = (
            f"Committed version {made.snapshot.version} of {dataset}: {len(made.erased):,} "
            f"recordings ({made.rows:,} rows) are erased{versions}; {len(made.files):,} files were "
            "removed"
        )
    else:
        head = f"Nothing to erase in {dataset}: no kept snapshot has these recordings any more"
        if made.files:
            head += f"; {len(made.files):,} files that were left of them were removed"
    lines = [head, *(f"  {one.uri}" for one in made.erased)]
    if made.exports:
        lines.append("Exports that may hold them, which a takedown does not reach:")
        lines += [f"  {one.output} ({one.format}, version {one.version})" for one in made.exports]
    return "\n".join(lines)
