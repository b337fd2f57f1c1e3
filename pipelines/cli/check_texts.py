"""The results of a check as lines for people, and as JSON and CSV for scripts."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from melmill.pipelines.check import CheckedRecording
from melmill.pipelines.profiles import Finding, Profile, Rule
from melmill.transforms.core.naming import number_of
from melmill.transforms.measures.meters import Measure
from melmill.transforms.measures.registry import MEASURES

_VERDICTS = {True: "pass", False: "fail"}
#: Number of extensions that a line names.
_EXTENSIONS = 8
_MOST_DIGITS = 17


def recording_line(checked: CheckedRecording) -> str:
    """Return a line about a recording.

    >>> recording_line(CheckedRecording("a.wav", "/music/a.wav"))
    'pass  a.wav'
    """
    if checked.passes:
        return f"pass  {printable(checked.name)}"
    return f"FAIL  {printable(checked.name)}  {findings_text(checked.findings)}"


def findings_text(findings: Iterable[Finding]) -> str:
    """Return the findings of a recording in a line."""
    return printable("; ".join(map(finding_text, findings)))


def finding_text(finding: Finding) -> str:
    """Return text about a finding.

    >>> finding_text(Finding("clipped", "clipping.share", 0.0123456, 0.001, "", 12.34567))
    'clipped: clipping.share 0.0123 > 0.001 at 12.35 s'
    >>> finding_text(Finding("a channel is silent", "channels.dead", True, False))
    'a channel is silent: channels.dead is true'
    >>> finding_text(Finding("not -23 LUFS", "loudness.integrated", unit="LUFS"))
    'not -23 LUFS: loudness.integrated is not defined'
    >>> finding_text(Finding("no frames", cause="corrupt"))
    'corrupt: no frames'
    """
    if finding.cause:
        return f"{finding.cause}: {finding.reason}"
    reason = f"{finding.reason}: " if finding.reason else ""
    place = "" if finding.second is None else f" at {finding.second:.2f} s"
    return f"{reason}{finding.measure} {_comparison(finding)}{place}"


def _comparison(finding: Finding) -> str:
    value: Any = finding.value
    limit: Any = finding.limit
    if value is None:
        return "is not defined"
    if isinstance(value, bool):
        return f"is {str(value).lower()}"
    unit = f" {finding.unit}" if finding.unit else ""
    sign, number = ">" if value > limit else "<", _digits(value, limit, finding.unit)
    return f"{number}{unit} {sign} {limit:g}{unit}"


def _digits(value: float, limit: float, unit: str) -> str:
    """Return a number: levels with a decimal, others with three digits.

    A number that would look equal to the limit gets more digits.

    >>> _digits(-14.02, -15, "LUFS"), _digits(-22.4999, -22.5, "LUFS"), _digits(0.0123456, 0.01, "")
    ('-14.0', '-22.4999', '0.0123')
    """
    form = "f" if unit.startswith(("dB", "LU")) or abs(value) >= 1000 else "g"
    first = 3 if form == "g" else 0 if isinstance(value, int) else 1
    texts = (f"{value:.{digits}{form}}" for digits in range(first, _MOST_DIGITS + 1))
    return next((text for text in texts if float(text) != limit), f"{value!r}")


def printable(text: str) -> str:
    """Return text with escape sequences for the characters that a terminal would obey.

    >>> printable("Köln\\x1b[31m\\n.wav")
    'Köln\\\\x1b[31m\\\\n.wav'
    """
    return "".join(_escaped(c) if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def summary_text(profile: Profile, counts: Mapping[bool, int], passed_over: Counter[str]) -> str:
    """Return the last line: the numbers of recordings, and of files that were not checked."""
    total = number_of(sum(counts.values()), "recording")
    line = f"{total}, profile {profile.name}: {counts[True]:,} pass, {counts[False]:,} fail"
    if not passed_over:
        return line
    words = {"": "none", "*": "others"}
    kinds = passed_over.most_common(_EXTENSIONS)
    named = ", ".join(f"{words.get(kind, kind)} {number:,}" for kind, number in kinds)
    files = number_of(sum(passed_over.values()), "file")
    return f"{line}\n{files} with other extensions: {named}"


def recording_json(checked: CheckedRecording) -> str:
    """Return a recording's result as a line of JSON."""
    audio = checked.audio
    result = {
        "uri": checked.uri,
        "start": checked.start_seconds,
        "end": checked.end_seconds,
        "verdict": _VERDICTS[checked.passes],
        "seconds": checked.seconds,
        "sample_rate_hz": audio and audio.sample_rate_hz,
        "channels": audio and audio.channels,
        "codec": audio and audio.codec,
        "findings": [asdict(finding) for finding in checked.findings],
        "readings": dict(checked.readings),
    }
    return json.dumps(result)


def csv_header(measures: Sequence[str]) -> list[str]:
    """Return the names of the columns: six, and one for each measure."""
    return ["uri", "start", "end", "verdict", "seconds", "findings", *measures]


def csv_row(checked: CheckedRecording, measures: Sequence[str]) -> list[Any]:
    """Return the row of a recording; empty cells stand for measures that are not defined."""
    values = (checked.readings.get(measure) for measure in measures)
    cells = [str(value).lower() if isinstance(value, bool) else value for value in values]
    findings = findings_text(checked.findings)
    segment = checked.start_seconds, checked.end_seconds
    return [checked.uri, *segment, _VERDICTS[checked.passes], checked.seconds, findings, *cells]


def list_text(profiles: Sequence[Profile]) -> str:
    """Return text that lists all profiles with their limits, and all measures."""
    lines = ["Profiles:"]
    for profile in profiles:
        lines.append(f"  {profile.name}: {profile.description} {profile.source}")
        lines += [f"    {_rule_text(rule)}" for rule in profile.rules]
    return "\n".join([*lines, "", "Measures:", *map(_measure_text, MEASURES.values())])


def _rule_text(rule: Rule) -> str:
    """Return a rule as text.

    >>> _rule_text(Rule(measure="level.peak", max=-1.0, undefined="fail"))
    'level.peak (dBFS): at most -1; fails if it is not defined'
    """
    unit = MEASURES[rule.measure].unit
    limits = [
        *([] if rule.min is None else [f"at least {rule.min:g}"]),
        *([] if rule.max is None else [f"at most {rule.max:g}"]),
        *([] if rule.is_ is None else [str(rule.is_).lower()]),
    ]
    undefined = "; fails if it is not defined" if rule.undefined == "fail" else ""
    return f"{rule.measure}{unit and f' ({unit})'}: {', '.join(limits)}{undefined}"


def _measure_text(measure: Measure) -> str:
    kind = {"bool": "true or false", "events": "places", "text": "text"}.get(measure.type, "")
    notes = ", ".join(note for note in (kind, measure.unit) if note)
    return f"  {measure.name}{notes and f' ({notes})'}: {measure.meaning}"


def list_json(profiles: Sequence[Profile]) -> dict[str, Any]:
    """Return all profiles and measures as plain values."""
    return {
        "profiles": [
            profile.model_dump(mode="json", by_alias=True, exclude_none=True)
            for profile in profiles
        ],
        "measures": [asdict(measure) for measure in MEASURES.values()],
    }
