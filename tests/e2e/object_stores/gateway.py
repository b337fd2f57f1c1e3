"""A proxy in front of a store's server. It records requests and, if a test wants, makes faults.

It also makes up for two things that the servers lack. Delta's client uploads to Google Cloud
Storage with the XML API: ``PUT /bucket/object`` with ``x-goog-if-generation-match``. The proxy
passes this to fake-gcs-server as an upload of the JSON API with the same condition. Delta's client
also asks for listings that begin at a name (``start-after``, on Azure ``startFrom``), which
fake-gcs-server and Azurite ignore. The proxy then removes the earlier entries.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

#: Headers of a single connection, which the proxy does not pass on.
_CONNECTION_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade"})
#: Headers that the proxy's own client would add.
_CLIENT_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True)
class RecordedRequest:
    """A request and the outcome: the answer's status, and the number of bytes sent."""

    method: str
    path: str
    range: str
    status: int
    sent_bytes: int


@dataclass(frozen=True)
class Fault:
    """A fault that the gateway makes in a request.

    Attributes
    ----------
    kind
        ``status`` (the answer is an error), ``reset`` (the connection ends without an answer),
        ``half`` (the connection ends after half of the answer), or ``stall`` (the connection ends
        without an answer, after a wait).
    status, code
        For ``status``: the HTTP status and the store's error code.
    seconds
        For ``stall``: the length of the wait.
    """

    kind: str
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0.0


@dataclass
class Gateway:
    """The settings and the requests of a running gateway. Tests may change them at any time.

    Attributes
    ----------
    endpoint
        URL of the gateway.
    target
        URL of the server.
    latency_s
        Seconds that each request waits.
    make_room
        Function that deletes the object at a path. The gateway calls it before it passes on an
        upload that must not overwrite an object. (The signatures of S3 and Azure include this
        condition, so the gateway cannot remove it. For Google, the gateway removes it.)
    fault
        Function that returns the fault, or None, for a request's method and path.
    requests
        All requests so far.
    """

    endpoint: str
    target: str
    latency_s: float = 0.0
    make_room: Callable[[str], None] | None = None
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    requests: list[RecordedRequest] = field(default_factory=list)

    def reads(self, name: str) -> list[RecordedRequest]:
        """Return the requests for an object's bytes."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.path.endswith(name)
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read()
        await asyncio.sleep(self.latency_s)
        fault = self.fault(request.method, request.path)
        if fault and fault.kind == "status":
            return self._record(request, _refusal(fault))
        if fault and fault.kind in ("reset", "stall"):
            await asyncio.sleep(fault.seconds)
            _abort(request)
            return self._record(request, web.Response(status=500))
        status, headers, content = await self._forward(request, body)
        if fault and fault.kind == "half":
            return await self._half(request, status, headers, content)
        response = web.Response(status=status, headers=headers, body=content)
        return self._record(request, response)

    async def _forward(self, request: web.Request, body: bytes) -> tuple[int, Any, bytes]:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _CONNECTION_HEADERS
        }
        method, path = request.method, request.raw_path
        if self.make_room and method in ("PUT", "POST"):
            path = re.sub(r"&ifGenerationMatch=0", "", path)
            if any(name.lower() == "if-none-match" for name in headers):
                await asyncio.to_thread(self.make_room, request.path)
        if _is_google(headers):
            method, path = _translate(method, path, headers)
            # fake-gcs-server answers the XML API only under its own host name; nothing is signed.
            headers = {name: value for name, value in headers.items() if name.lower() != "host"}
        async with (
            aiohttp.ClientSession(
                auto_decompress=False, skip_auto_headers=_CLIENT_HEADERS
            ) as session,
            session.request(
                method,
                URL(self.target + path, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as answer,
        ):
            answer_headers = [
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _CONNECTION_HEADERS
            ]
            content = await answer.read()
            if start := _start_of_listing(request):
                content = _entries_after(content, start)
                answer_headers = [
                    (name, value)
                    for name, value in answer_headers
                    if name.lower() != "content-length"
                ]
            if method != request.method and answer.status == 200:
                answer_headers, content = [("ETag", f'"{json.loads(content)["etag"]}"')], b""
            return answer.status, answer_headers, content

    async def _half(
        self, request: web.Request, status: int, headers: Any, content: bytes
    ) -> web.StreamResponse:
        if not content:  # there is no half of an empty answer
            _abort(request)
            return self._record(request, web.Response(status=500))
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        self._record(request, web.Response(status=status))
        _abort(request)
        return response

    def _record(self, request: web.Request, response: web.Response) -> web.Response:
        body = response.body if isinstance(response.body, bytes) else b""
        ranged = request.headers.get("Range") or request.headers.get("x-ms-range", "")
        recorded = RecordedRequest(request.method, request.path, ranged, response.status, len(body))
        self.requests.append(recorded)
        return response


def _is_google(headers: dict[str, str]) -> bool:
    return not any(name.lower().startswith(("x-amz-", "x-ms-")) for name in headers)


def _translate(method: str, path: str, headers: dict[str, str]) -> tuple[str, str]:
    """Translate an upload of the XML API into an upload of the JSON API."""
    if method != "PUT" or path.startswith(("/storage/", "/upload/")):
        return method, path
    bucket, _, name = path.partition("?")[0].lstrip("/").partition("/")
    conditions = [
        value for key, value in headers.items() if key.lower() == "x-goog-if-generation-match"
    ]
    condition = f"&ifGenerationMatch={conditions[0]}" if conditions else ""
    return "POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{condition}"


def _start_of_listing(request: web.Request) -> str | None:
    google = _is_google(dict(request.headers))
    return request.query.get("start-after" if google else "startFrom")


def _entries_after(listing: bytes, name: str) -> bytes:
    """Return a listing without the entries up to a name."""

    def keep(match: re.Match[bytes]) -> bytes:
        return match[0] if html.unescape(match[2].decode()) > name else b""

    entry = rb"<(Contents|Blob)><(?:Key|Name)>(.*?)</(?:Key|Name)>.*?</\1>"
    return re.sub(entry, keep, listing, flags=re.DOTALL)


def _refusal(fault: Fault) -> web.Response:
    # This is S3's form. The other clients look only at the status and their own header.
    text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>made</Message></Error>"
    headers = {"x-ms-error-code": fault.code, "Content-Type": "application/xml"}
    return web.Response(status=fault.status, text=text, headers=headers)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@contextmanager
def gateway_to(target: str) -> Iterator[Gateway]:
    """Run a gateway in a thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[Gateway, web.AppRunner]:
        gateway = Gateway("", target)
        server = web.Application(client_max_size=2**30)
        server.router.add_route("*", "/{path:.*}", gateway.handle)
        runner = web.AppRunner(server, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gateway.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return gateway, runner

    gateway, runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield gateway
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def process_to(target: str, latency_s: float = 0.0) -> Iterator[str]:
    """Run a gateway in its own process, because Delta's client blocks this process's threads."""
    command = [sys.executable, "-m", "tests.e2e.object_stores.gateway", target, f"{latency_s}"]
    root = Path(__file__).parents[3]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    with gateway_to(sys.argv[1]) as started:
        started.latency_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
        print(started.endpoint, flush=True)
        threading.Event().wait()
