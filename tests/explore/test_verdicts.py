"""Verdicts: the file that keeps them, and what is done with it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import polars
import pytest
from starlette.testclient import TestClient

from melmill.pipelines.explore.filters import ALWAYS
from melmill.pipelines.explore.server import create_app
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.transforms.core.errors import ConfigError
from tests.explore.conftest import make_recordings, open_explorer
from tests.pipeline_runs import extract_here, refresh_here

SAME_SITE = {"Origin": "http://127.0.0.1:8000"}


def test_the_last_verdict_of_a_recording_counts(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "verdicts.csv")
    verdicts.judge("a", "songs/a.wav", "ok")
    verdicts.judge("b", "songs/b.wav", "ok", 'a, "quoted"\nnote')
    verdicts.judge("a", "songs/a.wav", "reject")
    again = Verdicts(tmp_path / "verdicts.csv").read()
    assert {key: (v.verdict, v.note) for key, v in again.items()} == {
        "a": ("reject", ""),
        "b": ("ok", 'a, "quoted"\nnote'),
    }
    verdicts.withdraw("a")
    assert [*verdicts.read()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["verdicts.csv"]


def test_a_table_that_a_spreadsheet_has_stored_is_read(tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    Verdicts(file).judge("a", "a.wav", "ok")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert [*Verdicts(file).read()] == ["a"]


def test_processes_that_judge_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from melmill.pipelines.explore.verdicts import Verdicts; v = Verdicts(Path('v.csv')); "
        "[v.judge(f'{sys.argv[1]}{n}', 'x.wav', 'ok') for n in range(40)]"
    )
    judges = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "abc"]
    assert [judge.wait() for judge in judges] == [0, 0, 0]
    assert len(Verdicts(tmp_path / "v.csv").read()) == 120


def test_hundreds_of_recordings_may_be_put_off(client: TestClient) -> None:
    skipped = [("skip", str(number)) for number in range(400)]
    assert client.get("/verdicts/queue", params=skipped).status_code == 200


def test_verdicts_of_an_earlier_session_can_be_filtered(
    dataset: Path, tmp_path: Path, ids: dict[str, str]
) -> None:
    Verdicts(tmp_path / "verdicts.csv").judge(ids["good.flac"], "good.flac", "reject")
    with closing(open_explorer(dataset, tmp_path)) as explorer:
        client = TestClient(create_app(explorer))
        assert "good.flac" in client.get("/recordings?verdict=reject").text
        Verdicts(tmp_path / "verdicts.csv").judge(ids["silent.wav"], "silent.wav", "ok")
        assert "silent.wav" in client.get("/recordings?verdict=ok").text


def test_requests_at_once_are_all_answered(client: TestClient, ids: dict[str, str]) -> None:
    def ask(number: int) -> int:
        recording_id = [*ids.values()][number % len(ids)]
        body = {"verdict": "ok" if number % 2 else "reject"}
        posted = client.post(f"/verdicts/{recording_id}", json=body, headers=SAME_SITE)
        return max(posted.status_code, client.get("/verdicts/queue").status_code)

    with ThreadPoolExecutor(6) as pool:
        assert {*pool.map(ask, range(40))} == {200}


def test_two_explorers_keep_each_others_verdicts(tmp_path: Path) -> None:
    first, second = Verdicts(tmp_path / "v.csv"), Verdicts(tmp_path / "v.csv")
    first.judge("a", "a.wav", "ok")
    second.judge("b", "b.wav", "reject")
    assert {*first.read()} == {"a", "b"}


@pytest.mark.parametrize("content", ["uri,genre\na.wav,rock\n", "", "\x00\x01", "\xff"])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "v.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="choose another file, which need not exist"):
        Verdicts(file)
    assert file.read_bytes() == content.encode("latin-1")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder /"):
        Verdicts(tmp_path / "nowhere" / "v.csv")


def test_a_verdict_that_cannot_be_stored_is_not_taken_for_stored(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "v.csv")
    verdicts.path = tmp_path / "gone" / "v.csv"
    with pytest.raises(ConfigError, match="cannot be written"):
        verdicts.judge("a", "a.wav", "ok")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"verdict": "maybe"}, "must be ok or reject"),
        ({"verdict": "ok", "note": "x" * 1001}, "has 1001 characters"),
        ({"verdict": "ok", "note": chr(0xD800)}, "characters that are no text"),
        ({"verdict": 1}, "must be JSON"),
        (["ok"], "must be JSON"),
    ],
)
def test_a_wrong_verdict_is_refused(
    client: TestClient, ids: dict[str, str], body: object, message: str
) -> None:
    headers = {**SAME_SITE, "Accept": "application/json"}
    content = json.dumps(body)
    answer = client.post(f"/verdicts/{ids['good.flac']}", content=content, headers=headers)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_judged_recording_leaves_the_queue_and_can_be_filtered(
    client: TestClient, ids: dict[str, str]
) -> None:
    def queued() -> set[str]:
        answer = client.get("/verdicts/queue?defect=any").json()
        return {Path(recording["uri"]).name for recording in answer["recordings"]}

    assert queued() >= {"clipped.wav", "silent.wav"}
    body = {"verdict": "reject", "note": "harsh"}
    address = f"/verdicts/{ids['clipped.wav']}"
    assert client.post(address, json=body, headers=SAME_SITE).json() == {"verdicts": 1}
    assert "clipped.wav" not in queued()
    assert "clipped.wav" in client.get("/recordings?verdict=reject").text
    assert client.get(address).json()["note"] == "harsh"
    client.post(address, json={"verdict": ""}, headers=SAME_SITE)
    assert "clipped.wav" in queued()


def test_the_next_refresh_leaves_out_what_was_rejected(tmp_path: Path) -> None:
    catalogue = make_recordings(tmp_path / "songs")
    settings = ["limits.max_failure_ratio=0.5", "chunk.seconds=2"]
    extract_here(catalogue, tmp_path / "dataset", *settings)
    with closing(open_explorer(tmp_path / "dataset", tmp_path)) as explorer:
        client = TestClient(create_app(explorer))
        rows = explorer.table.all_rows(ALWAYS, "uri", ["recording_id", "uri"])
        for recording_id, uri in list(rows):
            word = "reject" if uri.endswith("clipped.wav") else "ok"
            client.post(f"/verdicts/{recording_id}", json={"verdict": word})
        rejected = tmp_path / "rejected.csv"
        rejected.write_text(client.get("/verdicts/rejected.csv").text)
    refresh_here(catalogue, tmp_path / "dataset", *settings, f"catalogue.exclude={rejected}")
    uris = {Path(uri).name for uri in polars.read_delta(str(tmp_path / "dataset"))["uri"]}
    assert "clipped.wav" not in uris
    assert "good.flac" in uris
