"""Directories of a store, page by page: a page fits in memory, whatever the directory holds.

fsspec returns a directory as one list, with about a kilobyte for each file. Here, stores that list
their objects by pages are asked for one page after the other, with the clients of fsspec.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from fsspec.asyn import sync

from melmill.transforms.store.filesystems import protocol_of
from melmill.transforms.store.retries import is_missing

Details = dict[str, Any]

#: Files in a page of a local directory, which is sorted page by page.
_LOCAL_PAGE = 10_000


def directory_pages(filesystem: Any, path: str) -> Iterator[list[Details]]:
    """Yield the entries of a directory, as fsspec's ``ls`` with ``detail=True`` describes them.

    Parameters
    ----------
    filesystem
        fsspec filesystem.
    path
        Path of the directory on the filesystem.

    Yields
    ------
    list of dict
        Entries of a page, each with ``name``, ``type``, ``size`` and what tells its version. An
        object store gives its pages in the order of the names, and within a page the directories
        first. A file and a directory may have the same name. Stores of other kinds give one page.

    Raises
    ------
    FileNotFoundError
        The directory does not exist.
    """
    protocol = protocol_of(filesystem)
    if protocol == "file":
        yield from _local_pages(filesystem, path)
    elif (object_pages := _OBJECT_PAGES.get(protocol)) is None:
        yield filesystem.ls(path, detail=True)
    else:
        exists = "/" not in path.strip("/")  # a bucket may be empty, a directory is its objects
        for page in object_pages(filesystem, path, ""):
            exists = exists or bool(page)
            yield page
        if not exists and not filesystem.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def files_named(filesystem: Any, path: str, names: Sequence[str]) -> list[str]:
    """Return those of some names that are files in a directory, in the same order.

    An object store is asked once, for the beginning that the names have in common.
    """
    object_pages = _OBJECT_PAGES.get(protocol_of(filesystem))
    if object_pages is None:
        return [name for name in names if _is_file(filesystem, f"{path.rstrip('/')}/{name}")]
    letters = os.path.commonprefix(names)  # noqa: RUF071 -- of names, which are no paths
    pages = object_pages(filesystem, path, letters)
    entries = (entry for page in pages for entry in page if entry["type"] == "file")
    files = {entry["name"].rpartition("/")[2] for entry in entries}
    return [name for name in names if name in files]


def _is_file(filesystem: Any, path: str) -> bool:
    try:  # fsspec's own `isfile` takes any error of the store for an answer
        return bool(filesystem.info(path)["type"] != "directory")
    except (FileNotFoundError, NotADirectoryError):
        return False


def _local_pages(filesystem: Any, path: str) -> Iterator[list[Details]]:
    with os.scandir(path) as entries:
        while page := list(islice(entries, _LOCAL_PAGE)):
            yield [details for entry in page if (details := _local_details(filesystem, entry))]


def _local_details(filesystem: Any, entry: os.DirEntry[str]) -> Details | None:
    try:
        details: Details = filesystem.info(entry)
    except FileNotFoundError:
        return None  # the file was removed since the directory was read
    return details


def _s3_pages(filesystem: Any, path: str, beginning: str) -> Iterator[list[Details]]:
    bucket, key, _ = filesystem.split_path(path)
    prefix = _prefix(key) + beginning
    request = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/", **filesystem.req_kw}
    while True:
        page = filesystem.call_s3("list_objects_v2", **request)
        directories = [_directory(bucket, e["Prefix"]) for e in page.get("CommonPrefixes", ())]
        files = [_file(bucket, e["Key"], e["Size"], e) for e in page.get("Contents", ())]
        yield [*directories, *files]
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _gcs_pages(filesystem: Any, path: str, beginning: str) -> Iterator[list[Details]]:
    bucket, key, _ = filesystem.split_path(path)
    prefix = _prefix(key) + beginning or None
    token: str | None = ""
    while token is not None:
        request = {"prefix": prefix, "delimiter": "/", "pageToken": token or None}
        page = filesystem.call("GET", "b/{}/o", bucket, json_out=True, **request)
        files = [_file(bucket, e["name"], int(e.get("size", 0)), e) for e in page.get("items", ())]
        yield [*(_directory(bucket, prefix) for prefix in page.get("prefixes", ())), *files]
        token = page.get("nextPageToken")


def _azure_pages(filesystem: Any, path: str, beginning: str) -> Iterator[list[Details]]:
    container, key, _ = filesystem.split_path(path)
    client = filesystem.service_client.get_container_client(container)
    prefix, timeouts = _prefix(key) + beginning or None, filesystem._timeout_kwargs
    pages = client.walk_blobs(name_starts_with=prefix, include=["metadata"], **timeouts).by_page()
    while (page := sync(filesystem.loop, _next_page, pages)) is not None:
        yield [_azure_details(container, blob) for blob in page]


async def _next_page(pages: Any) -> list[Any] | None:
    try:
        return [blob async for blob in await pages.__anext__()]
    except StopAsyncIteration:
        return None
    except Exception as error:
        if is_missing(error):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise


def _azure_details(container: str, blob: Any) -> Details:
    metadata = {key.lower(): value for key, value in (blob.get("metadata") or {}).items()}
    is_folder = metadata.get("is_directory", metadata.get("hdi_isfolder")) == "true"
    if blob.name.endswith("/") or is_folder:
        return _directory(container, blob.name)
    return _file(container, blob.name, blob.size, {"etag": blob.etag})


def _prefix(key: str) -> str:
    return f"{key.rstrip('/')}/" if key else ""


def _file(bucket: str, key: str, size_bytes: int, details: Details) -> Details:
    return {**details, "name": f"{bucket}/{key}", "type": "file", "size": size_bytes}


def _directory(bucket: str, prefix: str) -> Details:
    return {"name": f"{bucket}/{prefix}", "type": "directory", "size": 0}


#: Functions of the filesystem, the directory, and the beginning of the names to list.
_OBJECT_PAGES: dict[str, Callable[[Any, str, str], Iterator[list[Details]]]] = {
    "s3": _s3_pages,
    "gs": _gcs_pages,
    "abfs": _azure_pages,
}
