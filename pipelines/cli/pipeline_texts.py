"""The results of extractions, plans and exports, as text for people and as JSON for scripts."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melmill.pipelines.snapshots.coverage_texts import kept_json, kept_lines
from melmill.pipelines.snapshots.summary import (
    failure_lines,
    split_warnings,
    totals_json,
    totals_lines,
    warning_lines,
)
from melmill.transforms.core.naming import number_of

if TYPE_CHECKING:
    from melmill.pipelines.export import Export
    from melmill.pipelines.extract import Extraction
    from melmill.pipelines.run.counters import RunMetrics


def extraction_json(output: str, extraction: Extraction) -> dict[str, Any]:
    """Return an extraction's result as plain values."""
    return {
        "dataset": output,
        "version": extraction.snapshot.version,
        "index": extraction.snapshot.index,
        "committed": extraction.committed,
        **kept_json(extraction.columns),
        **totals_json(extraction.totals),
        "split_warnings": split_warnings(extraction.snapshot.asked_shares, extraction.totals),
        "passed_over": extraction.metrics.passed_over,
        "metrics": extraction.metrics.to_json(),
    }


def extraction_text(output: str, extraction: Extraction) -> str:
    """Return text about what was written and how to read it."""
    version = extraction.snapshot.version
    head = (
        f"Committed version {version} of {output}"
        if extraction.committed
        else f"Nothing to do: version {version} of {output} holds exactly this already"
    )
    lines = [*totals_lines(extraction.totals), *left_out_lines(extraction.difference)]
    lines += metrics_lines(extraction.metrics)
    lines += [*passed_over_lines(extraction.metrics.passed_over), *kept_lines(extraction.columns)]
    asked_shares = extraction.snapshot.asked_shares
    lines += warning_lines(split_warnings(asked_shares, extraction.totals))
    if extraction.totals.rows:
        lines += ["", how_to_read(output, extraction)]
    return "\n".join([head, *lines])


def measuring_text(catalogue: str, output: str, extraction: Extraction) -> str:
    """Return text about what was measured, and what can be done with it."""
    version, number = extraction.snapshot.version, extraction.totals.recordings
    done = "Committed" if extraction.committed else "Nothing to do:"
    lines = [
        f"{done} version {version} of {output}: {number_of(number['deselected'], 'recording')} "
        f"measured, in {output}/index/",
        *failure_lines(extraction.totals),
        *left_out_lines(extraction.difference),
        *passed_over_lines(extraction.metrics.passed_over),
    ]
    if number["skipped"]:
        lines.append(
            f"  {number['skipped']:,} not measured: shorter than a chunk; chunk.short=pad uses them"
        )
    command = shlex.join(["melmill", "refresh", catalogue, output, "--set", "select=null"])
    lines += [
        "",
        f"  {shlex.join(['melmill', 'check', output])}",
        f"  {command}   # extracts all, or those that another select selects",
    ]
    return "\n".join(lines)


def select_lines(plan: dict[str, Any]) -> list[str]:
    """Return lines about the selection and the duplicates that a plan does not know yet."""
    applied = {"select": plan.get("select"), "dedupe": plan.get("dedupe")}
    return [
        f"  before {key}, which measures each recording first: {value}"
        for key, value in applied.items()
        if value not in (None, "", "off")
    ]


def passed_over_lines(passed_over: dict[str, int]) -> list[str]:
    """Return a line that counts the files that are not recordings, by extension.

    >>> passed_over_lines({".mka": 3, "": 2})
    ['  5 files with other extensions: .mka 3, none 2 (catalogue.extensions says which are read)']
    """
    if not passed_over:
        return []
    words = {"": "none", "*": "others"}
    named = [f"{words.get(kind, kind)} {n:,}" for kind, n in passed_over.items()][:_EXTENSIONS]
    more = " …" if len(passed_over) > _EXTENSIONS else ""
    return [
        f"  {number_of(sum(passed_over.values()), 'file')} with other extensions: "
        f"{', '.join(named)}{more} (catalogue.extensions says which are read)"
    ]


#: Number of extensions that the line names.
_EXTENSIONS = 8


def left_out_lines(difference: dict[str, Any]) -> list[str]:
    """Return lines that count the listed recordings that are left out, by reason."""
    reasons = {
        "excluded": "left out by catalogue.exclude",
        "other_license": "left out by catalogue.require_license: another licence, or none",
        "taken_down": "left out: taken down",
    }
    return [
        f"  {number:,} {reason}"
        for kind, reason in reasons.items()
        if (number := difference.get(kind, 0))
    ]


_STAGES = ("probe", "decode", "features", "write")


def metrics_lines(metrics: RunMetrics) -> list[str]:
    """Return a line about this run's work; a resumed run did less than the snapshot holds."""
    count = metrics.counters
    if not count.get("shards_written"):
        return []
    times = (
        f"{stage} {_duration(spread.sum / 1000)}"
        for stage in _STAGES
        if (spread := metrics.distributions.get(f"{stage}_ms")) is not None
    )
    reused = f", {count['shards_reused']:,} reused" if count.get("shards_reused") else ""
    return [
        f"  this run: {count.get('audio_ms_extracted', 0) / 3.6e6:,.2f} h of audio "
        f"({count.get('bytes_in', 0) / 1e6:,.1f} MB) into "
        f"{number_of(count['shards_written'], 'shard')} "
        f"({count.get('bytes_out', 0) / 1e6:,.1f} MB){reused}; {', '.join(times)}"
    ]


def plan_text(catalogue: str, plan: dict[str, Any]) -> str:
    """Return text about what an extraction would do and cost."""
    number = plan["recordings"]
    rows = sum(plan["rows"].values())
    lines = [
        f"{catalogue}: {number_of(number.get('planned', 0), 'recording')}, "
        f"{plan['seconds'] / 3600:,.2f} h, "
        f"{number_of(plan['chunks'], 'chunk')}, {number_of(rows, 'row')}",
        f"  about {plan['parquet_bytes'] / 1e6:,.1f} MB of Parquet in "
        f"{number_of(sum(plan['shards'].values()), 'shard')}, "
        f"and {_duration(plan['cpu_seconds'])} of CPU time: {_duration(plan['wall_seconds'])} on "
        "this machine",
        f"  {_costs(plan['costs'])}",
    ]
    lines += select_lines(plan)
    if reason := plan.get("refused"):
        later = "; this may pass" if plan["refusal_may_pass"] else "; change something first"
        lines.append(f"  melmill extract would commit nothing: {reason}{later}")
    for split, split_rows in sorted(plan["rows"].items()):
        shards = number_of(plan["shards"].get(split, 0), "shard")
        lines.append(f"  {split}: {number_of(split_rows, 'row')}, {shards}")
    lines += warning_lines(plan.get("split_warnings", ()))
    if number.get("skipped"):
        lines.append(f"  {number['skipped']:,} skipped: shorter than a chunk (chunk.short is drop)")
    lines += left_out_lines(number)
    lines += passed_over_lines(plan.get("passed_over", {}))
    for cause, failed in plan["failures"].items():
        lines.append(f"  {failed:,} failed: {cause}")
        lines += [f"    {uri!r}: {message}" for uri, message in plan["examples"][cause]]
    return "\n".join(lines)


def _costs(costs: dict[str, Any]) -> str:
    """Return text about the price of rented machines for an extraction.

    >>> _costs({"dataflow": {"usd": 12.3, "usd_per_1000_hours": 0.128}})
    'about $12.30 on dataflow ($0.13 for 1,000 h); list prices, storage and requests not included'
    """
    prices = (
        f"${cost['usd']:,.2f} on {name} (${cost['usd_per_1000_hours']:,.2f} for 1,000 h)"
        for name, cost in costs.items()
    )
    return f"about {', '.join(prices)}; list prices, storage and requests not included"


def _duration(seconds: float) -> str:
    """Return a duration as text, in seconds, minutes or hours.

    >>> _duration(0.42), _duration(12.3), _duration(150), _duration(7300)
    ('0.4 s', '12 s', '2.5 min', '2.0 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def how_to_read(output: str, extraction: Extraction) -> str:
    """Return example code that loads the dataset in Keras."""
    from melmill.transforms.snapshot.totals import training_split

    split = training_split(extraction.totals.splits)
    content = extraction.totals.splits[split or "train"]
    # The TFRecord example uses Python's open and TensorFlow, which cannot read object stores.
    arrays = (feature for feature in extraction.features if not feature.is_number)
    feature = next(arrays, extraction.features[0])
    sizes = ", ".join(map(str, ("rows", *feature.shape)))
    values = {"output": output, "split": split, "sizes": sizes, **asdict(feature)}
    values["length"] = feature.shape[-1] if feature.shape else 0
    values["columns"] = ", ".join(f'"{name}"' for name in (feature.name, feature.valid) if name)
    is_example = feature.dtype == "float32" and not feature.is_number  # which may be null
    in_tfrecord = content.tfrecord_bytes and "://" not in output and is_example
    # Without a number of valid frames or samples, the example has no mask.
    lines = (_TFRECORD if in_tfrecord else _PARQUET).splitlines()
    code = "\n".join(line for line in lines if feature.valid or "{valid}" not in line)
    readers = "Read it with polars.read_delta, deltalake, DuckDB, pyarrow, datasets; in Keras:"
    return f"{readers}\n\n{code.format(**values)}"


_PARQUET = """  import numpy as np
  import melmill
  rows = melmill.open({output!r}).as_arrow({split!r}).to_table([{columns}])
  {name} = np.array(rows["{name}"].to_pylist(), np.{dtype})   # [{sizes}]
  mask = np.arange({length}) < rows["{valid}"].to_numpy()[:, None]   # false: padding
  # model.fit({name}, labels)"""

_TFRECORD = """  import json, tensorflow as tf
  names = json.load(open({output!r} + "/tfrecord/files.json"))[{split!r}]
  features = {{"{name}": tf.io.FixedLenFeature({shape}, tf.float32)}}
  features["{valid}"] = tf.io.FixedLenFeature([], tf.int64)
  data = tf.data.TFRecordDataset([{output!r} + "/" + name for name in names])
  data = data.map(lambda row: tf.io.parse_single_example(row, features))
  mask = lambda row: tf.sequence_mask(row["{valid}"], {length})   # false: padding
  # model.fit(data.map(lambda row: (row["{name}"], ...)).batch(32))"""


def export_json(made: Export) -> dict[str, Any]:
    """Return an export's result as plain values."""
    return {
        "output": made.job.output.root,
        "format": made.job.format,
        "name": made.job.name,
        "files": made.files,
        "rows": made.rows,
        "select": made.job.select,
        "left_out": asdict(made.left_out),
        "added_columns_left_out": list(made.added_columns),
    }


def export_text(made: Export) -> str:
    """Return text about what was exported, and how to read it."""
    lines = [
        f"{made.job.output.root}: {number_of(sum(made.rows.values()), 'row')} as {made.job.format}"
    ]
    for split, names in made.files.items():
        lines.append(
            f"  {split}: {number_of(made.rows[split], 'row')}, {number_of(len(names), 'file')}"
        )
    if made.job.select:
        lines.append(f"  left out: {made.left_out}; select: {made.job.select}")
    if made.added_columns:
        lines.append(
            f"  without the added columns {', '.join(made.added_columns)}: join them by their key "
            "from columns/ in the dataset"
        )
    split, names = next(iter(made.files.items()))
    values = {"output": made.job.output.root, "split": split, "file": names[0]}
    arrays = made.job.features
    loading = _LOADING if arrays else _LOADING | _LOADING_NUMBERS
    code = loading[made.job.format].format(**values, feature=arrays[0] if arrays else "")
    if made.valid:
        code += _MASKS[made.job.format].format(valid=made.valid)
    return "\n".join(lines) + "\n\n" + code


_LOADING = {
    "tfds": """  import tensorflow_datasets as tfds
  data = tfds.builder_from_directory({output!r}).as_dataset(split={split!r})""",
    "hf": """  import datasets
  data = datasets.load_dataset({output!r}, split={split!r}).with_format("numpy")""",
    "webdataset": """  import glob, webdataset
  shards = sorted(glob.glob({output!r} + "/{split}-*.tar"))
  data = webdataset.WebDataset(shards, shardshuffle=100).decode()
  # row["{feature}.npy"], row["json"]""",
    "arrayrecord": """  import tensorflow_datasets as tfds   # rows by number, for grain or PyTorch
  data = tfds.builder_from_directory({output!r}).as_data_source(split={split!r})""",
    "numpy": """  import numpy as np
  values = np.load({output!r} + "/{file}", mmap_mode="r")   # [rows, ...]""",
}

#: Where the number of valid frames is, or of valid samples; what follows them is padding.
_MASKS = {
    **dict.fromkeys(
        ("tfds", "hf", "arrayrecord"), '\n  # valid is the start of a row: row["{valid}"]'
    ),
    "webdataset": '\n  # valid is the start of a row: row["json"]["{valid}"]',
    "numpy": '\n  # valid is the start of a row: "{valid}" of its line in the .jsonl',
}

#: Where all features are numbers.
_LOADING_NUMBERS = {
    "webdataset": """  import glob, webdataset
  shards = sorted(glob.glob({output!r} + "/{split}-*.tar"))
  data = webdataset.WebDataset(shards, shardshuffle=100).decode()
  # row["json"]""",
    "numpy": """  import polars
  rows = polars.read_ndjson({output!r} + "/{file}")""",
}
