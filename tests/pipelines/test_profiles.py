"""Tests of profiles: what is refused, with all faults at once, and how readings are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.pipelines.config import shipped_recipes
from melmill.pipelines.profiles import Profile, Rule, judge, list_profiles, load_profile
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.meters import Reading
from melmill.transforms.measures.registry import MEASURES, QUALITIES, meters_of

DELIVERY = ("atsc_a85", "ebu_live", "ebu_r128", "podcast", "streaming")


def write(folder: Path, text: str) -> Path:
    path = folder / "limits.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> list[str]:
    """Return the lines of the error about a profile, without the first."""
    with pytest.raises(ConfigError) as raised:
        load_profile(write(folder, text))
    head, *lines = str(raised.value).splitlines()
    assert head == f"profile {folder}/limits.yaml: {len(lines)} fault{'s' * (len(lines) != 1)}"
    return [line.strip() for line in lines]


def rule(text: str) -> str:
    return f"rules: [{{{text}}}]"


def test_every_shipped_profile_has_a_source_and_a_reason_for_each_rule() -> None:
    profiles = list_profiles()
    assert [profile.name for profile in profiles] == [*DELIVERY, "training"]
    for profile in profiles:
        assert profile.description
        assert profile.source
        assert all(rule.why for rule in profile.rules)


def test_training_needs_only_the_cheap_meters() -> None:
    assert {*meters_of(load_profile("training").measures)} <= {*QUALITIES["basic"]}


@pytest.mark.parametrize("name", DELIVERY)
def test_a_delivery_profile_refuses_what_has_no_loudness(name: str) -> None:
    (finding,) = judge(
        {"loudness.integrated": None, "loudness.true_peak": None}, load_profile(name)
    )
    assert (finding.measure, finding.value) == ("loudness.integrated", None)


def test_a_profile_of_ones_own_is_named_after_its_file(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, rule("measure: level.peak, max: -1")))
    assert profile == Profile(name="limits", rules=(Rule(measure="level.peak", max=-1.0),))


def test_a_file_comes_before_a_shipped_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "podcast").write_text(rule("measure: level.peak, max: 0"))
    assert load_profile("podcast").measures == ("level.peak",)
    (tmp_path / "podcast").unlink()
    assert "loudness.integrated" in load_profile("podcast").measures


def test_a_shipped_profile_is_found_by_its_name_and_by_its_path() -> None:
    assert load_profile(shipped_recipes("profiles")["podcast"]) == load_profile("podcast")


def test_an_unknown_name_is_compared_with_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean ebu_r128\?.*atsc_a85, ebu_live"):
        load_profile("ebu_128")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "rules: null: is missing"),
        ("rules: []", "rules: []: has no rule"),
        ("rules: 5", "rules: 5: input should be a valid"),
        ("rules: [5]", "rules.0: 5: input should be"),
        ("name: x\n" + rule("measure: level.peak, max: 0"), "name: 'x': not allowed"),
        ("rule: []\n" + rule("measure: level.peak, max: 0"), "rule: []: no such key; did you mean"),
        (rule("max: 0"), "rules.0.measure: null: is missing"),
        (rule("measure: 5, max: 0"), "rules.0.measure: 5: input should be a valid string"),
        (
            rule("measure: clipping.shar, max: 0"),
            "rules.0.measure: 'clipping.shar': no such measure; did you mean clipping.share?",
        ),
        (
            rule("measure: clipping.events, max: 0"),
            "rules.0.measure: 'clipping.events': a list of places has no limit; use one of: "
            "clipping.runs, clipping.share",
        ),
        (rule("measure: level.peak"), 'rules.0: {"measure": "level.peak"}: has no limit'),
        (rule("measure: level.peak, max: loud"), "rules.0.max: 'loud': input should be a valid"),
        (rule("measure: level.peak, max: .inf"), "rules.0.max: Infinity: input should be a finite"),
        (rule("measure: level.peak, max: true"), "rules.0.max: true: input should be a valid"),
        (rule("measure: level.peak, min: 1, max: 0"), "rules.0.min: 1: at most max, which is 0"),
        (
            rule("measure: level.peak, maxx: 0, min: 0"),
            "rules.0.maxx: 0: no such key; did you mean",
        ),
        (rule("measure: level.peak, is: true"), "rules.0.is: true: level.peak is a number"),
        (rule("measure: channels.dead, max: 1"), "rules.0.max: 1: channels.dead is true or false"),
        (
            rule("measure: level.peak, max: 0, undefined: skip"),
            "rules.0.undefined: 'skip': input should be 'pass' or 'fail'",
        ),
    ],
)
def test_a_wrong_profile_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    (line,) = faults(tmp_path, text)
    assert line.startswith(fault)


def test_a_measure_has_one_rule(tmp_path: Path) -> None:
    text = "rules: [{measure: level.peak, max: 0}, {measure: level.peak, min: -9}]"
    lines = faults(tmp_path, text)
    assert [line.partition(":")[0] for line in lines] == ["rules.0.measure", "rules.1.measure"]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = """
        descripton: typo
        rules:
          - {measure: level.peek, max: 0}
          - {measure: channels.dead, min: 0}
          - {measure: level.rms, min: 0, max: -60, undefined: no}
    """
    keys = [line.partition(":")[0] for line in faults(tmp_path, text)]
    assert sorted(keys) == [
        "descripton",
        "rules.0.measure",
        "rules.1.min",
        "rules.2.min",
        "rules.2.undefined",
    ]


def verdict(limits: Rule, value: Reading) -> bool:
    """Return whether a reading keeps a rule."""
    return not judge({limits.measure: value}, Profile(name="p", rules=(limits,)))


def test_a_reading_at_a_limit_passes() -> None:
    limits = Rule(measure="level.peak", min=-3.0, max=-1.0)
    assert [verdict(limits, v) for v in (-3.1, -3.0, -2.0, -1.0, -0.9)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_truth_value_is_what_the_rule_says() -> None:
    limits = Rule.model_validate({"measure": "channels.dead", "is": False})
    assert [verdict(limits, value) for value in (False, True, None)] == [True, False, True]


def test_a_reading_that_is_not_defined_passes_unless_the_rule_says_otherwise() -> None:
    assert verdict(Rule(measure="level.rms", min=-60.0), None)
    assert not verdict(Rule(measure="level.rms", min=-60.0, undefined="fail"), None)


def test_a_finding_has_the_limit_that_is_broken() -> None:
    limits = Rule(measure="level.peak", min=-3.0, max=-1.0, why="loud")
    (finding,) = judge(
        {"level.peak": 0.5, "level.peak_second": 7.25}, Profile(name="p", rules=(limits,))
    )
    assert (finding.value, finding.limit, finding.unit, finding.second, finding.reason) == (
        0.5,
        -1.0,
        "dBFS",
        7.25,
        "loud",
    )


def test_the_silence_at_the_start_is_not_placed_at_a_silence_inside() -> None:
    events = [{"second": 9.0, "channel": 0, "value": 3.0}]
    readings: dict[str, Reading] = {"silence.head": 5.0, "silence.inside": 3.0}
    readings["silence.events"] = events
    rules = Rule(measure="silence.head", max=1.0), Rule(measure="silence.inside", max=1.0)
    findings = judge(readings, Profile(name="p", rules=rules))
    assert [finding.second for finding in findings] == [None, 9.0]


def test_every_measure_can_be_limited_or_says_why_not(tmp_path: Path) -> None:
    for measure in MEASURES.values():
        limit = "is: true" if measure.type == "bool" else "max: 0"
        path = write(tmp_path, rule(f"measure: {measure.name}, {limit}"))
        if measure.type in ("events", "text"):
            with pytest.raises(ConfigError, match=r"use one of: [a-z]|a text has no limit"):
                load_profile(path)
        else:
            assert load_profile(path).measures == (measure.name,)


def test_the_page_shows_the_limits_of_every_profile() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    for name in DELIVERY:
        loudness, peak = load_profile(name).rules
        row = f"| `{name}` | {loudness.min:g} to {loudness.max:g} | {peak.max:g} |"
        assert row in page
    for limits in load_profile("training").rules:
        low = "" if limits.min is None else f"at least {limits.min:g}"
        high = "" if limits.max is None else f"at most {limits.max:g}"
        truth = "" if limits.is_ is None else str(limits.is_).lower()
        assert f"| `{limits.measure}` | {low}{high}{truth} |" in page
