"""Reads of byte ranges from a fixed version of an object, with one request per range.

fsspec's files ask for an object's details before its bytes, and not all of them stay with
the same version. Here each request names the version, so it needs no request before or
after it.
"""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync

from melmill.transforms.store.filesystems import protocol_of
from melmill.transforms.store.read_ahead import ReadRange


def range_reader(filesystem: Any, path: str, fingerprint: str) -> ReadRange | None:
    """Return a function that reads ranges of a fixed version of an object.

    Parameters
    ----------
    filesystem, path
        fsspec filesystem, and the object's path in it.
    fingerprint
        Fingerprint of the version; see
        :func:`~melmill.transforms.store.objects.fingerprint_of`.

    Returns
    -------
    callable or None
        Function that passes on the errors of the store's client: HTTP status 412 or, on
        Google's store, 404 if the version is gone. ``None`` if requests to the store cannot
        name a version.
    """
    kind, _, rest = fingerprint.partition(":")
    bind = _BINDERS.get((protocol_of(filesystem), kind))
    return _check_length(bind(filesystem, path, rest.rpartition(":")[0])) if bind else None


def _check_length(read: ReadRange) -> ReadRange:
    """Raise an error for an incomplete answer; not every client does."""

    def read_all(start: int, stop: int) -> bytes:
        content = read(start, stop)
        if len(content) != stop - start:
            raise ConnectionError(
                f"the store sent {len(content)} bytes for the range {start} to {stop}"
            )
        return content

    return read_all


def _s3(filesystem: Any, path: str, etag: str) -> ReadRange:
    bucket, key, _ = filesystem.split_path(path)

    def read(start: int, stop: int) -> bytes:
        reply = filesystem.call_s3(
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={start}-{stop - 1}",
            IfMatch=f'"{etag}"',
            **filesystem.req_kw,
        )
        content: bytes = sync(filesystem.loop, reply["Body"].read)
        return content

    return read


def _gcs(filesystem: Any, path: str, generation: str) -> ReadRange:
    url = filesystem.url(path)

    def read(start: int, stop: int) -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        _, content = filesystem.call("GET", url, generation=generation, headers=headers)
        return bytes(content)

    return read


def _azure(filesystem: Any, path: str, etag: str) -> ReadRange:
    from azure.core import MatchConditions

    container, name, _ = filesystem.split_path(path)
    blob = filesystem.service_client.get_blob_client(container, name)
    version = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
    timeouts = filesystem._timeout_kwargs

    async def download(start: int, stop: int) -> bytes:
        stream = await blob.download_blob(offset=start, length=stop - start, **version, **timeouts)
        content: bytes = await stream.readall()
        return content

    def read(start: int, stop: int) -> bytes:
        content: bytes = sync(filesystem.loop, download, start, stop)
        return content

    return read


_BINDERS = {("s3", "etag"): _s3, ("gs", "generation"): _gcs, ("abfs", "etag"): _azure}
