"""Profiles: the limits that a recording must keep, and the limits that it breaks.

A profile is a YAML file with a list of rules. It is checked completely before anything starts: all
faults are reported at once, each with its key, its value and what is allowed.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melmill.pipelines.config import Fault, Raw, find_recipe, read_yaml, shipped_recipes
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import number_of
from melmill.transforms.measures.meters import Reading
from melmill.transforms.measures.registry import MEASURES

#: Folder of the profiles that come with melmill, in `configs`.
_FOLDER = "profiles"
#: Measures whose place is the start or the end, not an event of their group.
_WITHOUT_SECOND = ("silence.head", "silence.tail")
_LIMITS = ("min", "max", "is")
_LIST = "melmill check --list prints all measures"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rule(_Section):
    """A rule of a profile: the limits of a measure.

    Attributes
    ----------
    measure
        Name of the measure.
    min, max
        Smallest and largest allowed reading; ``None`` for no limit.
    is_
        Required reading of a measure that is true or false; in YAML ``is``.
    undefined
        Verdict for a recording for which the measure is not defined.
    why
        Defect of a recording that breaks the rule, in a few words.
    """

    measure: str
    min: float | None = None
    max: float | None = None
    is_: Annotated[bool | None, Field(alias="is")] = None
    undefined: Literal["pass", "fail"] = "pass"
    why: str = ""


class Profile(_Section):
    """A profile.

    Attributes
    ----------
    name
        Name of the file, without its folder and its extension.
    description
        Recordings that the profile is for.
    source
        Origin of the limits.
    rules
        Rules that a recording must keep.
    """

    name: str
    description: str = ""
    source: str = ""
    rules: tuple[Rule, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures that the rules limit."""
        return tuple(rule.measure for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a recording breaks, or the reason why the recording cannot be read.

    Attributes
    ----------
    reason
        Defect in a few words, from the profile; for a recording that cannot be read, the message of
        the error.
    measure
        Name of the measure; ``""`` for a recording that cannot be read.
    value
        Reading; ``None`` if the measure is not defined for the recording.
    limit
        Limit that the reading exceeds; ``None`` if there is no reading.
    unit
        Unit of the value and of the limit.
    second
        Place in the recording, if it is known.
    cause
        Word of :class:`~melmill.transforms.core.errors.Cause` for a recording that cannot be read;
        ``""`` for a broken rule.
    """

    reason: str
    measure: str = ""
    value: Reading = None
    limit: float | bool | None = None
    unit: str = ""
    second: float | None = None
    cause: str = ""


def load_profile(name: str | Path) -> Profile:
    """Read a profile, check all of it, and return it.

    Parameters
    ----------
    name
        Name of a profile that comes with melmill, or path of a YAML file.

    Raises
    ------
    ConfigError
        There is no such profile, or it has faults; the message lists all of them, one per line.

    Examples
    --------
    >>> [(rule.measure, rule.min, rule.max) for rule in load_profile("podcast").rules]
    [('loudness.integrated', -17.0, -15.0), ('loudness.true_peak', None, -1.0)]
    """
    path = find_recipe(name, _FOLDER)
    profile, faults = check_profile(Path(path).stem, read_yaml(path))
    if profile is None or faults:
        lines = [f"  {key}: {_text(value)}: {allowed}" for key, value, allowed in faults]
        head = f"profile {name}: {number_of(len(faults), 'fault')}"
        raise ConfigError("\n".join([head, *lines]))
    return profile


def list_profiles() -> list[Profile]:
    """Return all profiles that come with melmill, sorted by name."""
    return [load_profile(path) for _, path in sorted(shipped_recipes(_FOLDER).items())]


def check_profile(name: str, raw: Raw) -> tuple[Profile | None, list[Fault]]:
    """Return a profile, or ``None`` if it cannot be built, and every fault."""
    faults = list(_contradictions(raw))
    try:
        profile = Profile.model_validate_json(json.dumps({**raw, "name": name}, default=str))
    except ValidationError as error:
        return None, [*map(_fault, error.errors()), *faults]
    return profile, faults


def _fault(detail: Any) -> Fault:
    """Return the fault for an error of pydantic."""
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        model = Rule if len(detail["loc"]) > 1 else Profile
        keys = [field.alias or key for key, field in model.model_fields.items() if key != "name"]
        allowed = f"no such key; {_meant(str(detail['loc'][-1]), keys)}allowed: {', '.join(keys)}"
        return key, detail["input"], allowed
    if detail["type"] == "missing":
        return key, None, "is missing"
    message = detail["msg"]
    return key, detail["input"], message[0].lower() + message[1:]


def _contradictions(raw: Raw) -> Iterator[Fault]:
    """Yield the faults that follow from the meaning of the keys; other values are skipped."""
    if "name" in raw:
        yield "name", raw["name"], "not allowed: a profile has the name of its file"
    rules = raw.get("rules")
    if rules == []:
        yield "rules", rules, "has no rule: give at least one"
    entries = enumerate(rules if isinstance(rules, list) else ())
    rules_by_number = {number: entry for number, entry in entries if isinstance(entry, dict)}
    counts = Counter(str(entry.get("measure")) for entry in rules_by_number.values())
    for number, entry in rules_by_number.items():
        name, section = entry.get("measure"), f"rules.{number}"
        if isinstance(name, str):
            yield from _measure_faults(section, name, entry)
            if counts[name] > 1:
                yield f"{section}.measure", name, "has several rules: put min and max into one rule"
        yield from _limit_faults(section, entry)


def _measure_faults(section: str, name: str, entry: Raw) -> Iterator[Fault]:
    measure = MEASURES.get(name)
    if measure is None:
        yield f"{section}.measure", name, f"no such measure; {_meant(name, MEASURES)}{_LIST}"
    elif measure.type == "events":
        numbers = [m.name for m in MEASURES.values() if m.type in ("int", "float")]
        same_group = [n for n in numbers if n.startswith(f"{name.partition('.')[0]}.")]
        allowed = f"a list of places has no limit; use one of: {', '.join(same_group)}"
        yield f"{section}.measure", name, allowed
    elif measure.type == "text":
        yield f"{section}.measure", name, f"a text has no limit; {_LIST}"
    else:
        wrong = ("min", "max") if measure.type == "bool" else ("is",)
        right = "is: true or is: false" if measure.type == "bool" else "min or max"
        kind = "true or false" if measure.type == "bool" else "a number"
        for key in wrong:
            if entry.get(key) is not None:
                yield f"{section}.{key}", entry[key], f"{name} is {kind}: use {right}"


def _limit_faults(section: str, entry: Raw) -> Iterator[Fault]:
    low, high = entry.get("min"), entry.get("max")
    if all(entry.get(key) is None for key in _LIMITS):
        yield section, entry, f"has no limit: give one of {', '.join(_LIMITS)}"
    elif _is_number(low) and _is_number(high) and low > high:
        yield f"{section}.min", low, f"at most max, which is {high:g}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""


def _text(value: object) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value, default=str)


def judge(readings: Mapping[str, Reading], profile: Profile) -> tuple[Finding, ...]:
    """Return a finding for each rule that readings break.

    Examples
    --------
    >>> readings = {"loudness.integrated": -20.0, "loudness.true_peak": -3.0}
    >>> [(finding.value, finding.limit) for finding in judge(readings, load_profile("podcast"))]
    [(-20.0, -17.0)]
    """
    findings = (_finding(rule, readings) for rule in profile.rules)
    return tuple(finding for finding in findings if finding is not None)


def _finding(rule: Rule, readings: Mapping[str, Reading]) -> Finding | None:
    value = readings[rule.measure]
    limit = _broken_limit(rule, value)
    if limit is None and (value is not None or rule.undefined == "pass"):
        return None
    unit, second = MEASURES[rule.measure].unit, find_second(rule.measure, readings)
    return Finding(rule.why, rule.measure, value, limit, unit, second)


def _broken_limit(rule: Rule, value: Reading) -> float | bool | None:
    """Return the limit that a reading exceeds; ``None`` if it keeps all, or is not defined."""
    if value is None:
        return None
    if rule.is_ is not None:
        return rule.is_ if value != rule.is_ else None
    number = cast(float, value)
    if rule.min is not None and number < rule.min:
        return rule.min
    return rule.max if rule.max is not None and number > rule.max else None


def find_second(measure: str, readings: Mapping[str, Reading]) -> float | None:
    """Return the place of a reading: that of the measure itself, or of its group's worst event.

    >>> find_second("level.peak", {"level.peak": -0.1, "level.peak_second": 2.5})
    2.5
    >>> events = [{"second": 1.0, "value": 3.0}, {"second": 7.0, "value": 9.0}]
    >>> find_second("clipping.share", {"clipping.share": 0.1, "clipping.events": events})
    7.0
    """
    if readings[measure] is None or measure in _WITHOUT_SECOND:
        return None
    second = readings.get(f"{measure}_second")
    if second is None:
        events = cast(Any, readings.get(f"{measure.partition('.')[0]}.events")) or []
        worst = max(events, key=lambda event: event["value"], default={"second": None})
        second = worst["second"]
    return cast(float | None, second)
