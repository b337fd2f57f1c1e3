"""The server of the web application: what all pages share, and the addresses."""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from melmill.pipelines.explore import texts
from melmill.pipelines.explore.filters import Filter, read_filter
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.pipelines.explore.security import Guard
from melmill.pipelines.explore.verdicts import Verdict, Verdicts
from melmill.pipelines.profiles import Profile
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError, DatasetError, RecordingError, UserError
from melmill.transforms.snapshot.delta import read_snapshot
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.folders import Store

_HERE = Path(__file__).parent
#: Seconds after which the store is asked again for a newer version.
_VERSION_SECONDS = 10.0
#: Seconds for answers that are under way when the server is told to end.
_LAST_SECONDS = 1
#: Parameters of addresses that are no terms of a filter.
OTHER_PARAMETERS = ("sort", "page", "columns", "token")


@dataclass
class Explorer:
    """A dataset that is explored.

    Attributes
    ----------
    store
        The dataset.
    profile
        Limits of measures; what breaks them is a defect.
    source_options
        fsspec options for the recordings' own store.
    folder
        Local folder for copies of files; the explorer owns it.
    table
        Recordings of the version that is shown.
    verdicts
        Verdicts of the person.
    resources
        What pages have opened; it is closed with the explorer.
    """

    store: Store
    profile: Profile
    source_options: StorageOptions
    folder: Path
    table: RecordingTable
    verdicts: Verdicts
    resources: ExitStack = field(default_factory=ExitStack)
    _checked: tuple[float, int] = (0.0, 0)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(
        cls,
        store: Store,
        profile: Profile,
        verdicts: Verdicts,
        source_options: StorageOptions = (),
        version: int | None = None,
    ) -> Explorer:
        """Open a dataset's current version, or an earlier one.

        Raises
        ------
        DatasetError
            There is no dataset, or no such version.
        """
        opened = (
            OpenSnapshot.current(store) if version is None else OpenSnapshot.past(store, version)
        )
        folder = Path(mkdtemp(prefix="melmill-explore-"))
        try:
            table = RecordingTable(opened, profile, folder)
            table.database.store_recordings()
            return cls(store, profile, source_options, folder, table, verdicts)
        except BaseException:
            shutil.rmtree(folder)
            raise

    def close(self) -> None:
        """End processes, free memory, and remove the copies."""
        self.resources.close()
        self.table.close()
        shutil.rmtree(self.folder)

    @property
    def opened(self) -> OpenSnapshot:
        """Snapshot that is shown."""
        return self.table.opened

    def newest(self) -> int:
        """Return the version of the dataset's current snapshot, as it was seconds ago."""
        now = time.monotonic()
        checked, version = self._checked
        if not version or now - checked > _VERSION_SECONDS:
            snapshot = read_snapshot(self.store)
            version = snapshot.version if snapshot else self.table.version
            self._checked = now, version
        return version

    def open_newest(self) -> None:
        """Show the dataset's current snapshot from now on."""
        with self._lock:
            opened = OpenSnapshot.current(self.store)
            if opened.snapshot.version != self.table.version:
                table = RecordingTable(opened, self.profile, self.folder)
                table.database.store_recordings()
                self.table = table

    def table_of(self, version: int) -> RecordingTable:
        """Open the recordings of a version; the caller closes them."""
        opened = OpenSnapshot.past(self.store, version)
        return RecordingTable(opened, self.profile, self.folder)

    def show_verdicts(self, verdicts: Mapping[str, Verdict]) -> None:
        """Let filters see the verdicts as they are now."""
        self.table.set_verdicts([(v.recording_id, v.verdict, v.note) for v in verdicts.values()])

    def filter(self, request: Request) -> Filter:
        """Return the filter in a request's address."""
        return read_filter(request.query_params.multi_items(), OTHER_PARAMETERS)

    def row_or_404(self, recording_id: str) -> dict[str, Any]:
        """Return all columns of a recording; the answer is 404 if the index does not have it."""
        row = self.table.recording(recording_id)
        if row is None:
            raise HTTPException(404, f"version {self.table.version} has no such recording")
        return row

    def page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        """Return a page: a template of ``pages/`` with values."""
        newest = self.newest()
        shared = {
            "explorer": self,
            "table": self.table,
            "dataset": self.store.root,
            "version": self.table.version,
            "newest": newest if newest > self.table.version else None,
            "path": request.url.path,
            "shown": values.get("shown", Filter()),
        }
        text = TEMPLATES.get_template(name).render({**shared, **values})
        return HTMLResponse(text, status)


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in texts.FILTERS:
        environment.filters[name] = getattr(texts, name)
    environment.filters["segment"] = lambda text: quote(str(text), safe="")
    return environment


TEMPLATES = _templates()


def address(path: str, shown: Filter, **others: object) -> str:
    """Return an address with a filter and other parameters; those that are None are left out."""
    terms = [*shown.terms, *((k, str(v)) for k, v in others.items() if v is not None)]
    query = Filter(tuple(terms)).query
    return f"{path}?{query}" if query else path


TEMPLATES.globals["address"] = address


def create_app(explorer: Explorer) -> Starlette:
    """Return the application without its guard."""
    from melmill.pipelines.explore import (
        chunk_pages,
        compare_pages,
        list_pages,
        overview_pages,
        recording_pages,
        verdict_pages,
    )

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


def _error(explorer: Explorer, request: Request, message: str, status: int) -> Response:
    """Return what is wrong: as JSON for scripts, else as a page."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": message}, status)
    return explorer.page(request, "error.html", status, message=message)


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
        announce(f"http://127.0.0.1:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            f"--port: {port}: {error.strerror}; choose another port, or 0 for a free one"
        ) from error


def names_of(fields: Iterable[Any]) -> list[str]:
    """Return the names of fields."""
    return [known.name for known in fields]
