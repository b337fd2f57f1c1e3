"""Tests of lhotse's manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from melmill.transforms.core.errors import CatalogueError
from tests.catalogue.manifests import (
    cut,
    faults,
    listed,
    recording,
    segments,
    supervision,
    write_lines,
)

SONG = recording("a", "a.wav", seconds=2.0)
TWO_FILES = [{"type": "file", "channels": [i], "source": f"{i}.wav"} for i in (0, 1)]
STEREO = [{"type": "file", "channels": [0, 1], "source": "a.wav"}]


@pytest.mark.parametrize("name", ["recordings.jsonl", "recordings.jsonl.gz"])
def test_recordings_are_read(tmp_path: Path, name: str) -> None:
    rows = [
        SONG,
        recording(
            "b", "/data/b.flac", custom={"snr": 12.5, "nested": {"x": 1}, "words": [{"w": 1}]}
        ),
    ]
    recordings = listed(write_lines(tmp_path / name, rows))
    assert segments(recordings) == [("a.wav", None, None), ("/data/b.flac", None, None)]
    assert [dict(r.labels) for r in recordings] == [
        {"id": "a", "snr": None},
        {"id": "b", "snr": 12.5},
    ]


def test_recordings_at_urls_and_with_several_channels_in_a_file_are_read(tmp_path: Path) -> None:
    url = [{"type": "url", "channels": [0], "source": "https://example.org/a.wav"}]
    rows = [recording("a", "", sources=url), recording("b", "", sources=STEREO)]
    recordings = listed(write_lines(tmp_path / "recordings.jsonl", rows))
    assert [r.uri for r in recordings] == ["https://example.org/a.wav", f"{tmp_path}/a.wav"]
    assert faults(recordings) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": TWO_FILES}, "the recording 'a' is in 2 files, and melmill reads one"),
        ({"sources": []}, "the recording 'a' is in 0 files"),
        ({"transforms": [{"name": "Speed"}]}, "the recording 'a' is transformed when lhotse reads"),
        ({"sources": [{"type": "memory", "channels": [0], "source": "x"}]}, "from a memory; save"),
        ({"sources": [{"type": "file", "source": "x"}, 1]}, "is in 2 files"),
        ({"sources": [7]}, "does not follow lhotse's format: TypeError"),
    ],
)
def test_audio_that_is_not_a_file_is_its_rows_fault(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "recordings.jsonl", [SONG, SONG | change])
    (fault,) = faults(listed(path))
    assert fault.startswith("recordings.jsonl line 2 ")
    assert message in fault


def test_a_command_is_refused_and_never_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    source = [{"type": "command", "channels": [0], "source": f"touch {trace}"}]
    path = write_lines(tmp_path / "recordings.jsonl", [recording("a", "", sources=source)])
    (fault,) = faults(listed(path))
    assert "comes from a command, and melmill never executes one" in fault
    assert not trace.exists()


def test_supervisions_find_their_recordings_beside_them(tmp_path: Path) -> None:
    write_lines(tmp_path / "libri_recordings_dev.jsonl.gz", [recording("b", "b.wav"), SONG])
    rows = [
        supervision("u1", "a", 0.1, 0.2, text="hello", speaker="ann"),
        supervision("u2", "b", 0, 1.0, language="de", custom={"score": 3}),
        supervision("u3", "c", 0, 1.0),
        supervision("u4", "a", 0, 1.0, channel=1),
    ]
    recordings = listed(write_lines(tmp_path / "libri_supervisions_dev.jsonl.gz", rows))
    assert segments(recordings[:2]) == [("a.wav", 0.1, 0.3), ("b.wav", None, None)]
    nothing = dict.fromkeys(("text", "language", "speaker", "gender", "score"))
    assert [dict(r.labels) for r in recordings[:2]] == [
        nothing | {"id": "u1", "text": "hello", "speaker": "ann"},
        nothing | {"id": "u2", "language": "de", "score": 3},
    ]
    unknown, channel = faults(recordings)
    assert "line 3 names the recording 'c', which " in unknown
    assert "line 4 uses the channels [1] of 'a.wav', which has [0]; melmill reads all" in channel


def test_supervisions_without_recordings_are_refused(tmp_path: Path) -> None:
    row = supervision("u1", "a", 0.5, 1.0)
    with pytest.raises(CatalogueError, match=r"only if its name contains supervisions; rename it"):
        listed(write_lines(tmp_path / "dev.jsonl", [row]))
    path = write_lines(tmp_path / "supervisions.jsonl", [row])
    with pytest.raises(CatalogueError, match=r"/recordings.jsonl does not exist"):
        listed(path)
    write_lines(tmp_path / "recordings.jsonl", [{"uri": "a.wav"}])
    with pytest.raises(CatalogueError, match=r"/recordings.jsonl should hold the recordings of"):
        listed(path)


def test_a_damaged_line_of_the_recordings_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "supervisions.jsonl", [supervision("u1", "a", 0.5, 1.0)])
    (tmp_path / "recordings.jsonl").write_text(
        write_lines(tmp_path / "x.jsonl", [SONG]).read_text() + '{"id"\n'
    )
    with pytest.raises(CatalogueError, match=r"recordings.jsonl line 2 is not JSON"):
        listed(path)


def test_cuts_are_segments_with_the_labels_of_their_supervisions(tmp_path: Path) -> None:
    spoken = [
        supervision("s2", "a", 0.6, 0.2, text="world", speaker="bob"),
        supervision("s1", "a", 0.1, 0.2, text="hello", speaker="ann"),
    ]
    rows = [
        cut("c1", SONG, 0.25, 1.5, supervisions=spoken[:1], custom={"snr": 20.0}),
        cut("c2", SONG, 0, 2.0, supervisions=spoken),
        cut("c3", SONG, 1.0, 1.0),
    ]
    recordings = listed(write_lines(tmp_path / "cuts.jsonl.gz", rows))
    assert segments(recordings) == [
        ("a.wav", 0.25, 1.75),
        ("a.wav", None, None),
        ("a.wav", 1.0, 2.0),
    ]
    labels = [dict(r.labels) for r in recordings]
    assert [row["text"] for row in labels] == ["world", "hello world", None]
    assert [row["speaker"] for row in labels] == ["bob", "ann, bob", None]
    assert [row["snr"] for row in labels] == [20.0, None, None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "m", "type": "MixedCut", "tracks": []}, "is a MixedCut, and melmill reads MonoCut"),
        ({"id": "p", "type": "PaddingCut", "duration": 1}, "is a PaddingCut"),
        (cut("c", SONG, 0, 1, recording=None), "the cut 'c' has no recording"),
        (
            cut("c", SONG | {"sources": STEREO}, 0, 1),
            "uses the channels [0] of 'a.wav', which has [0, 1]",
        ),
        (cut("c", SONG, "x", 1), "does not follow lhotse's format"),
        (cut("c", SONG, -1, 0.5), "column 'start': -1.0 is not a position"),
    ],
)
def test_a_cut_that_is_no_segment_of_a_file_is_its_rows_fault(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "cuts.jsonl", [cut("good", SONG, 0, 1), row])
    (fault,) = faults(listed(path))
    assert message in fault


def test_a_cut_of_all_channels_is_read(tmp_path: Path) -> None:
    row = cut("c", SONG | {"sources": STEREO}, 0, 1, channel=[0, 1], type="MultiCut")
    recordings = listed(write_lines(tmp_path / "cuts.jsonl", [row]))
    assert segments(recordings) == [("a.wav", 0.0, 1.0)]
    assert faults(recordings) == []


def test_a_truncated_manifest_is_refused_or_names_its_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "cuts.jsonl", [cut(f"c{i}", SONG, i / 8, 0.1) for i in range(9)])
    path.write_bytes(path.read_bytes()[:-20])
    (fault,) = faults(listed(path))
    assert "cuts.jsonl line 9 is not JSON" in fault
    packed = write_lines(tmp_path / "cuts.jsonl.gz", [cut("c", SONG, 0, 1)] * 99)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(CatalogueError, match=r"cuts.jsonl.gz cannot be read"):
        listed(packed)


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_a_cut_of_several_megabytes_is_recognised(tmp_path: Path, name: str) -> None:
    row = cut("c", SONG, 0.5, 1, custom={"words": [{"word": "x" * 2_500_000}], "snr": 1.5})
    (recording,) = listed(write_lines(tmp_path / name, [row]))
    assert segments([recording]) == [("a.wav", 0.5, 1.5)]
    assert dict(recording.labels)["snr"] == 1.5


def test_fields_of_lhotse_count_before_values_of_custom(tmp_path: Path) -> None:
    custom = {"id": "other", "text": "other", "speaker": "bob", "snr": 2, "split": "dev"}
    spoken = [supervision("s", "a", 0, 1, text="hello", custom=custom)]
    write_lines(tmp_path / "recordings.jsonl", [SONG])
    rows = {
        "cuts": cut("c", SONG, 0, 1, supervisions=spoken, custom=custom),
        "supervisions": spoken[0],
        "recordings": SONG | {"custom": custom},
    }
    for name, row in rows.items():
        (found,) = listed(write_lines(tmp_path / f"{name}.jsonl", [row]))
        labels = dict(found.labels)
        assert labels["id"] == row["id"]
        assert labels["text"] == ("other" if name == "recordings" else "hello")
        # A value of custom counts where lhotse has none.
        assert (labels["speaker"], labels["snr"], found.split) == ("bob", 2, "dev")


def test_plain_rows_among_the_records_are_their_rows_faults(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "recordings.jsonl", [SONG, {"uri": "b.wav"}])
    (fault,) = faults(listed(path))
    assert "line 2 does not follow lhotse's format: KeyError: 'sources'" in fault
