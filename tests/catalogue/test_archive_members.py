"""Tests of the join of an archive's audio with the labels beside it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from melmill.transforms.catalogue.archive_members import (
    SIDECARS,
    Entry,
    archive_members,
    sample_of,
)

KINDS = {"wav": "audio", "flac": "audio", "json": "json", "txt": "txt"}
NAMES = st.builds(
    "{}.{}".format,
    st.sampled_from(["a", "a.b", "a.c", "a.b.c", "d/a", "d/a.b", "d.e/a", "d\\a", "\udcff"]),
    st.sampled_from(sorted(KINDS)),
)


def joined(names: list[str]) -> tuple[dict[str, list[str]], set[str]]:
    """Return the sidecars of each audio file, and the sidecars without audio."""
    with archive_members() as members:
        for name in names:
            members.add(Entry(name, KINDS[name.rpartition(".")[2]]))
        sidecars_of = {
            audio.name: [s.name for s in sidecars] for audio, sidecars in members.joined()
        }
        return sidecars_of, set(members.unused())


def expected_sidecars(audio: str, names: set[str]) -> list[str]:
    """Return the sidecars of an audio file by the rule in words, slowly."""

    def stem(name: str) -> str:
        return name.rpartition(".")[0]

    stems = {stem(name) for name in names if KINDS[name.rpartition(".")[2]] == "audio"}
    sidecars = []
    for kind in SIDECARS:
        own, shared = f"{stem(audio)}.{kind}", []
        for name in names:
            is_free = stem(name) == sample_of(name) or stem(name) not in stems
            if name.endswith(kind) and sample_of(name) == sample_of(audio) and is_free:
                shared.append(name)
        sidecars += [own] if own in names else shared
    return sidecars


@given(st.lists(NAMES, max_size=12))
@example(["a.wav", "a.b.wav", "a.json", "a.b.json", "a.c.flac"])
@example(["a.b.txt", "a.c.txt", "a.wav"])
def test_audio_has_the_labels_that_the_rule_names_in_any_order(names: list[str]) -> None:
    found, unused = joined(names)
    unique = set(names)
    for audio, sidecars in found.items():
        expected = expected_sidecars(audio, unique)
        assert set(sidecars) <= set(expected)
        for kind in SIDECARS:
            # Two of several sidecars are enough to know that none is the right one.
            numbers = [sum(n.endswith(kind) for n in names) for names in (sidecars, expected)]
            assert numbers[0] == min(2, numbers[1])
    assert len(found) == sum(KINDS[name.rpartition(".")[2]] == "audio" for name in unique)
    assert unused == unique - set(found) - {n for sidecars in found.values() for n in sidecars}


def test_a_member_that_comes_again_replaces_the_first() -> None:
    with archive_members() as members:
        members.add(Entry("a.wav", "audio", "is damaged"))
        members.add(Entry("b.wav", "audio"))
        members.add(Entry("a.wav", "audio", "", "place", "version"))
        assert [audio for audio, _ in members.joined()] == [
            Entry("b.wav", "audio"),
            Entry("a.wav", "audio", "", "place", "version"),
        ]


def test_an_archive_without_sidecars_has_no_labels() -> None:
    with archive_members() as members:
        members.add(Entry("a.wav", "audio"))
        assert (members.has_audio, members.has_labels) == (True, False)
        members.add(Entry("b.txt", "txt"))
        assert members.has_labels
