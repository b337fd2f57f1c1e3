"""The server of the web application: its addresses, its errors, and the socket."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from melmill.pipelines.explore import (
    chunk_pages,
    compare_pages,
    list_pages,
    overview_pages,
    recording_pages,
    verdict_pages,
)
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.recording_labels import LabelsNotReadError
from melmill.pipelines.explore.security import Guard
from melmill.transforms.core.errors import ConfigError, DatasetError, RecordingError, UserError

_HERE = Path(__file__).parent
#: Seconds for answers that are under way when the server is told to end.
_LAST_SECONDS = 1


def create_app(explorer: Explorer) -> Starlette:
    """Return the application without its guard."""

    def open_newest(request: Request) -> Response:
        explorer.open_newest()
        return RedirectResponse("/", 303)

    routes: list[BaseRoute] = [
        *overview_pages.routes(explorer),
        *list_pages.routes(explorer),
        *verdict_pages.routes(explorer),
        *compare_pages.routes(explorer),
        *recording_pages.routes(explorer),
        *chunk_pages.routes(explorer),
        Route("/open-newest", open_newest, methods=["POST"]),
        Route("/assets/plotly.min.js", _plotly),
        Mount("/assets", StaticFiles(directory=_HERE / "assets")),
    ]
    handlers: Mapping[Any, Callable[[Request, Any], Response]] = {
        LabelsNotReadError: lambda request, error: _error(
            explorer, request, str(error), 503, "wait.html"
        ),
        UserError: lambda request, error: _error(explorer, request, str(error), 400),
        DatasetError: lambda request, error: _error(explorer, request, str(error), 500),
        ConfigError: lambda request, error: _error(explorer, request, str(error), 400),
        RecordingError: lambda request, error: _error(explorer, request, str(error), 502),
        HTTPException: lambda request, error: _error(
            explorer, request, error.detail, error.status_code
        ),
    }
    return Starlette(routes=routes, exception_handlers=dict(handlers))


def _plotly(request: Request) -> Response:
    script = files("plotly") / "package_data" / "plotly.min.js"
    return FileResponse(str(script), headers={"Cache-Control": "max-age=86400"})


def _error(
    explorer: Explorer, request: Request, message: str, status: int, page: str = "error.html"
) -> Response:
    """Return what is wrong: as JSON for scripts, else as a page."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": message}, status)
    return explorer.page(request, page, status, message=message)


def serve(explorer: Explorer, port: int, announce: Callable[[str], None]) -> None:
    """Serve the application on this machine until it is interrupted.

    Parameters
    ----------
    explorer
        Dataset to show.
    port
        Port; 0 for a free one.
    announce
        Gets the address, with its token, when the server answers.

    Raises
    ------
    ConfigError
        The port is in use.
    """
    token = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        port = listener.getsockname()[1]
        app = Guard(create_app(explorer), port, token)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        server = uvicorn.Server(config)
        # What is cancelled at the end is no error to show.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        announce(f"http://127.0.0.1:{port}/?token={token}")
        server.run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            f"--port: {port}: {error.strerror}; choose another port, or 0 for a free one"
        ) from error
