"""What a card says about licences, sources and attributions, from invented totals."""

from __future__ import annotations

from melmill.transforms.rows.distribution import ClassCount, Distribution
from melmill.transforms.snapshot.provenance import MOST_LISTED, provenance, provenance_text
from melmill.transforms.snapshot.totals import SplitContent, Totals


def totals_of(**splits: tuple[int, Distribution]) -> Totals:
    totals = Totals()
    for name, (recordings, distribution) in splits.items():
        totals.splits[name] = SplitContent(recordings=recordings)
        totals.splits[name].counter.add(distribution)
    return totals


def licenses(*entries: tuple[str | None, int]) -> Distribution:
    return Distribution(classes=tuple(ClassCount("Licence", n, 9, count) for n, count in entries))


def test_spellings_of_a_licence_are_added_up() -> None:
    entries = ("CC BY 4.0", 2), ("https://creativecommons.org/licenses/by/4.0/", 3), ("mit", 1)
    known = provenance(totals_of(all=(7, licenses(*entries, ("MIT", 1)))))
    assert [(o.value, o.recordings, o.rows) for o in known.origins] == [
        ("CC-BY-4.0", 5, 18),
        ("MIT", 2, 18),
    ]
    assert known.licenses == ("CC-BY-4.0", "MIT")


def test_the_licences_of_all_are_known_only_if_each_recording_has_one() -> None:
    complete, nothing = licenses(("MIT", 3)), Distribution()
    assert provenance(totals_of(a=(3, complete), b=(3, complete))).licenses == ("MIT",)
    assert provenance(totals_of(a=(3, licenses(("MIT", 2), (None, 1))))).licenses == ()
    # A split may have too many licences to count.
    assert provenance(totals_of(a=(3, complete), b=(1, nothing))).licenses == ()
    many = Distribution(many=("Licence",))
    assert provenance(totals_of(a=(3, complete), b=(2000, many))).licenses == ()
    assert provenance(totals_of(a=(3, nothing))).licenses == ()


def test_a_card_lists_some_values_and_says_how_many_more_there_are() -> None:
    counts = [ClassCount("source", f"s{i:03}", 1, 1) for i in range(MOST_LISTED + 2)]
    counts.append(ClassCount("source", "x" * 300, 5, 2))
    distribution = Distribution(classes=tuple(counts), many=("attribution",))
    text = provenance_text(totals_of(train=(60, distribution), test=(1, Distribution())))
    assert f"| train | {'x' * 199}… | 2 | 5 |" in text
    assert text.count("| train | s") == MOST_LISTED - 1
    assert "| train | 3 more values, in the column `source` of the rows | | |" in text
    assert "| train | very many values, in the column `attribution` of the rows | | |" in text


def test_a_card_says_nothing_without_such_columns() -> None:
    other = Distribution(classes=(ClassCount("genre", "folk", 1, 1),))
    assert provenance_text(totals_of(train=(1, other))) == ""
