"""The page of a report: what it says, within its budget, also where sources are gone."""

from __future__ import annotations

import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from melmill.pipelines.check_dataset import check_dataset
from melmill.pipelines.profiles import load_profile
from melmill.pipelines.report.contents import Contents, collect
from melmill.pipelines.report.page import render_report
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here, melmill
from tests.report.datasets import (
    NASTY,
    RATE,
    dataset,
    make_dataset,
    make_index_larger,
    make_songs,
    reported,
    with_gap,
)

__all__ = ["dataset"]

BUDGET = 10_000_000


class Page(HTMLParser):
    """A parsed page: its text, its addresses, and whether all elements are closed."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.texts = list[str](), list[str]()
        self.addresses, self.tags = list[str](), list[str]()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def contents_of(dataset: Path, folder: Path, top: int = 10, profile: str = "training") -> Contents:
    return collect(reported(dataset, profile), top, folder)


@pytest.fixture(scope="module")
def html(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_report(contents_of(dataset, tmp_path_factory.mktemp("copies")), BUDGET)


def test_a_page_has_no_script_and_no_address_elsewhere(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "form"} & {*page.tags}
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    without_data = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert "//" not in without_data


def test_a_page_names_what_it_is_about(html: str, dataset: Path) -> None:
    text = Page(html).text
    for part in (str(dataset), "version 0", "profile training", "UTC", "Made with melmill report"):
        assert part in text
    for rule in load_profile("training").rules:
        assert f"{rule.measure}" in text
        assert rule.why in text


def test_names_are_text(html: str) -> None:
    page = Page(html)
    assert NASTY in page.text
    assert "<img src=x" not in html
    sources = [address for address in page.addresses if not address.startswith("#")]
    assert all(re.match("data:(image/png|audio/mpeg);base64,", source) for source in sources)


def test_a_page_counts_what_check_counts(dataset: Path, tmp_path: Path) -> None:
    contents = contents_of(dataset, tmp_path)
    checked = list(check_dataset(Store(str(dataset)), load_profile("training")))
    assert contents.recordings == len(checked)
    assert contents.flagged == sum(not result.passes for result in checked)
    broken = [finding.measure for result in checked for finding in result.findings]
    numbers = {defect.rule.measure: defect.recordings for defect in contents.defects}
    assert numbers == {measure: broken.count(measure) for measure in {*broken} - {""}}
    assert {group.cause: group.recordings for group in contents.failures} == {
        "empty_file": 1,
        "unknown_format": 1,
    }


def test_the_worst_comes_first_and_the_top_is_kept(dataset: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("rules:\n  - {measure: level.rms, min: -22, max: -20, undefined: fail}\n")
    (defect,) = contents_of(dataset, tmp_path, 3, str(own)).defects
    values = [candidate.finding.value for candidate in defect.candidates]
    assert defect.recordings > len(values) == 3
    excess = [max(value - -20, -22 - value) for value in values if isinstance(value, float)]
    assert excess == sorted(excess, reverse=True)
    (whole,) = contents_of(dataset, tmp_path, 100, str(own)).defects
    assert len(whole.candidates) == whole.recordings
    assert whole.candidates[:3] == defect.candidates
    assert whole.candidates[-1].finding.value is None  # silence has no level


def test_the_channel_of_a_defect_is_shown_alone_if_there_are_many(
    dataset: Path, tmp_path: Path
) -> None:
    contents = contents_of(dataset, tmp_path)
    (gaps,) = (d for d in contents.defects if d.rule.measure == "gaps.count")
    (six,) = (c for c in gaps.candidates if c.uri.endswith("six.wav"))
    assert six.channel in range(6)
    assert f"channel {six.channel} of 0 to 5" in Page(render_report(contents, BUDGET)).text


def test_duplicates_are_listed_with_the_best_first(html: str) -> None:
    text = Page(html).text
    assert "1 group of recordings that sound the same, with 2 copies" in text


def test_a_budget_is_kept_and_the_worst_of_each_defect_remain(
    dataset: Path, tmp_path: Path, html: str
) -> None:
    contents = contents_of(dataset, tmp_path)
    budget = len(html.encode()) * 2 // 3
    page = render_report(contents, budget)
    assert len(page.encode()) <= budget < len(html.encode())
    assert "There are fewer, because the report may have" in page
    shown = re.findall(r"Shown: (\d+) of", page)
    assert len(shown) == len(contents.defects)
    assert sum(map(int, shown)) == page.count("<audio ") < html.count("<audio ")
    assert "There are fewer" not in html


def test_a_budget_that_is_too_small_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-size: the page needs 0\.0\d MB .* allow more"):
        render_report(contents_of(dataset, tmp_path), 5_000)


def test_without_sources_the_numbers_remain(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "quality=basic")
    before = render_report(contents_of(dataset, tmp_path), BUDGET)
    (tmp_path / "songs" / "clipped.flac").write_bytes(b"changed")
    for path in (tmp_path / "songs").glob("gap*"):
        path.unlink()
    page = Page(render_report(contents_of(dataset, tmp_path), BUDGET))
    assert page.text.count("No picture, no sound: the file is no longer there.") == 2
    assert "No picture, no sound: changed_while_reading: the file has changed" in page.text
    assert before.count('<li class="example">') == page.tags.count("audio") + 3


def test_a_dataset_without_measures_says_how_to_measure(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "quality=off")
    text = Page(render_report(contents_of(dataset, tmp_path), BUDGET)).text
    assert "The recordings were not measured" in text
    assert "--set quality=full" in text
    assert "(not measured)" in text
    assert "melmill duplicates" in text
    assert "unknown_format" in text


@pytest.mark.slow
def test_a_dataset_without_faults_says_so(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    song = signals.song(4.0, RATE, channels=2) + signals.noise(4.0, RATE, channels=2)
    signals.write_audio(tmp_path / "songs" / "good.flac", song, RATE)
    extract_here(
        tmp_path / "songs", tmp_path / "dataset", "quality=[basic, acoustic]", "dedupe=mark"
    )
    text = Page(render_report(contents_of(tmp_path / "dataset", tmp_path), BUDGET)).text
    for words in ("No recording breaks a limit", "No recording failed", "No recordings sound the"):
        assert words in text


@pytest.mark.slow
def test_the_excerpt_of_a_segment_is_at_its_place_in_the_file(tmp_path: Path) -> None:
    samples = with_gap(signals.song(20.0, RATE, seed=2), 12.0)
    signals.write_audio(tmp_path / "long.flac", samples, RATE)
    (tmp_path / "parts.csv").write_text("uri,start,end\nlong.flac,8,18\n")
    extract_here(tmp_path / "parts.csv", tmp_path / "dataset", "chunk.seconds=2")
    html = render_report(contents_of(tmp_path / "dataset", tmp_path), BUDGET)
    assert "at 4.00 s of 10.00 s" in Page(html).text
    assert "A line marks the defect at second 12.0" in html


def test_a_missing_index_is_named(dataset: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(dataset, tmp_path / "copied")
    (index,) = (copied / "index").iterdir()
    shutil.rmtree(index)
    with pytest.raises(DatasetError, match=re.escape(str(copied))):
        contents_of(copied, tmp_path)


def enlarged(dataset: Path, folder: Path, recordings: int) -> Path:
    copied = shutil.copytree(dataset, folder / "large")
    make_index_larger(copied, recordings)
    return copied


def test_a_thousand_recordings_fit(dataset: Path, tmp_path: Path) -> None:
    contents = contents_of(enlarged(dataset, tmp_path, 1_000), tmp_path, top=2)
    page = render_report(contents, 1_000_000)
    assert contents.recordings == 1_000
    assert len(page.encode()) <= 1_000_000
    assert "Shown: 2 of" in page


@pytest.mark.slow  # half a minute
def test_a_hundred_thousand_recordings_fit_into_ten_megabytes(
    dataset: Path, tmp_path: Path
) -> None:
    large = enlarged(dataset, tmp_path, 100_000)
    started = time.monotonic()
    contents = contents_of(large, tmp_path, top=100)
    page = render_report(contents, BUDGET)
    print(f"{len(page.encode()) / 1e6:.2f} MB in {time.monotonic() - started:.0f} s")
    assert BUDGET * 0.9 < len(page.encode()) <= BUDGET  # the budget is used
    assert "There are fewer" in page
    assert "100,000" in page


def report(*arguments: Path | str, folder: Path):
    return melmill("report", *arguments, cwd=folder)


def test_the_command_writes_a_page_and_replaces_nothing_unasked(
    dataset: Path, tmp_path: Path
) -> None:
    first = report(dataset, "--top=1", folder=tmp_path)
    assert (first.returncode, first.stdout) == (0, "")
    assert "wrote report.html" in first.stderr
    page = (tmp_path / "report.html").read_bytes()
    Page(page.decode())
    again = report(dataset, "--top=1", folder=tmp_path)
    assert again.returncode == 2
    assert "report.html: the file exists" in again.stderr
    assert (tmp_path / "report.html").read_bytes() == page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version=7"], "version 7 is not in its history"),
        (["--profile=nothing"], "nothing"),
        (["-o", "missing/report.html"], "cannot be written"),
        (["--format=xml"], "xml"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, dataset: Path, tmp_path: Path
) -> None:
    completed = report(dataset, *arguments, folder=tmp_path)
    assert completed.returncode == 2
    assert message in completed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    completed = report(make_songs(tmp_path / "songs"), "-o", "x.html", folder=tmp_path)
    assert completed.returncode == 2
    assert not (tmp_path / "x.html").exists()
