"""Reading parts of an object in one version of it, a request for each part.

fsspec's files ask for an object's details before its bytes, and not all of them hold on to
one version. Here a request says which version it is for, so that nothing needs to be asked
before or after it.
"""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync

from melmill.transforms.store.filesystems import protocol_of
from melmill.transforms.store.read_ahead import ReadRange


def range_reader(filesystem: Any, path: str, fingerprint: str) -> ReadRange | None:
    """Bind a reader to one version of an object.

    Parameters
    ----------
    filesystem, path
        fsspec's.
    fingerprint
        Of the version; see :func:`~melmill.transforms.store.objects.fingerprint_of`.

    Returns
    -------
    callable or None
        Raises what the store's client raises: an HTTP status of 412 or, on Google's store, 404
        where the version is gone. ``None`` where the store cannot be asked for a version.
    """
    kind, _, rest = fingerprint.partition(":")
    bind = _BINDERS.get((protocol_of(filesystem), kind))
    return _whole_parts(bind(filesystem, path, rest.rpartition(":")[0])) if bind else None


def _whole_parts(read: ReadRange) -> ReadRange:
    """Notice an answer that breaks off, which not every client does."""

    def read_all(start: int, stop: int) -> bytes:
        content = read(start, stop)
        if len(content) != stop - start:
            raise ConnectionError(f"of bytes {start} to {stop} came {len(content)}")
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
        asked = {"Range": f"bytes={start}-{stop - 1}"}
        _, content = filesystem.call("GET", url, generation=generation, headers=asked)
        return bytes(content)

    return read


def _azure(filesystem: Any, path: str, etag: str) -> ReadRange:
    from azure.core import MatchConditions

    container, name, _ = filesystem.split_path(path)
    blob = filesystem.service_client.get_blob_client(container, name)
    version = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
    patience = filesystem._timeout_kwargs

    async def download(start: int, stop: int) -> bytes:
        stream = await blob.download_blob(offset=start, length=stop - start, **version, **patience)
        content: bytes = await stream.readall()
        return content

    def read(start: int, stop: int) -> bytes:
        content: bytes = sync(filesystem.loop, download, start, stop)
        return content

    return read


_BINDERS = {("s3", "etag"): _s3, ("gs", "generation"): _gcs, ("abfs", "etag"): _azure}
