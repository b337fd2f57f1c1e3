"""Two versions of a dataset, compared: the numbers as bars, the recordings as a list."""

from __future__ import annotations

import threading
from contextlib import closing

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from melmill.pipelines.explore.comparison import KINDS, Comparison
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.list_pages import page_number
from melmill.pipelines.snapshots.history import history
from melmill.transforms.core.errors import ConfigError

#: Number of changed recordings on a page.
PAGE = 50


def routes(explorer: Explorer) -> list[Route]:
    """Return the address of the comparison."""
    last: dict[tuple[int, int], Comparison] = {}
    lock = threading.Lock()

    def close() -> None:
        for comparison in last.values():
            comparison.close()

    explorer.resources.callback(close)

    def compare(before: int, after: int) -> Comparison:
        """Return the comparison of two versions; the last one is kept."""
        if (before, after) not in last:
            for comparison in last.values():
                comparison.close()
            last.clear()
            with closing(explorer.table_of(before)) as a, closing(explorer.table_of(after)) as b:
                last[before, after] = Comparison(a, b)
        return last[before, after]

    def compared(request: Request) -> Response:
        versions = [line for line in history(explorer.store) if line["kept"]]
        numbers = [line["version"] for line in versions]
        after = _version(request, "after", numbers[0], numbers)
        before = _version(request, "before", numbers[min(1, len(numbers) - 1)], numbers)
        kind = request.query_params.get("kind", "")
        if kind not in ("", *KINDS):
            raise ConfigError(f"kind: {kind!r}: must be one of {', '.join(KINDS)}")
        number = page_number(request.query_params.get("page", "1"))
        with lock:
            comparison = compare(before, after)
            counts, statuses = comparison.counts, comparison.statuses
            listed = comparison.page(kind, (number - 1) * PAGE, PAGE)
        total = counts[kind] if kind else sum(counts.values())
        return explorer.page(
            request,
            "compare.html",
            versions=versions,
            before=before,
            after=after,
            kind=kind,
            counts=counts,
            statuses=statuses,
            listed=listed,
            total=total,
            page=number,
            pages=max(1, -(-total // PAGE)),
        )

    return [Route("/compare", compared)]


def _version(request: Request, name: str, default: int, known: list[int]) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or int(text) not in known:
        listed = ", ".join(map(str, known))
        raise ConfigError(f"{name}: {text!r}: must be a version that is kept: {listed}")
    return int(text)
