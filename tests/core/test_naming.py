"""Tests of digests and URIs: they are stable and unambiguous, and names may hold any character."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import (
    bucket,
    digest,
    fraction,
    join_uri,
    recording_id,
    resolve_uri,
)

PARTS = st.lists(st.binary(max_size=8), max_size=5)
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)
ROOTS = st.sampled_from(["/", "/data/a::b", "s3://bucket", "s3://bucket/songs", "memory://x"])


def test_a_digest_is_what_it_was_in_the_first_release() -> None:
    # printf '\0\0\0\0\0\0\0\013songs/a.wav\0\0\0\0\0\0\0\0030.0' | b2sum -l 128
    assert digest("songs/a.wav", "0.0") == "7afd4c37a629a5f5c598eb47ea8fb48d"


@given(PARTS, PARTS)
def test_only_equal_sequences_have_equal_digests(a: list[bytes], b: list[bytes]) -> None:
    assert (digest(*a) == digest(*b)) == (a == b)


@given(st.text(), st.text())
def test_any_text_has_a_digest_of_its_own(a: str, b: str) -> None:
    assert (digest(a) == digest(b)) == (a == b)


def test_lone_surrogates_are_told_apart() -> None:
    assert len({digest("\udcff"), digest("\ud800"), digest("?"), digest("ÿ")}) == 4


def test_digests_do_not_depend_on_the_process() -> None:
    code = "from melmill.transforms.core.naming import *; print(digest('a'), fraction('a'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{digest('a')} {fraction('a')}\n"}


@given(st.text())
def test_a_fraction_is_below_one(part: str) -> None:
    assert 0.0 <= fraction(part) < 1.0


def test_the_greatest_digest_gives_a_fraction_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.transforms.core.naming.digest", lambda *parts: "f" * 32)
    assert fraction("any") < 1.0


def test_fractions_and_buckets_are_uniform() -> None:
    tenths = Counter(int(10 * fraction(str(i))) for i in range(20_000))
    buckets = Counter(bucket(str(i), 10) for i in range(20_000))
    # The standard deviation of a count is 42; the limit is five standard deviations.
    for counts in (tenths, buckets):
        assert set(counts) == set(range(10))
        assert all(abs(count - 2_000) < 210 for count in counts.values())


@pytest.mark.parametrize("n", [0, -1])
def test_without_buckets_there_is_no_bucket(n: int) -> None:
    with pytest.raises(ValueError, match="at least one bucket"):
        bucket("a", n)


def test_segments_of_a_recording_have_ids_of_their_own() -> None:
    segments = [(None, None), (0.0, None), (None, 3.0), (0.0, 3.0), (3.0, None), (0.3, 0.0)]
    assert len({recording_id("a.wav", *segment) for segment in segments}) == len(segments)


def test_equal_positions_give_equal_ids() -> None:
    assert recording_id("a.wav", -0.0, 3) == recording_id("a.wav", 0.0, 3.0)


@given(ROOTS, st.lists(NAMES, min_size=1, max_size=4).map("/".join))
def test_a_file_below_the_root_has_the_same_name_either_way(root: str, relative: str) -> None:
    assume("://" not in relative)
    absolute, name = resolve_uri(root, relative)
    assert name == relative
    assert absolute == join_uri(root, relative)
    assert resolve_uri(root, absolute) == (absolute, relative)


def test_names_are_not_decoded() -> None:
    assert resolve_uri("/data", "a%20b#1?.wav")[0] == "/data/a%20b#1?.wav"


@pytest.mark.parametrize(
    ("root", "uri", "absolute", "relative"),
    [
        ("/data", "./a.wav", "/data/a.wav", "a.wav"),
        ("/data", "x/../a.wav", "/data/a.wav", "a.wav"),
        ("/data", "x//a.wav", "/data/x/a.wav", "x/a.wav"),
        ("/data/t", "../audio/a.wav", "/data/audio/a.wav", "../audio/a.wav"),
        ("s3://b/t", "../a.wav", "s3://b/a.wav", "../a.wav"),
        ("file:///data/t", "../a.wav", "file:///data/a.wav", "../a.wav"),
        ("/data", "/database/a.wav", "/database/a.wav", "/database/a.wav"),
        ("/data", "https://host/a.wav?x=1", "https://host/a.wav?x=1", "https://host/a.wav?x=1"),
        ("zip://d::s3://b/a.zip", "a.wav", "zip://d/a.wav::s3://b/a.zip", "a.wav"),
        ("/data", "Live: a.wav", "/data/Live: a.wav", "Live: a.wav"),
    ],
)
def test_uris_resolve_against_the_table(root: str, uri: str, absolute: str, relative: str) -> None:
    assert resolve_uri(root, uri) == (absolute, relative)


@pytest.mark.parametrize("uri", ["../a.wav", "../../a.wav", "x/../../../a.wav"])
def test_no_way_leads_out_of_a_bucket(uri: str) -> None:
    with pytest.raises(CatalogueError, match="points outside the store of s3://bucket"):
        resolve_uri("s3://bucket", uri)
