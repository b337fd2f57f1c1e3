"""``catalogue.require_license``: recordings with another licence, or with none, stay out."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import melmill
from melmill.pipelines.cli.pipeline_texts import extraction_text
from melmill.pipelines.config import load_config
from melmill.pipelines.extract import resolve_catalogue
from melmill.pipelines.plan import plan
from melmill.transforms.catalogue.licenses import LicenseRule
from melmill.transforms.core.errors import CatalogueError, Cause, ConfigError
from melmill.transforms.core.licenses import license_id, license_ids, provenance_columns
from melmill.transforms.core.records import Recording
from tests.pipeline_runs import extract_here, here, make_test_job, melmill_json, refresh_here
from tests.refresh.catalogues import SMALL, statuses_of, write_songs, write_table

LICENSES = (
    "CC0-1.0",
    "https://creativecommons.org/licenses/by/4.0/",
    " cc by 4.0 ",
    "CC-BY-NC-4.0",
    None,
    "",
)
FREE = "catalogue.require_license=[cc0-1.0, CC-BY-4.0]"
QUICK = (*SMALL, "output.min_shards=1")


def write_catalogue(folder: Path) -> Path:
    """Write a song for each of the licences, and a table that says them."""
    write_songs(folder / "songs", len(LICENSES))
    rows = [{"uri": f"songs/{i}.wav", "license": name} for i, name in enumerate(LICENSES)]
    return write_table(folder / "songs.jsonl", rows)


def names_of(dataset: Path) -> list[str]:
    used = [uri for uri, status in statuses_of(dataset).items() if status[0] == "ok"]
    return sorted(Path(uri).stem for uri in used)


def test_other_licences_are_dropped_and_another_list_admits_others(tmp_path: Path) -> None:
    songs, dataset = write_catalogue(tmp_path), tmp_path / "set"
    result = extract_here(songs, dataset, *QUICK, FREE, "limits.max_failure_ratio=0")
    assert names_of(dataset) == ["0", "1", "2"]
    assert (result.difference["other_license"], result.difference["new"]) == (3, 3)
    assert result.totals.recordings.total() == 3
    line = "3 left out by catalogue.require_license: another licence, or none"
    assert line in extraction_text("set", result)
    # As for catalogue.exclude, max_removed_ratio does not limit what is left out.
    other = "catalogue.require_license=[CC-BY-4.0, CC-BY-NC-4.0]"
    result = refresh_here(songs, dataset, other, "refresh.max_removed_ratio=0")
    assert names_of(dataset) == ["1", "2", "3"]
    counts = {k: result.difference[k] for k in ("new", "other_license", "removed", "unchanged")}
    assert counts == {"new": 1, "other_license": 3, "removed": 0, "unchanged": 2}


@pytest.mark.slow
def test_a_licence_that_changes_in_the_table_changes_the_dataset(tmp_path: Path) -> None:
    songs, dataset = write_catalogue(tmp_path), tmp_path / "set"
    extract_here(songs, dataset, *QUICK, FREE)
    rows = [json.loads(line) for line in songs.read_text().splitlines()]
    rows[0]["license"], rows[4]["license"] = "unknown", "CC BY 4.0"
    refresh_here(write_table(songs, rows), dataset)
    assert names_of(dataset) == ["1", "2", "4"]
    assert not refresh_here(songs, dataset).committed
    refresh_here(songs, dataset, "catalogue.require_license=null")
    assert names_of(dataset) == ["0", "1", "2", "3", "4", "5"]


def test_other_licences_fail_if_the_recipe_says_so(tmp_path: Path) -> None:
    songs, dataset = write_catalogue(tmp_path), tmp_path / "set"
    extract_here(songs, dataset, *QUICK, FREE, "catalogue.other_license=fail")
    assert names_of(dataset) == ["0", "1", "2"]
    failures = {Path(f["uri"]).stem: f for f in melmill.open(dataset).failures().to_pylist()}
    assert sorted(failures) == ["3", "4", "5"]
    assert {(f["stage"], f["cause"]) for f in failures.values()} == {("list", "other_license")}
    assert failures["3"]["message"] == (
        "songs.jsonl line 4, column 'license': 'CC-BY-NC-4.0' is not in catalogue.require_license "
        "(cc0-1.0, CC-BY-4.0); correct the row, or add the licence to the list"
    )
    assert "an empty value is not in catalogue.require_license" in failures["4"]["message"]
    result = refresh_here(songs, dataset, "catalogue.require_license=[CC-BY-NC-4.0, CC-BY-4.0]")
    assert names_of(dataset) == ["1", "2", "3"]
    assert result.totals.failures == {Cause.OTHER_LICENSE: 3}


@pytest.mark.slow
def test_too_many_refused_recordings_end_the_run(tmp_path: Path) -> None:
    songs = write_catalogue(tmp_path)
    settings = *QUICK, FREE, "catalogue.other_license=fail", "limits.max_failure_ratio=0.4"
    planned = plan(make_test_job(songs, tmp_path / "set", *settings), here())
    assert planned["recordings"] == {"planned": 3, "failed": 3}
    assert "3 of 6 recordings fail" in planned["refused"]


def test_plans_count_what_other_licences_leave_out(tmp_path: Path) -> None:
    planned = plan(make_test_job(write_catalogue(tmp_path), tmp_path / "set", *QUICK, FREE), here())
    assert planned["recordings"] == {"planned": 3, "other_license": 3}


def test_the_json_beside_a_member_of_an_archive_says_the_licence(tmp_path: Path) -> None:
    write_songs(tmp_path / "songs", 2)
    with tarfile.open(tmp_path / "songs.tar", "w") as tar:
        for i, name in enumerate(("CC0", "all rights reserved")):
            tar.add(tmp_path / "songs" / f"{i}.wav", f"{i}.wav")
            content = json.dumps({"licence": name, "source": "a"}).encode()
            member = tarfile.TarInfo(f"{i}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    extract_here(tmp_path / "songs.tar", tmp_path / "set", *QUICK, FREE)
    assert list(statuses_of(tmp_path / "set")) == [f"{tmp_path}/songs.tar#0.wav"]


@pytest.mark.slow
def test_the_command_leaves_out_other_licences(tmp_path: Path) -> None:
    songs, dataset = write_catalogue(tmp_path), tmp_path / "set"
    settings = [part for value in (*QUICK, FREE) for part in ("--set", value)]
    assert melmill_json("extract", songs, dataset, *settings)["recordings"] == {"ok": 3}


def test_a_catalogue_without_licences_names_its_columns(tmp_path: Path) -> None:
    write_songs(tmp_path / "songs", 1)
    table = write_table(tmp_path / "songs.jsonl", [{"uri": "songs/0.wav", "genre": "folk"}])
    recipe = load_config(None, [FREE])
    expected = (
        rf"^catalogue.require_license: {table} has no label column 'license' or 'licence'; its "
        "label columns are: genre. Add the column"
    )
    with pytest.raises(CatalogueError, match=expected):
        resolve_catalogue(str(table), recipe)
    with pytest.raises(CatalogueError, match="its label columns are: none"):
        resolve_catalogue(str(tmp_path / "songs"), recipe)
    # A key that comes late in JSON lines can be declared.
    declared = load_config(None, [FREE, "catalogue.label_types={license: string}"])
    assert resolve_catalogue(str(table), declared)


@pytest.mark.parametrize("value", ["[]", "CC0-1.0", "['']", "[1]"])
def test_the_list_holds_names(value: str) -> None:
    with pytest.raises(ConfigError, match=r"catalogue\.require_license"):
        load_config(None, [f"catalogue.require_license={value}"])


SONG = Recording("id", "/a.wav", "a.wav", fingerprint="1", origin="songs.csv line 2")
RULE = LicenseRule(("MIT", "https://creativecommons.org/publicdomain/zero/1.0/"), "Licence")


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ("mit", True),
        ("CC0", True),
        ("MIT-0", False),
        (("MIT", "CC0 1.0"), True),
        (("MIT", "GPL-3.0"), False),
        ((), False),
        ((None,), False),
        (7, False),
    ],
)
def test_all_licences_of_a_recording_must_be_allowed(value: Any, is_allowed: bool) -> None:
    song = replace(SONG, labels=(("Licence", value),))
    assert RULE.apply(song).change == ("" if is_allowed else "other_license")


def test_what_is_left_out_or_not_understood_stays_so() -> None:
    for song in (
        replace(SONG, change="excluded"),
        replace(SONG, fault=(Cause.BAD_ROW, "songs.csv line 2: wrong")),
    ):
        assert RULE.apply(song) is song
    assert LicenseRule().apply(SONG) is SONG


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/us/legalcode", "CC-BY-NC-SA-3.0-US"),
        ("http://www.creativecommons.org/licenses/by/4.0/deed.de?ref=x#y", "CC-BY-4.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("cc_by_sa 4.0", "CC-BY-SA-4.0"),
        ("ccMixter", "ccMixter"),
        ("https://example.org/licenses/by/4.0/", "https://example.org/licenses/by/4.0/"),
        ("", ""),
    ],
)
def test_licences_of_creative_commons_have_one_name(text: str, identifier: str) -> None:
    assert license_id(text) == identifier
    assert license_ids(text) == [identifier] * bool(identifier)


def test_both_spellings_of_the_column_are_known() -> None:
    assert provenance_columns(["LICENCE", "Attribution"]) == {
        "license": "LICENCE",
        "attribution": "Attribution",
    }
    assert provenance_columns(["licence", "license"]) == {"license": "license"}
