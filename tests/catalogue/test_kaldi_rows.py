"""Tests of Kaldi data folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.transforms.catalogue.parts import open_catalogue
from melmill.transforms.core.errors import CatalogueError
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
