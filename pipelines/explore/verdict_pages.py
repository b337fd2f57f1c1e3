"""Verdicts by keyboard: one flagged recording after the other, each heard at its defect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from melmill.pipelines.check_dataset import readings_of_row
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Condition, Filter
from melmill.pipelines.explore.list_pages import csv_text, download, for_people
from melmill.pipelines.explore.recording_table import ANY
from melmill.pipelines.explore.segments import find_start, is_segment
from melmill.pipelines.explore.texts import reading
from melmill.pipelines.explore.verdicts import Verdict
from melmill.pipelines.profiles import Finding, judge
from melmill.transforms.core.errors import ConfigError

#: Recordings that the page asks for at a time: the next one is fetched while the first is heard.
_QUEUE = 3
#: Most recordings that a person may pass over in one sitting.
_SKIPPED = 500
_FLAGGED = Filter((("defect", ANY),))
_NOT_JUDGED = Condition("recording_id NOT IN (SELECT recording_id FROM verdicts)")
#: Without readings or sound there is nothing to judge.
_CAN_BE_HEARD = Condition("status <> 'failed'")


def routes(explorer: Explorer) -> list[Route]:
    """Return the addresses of verdicts."""

    def verdicts(request: Request) -> Response:
        explorer.filter(request)
        known = explorer.verdicts.read()
        newest_first = sorted(known.values(), key=lambda v: v.judged_at, reverse=True)
        table = explorer.table
        flagged = table.condition(_FLAGGED) & _CAN_BE_HEARD
        return explorer.page(
            request,
            "verdicts.html",
            verdicts=newest_first[:200],
            number=len(known),
            rejected=sum(v.verdict == "reject" for v in known.values()),
            flagged=table.count(flagged)[0],
            left=table.count(flagged & _NOT_JUDGED)[0],
            flagged_filter=_FLAGGED,
        )

    def review(request: Request) -> Response:
        shown = explorer.filter(request)
        explorer.table.condition(shown)
        sort = request.query_params.get("sort", "uri")
        return explorer.page(request, "review.html", shown=shown, sort=sort)

    def queue(request: Request) -> Response:
        shown = explorer.filter(request)
        skipped = request.query_params.getlist("skip")
        if len(skipped) > _SKIPPED:
            raise ConfigError(f"skip: {len(skipped)} recordings: at most {_SKIPPED}")
        condition = explorer.table.condition(shown) & _CAN_BE_HEARD & _NOT_JUDGED
        left, _ = explorer.table.count(condition)
        if skipped:
            marks = ", ".join("?" for _ in skipped)
            condition &= Condition(f"recording_id NOT IN ({marks})", tuple(skipped))
        sort = request.query_params.get("sort", "uri")
        rows = explorer.table.page(condition, sort, ["uri"], 0, _QUEUE)
        known = explorer.verdicts.read()
        items = [_item(explorer, row["recording_id"], known) for row in rows]
        return JSONResponse({"left": left, "recordings": items})

    def one(request: Request) -> Response:
        return JSONResponse(
            _item(explorer, request.path_params["recording_id"], explorer.verdicts.read())
        )

    async def set_verdict(request: Request) -> Response:
        recording_id = request.path_params["recording_id"]
        body = await _json(request)
        return await run_in_threadpool(_set, explorer, recording_id, body)

    def rejected(request: Request) -> Response:
        found = explorer.verdicts.read().values()
        rows = ((v.uri, for_people(v.note)) for v in found if v.verdict == "reject")
        return download("rejected.csv", csv_text(["uri", "note"], rows))

    return [
        Route("/verdicts", verdicts),
        Route("/verdicts/review", review),
        Route("/verdicts/queue", queue),
        Route("/verdicts/rejected.csv", rejected),
        Route("/verdicts/{recording_id}", one),
        Route("/verdicts/{recording_id}", set_verdict, methods=["POST"]),
    ]


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict) or not all(isinstance(v, str) for v in body.values()):
        raise ConfigError('the body must be JSON such as {"verdict": "reject", "note": ""}')
    return body


def _set(explorer: Explorer, recording_id: str, body: dict[str, Any]) -> Response:
    row = explorer.row_or_404(recording_id)
    if body.get("verdict", ""):
        word, note = body["verdict"], body.get("note", "")
        known = explorer.verdicts.judge(recording_id, row["uri"], word, note)
    else:
        known = explorer.verdicts.withdraw(recording_id)
    return JSONResponse({"verdicts": len(known)})


def _shifted(second: float | None, start: float | None) -> float | None:
    return None if second is None or start is None else second + start


def _reading_text(finding: Finding) -> str:
    """Return what was read and what is allowed: ``is 0.02, limit 0.001``."""
    if finding.limit is None:
        return "is not defined"
    value, limit = (reading(v, finding.unit) for v in (finding.value, finding.limit))
    return f"is {value}, limit {limit}"


def _item(explorer: Explorer, recording_id: str, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Return what the review page shows of a recording, as plain values; seconds of its file."""
    row = explorer.row_or_404(recording_id)
    start = find_start(row, explorer.chunks)
    frames, rate = row["frames"], row["sample_rate_hz"]
    readings = readings_of_row(row["measures"]) if row["measures"] else {}
    findings = judge(readings, explorer.profile) if readings else ()
    known = verdicts.get(recording_id)
    return {
        "recording_id": recording_id,
        "uri": row["uri"],
        "seconds": frames / rate if frames else row["seconds"],
        "start": start or 0.0,
        "segment": [start, start + row["seconds"]] if start is not None and is_segment(row) else [],
        "findings": [
            {
                "reason": finding.reason or finding.measure,
                "measure": finding.measure,
                "reading": _reading_text(finding),
                "second": _shifted(finding.second, start),
            }
            for finding in findings
        ],
        "verdict": known.verdict if known else "",
        "note": known.note if known else "",
    }
