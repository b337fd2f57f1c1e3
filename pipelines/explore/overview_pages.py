"""The overview: what a dataset holds, as bars; each bar is a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Condition, Filter
from melmill.pipelines.explore.recording_table import Count, RecordingTable
from melmill.pipelines.explore.texts import range_text

_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1800, 3600, 36000)
_LOUDNESS = tuple(range(-60, 3, 3))
#: Most labels, and most added columns, that get bars.
_CLASS_CHARTS = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: recordings that have something in common.

    Attributes
    ----------
    name, value
        Term that selects them.
    text
        What they have in common, for people.
    recordings
        Number of recordings.
    seconds
        Length of all of them; ``None`` if it is not shown.
    """

    name: str
    value: str
    text: str
    recordings: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars under a heading.

    Attributes
    ----------
    heading
        Heading.
    bars
        Bars, in order.
    is_histogram
        Whether the bars are neighbouring ranges, which stand side by side.
    note
        What to know or to do; ``""`` for nothing.
    """

    heading: str
    bars: tuple[Bar, ...]
    is_histogram: bool = False
    note: str = ""

    @property
    def largest(self) -> int:
        """Number of recordings of the longest bar, at least 1."""
        return max([1, *(bar.recordings for bar in self.bars)])


def routes(explorer: Explorer) -> list[Route]:
    """Return the addresses of the overview."""

    def overview(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        condition = table.condition(shown)
        recordings, seconds = table.count(condition)
        return explorer.page(
            request,
            "overview.html",
            shown=shown,
            recordings=recordings,
            seconds=seconds,
            charts=list(charts(table, condition)),
            has_class_charts=bool(_class_fields(table)),
        )

    def class_charts_of(request: Request) -> Response:
        table, shown = explorer.table, explorer.filter(request)
        shown_charts = list(class_charts(table, table.condition(shown)))
        return explorer.page(request, "charts.html", shown=shown, charts=shown_charts)

    return [Route("/", overview), Route("/class-charts", class_charts_of)]


def charts(table: RecordingTable, condition: Condition) -> Iterator[Chart]:
    """Yield the charts of the recordings that meet a condition; those without bars are left out."""
    for chart in _all_charts(table, condition):
        if chart.bars or chart.note:
            yield chart


def class_charts(table: RecordingTable, condition: Condition) -> Iterator[Chart]:
    """Yield the charts of the labels and the added columns of recordings that meet a condition.

    Raises
    ------
    LabelsNotReadError
        The labels are being read.
    """
    for name in _class_fields(table):
        prefix, own_name = name.split(".", 1)
        heading = f"{'Label' if prefix == 'label' else 'Added column'} {own_name}"
        yield _values(table, condition, heading, name)


def _class_fields(table: RecordingTable) -> list[str]:
    """Return the fields that may name a recording's class; numbers do not."""
    names = [n for n, f in table.fields.items() if f.kind != "number"]
    chosen: list[str] = []
    for prefix in ("label.", "added."):
        chosen += [name for name in names if name.startswith(prefix)][:_CLASS_CHARTS]
    return chosen


def _all_charts(table: RecordingTable, condition: Condition) -> Iterator[Chart]:
    values = partial(_values, table, condition)
    yield values("Status", "status")
    yield _defects(table, condition)
    yield values("Failures by cause", "cause")
    yield _duplicates(table, condition)
    yield _histogram(table, condition, "Duration", "seconds", _SECONDS)
    if "loudness.integrated" in table.fields:
        yield _histogram(table, condition, "Loudness", "loudness.integrated", _LOUDNESS)
    yield values("Codec", "codec")
    yield values("Sample rate", "sample_rate_hz", lambda hz: f"{float(hz) / 1000:g} kHz")
    yield values("Channels", "channels")
    yield values("Split", "split")


def _values(
    table: RecordingTable,
    condition: Condition,
    heading: str,
    name: str,
    text: Callable[[str], str] = str,
) -> Chart:
    counts = table.values(name, condition)
    return Chart(heading, tuple(_bar(name, count, text) for count in counts))


def _bar(name: str, count: Count, text: Callable[[str], str]) -> Bar:
    return Bar(name, count.value, text(count.value), count.recordings, count.seconds)


def _histogram(
    table: RecordingTable,
    condition: Condition,
    heading: str,
    name: str,
    borders: tuple[float, ...],
) -> Chart:
    unit = table.fields[name].unit
    counts = table.histogram(name, borders, condition)
    bars = (_bar(name, count, range_text) for count in counts)
    return Chart(f"{heading}, {unit}", tuple(bars), is_histogram=True)


def _defects(table: RecordingTable, condition: Condition) -> Chart:
    bars = tuple(
        Bar("defect", rule.measure, rule.why or rule.measure, number)
        for rule, number in table.defects(condition)
        if number
    )
    if table.rules:
        note = "" if bars else f"No recording breaks a limit of the profile {table.profile.name}."
    else:
        note = "The recordings were not measured. See docs/measures.md: "
        note += "melmill refresh CATALOGUE DATASET --set quality=full"
    return Chart(f"Defects ({table.profile.name})", bars, note=note)


def _duplicates(table: RecordingTable, condition: Condition) -> Chart:
    texts = {"copy": "copies of others", "kept": "the best of their group"}
    bars = list[Bar]()
    for value, text in texts.items():
        own = table.condition(Filter((("duplicate", value),)))
        recordings, seconds = table.count(condition & own)
        if recordings:
            bars.append(Bar("duplicate", value, text, recordings, seconds))
    return Chart("Duplicates", tuple(bars))
