"""The filesystem of a store, and its errors in words for the user."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from melmill.transforms.core.errors import CatalogueError, UnavailableError, UserError
from melmill.transforms.store.retries import explain, is_store_error, is_transient

#: Options of a store as pairs: they can be pickled and compared.
StorageOptions = tuple[tuple[str, Any], ...]

#: The extra of melmill to install for a URL's scheme.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
}


#: Read timeout of a store in seconds, after which a request is retried. s3fs has its own, 15;
#: other clients wait for minutes or for ever.
SILENCE_SECONDS = 60
_GOOGLE = {"requests_timeout": SILENCE_SECONDS}
_AZURE = {"read_timeout": SILENCE_SECONDS, "connection_timeout": 10}
_TIMEOUTS = {"gs": _GOOGLE, "gcs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE, "az": _AZURE}


def open_filesystem(
    uri: str, options: StorageOptions, error: type[UserError] = CatalogueError
) -> tuple[Any, str]:
    """Return the filesystem of an absolute path or URL, and the path in the filesystem.

    Listings are never cached: a run sees the present content.

    Raises
    ------
    UserError
        With the type `error`: the URL's scheme is unknown, its package is not installed, or
        the options do not fit the filesystem.
    """
    if "://" not in uri:
        # Not url_to_fs: a plain path may contain "::", which url_to_fs takes for a chain.
        filesystem = fsspec.filesystem("file", **{"use_listings_cache": False, **dict(options)})
        return filesystem, filesystem._strip_protocol(uri)
    # In a chain the options would reach only one of the filesystems, which may not know them.
    is_single = "::" not in uri
    timeouts = _TIMEOUTS.get(uri.partition("://")[0].lower(), {}) if is_single else {}
    no_cache = {"use_listings_cache": False} if is_single else {}
    try:
        filesystem, path = fsspec.url_to_fs(uri, **{**no_cache, **timeouts, **dict(options)})
    except ImportError as missing:
        extra = _EXTRAS.get(uri.partition("://")[0].lower())
        hint = f"; pip install 'melmill[{extra}]'" if extra else ""
        raise error(f"{uri} cannot be opened: {missing}{hint}") from missing
    except Exception as cause:
        if not isinstance(cause, (ValueError, TypeError)) and not is_store_error(cause):
            raise
        kind = UnavailableError if is_transient(cause) else error
        raise kind(f"{uri} cannot be opened: {explain(cause)}") from cause
    return filesystem, path


def absolute_path(path: str) -> str:
    """Return the absolute form of a local path, which does not depend on the working directory.

    >>> absolute_path("/data/../songs")
    '/data/../songs'
    """
    local = Path(path)
    return str((local.expanduser() if path.startswith("~/") else local).absolute())


def protocol_of(filesystem: Any) -> str:
    """Return the name of a filesystem's protocol: ``s3``, ``gs``, ``abfs``, ``file``…"""
    protocol = filesystem.protocol
    first = protocol if isinstance(protocol, str) else protocol[0]
    return {"gcs": "gs", "s3a": "s3", "az": "abfs", "abfss": "abfs"}.get(first, first)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn errors of a store, and errors in a file's content, into a ``CatalogueError``."""
    try:
        yield
    except FileNotFoundError as error:
        raise CatalogueError(f"{uri} does not exist") from error
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{uri} is not UTF-8 text ({error}); save it as UTF-8") from error
    except Exception as error:
        is_damaged = isinstance(error, (EOFError, zlib.error, pa.ArrowInvalid))
        if not is_damaged and not is_store_error(error):
            raise
        kind = UnavailableError if is_transient(error) and not is_damaged else CatalogueError
        raise kind(f"{uri} cannot be read: {explain(error)}") from error
