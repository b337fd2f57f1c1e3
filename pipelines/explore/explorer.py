"""The dataset that is explored, and what all pages share."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from melmill.pipelines.explore import texts
from melmill.pipelines.explore.chunk_rows import ChunkReader
from melmill.pipelines.explore.filters import Filter, read_filter
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.pipelines.profiles import Profile
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import UserError
from melmill.transforms.snapshot.delta import read_snapshot
from melmill.transforms.store.filesystems import StorageOptions
from melmill.transforms.store.folders import Store

_HERE = Path(__file__).parent
#: Seconds after which the store is asked again for a newer version.
_VERSION_SECONDS = 10.0
#: Parameters of addresses that are no terms of a filter.
OTHER_PARAMETERS = ("sort", "page", "columns", "token", "skip")


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
    chunks
        Rows of the shards.
    resources
        What pages have opened; it is closed with the explorer.
    """

    store: Store
    profile: Profile
    source_options: StorageOptions
    folder: Path
    table: RecordingTable
    verdicts: Verdicts
    chunks: ChunkReader
    resources: ExitStack = field(default_factory=ExitStack)
    _checked: tuple[float, int] = (0.0, 0)
    _before: RecordingTable | None = None
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
        opened = OpenSnapshot.at(store, version)
        folder = Path(mkdtemp(prefix="melmill-explore-"))
        try:
            table = RecordingTable(opened, profile, folder)
            table.database.store_recordings()
            chunks = ChunkReader(store)
            return cls(store, profile, source_options, folder, table, verdicts, chunks)
        except BaseException:
            shutil.rmtree(folder)
            raise

    def close(self) -> None:
        """End processes, free memory, and remove the copies."""
        # A signal may come in between: the folder is removed all the same.
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for table in (self.table, self._before):
                if table is not None:
                    stack.callback(table.close)
            stack.callback(self.resources.close)

    @property
    def opened(self) -> OpenSnapshot:
        """Snapshot that is shown."""
        return self.table.opened

    def newest(self) -> int:
        """Return the version of the dataset's current snapshot, as it was seconds ago.

        If the store does not answer, it is the version that is shown.
        """
        now = time.monotonic()
        checked, version = self._checked
        if not checked or now - checked > _VERSION_SECONDS:
            try:
                snapshot = read_snapshot(self.store)
            except UserError:  # the pages go on with what this machine has
                snapshot = None
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
                # Requests that are under way read the table before this one.
                if self._before is not None:
                    self._before.close()
                self._before, self.table = self.table, table

    def table_of(self, version: int) -> RecordingTable:
        """Open the recordings of a version; the caller closes them."""
        opened = OpenSnapshot.past(self.store, version)
        return RecordingTable(opened, self.profile, self.folder)

    def filter(self, request: Request) -> Filter:
        """Return the filter in a request's address, after the verdicts have been read again."""
        with self._lock:
            self.table.show_verdicts(self.verdicts)
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
            "catalogue": self.opened.snapshot.catalogue,
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
