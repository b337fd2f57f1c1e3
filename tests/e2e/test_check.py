"""Tests of ``melmill check`` in real processes: verdicts, outputs, exit statuses."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from melmill.pipelines.check import in_order
from tests import signals
from tests.pipeline_runs import extract_here, melmill, refresh_here
from tests.sharing import made_once

RATE = 44_100
#: Root of the source, from which the command is imported in any folder.
ROOT = str(Path(__file__).parents[2])


def check(*arguments: Path | str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with two workers."""
    path = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **kwargs.pop("env", {})}
    return melmill("check", *arguments, "--workers=2", env=environment, **kwargs)


def check_json(*arguments: Path | str, status: int, **kwargs: Any) -> dict[str, dict[str, Any]]:
    """Return the results by the file's name."""
    completed = check(*arguments, "--json", **kwargs)
    assert (completed.returncode, completed.stderr) == (status, "")
    results = map(json.loads, completed.stdout.splitlines())
    return {Path(result["uri"]).name: result for result in results}


def broken(result: dict[str, Any]) -> list[str]:
    """Return the measures whose limits a recording breaks, or the causes of its failure."""
    return [finding["measure"] or finding["cause"] for finding in result["findings"]]


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return signals.write_audio(path, samples, rate)


def music(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Return sound without defects: a song in stereo, and quiet noise up to half the rate."""
    noise = signals.noise(seconds, RATE, seed, channels=2, amplitude=0.003)
    return 0.4 * signals.song(seconds, RATE, seed, channels=2) + noise


def stereo_tone(level_dbfs: float, seconds: float = 4.0) -> np.ndarray:
    """Return a tone whose loudness in LUFS is its level, as in EBU Tech 3341."""
    amplitude = 10 ** (level_dbfs / 20)
    return np.stack([signals.tone(997, seconds, 48_000, amplitude)] * 2, axis=1)


def damaged() -> dict[str, tuple[np.ndarray, str]]:
    """Return sounds with a defect, and the measure that shows each."""
    gap, dead, offset = music(), music(), music() + np.float32(0.05)
    gap[RATE : RATE + 2000] = 0
    dead[:, 1] = 0
    left, silence = music()[:, :1], np.zeros((3 * RATE, 2), np.float32)
    narrow = np.stack([signals.tone(440, 2.0, RATE, 0.2)] * 2, axis=1)
    return {
        "clipped": (np.clip(12 * music(), -1, 1), "clipping.share"),
        "dead": (dead, "channels.dead"),
        "gap": (gap, "gaps.count"),
        "inverted": (np.concatenate([left, -left], axis=1), "channels.mono_loss"),
        "narrow": (narrow, "origin.bandwidth_share"),
        "offset": (offset, "noise.offset"),
        "paused": (np.concatenate([music(), silence]), "silence.share"),
        "quiet": (0.001 * music(), "level.rms"),
    }


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sound recording and a recording of each defect; do not change it."""

    def make(folder: Path) -> None:
        write(folder / "sound.flac", music())
        for name, (samples, _) in damaged().items():
            write(folder / f"{name}.wav", samples)

    return made_once(tmp_path_factory, "defects", make)


def test_each_defect_is_found_and_nothing_else(defects: Path) -> None:
    results = check_json(defects, status=1)
    assert results["sound.flac"]["verdict"] == "pass"
    broken_limits = {name: set(broken(results[f"{name}.wav"])) for name in damaged()}
    expected = {name: {measure} for name, (_, measure) in damaged().items()}
    # A recording at -80 dBFS is silent by the other measures, too.
    expected["quiet"] |= {"silence.share", "origin.bandwidth_share"}
    assert broken_limits == expected


def test_a_finding_says_value_limit_place_and_reason(defects: Path) -> None:
    (finding,) = check_json(defects / "gap.wav", status=1)["gap.wav"]["findings"]
    assert finding.pop("second") == pytest.approx(1.0, abs=0.01)
    assert finding == {
        "measure": "gaps.count",
        "value": 1,
        "limit": 0.0,
        "unit": "",
        "reason": "dropouts",
        "cause": "",
    }


def test_silence_has_no_level_and_fails(tmp_path: Path) -> None:
    write(tmp_path / "zeros.wav", np.zeros(RATE, np.float32))
    (result,) = check_json(tmp_path, status=1).values()
    assert "level.rms" in broken(result)
    assert result["findings"][0]["value"] is None


DELIVERY = {
    "ebu_r128": (-23, 0.5, -1),
    "ebu_live": (-23, 1.0, -1),
    "atsc_a85": (-24, 2.0, -2),
    "streaming": (-14, 1.0, -1),
    "podcast": (-16, 1.0, -1),
}


@pytest.mark.parametrize("profile", DELIVERY)
def test_a_delivery_profile_judges_loudness_and_peaks(profile: str, tmp_path: Path) -> None:
    target, tolerance, peak = DELIVERY[profile]
    for name, level in {
        "right": target,
        "highest": target + tolerance - 0.1,
        "loud": target + tolerance + 0.1,
        "lowest": target - tolerance + 0.1,
        "low": target - tolerance - 0.1,
    }.items():
        write(tmp_path / f"{name}.wav", stereo_tone(level), 48_000)
    high = stereo_tone(target)
    high[96_000] = 10 ** ((peak + 0.5) / 20)
    write(tmp_path / "high.wav", high, 48_000)
    write(tmp_path / "silent.wav", np.zeros(96_000, np.float32), 48_000)
    results = check_json(tmp_path, "--profile", profile, status=1)
    assert {name: broken(result) for name, result in results.items() if result["findings"]} == {
        "loud.wav": ["loudness.integrated"],
        "low.wav": ["loudness.integrated"],
        "high.wav": ["loudness.true_peak"],
        "silent.wav": ["loudness.integrated"],
    }
    (finding,) = results["high.wav"]["findings"]
    assert finding["second"] == pytest.approx(2.0, abs=0.01)


def test_all_pass_and_the_status_is_zero(defects: Path) -> None:
    completed = check(defects / "sound.flac")
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout == (
        f"pass  {defects}/sound.flac\n1 recording, profile training: 1 pass, 0 fail\n"
    )


def test_a_line_says_what_is_wrong_and_where(defects: Path) -> None:
    completed = check("dead.wav", "./gap.wav", defects / "sound.flac", cwd=defects)
    assert completed.returncode == 1
    lines = completed.stdout.splitlines()
    assert lines[0] == "FAIL  dead.wav  a channel is silent: channels.dead is true"
    assert re.fullmatch(r"FAIL  gap\.wav  dropouts: gaps\.count 1 > 0 at (0\.99|1\.00) s", lines[1])
    assert lines[2] == f"pass  {defects}/sound.flac"
    assert lines[3:] == ["3 recordings, profile training: 1 pass, 2 fail"]


def test_a_path_in_another_folder_is_shown_as_it_was_given(defects: Path, tmp_path: Path) -> None:
    relative = os.path.relpath(defects / "sound.flac", tmp_path)
    assert relative.startswith("../")
    assert check(relative, cwd=tmp_path).stdout.splitlines()[0] == f"pass  {relative}"


def test_recordings_that_cannot_be_read_fail_with_their_cause(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.flac", music()).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "letter.mp3").write_text("Dear engineer, this is no sound.")
    completed = check(".", cwd=tmp_path)
    assert completed.returncode == 1
    lines = completed.stdout.splitlines()
    assert lines[0].startswith("FAIL  cut.flac  truncated: ")
    assert lines[1] == "FAIL  empty.wav  empty_file: the file has no bytes"
    assert lines[2].startswith("FAIL  letter.mp3  unknown_format: ")
    assert lines[3] == "pass  whole.flac"


def test_missing_files_are_refused_all_at_once(defects: Path) -> None:
    completed = check(defects / "sound.flac", defects / "a.wav", defects / "b.wav")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert f"{defects}/a.wav does not exist" in completed.stderr
    assert f"{defects}/b.wav does not exist" in completed.stderr


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    completed = check(tmp_path)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert "holds no files" in completed.stderr


def test_no_audio_is_refused() -> None:
    completed = check()
    assert completed.returncode == 2
    assert "give audio files, directories, globs or tables" in completed.stderr


def test_files_with_other_extensions_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", music())
    for name in ("a.txt", "b.txt", "cover.jpg"):
        (tmp_path / name).touch()
    completed = check(tmp_path)
    assert completed.returncode == 0
    assert completed.stdout.endswith("3 files with other extensions: .txt 2, .jpg 1\n")


def test_a_table_is_checked_row_by_row(tmp_path: Path) -> None:
    write(tmp_path / "songs" / "b.wav", music())
    write(tmp_path / "songs" / "a.wav", music(seed=1))
    rows = "uri,genre\nsongs/b.wav,folk\nsongs/gone.wav,folk\n,none\nsongs/a.wav,folk\n"
    (tmp_path / "songs.csv").write_text(rows)
    completed = check("songs.csv", cwd=tmp_path)
    assert completed.returncode == 1
    lines = completed.stdout.splitlines()
    assert lines[0] == "pass  songs/b.wav"
    assert lines[1].startswith("FAIL  songs/gone.wav  not_found: ")
    assert "bad_row: songs.csv line 4, column 'uri': it is empty" in lines[2]
    assert lines[3] == "pass  songs/a.wav"


def test_segments_are_checked_as_what_they_are(tmp_path: Path) -> None:
    samples = music(6.0)
    samples[3 * RATE : 3 * RATE + 2000] = 0  # a gap
    write(tmp_path / "a.wav", samples)
    rows = ["a.wav,,", "a.wav,2.5,4", "a.wav,,2", "a.wav,5,9"]
    (tmp_path / "songs.csv").write_text("\n".join(["uri,start,end", *rows]) + "\n")
    completed = check("songs.csv", "--json", cwd=tmp_path)
    whole, gap, fine, late = map(json.loads, completed.stdout.splitlines())
    assert completed.returncode == 1
    assert [(r["start"], r["end"], r["seconds"]) for r in (whole, gap, fine)] == [
        (None, None, 6.0),
        (2.5, 4.0, 1.5),
        (None, 2.0, 2.0),
    ]
    assert (broken(fine), broken(late)) == ([], ["bad_segment"])
    # The seconds are those of the file.
    for result in (whole, gap):
        (finding,) = result["findings"]
        assert finding["second"] == pytest.approx(3.0, abs=0.01)
    # A segment reads what its samples read in a file of their own.
    own = write(tmp_path / "own.wav", samples[round(2.5 * RATE) : 4 * RATE])
    (expected,) = check_json(own, status=1).values()
    assert gap["readings"] == expected["readings"]
    lines = check("songs.csv", cwd=tmp_path).stdout.splitlines()
    assert lines[1].startswith("FAIL  a.wav from 2.5 s to 4 s  ")
    assert lines[2] == "pass  a.wav from 0 s to 2 s"


def test_a_bad_profile_is_refused_with_all_its_faults(defects: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "rules:\n"
        "  - {measure: clipping.shar, max: 0}\n"
        "  - {measure: level.peak, min: 1, max: 0}\n"
        "  - {measure: channels.dead, max: 0}\n"
    )
    completed = check(defects, "--profile", profile)
    assert (completed.returncode, completed.stdout) == (2, "")
    head, *faults = completed.stderr.splitlines()
    assert head == f"melmill: profile {profile}: 3 faults"
    assert [fault.split(":")[0].strip() for fault in faults] == [
        "rules.0.measure",
        "rules.1.min",
        "rules.2.max",
    ]


def test_an_unknown_profile_is_refused_with_a_near_name(defects: Path) -> None:
    completed = check(defects, "--profile=trainig")
    assert completed.returncode == 2
    assert "did you mean training?" in completed.stderr


def test_a_profile_of_ones_own_is_used(defects: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("rules: [{measure: level.peak, max: -60, why: not quiet}]")
    completed = check("quiet.wav", "sound.flac", "--profile", profile, cwd=defects)
    assert completed.returncode == 1
    lines = completed.stdout.splitlines()
    assert lines[0] == "pass  quiet.wav"
    assert re.fullmatch(
        r"FAIL  sound\.flac  not quiet: level\.peak -\d\S* dBFS > -60 dBFS at \d\.\d\d s", lines[1]
    )


def test_results_keep_the_order_of_the_catalogue(tmp_path: Path) -> None:
    names = [f"{number:02}.wav" for number in range(12)]
    for number, name in enumerate(names):
        write(tmp_path / name, music(20.0 if number in (0, 5) else 0.2, number))
    results = check_json(tmp_path, status=0)
    assert list(results) == names


def test_only_a_few_items_are_ahead_of_the_next_result() -> None:
    taken: list[int] = []
    released = threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        released.wait(60)
        return number

    results = in_order(work, items(), 2)
    threading.Timer(0.5, released.set).start()
    assert next(results) == 0
    assert len(taken) == 32
    assert list(results) == list(range(1, 1000))


def test_json_has_the_profiles_readings_or_more(defects: Path) -> None:
    sound = defects / "sound.flac"
    (result,) = check_json(sound, "--profile=podcast", status=1).values()
    assert result["readings"].keys() == {"loudness.integrated", "loudness.true_peak"}
    assert (result["seconds"], result["sample_rate_hz"], result["channels"]) == (2.0, RATE, 2)
    (more,) = check_json(sound, "--profile=podcast", "--measures=basic", status=1).values()
    assert more["readings"].items() >= result["readings"].items()
    assert more["readings"]["clipping.events"] == []
    assert "clicks.count" not in more["readings"]
    (full,) = check_json(sound, "--measures=full", status=0).values()
    assert {"clicks.count", "clipping.share"} <= full["readings"].keys()


def test_csv_has_a_row_for_each_recording(defects: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    paths = [defects / "sound.flac", defects / "dead.wav", tmp_path / "empty.wav"]
    report = tmp_path / "report.csv"
    report.write_text("an older report")
    assert check(*paths, "--csv", report).returncode == 1
    with report.open(newline="", encoding="utf-8") as file:
        sound, dead, empty = csv.DictReader(file)
    assert [row["uri"] for row in (sound, dead, empty)] == [str(path) for path in paths]
    assert [row["verdict"] for row in (sound, dead, empty)] == ["pass", "fail", "fail"]
    assert (sound["findings"], sound["seconds"], sound["channels.dead"]) == ("", "2.0", "false")
    assert dead["findings"] == "a channel is silent: channels.dead is true"
    assert (dead["channels.dead"], dead["gaps.count"]) == ("true", "0")
    assert (empty["seconds"], empty["channels.dead"]) == ("", "")
    assert float(sound["level.rms"]) < 0


def test_csv_has_no_lists_of_places(defects: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    assert check(defects / "sound.flac", "--csv", report, "--measures=basic").returncode == 0
    with report.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert "level.peak" in row
    assert "clipping.events" not in row


#: A file's name with what XML escapes, what XML forbids, and what a terminal would obey.
HARD_NAME = 'R&B <live> "it\'s" \x07\x1b[31m\n\u2028ö.wav'


def test_junit_has_a_test_case_for_each_recording(tmp_path: Path) -> None:
    write(tmp_path / HARD_NAME, damaged()["dead"][0])
    write(tmp_path / "sound.flac", music())
    (tmp_path / "torn.wav").write_bytes(b"RIFF\x00")
    report = tmp_path / "report.xml"
    assert check(".", "--junit", report, cwd=tmp_path).returncode == 1
    suite = ET.parse(report).getroot()
    assert (suite.tag, suite.get("name")) == ("testsuite", "melmill check training")
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    cases = {case.get("name"): case for case in suite}
    hard = HARD_NAME.replace("\x07", "\\x07").replace("\x1b", "\\x1b")
    assert cases.keys() == {hard, "sound.flac", "torn.wav"}
    assert {case.get("classname") for case in suite} == {"training"}
    assert list(cases["sound.flac"]) == []
    (failure,) = cases[hard]
    assert (failure.tag, failure.get("type")) == ("failure", "channels.dead")
    assert failure.text == "a channel is silent: channels.dead is true"
    (error,) = cases["torn.wav"]
    assert error.tag == "error"


def test_a_line_holds_no_control_characters(tmp_path: Path) -> None:
    write(tmp_path / HARD_NAME, music())
    completed = check(".", cwd=tmp_path)
    assert completed.stdout.splitlines() == [
        'pass  R&B <live> "it\'s" \\x07\\x1b[31m\\n\\u2028ö.wav',
        "1 recording, profile training: 1 pass, 0 fail",
    ]


def test_a_report_that_cannot_be_written_is_refused_first(defects: Path, tmp_path: Path) -> None:
    for option in ("--csv", "--junit"):
        completed = check(defects, option, tmp_path / "none" / "report")
        assert (completed.returncode, completed.stdout) == (2, "")
        assert f"{option} {tmp_path}/none/report: cannot be written: No such" in completed.stderr


def test_a_report_is_written_to_a_pipe(defects: Path) -> None:
    completed = check(defects / "dead.wav", "--quiet", "--junit=/dev/stderr")
    assert completed.returncode == 1
    (case,) = ET.fromstring(completed.stderr)
    assert case[0].get("type") == "channels.dead"


def in_terminal(*arguments: Path | str, **environment: str) -> str:
    """Return what the command writes to a terminal."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "melmill", "check", *map(str, arguments)]
    variables = {"TERM": "xterm", "COLUMNS": "40", "PYTHONPATH": os.environ.get("PYTHONPATH", ROOT)}
    process = subprocess.Popen(
        command, stdout=child, stderr=child, env={**os.environ, **variables, **environment}
    )
    os.close(child)
    output = b""
    try:
        while data := os.read(parent, 65_536):
            output += data
    except OSError:  # the command has closed the terminal
        pass
    finally:
        os.close(parent)
    process.wait()
    return output.decode()


def test_a_terminal_gets_colours_and_whole_lines(defects: Path) -> None:
    output = in_terminal(defects / "sound.flac", defects / "dead.wav", "--quiet")
    green, red, end = "\x1b[32m", "\x1b[1;31m", "\x1b[0m"
    lines = output.splitlines()
    assert lines[0] == f"{green}pass{end}  {defects}/sound.flac"
    # The line is longer than the terminal is wide, and is not broken.
    assert lines[1].startswith(f"{red}FAIL{end}  {defects}/dead.wav  a channel is silent: ch")


def test_a_terminal_gets_no_colours_if_the_user_wants_none(defects: Path) -> None:
    output = in_terminal(defects / "dead.wav", "--quiet", NO_COLOR="1")
    assert "FAIL" in output
    assert not re.search(r"\x1b\[[\d;]*3\dm", output)


def test_a_terminal_shows_progress_that_is_gone_at_the_end(defects: Path) -> None:
    output = in_terminal(defects)
    assert "recordings" in output.partition("pass")[0]
    up_and_erase = "\x1b[1A\x1b[2K"
    last = f"{up_and_erase}9 recordings, profile training: 1 pass, 8 fail"
    assert output.splitlines()[-1] == last
    assert "\x1b[?25h" in output  # the cursor is shown again


def test_the_list_names_all_measures_and_profiles() -> None:
    completed = check("--list")
    assert completed.returncode == 0
    for text in ("ebu_r128: ", "loudness.integrated (LUFS): at least -23.5, at most -22.5"):
        assert text in completed.stdout
    assert "clipping.share: Share of all samples" in completed.stdout
    listed = json.loads(check("--list", "--json").stdout)
    assert {"min", "max"} <= listed["profiles"][2]["rules"][0].keys()
    assert {measure["name"] for measure in listed["measures"]} >= {"channels.dead", "level.peak"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_one_line(number: signal.Signals, tmp_path: Path) -> None:
    names = {"a.wav", "b.wav", "c.wav"}
    for name in names:
        write(tmp_path / name, np.tile(music(2.0), (150, 1)))
    report = tmp_path / "report.xml"
    report.write_text("an older report")
    command = [sys.executable, "-m", "melmill", "check", str(tmp_path), "--junit", str(report)]
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", ROOT)}
    process = subprocess.Popen(
        [*command, "--workers=2", "--measures=full"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    children = wait_for_children(process, 2)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "FAIL" not in output
    assert len(errors.splitlines()) == 1, errors
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert report.read_text() == "an older report"
    assert {path.name for path in tmp_path.iterdir()} == {*names, "report.xml"}


def wait_for_children(process: subprocess.Popen[str], number: int) -> Sequence[psutil.Process]:
    children: list[psutil.Process] = []
    while len(children) < number:
        assert process.poll() is None
        time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
    return children


def test_a_check_imports_no_beam(defects: Path) -> None:
    absent = {"apache_beam", "pandas", "librosa", "numba"}
    code = (
        "import sys\n"
        "from melmill.__main__ import main\n"
        f"sys.argv[1:] = ['check', {str(defects / 'sound.flac')!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        f"    print(end.code, *({absent!r} & {{*sys.modules}}), file=sys.stderr)\n"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert completed.stderr == "0\n"


def test_a_dataset_is_checked_by_its_readings(tmp_path: Path) -> None:
    songs, dataset = tmp_path / "songs", tmp_path / "set"
    write(songs / "good.wav", music(4.0))
    write(songs / "bad.wav", np.clip(12 * music(4.0), -1, 1))
    (songs / "broken.wav").write_bytes(b"RIFF1234WAVE")
    extract_here(songs, dataset, "limits.max_failure_ratio=1")
    of_files = check_json(songs, status=1)
    (songs / "good.wav").unlink()  # nothing is decoded
    of_dataset = check_json(dataset, status=1)
    assert of_dataset.keys() == of_files.keys() == {"good.wav", "bad.wav", "broken.wav"}
    for name, result in of_dataset.items():
        assert {**result, "uri": ""} == {**of_files[name], "uri": ""}, name
    lines = check(dataset).stdout
    assert "clipped: clipping.share" in lines
    assert "3 recordings, profile training: 1 pass, 2 fail" in lines


def test_a_dataset_is_checked_after_the_advice_was_taken(tmp_path: Path) -> None:
    songs, dataset = tmp_path / "songs", tmp_path / "set"
    write(songs / "mix.wav", stereo_tone(-23), 48_000)
    extract_here(songs, dataset)
    refused = check(dataset, "--profile", "ebu_r128")
    assert refused.returncode == 2
    assert "quality: basic, which does not measure loudness.integrated" in refused.stderr
    assert "run melmill refresh with --set quality=full" in refused.stderr
    refresh_here(songs, dataset, "quality=full")
    passed = check(dataset, "--profile", "ebu_r128")
    assert (passed.returncode, passed.stdout[:4]) == (0, "pass")


@pytest.mark.slow
def test_recordings_without_readings_are_named(tmp_path: Path) -> None:
    songs, dataset = tmp_path / "songs", tmp_path / "set"
    write(songs / "mix.wav", music(4.0))
    write(songs / "short.wav", music(0.5))
    extract_here(songs, dataset, "quality=off", "chunk.short=drop")
    refused = check(dataset)
    assert refused.returncode == 2
    assert "run melmill refresh with --set quality=basic" in refused.stderr
    refresh_here(songs, dataset, "quality=basic")
    results = check_json(dataset, status=1)
    (finding,) = results["short.wav"]["findings"]
    assert finding["cause"] == "not_measured"
    assert "no chunk" in finding["reason"]
    assert results["mix.wav"]["findings"] == []
