"""The result of a verification, as text for people and as JSON for scripts."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.naming import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from melmill.pipelines.snapshots.verify import Verification

_EXAMPLES = 3

_UNITS = {"db": "dB", "none": "mel", "standardized": ""}


def verification_json(dataset: str, found: Verification) -> dict[str, Any]:
    """Return a verification's result as plain values."""
    return {
        "dataset": dataset,
        "version": found.version,
        "passed": found.passed,
        "rows": found.rows,
        "formats": {name: _plain(asdict(result)) for name, result in sorted(found.formats.items())},
        "beyond": [_plain(row) for row in found.beyond],
        "skipped": found.skipped,
        "failed": found.failed,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Replace infinity, which JSON cannot hold, by ``None``; NaN values differ by infinity."""
    return {name: None if value == float("inf") else value for name, value in values.items()}


def verification_text(dataset: str, found: Verification) -> str:
    """Return text about a verification's result."""
    return "\n".join(_lines(dataset, found))


def _lines(dataset: str, found: Verification) -> Iterator[str]:
    rows = number_of(found.rows, "row")
    yield f"{dataset}, version {found.version}: {rows} computed again and compared"
    if found.rows:
        yield f"  {'format':28} {'rows':>7} {'largest':>12} {'mean':>12}   share of the tolerance"
    for name, result in sorted(found.formats.items()):
        unit = _UNITS.get(result.unit, result.unit)
        yield (
            f"  {name:28} {result.rows:7,} {result.largest:9.2g} {unit} {result.mean:9.2g} {unit}"
            f"   {result.tolerance_share:.3g}"
        )
    for outcome, reasons in (("skipped", found.skipped), ("failed", found.failed)):
        for reason, recordings in sorted(reasons.items()):
            examples = ", ".join(islice(recordings, _EXAMPLES))
            more = ", …" if len(recordings) > _EXAMPLES else ""
            rows = number_of(sum(recordings.values()), "row")
            yield f"{outcome} {rows}: {reason} ({examples}{more})"
    for row in found.beyond[:_EXAMPLES]:
        yield (
            f"beyond the tolerance: {row['uri']}, chunk {row['chunk_index']}, "
            f"channel {row['channel']}: {row['feature']} differs by {row['largest']:.3g}"
        )
    if len(found.beyond) > _EXAMPLES:
        yield f"beyond the tolerance: {len(found.beyond) - _EXAMPLES:,} more"
    if not found.rows:
        yield "no row could be compared"
