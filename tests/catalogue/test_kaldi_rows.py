"""Tests of Kaldi data folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.transforms.catalogue.parts import open_catalogue
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.plan.listing import by_identity
from tests.catalogue.manifests import faults, listed, segments

SCRIPT = "r1 /data/r1.wav\nr2 r2.flac\n"


def folder(path: Path, **files: str) -> Path:
    """Write a data folder; ``wav_scp`` is ``wav.scp``."""
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return path


def test_a_folder_without_segments_gives_whole_recordings(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "train", wav_scp=SCRIPT, utt2spk="r1 ann\nr2 bob\n", text="r1 Grüß Gott\n"
    )
    recordings = listed(path)
    assert [r.uri for r in recordings] == ["/data/r1.wav", f"{path}/r2.flac"]
    assert [r.origin for r in recordings] == ["wav.scp line 1", "wav.scp line 2"]
    assert [dict(r.labels) for r in recordings] == [
        {"utterance": "r1", "text": "Grüß Gott", "speaker": "ann"},
        {"utterance": "r2", "text": None, "speaker": "bob"},
    ]


def test_segments_are_joined_with_their_recordings(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "train",
        wav_scp=SCRIPT,
        segments="u1 r2 0.50 1.25\nu2 r1 2 -1\nu3\tr2 1.25 3\n",
        utt2spk="u1 7\nu2 7\nu3 007\n",
        utt2lang="u1 de\n",
    )
    recordings = listed(path)
    assert segments(recordings) == [
        ("r2.flac", 0.5, 1.25),
        ("/data/r1.wav", 2.0, None),
        ("r2.flac", 1.25, 3.0),
    ]
    assert recordings[2].origin == "segments line 3"
    assert [dict(r.labels)["speaker"] for r in recordings] == ["7", "7", "007"]
    assert dict(recordings[0].labels)["language"] == "de"


@pytest.mark.parametrize("command", ["touch {} |", "cat x.wav | touch {} |", "| touch {}"])
def test_a_command_is_refused_and_never_executed(tmp_path: Path, command: str) -> None:
    trace = tmp_path / "executed"
    script = f"r1 {command.format(trace)}\nr2 r2.flac\n"
    path = folder(tmp_path / "train", wav_scp=script, utt2spk="r1 ann\n")
    (message,) = faults(listed(path))
    assert "wav.scp line 1 has a command for 'r1', and melmill never executes one" in message
    assert not trace.exists()


def test_a_command_is_refused_where_a_segment_names_it(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", wav_scp="r1 touch x |\n", segments="u1 r1 0 1\n")
    (message,) = faults(listed(path))
    assert message.startswith("segments line 1 has a command for 'r1'")


@pytest.mark.parametrize(
    ("script", "lines", "message"),
    [
        ("r1 -\n", "u1 r1 0 1\n", "segments line 1 reads 'r1' from the standard input"),
        ("r1 raw.ark:12\n", "u1 r1 0 1\n", "has a place in an archive of Kaldi for 'r1': 'raw"),
        (
            "r1 raw.ark:12[0:3]\n",
            "u1 r1 0 1\n",
            "has a place in an archive of Kaldi for 'r1': 'raw",
        ),
        ("r1 raw.ark.gz:12\n", "u1 r1 0 1\n", "has a place in an archive of Kaldi for 'r1'"),
        (SCRIPT, "u1 r1 0 -0.5\n", "column 'end': -0.5 does not come after the start, 0"),
        (SCRIPT, "u1 r1 0 -2\n", "column 'end': -2.0 does not come after the start, 0"),
        (SCRIPT, "u1 r1 0 -x\n", "column 'end': '-x' is not double"),
        (SCRIPT, "u1 r9 0 1\n", "names the recording 'r9', which wav.scp lacks"),
        (SCRIPT, "u1 r1 0\n", "segments line 1 has 3 words; write it as UTTERANCE RECORDING START"),
        (SCRIPT, "u1 r1 x 1\n", "segments line 1, column 'start': 'x' is not double"),
        (SCRIPT, "u1 r1 2 1\n", "column 'end': 1.0 does not come after the start, 2.0"),
        ("r1\n", "u1 r1 0 1\n", "column 'uri': it is empty"),
    ],
)
def test_what_cannot_be_read_is_its_rows_fault(
    tmp_path: Path, script: str, lines: str, message: str
) -> None:
    path = folder(tmp_path / "train", wav_scp=script, segments=lines)
    (fault,) = faults(listed(path))
    assert message in fault


def test_an_end_of_minus_one_is_the_end_of_the_recording(tmp_path: Path) -> None:
    lines = "".join(f"u{i} r1 {i} {end}\n" for i, end in enumerate(("-1", "-1.0", "-1.00")))
    path = folder(tmp_path / "train", wav_scp=SCRIPT, segments=lines)
    assert {r.end_seconds for r in listed(path)} == {None}
    assert faults(listed(path)) == []


def test_names_with_colons_and_brackets_are_paths(tmp_path: Path) -> None:
    script = "r1 at 12:30 [live].wav\nr2 http://host:8080/a.wav\n"
    path = folder(tmp_path / "train", wav_scp=script, utt2spk="r1 ann\n")
    assert [r.relative_uri for r in listed(path)] == [line[3:] for line in script.splitlines()]
    assert faults(listed(path)) == []


def test_two_utterances_may_have_the_same_segment(tmp_path: Path) -> None:
    lines, speakers = "u1 r1 0.0 1.0\nu2 r1 0.0 1.0\n", "u1 ann\nu2 bob\n"
    path = folder(tmp_path / "train", wav_scp=SCRIPT, segments=lines, utt2spk=speakers)
    ann, bob = by_identity(listed(path)).values()
    assert {dict(ann.labels)["speaker"], dict(bob.labels)["speaker"]} == {"ann", "bob"}
    assert ann.relative_uri == bob.relative_uri


def test_an_utterance_twice_with_the_same_segment_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", wav_scp=SCRIPT, segments="u1 r1 0 1\n" * 2)
    with pytest.raises(CatalogueError, match=r"segments line \d and segments line \d both name"):
        by_identity(listed(path))


def test_a_folder_is_no_file_of_a_data_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "songs", wav_scp=SCRIPT)
    (path / "text").mkdir()
    (path / "text" / "a.wav").touch()
    assert [r.relative_uri for r in listed(path)] == ["text/a.wav"]
    folder(path, utt2spk="r1 ann\n")
    assert dict(listed(path)[0].labels) == {"utterance": "r1", "speaker": "ann"}


def test_an_id_twice_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", wav_scp=SCRIPT, text="r1 a\nr1 b\n")
    with pytest.raises(CatalogueError, match=r"train/text has the id 'r1' twice"):
        listed(path)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "train", wav_scp=SCRIPT, text="")
    (path / "text").write_bytes(b"r1 \xff\n")
    with pytest.raises(CatalogueError, match=r"train/text is not UTF-8 text"):
        listed(path)


def test_the_root_of_relative_paths_can_be_named(tmp_path: Path) -> None:
    from melmill.transforms.catalogue.meanings import TableKeys

    path = folder(tmp_path / "train", wav_scp=SCRIPT, utt2spk="r1 ann\n")
    assert listed(path, keys=TableKeys(root="/egs/s5"))[1].uri == "/egs/s5/r2.flac"


def test_a_folder_with_a_script_alone_is_a_folder_of_audio(tmp_path: Path) -> None:
    path = folder(tmp_path / "songs", wav_scp=SCRIPT)
    (path / "a.wav").touch()
    assert [r.relative_uri for r in listed(path)] == ["a.wav"]
    assert [r.relative_uri for r in listed(path / "wav.scp")] == ["/data/r1.wav", "r2.flac"]
    assert open_catalogue(str(path / "wav.scp")).kind == "table"
