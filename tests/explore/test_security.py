"""Security: who may read what."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.security import Guard
from melmill.pipelines.explore.server import create_app
from tests.explore.conftest import NASTY

PAGES = ["/", "/recordings", "/verdicts", "/compare", "/export/recordings.csv", "/assets/style.css"]


@pytest.fixture
def stranger(explorer: Explorer) -> TestClient:
    """Return a client without the token."""
    app = Guard(create_app(explorer), 8000, "secret")
    return TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_shown_without_the_token(stranger: TestClient, page: str) -> None:
    answer = stranger.get(page)
    assert answer.status_code == 403
    assert "open the address that melmill explore printed" in answer.text


@pytest.mark.parametrize("page", PAGES)
def test_everything_is_shown_with_it(client: TestClient, page: str) -> None:
    assert client.get(page).status_code == 200


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get("/recordings?codec=mp3&token=secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/recordings?codec=mp3")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert stranger.get(answer.headers["location"]).status_code == 200


@pytest.mark.parametrize("token", ["", "Secret", "secret2", "sécret"])
def test_a_wrong_token_is_refused(stranger: TestClient, token: str) -> None:
    assert stranger.get("/", params={"token": token}).status_code == 403
    answer = stranger.get("/", headers={"Cookie": f"melmill-8000={token}".encode()})
    assert answer.status_code == 403


def test_the_token_does_not_lead_to_another_host(stranger: TestClient) -> None:
    answer = stranger.get("http://127.0.0.1:8000//evil.example/?token=secret")
    assert not answer.headers.get("location", "/").startswith("//")


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "localhost", "[::1]:8000"]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_of_other_sites_are_refused(client: TestClient, site: str) -> None:
    assert client.get("/recordings", headers={"Sec-Fetch-Site": site}).status_code == 403


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1:8001"])
def test_other_sites_cannot_write(
    client: TestClient, ids: dict[str, str], origin: str | None
) -> None:
    headers = {"Origin": origin} if origin else {}
    address = f"/verdicts/{ids['good.flac']}"
    answer = client.post(address, json={"verdict": "reject"}, headers=headers)
    assert answer.status_code == 403
    assert client.get(address).json()["verdict"] == ""


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/server.py",
        "/assets//etc/passwd",
        "/recordings/..%2f..%2fetc%2fpasswd",
        "/recordings/%2Fetc%2Fpasswd",
        "/recordings/file:%2F%2F%2Fetc%2Fpasswd",
        "/verdicts/%2Fetc%2Fpasswd",
    ],
)
def test_no_address_leads_to_another_file(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_names_are_text_and_no_page_may_run_a_script_of_its_own(client: TestClient) -> None:
    answer = client.get("/recordings")
    assert NASTY.split("&")[0] not in answer.text
    assert "&lt;img src=x onerror=alert(1)&gt;" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "<script>" not in answer.text
