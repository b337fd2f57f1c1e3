"""Security of the web application: only a browser that knows the token, on this machine, gets in.

Another web site that a person visits can send requests to servers on this machine. So each request
needs the secret cookie, which browsers do not send for other sites (``SameSite=Strict``), and the
right ``Host``, which a name that was bound to this machine's address (DNS rebinding) does not have.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Headers of every answer. Scripts, pictures and sound come from this server alone; plotly.js
#: writes styles into the page.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        [
            *("default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'"),
            *("img-src 'self' data: blob:", "media-src 'self' blob:", "connect-src 'self'"),
            *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
        ]
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_OWN_SITE = ("same-origin", "none")
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Guard:
    """Middleware that answers only requests of the person who started the application.

    Attributes
    ----------
    app
        Application to protect.
    port
        Port of the server.
    token
        Secret that stands in the printed address.
    """

    app: ASGIApp
    port: int
    token: str

    @property
    def hosts(self) -> tuple[str, ...]:
        """Values of the header ``Host`` that are right."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies do not depend on the port, so the name has it."""
        return f"melmill-{self.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(Request(scope))
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let through; None for the others."""
        own = [f"http://{host}" for host in self.hosts]
        if request.headers.get("host") not in self.hosts:
            return _refuse(f"open {own[0]}: this server has no other name", 421)
        if request.headers.get("sec-fetch-site", "none") not in _OWN_SITE:
            return _refuse("requests from other web sites are refused", 403)
        if request.method not in _READING and request.headers.get("origin") not in own:
            return _refuse("requests from other web sites are refused", 403)
        token = request.query_params.get("token")
        if token is not None and self._is_right(token):
            return self._let_in(request)
        if not self._is_right(request.cookies.get(self.cookie, "")):
            return _refuse("open the address that melmill explore printed: it has a token", 403)
        return None

    def _is_right(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _let_in(self, request: Request) -> Response:
        """Set the cookie, and lead to the address without the token."""
        rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        query = f"?{urlencode(rest)}" if rest else ""
        # The path has one slash at its start: two would lead to another host.
        answer = RedirectResponse(f"/{request.url.path.lstrip('/')}{query}", 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return answer


def _refuse(message: str, status: int) -> Response:
    return PlainTextResponse(f"melmill: {message}\n", status)
