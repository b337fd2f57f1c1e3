"""A proxy before a store's server: it counts, delays, fails and forgets on request.

It also speaks for fake-gcs-server what Delta's client asks of Google Cloud Storage: the
upload of the XML API, ``PUT /bucket/object`` under ``x-goog-if-generation-match``, which is
handed on as the upload of the JSON API under the same condition. And it lets listings begin where
Delta's client wants them to (``start-after``, on Azure ``startFrom``), which fake-gcs-server and
Azurite overlook.
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

#: Headers of one connection, which are not handed on.
_OWN = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade"})
#: What this proxy's own client would add.
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True)
class Asked:
    """A request as it came, and what became of it."""

    method: str
    path: str
    range: str
    status: int
    sent: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request.

    Attributes
    ----------
    kind
        ``status``, ``reset`` (no answer, the connection ends), ``half`` (of the answer, then
        the connection ends), or ``stall`` (no answer for so many seconds, then it ends).
    status, code
        For ``status``: the HTTP status, and the store's word for it.
    seconds
        For ``stall``.
    """

    kind: str
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0.0


@dataclass
class Gateway:
    """What a running gateway does, and what it has seen; to be changed at any time.

    Attributes
    ----------
    endpoint
        Its own URL.
    target
        The server's.
    latency_s
        How long each request waits.
    make_room
        Called with an object's path before an upload that is conditional on its absence is
        handed on. (Requests to S3 and Azure are signed, their conditions with them; those to
        Google are stripped of it.)
    fault
        Says for a request, as method and path, what goes wrong with it.
    asked
        Every request so far.
    """

    endpoint: str
    target: str
    latency_s: float = 0.0
    make_room: Callable[[str], None] | None = None
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    asked: list[Asked] = field(default_factory=list)

    def reads(self, name: str) -> list[Asked]:
        """The requests for an object's bytes."""
        return [one for one in self.asked if one.method == "GET" and one.path.endswith(name)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read()
        await asyncio.sleep(self.latency_s)
        fault = self.fault(request.method, request.path)
        if fault and fault.kind == "status":
            return self._remember(request, _refusal(fault))
        if fault and fault.kind in ("reset", "stall"):
            await asyncio.sleep(fault.seconds)
            _abort(request)
            return self._remember(request, web.Response(status=500))
        status, headers, content = await self._forward(request, body)
        if fault and fault.kind == "half":
            return await self._half(request, status, headers, content)
        response = web.Response(status=status, headers=headers, body=content)
        return self._remember(request, response)

    async def _forward(self, request: web.Request, body: bytes) -> tuple[int, Any, bytes]:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in _OWN
        }
        method, path = request.method, request.raw_path
        if self.make_room and method in ("PUT", "POST"):
            path = re.sub(r"&ifGenerationMatch=0", "", path)
            if any(name.lower() == "if-none-match" for name in headers):
                await asyncio.to_thread(self.make_room, request.path)
        if _is_google(headers):
            method, path = _translated(method, path, headers)
            # It answers requests of the XML API by its own name alone, and signs nothing.
            headers = {name: value for name, value in headers.items() if name.lower() != "host"}
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=_OURS) as session,
            session.request(
                method,
                URL(self.target + path, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as answer,
        ):
            kept = [(n, v) for n, v in answer.headers.items() if n.lower() not in _OWN]
            content = await answer.read()
            if after := _start_of_listing(request):
                content = _listed_after(content, after)
                kept = [(n, v) for n, v in kept if n.lower() != "content-length"]
            if method != request.method and answer.status == 200:
                kept, content = [("ETag", f'"{json.loads(content)["etag"]}"')], b""
            return answer.status, kept, content

    async def _half(
        self, request: web.Request, status: int, headers: Any, content: bytes
    ) -> web.StreamResponse:
        if not content:  # half of such an answer is none
            _abort(request)
            return self._remember(request, web.Response(status=500))
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        self._remember(request, web.Response(status=status))
        _abort(request)
        return response

    def _remember(self, request: web.Request, response: web.Response) -> web.Response:
        body = response.body if isinstance(response.body, bytes) else b""
        ranged = request.headers.get("Range") or request.headers.get("x-ms-range", "")
        seen = Asked(request.method, request.path, ranged, response.status, len(body))
        self.asked.append(seen)
        return response


def _is_google(headers: dict[str, str]) -> bool:
    return not any(name.lower().startswith(("x-amz-", "x-ms-")) for name in headers)


def _translated(method: str, path: str, headers: dict[str, str]) -> tuple[str, str]:
    """Turn an upload of the XML API into one of the JSON API."""
    if method != "PUT" or path.startswith(("/storage/", "/upload/")):
        return method, path
    bucket, _, name = path.partition("?")[0].lstrip("/").partition("/")
    conditions = [v for n, v in headers.items() if n.lower() == "x-goog-if-generation-match"]
    condition = f"&ifGenerationMatch={conditions[0]}" if conditions else ""
    return "POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{condition}"


def _start_of_listing(request: web.Request) -> str | None:
    google = _is_google(dict(request.headers))
    return request.query.get("start-after" if google else "startFrom")


def _listed_after(listing: bytes, name: str) -> bytes:
    """Leave out of a listing what comes before a name."""

    def kept(found: re.Match[bytes]) -> bytes:
        return found[0] if html.unescape(found[2].decode()) > name else b""

    entry = rb"<(Contents|Blob)><(?:Key|Name)>(.*?)</(?:Key|Name)>.*?</\1>"
    return re.sub(entry, kept, listing, flags=re.DOTALL)


def _refusal(fault: Fault) -> web.Response:
    # S3's form; the others' clients go by the status and their header alone.
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
    """Run a gateway in a process of its own: Delta's client keeps this one's threads waiting."""
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
