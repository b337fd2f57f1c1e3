"""The folder of a view: the mark of the export that may write there, and its record in the dataset.

The mark is in the folder while the export runs. Only the same export may continue it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store, absolute_uri
from melmill.transforms.store.own_files import is_own, remove_own
from melmill.transforms.views.exports import ExportJob
from melmill.transforms.views.written_exports import ExportRecord, write_export_record

_MARK = "staging/export.json"


def claim_output(job: ExportJob) -> None:
    """Check that the folder is empty or holds an interrupted run of this export; mark it.

    Raises
    ------
    DatasetError
        The folder holds something else, or another export, or cannot be written.
    """
    store = job.output
    settings = {"format": job.format, "name": job.name, "normalize": job.normalize}
    settings |= {"select": job.select} if job.select else {}
    settings |= {"publish_root": job.publish_root} if job.publish_root else {}
    mark = json.dumps({"index": job.index, **settings}).encode()
    try:
        if store.size(_MARK) is not None:
            if store.read(_MARK) == mark:
                return
            raise DatasetError(
                f"output {store.root}: holds an unfinished export of another snapshot, or with "
                "another name, format, normalisation, selection or publish_root; remove the "
                "folder, or choose another"
            )
        if (foreign := next(_foreign(store), None)) is not None:
            raise DatasetError(
                f"output {store.root}: holds something else ({foreign}); "
                "choose an empty or new folder"
            )
        store.put(_MARK, mark)
    except OSError as error:
        raise DatasetError(f"output {store.root}: cannot be written: {error}") from error


def _foreign(store: Store) -> Iterator[str]:
    # A run that was killed before it wrote its mark may have left scratch files: ignore them.
    return (name for name in store.names() if not is_own(name))


def record_output(job: ExportJob, version: int) -> None:
    """Record the view's location in the dataset, so that a takedown can list it."""
    output = absolute_uri(job.output.root)
    record = ExportRecord(output, job.format, version, job.index)
    try:
        write_export_record(job.dataset, record)
    except DatasetError as error:
        message = "%s: this export cannot be recorded, so no takedown will list it: %s"
        logging.getLogger("melmill").warning(message, job.dataset.root, error)


def release_output(job: ExportJob) -> None:
    """Remove the mark and the working files of a finished export."""
    job.output.remove(_MARK)
    remove_own(job.output, "staging")
