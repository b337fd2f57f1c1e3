"""A recording's page, pictures and sound, as a browser gets them."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.server import create_app
from melmill.pipelines.sound.wav import to_pcm
from melmill.transforms.store.objects import StoredObject
from tests.explore.conftest import NASTY, RATE, open_explorer
from tests.pipeline_runs import extract_here
from tests.recordings import decode_all
from tests.signals import encode, noise, silence, song, tone, write_audio


def lines_of(client: TestClient, recording_id: str, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/recordings/{recording_id}/picture?{query}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def array(lines: list[dict[str, Any]], name: str, dtype: Any = np.float32) -> np.ndarray:
    parts = [line for line in lines if name in line]
    decoded = [np.frombuffer(base64.b64decode(part[name]), dtype) for part in parts]
    widths = [part["stop"] - part["first"] for part in parts]
    return np.concatenate(
        [values.reshape(-1, width) for values, width in zip(decoded, widths, strict=True)], axis=1
    )


def sound(client: TestClient, recording_id: str, query: str = "", **headers: str) -> Any:
    return client.get(f"/recordings/{recording_id}/sound.wav?{query}", headers=headers)


def source_of(explorer: Explorer, recording_id: str) -> StoredObject:
    return StoredObject(explorer.row_or_404(recording_id)["uri"])


@pytest.mark.parametrize("name", ["good.flac", "copy.mp3", "other.ogg", NASTY])
def test_the_sound_is_the_whole_decode(
    client: TestClient, explorer: Explorer, ids: dict[str, str], name: str
) -> None:
    answer = sound(client, ids[name])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.content[44:] == to_pcm(decode_all(source_of(explorer, ids[name])))
    assert soundfile.info(io.BytesIO(answer.content)).samplerate == RATE


def test_a_range_of_the_sound_is_answered_with_its_place(
    client: TestClient, ids: dict[str, str]
) -> None:
    whole = sound(client, ids["copy.mp3"])
    part = sound(client, ids["copy.mp3"], Range="bytes=1000-1999")
    assert part.status_code == 206
    assert part.content == whole.content[1000:2000]
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole.content)}"
    assert part.headers["etag"] == whole.headers["etag"]
    behind = sound(client, ids["copy.mp3"], Range="bytes=99999999-")
    assert (behind.status_code, behind.content) == (416, b"")
    assert behind.headers["content-range"] == f"bytes */{len(whole.content)}"


def test_a_range_of_another_version_of_the_sound_gives_all_of_it(
    client: TestClient, ids: dict[str, str]
) -> None:
    tag = sound(client, ids["good.flac"], Range="bytes=0-9").headers["etag"]
    for value, status in ((tag, 206), ('"another"', 200)):
        answer = sound(client, ids["good.flac"], **{"Range": "bytes=0-9", "If-Range": value})
        assert answer.status_code == status


def test_the_header_of_the_sound_can_be_asked_for(client: TestClient, ids: dict[str, str]) -> None:
    answer = client.head(f"/recordings/{ids['good.flac']}/sound.wav")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == 44 + 4 * 8 * RATE
    assert answer.headers["accept-ranges"] == "bytes"


def test_one_channel_is_heard_alone(
    client: TestClient, explorer: Explorer, ids: dict[str, str]
) -> None:
    heard = sound(client, ids["good.flac"], "channel=1").content[44:]
    assert heard == to_pcm(decode_all(source_of(explorer, ids["good.flac"]))[:, [1]])


def test_a_picture_comes_line_by_line(
    client: TestClient, explorer: Explorer, ids: dict[str, str]
) -> None:
    lines = lines_of(client, ids["good.flac"], "columns=50&bands=32")
    described, samples = lines[0], decode_all(source_of(explorer, ids["good.flac"]))
    assert (described["frames"], described["channels"], len(described["hz"])) == (8 * RATE, 2, 32)
    assert lines[-1] == {"done": True}
    assert np.allclose(array(lines, "maxima").max(axis=1), samples.max(axis=0))
    assert array(lines, "levels", np.uint8).shape == (32, 50)
    assert np.isfinite(array(lines, "short_term")).any()


def test_a_part_is_drawn_as_finely_as_wanted(
    client: TestClient, explorer: Explorer, ids: dict[str, str]
) -> None:
    lines = lines_of(client, ids["copy.mp3"], "start=20000&stop=20300&columns=4000&only=waveform")
    samples = decode_all(source_of(explorer, ids["copy.mp3"]))[20_000:20_300]
    assert np.array_equal(array(lines, "minima"), samples.T)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("start=x", "start: 'x': must be a whole number from 0 to"),
        ("start=9&stop=9", "stop: 9: must be after start, which is 9"),
        ("columns=4001", "columns: '4001': must be a whole number from 0 to 4000"),
        ("channel=2", "channel: '2': must be a whole number from 0 to 1"),
        ("scale=mel", "scale: 'mel': must be log or linear"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(
    client: TestClient, ids: dict[str, str], query: str, message: str
) -> None:
    answer = client.get(f"/recordings/{ids['good.flac']}/picture?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_part_of_the_sound_that_is_not_there_is_refused(
    client: TestClient, ids: dict[str, str]
) -> None:
    answer = sound(client, ids["good.flac"], "part=1")
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "part 1: the recording has the parts 0 to 0"},
    )


@pytest.mark.parametrize("path", ["", "/picture", "/sound.wav"])
@pytest.mark.parametrize("name", ["unknown", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd"])
def test_only_recordings_of_the_index_are_opened(client: TestClient, path: str, name: str) -> None:
    assert client.get(f"/recordings/{name}{path}").status_code == 404


def test_the_page_shows_defects_readings_and_duplicates(
    client: TestClient, ids: dict[str, str]
) -> None:
    page = client.get(f"/recordings/{ids['clipped.wav']}").text
    assert "clipping.share is" in page
    assert "breaks a limit" in page
    page = client.get(f"/recordings/{ids['good.flac']}").text
    assert f"/recordings/{ids['copy.mp3']}" in page
    assert "LUFS" in page


def test_a_name_with_html_is_text(client: TestClient, ids: dict[str, str]) -> None:
    page = client.get(f"/recordings/{ids[NASTY]}").text
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_failed_recording_says_why(client: TestClient, ids: dict[str, str]) -> None:
    assert "probe: unknown_format" in client.get(f"/recordings/{ids['broken.mp3']}").text
    answer = client.get(f"/recordings/{ids['broken.mp3']}/picture")
    assert answer.status_code == 502
    assert "FFmpeg" in answer.json()["error"]


@pytest.fixture(scope="module")
def hard_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of recordings that were damaged, removed or changed, or are unusual."""
    folder = tmp_path_factory.mktemp("hard")
    songs = folder / "songs"
    songs.mkdir()
    with_nan = song(2.0, RATE)
    with_nan[100] = np.nan
    damaged = bytearray(encode(noise(20.0, RATE), RATE, "flac"))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 2_000] = bytes(2_000)
    for name in ("damaged.flac", "deceptive.flac"):
        (songs / name).write_bytes(damaged)
    (songs / "cut.wav").write_bytes(encode(tone(440, 4.0, RATE), RATE, "wav")[:64_044])
    write_audio(songs / "nan.wav", with_nan, RATE, "wav_float")
    many = np.stack([tone(50 * (k + 1), 2.0, 8_000) for k in range(64)], axis=1)
    write_audio(songs / "many.wav", many, 8_000)
    write_audio(songs / "slow.wav", noise(3.0, 500), 500)
    for name in ("gone.wav", "changed.wav"):
        write_audio(songs / name, song(3.0, RATE, seed=len(name)), RATE)
    settings = ["quality=full", "limits.max_failure_ratio=0.9", "chunk.seconds=1"]
    extract_here(songs, folder / "dataset", *settings)
    (songs / "gone.wav").unlink()
    write_audio(songs / "changed.wav", song(5.0, RATE), RATE)
    return folder / "dataset"


@pytest.fixture(scope="module")
def hard(
    hard_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, str]]]:
    with (
        closing(open_explorer(hard_dataset, tmp_path_factory.mktemp("hard"))) as explorer,
        TestClient(create_app(explorer)) as client,
    ):
        rows = explorer.table.all_rows(
            explorer.table.condition(Filter()), "uri", ["uri", "recording_id"]
        )
        yield client, {Path(uri).name: recording_id for uri, recording_id in rows}


def test_a_recording_whose_source_is_gone_still_shows_its_readings(hard) -> None:
    client, ids = hard
    page = client.get(f"/recordings/{ids['gone.wav']}").text
    assert "LUFS" in page
    assert "rows of features" in page
    for path in ("picture", "sound.wav"):
        answer = client.get(f"/recordings/{ids['gone.wav']}/{path}")
        assert answer.status_code == 404
        assert "the source is gone: put it back" in answer.json()["error"]


def test_a_recording_that_was_changed_is_shown_as_it_is_now(hard) -> None:
    client, ids = hard
    described = lines_of(client, ids["changed.wav"])[0]
    assert described["frames"] == 5 * RATE
    assert "The file was changed" in described["notices"][0]


def test_a_damaged_recording_is_drawn_and_heard_up_to_the_damage(hard) -> None:
    client, ids = hard
    middle = 44 + 2 * 10 * RATE
    before = sound(client, ids["damaged.flac"], Range=f"bytes={middle - 4000}-{middle - 3000}")
    assert before.status_code == 206
    lines = lines_of(client, ids["damaged.flac"])
    assert lines[-1]["cause"] == "corrupt"
    assert 0.4 < array(lines, "maxima").shape[1] / lines[0]["columns"] < 0.6
    # Now the damage is known, so the sound ends there.
    intact = re.search(r"the first (\d+) frames are intact", lines[-1]["error"])
    heard = sound(client, ids["damaged.flac"])
    assert len(heard.content) == 44 + 2 * int(intact[1])
    assert heard.headers["etag"] != before.headers["etag"]


def test_a_damage_that_is_met_before_it_is_known_is_an_error(hard) -> None:
    client, ids = hard
    answer = sound(client, ids["deceptive.flac"], Range=f"bytes={44 + 10 * RATE}-")
    assert answer.status_code == 206
    assert len(answer.content) < int(answer.headers["content-length"])
    intact = len(answer.content) // 2
    start = 44 + 10 * RATE + 2 * intact
    answer = sound(client, ids["deceptive.flac"], Range=f"bytes={start}-{start + 99}")
    assert (answer.status_code, "intact" in answer.json()["error"]) == (502, True)


def test_what_is_left_of_a_truncated_recording_is_drawn(hard) -> None:
    client, ids = hard
    lines = lines_of(client, ids["cut.wav"])
    assert (lines[0]["frames"], lines[-1]) == (32_000, {"done": True})
    assert "Only a part of the file can be read" in lines[0]["notices"][0]


def test_nan_is_shown_and_heard_as_zero(hard) -> None:
    client, ids = hard
    lines = lines_of(client, ids["nan.wav"])
    assert lines[-2]["non_finite"] == 1
    heard = np.frombuffer(sound(client, ids["nan.wav"]).content[44:], "<i2")
    assert heard[100] == 0


def test_64_channels_are_drawn_apart_and_heard_together(hard) -> None:
    client, ids = hard
    lines = lines_of(client, ids["many.wav"], "columns=20&channel=63")
    assert array(lines, "maxima").shape == (64, 20)
    assert soundfile.info(io.BytesIO(sound(client, ids["many.wav"]).content)).channels == 1


def test_a_rate_that_browsers_refuse_is_heard_at_another(hard) -> None:
    client, ids = hard
    heard = soundfile.info(io.BytesIO(sound(client, ids["slow.wav"]).content))
    assert (heard.samplerate, heard.frames) == (8_000, 24_000)


def test_a_dataset_without_readings_says_how_to_measure(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    write_audio(songs / "a.wav", silence(2.0, RATE), RATE)
    extract_here(songs, tmp_path / "dataset", "quality=off", "chunk.seconds=1")
    with (
        closing(open_explorer(tmp_path / "dataset", tmp_path)) as explorer,
        TestClient(create_app(explorer)) as client,
    ):
        rows = list(
            explorer.table.all_rows(explorer.table.condition(Filter()), "uri", ["recording_id"])
        )
        page = client.get(f"/recordings/{rows[0][0]}").text
    assert "melmill refresh" in page
    assert "quality=full" in page
