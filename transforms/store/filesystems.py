"""The way to a store: its filesystem, and its errors in the user's words."""

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

#: Options of a store, as pairs: a mapping that can travel and be compared.
StorageOptions = tuple[tuple[str, Any], ...]

#: What is to be installed for a URL's scheme.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
}


#: How long a store may keep silent before it is asked again, in seconds; s3fs has 15 by itself,
#: others wait for minutes or for ever.
SILENCE_SECONDS = 60
_GOOGLE = {"requests_timeout": SILENCE_SECONDS}
_AZURE = {"read_timeout": SILENCE_SECONDS, "connection_timeout": 10}
_PATIENCE = {"gs": _GOOGLE, "gcs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE, "az": _AZURE}


def open_filesystem(
    uri: str, options: StorageOptions, error: type[UserError] = CatalogueError
) -> tuple[Any, str]:
    """Find the filesystem of an absolute path or URL, and the path in it.

    Listings are never cached: a run sees what is there now.

    Raises
    ------
    UserError
        Of the kind `error`: the URL's scheme is unknown, what it needs is not installed, or
        the options do not suit it.
    """
    if "://" not in uri:
        # Not url_to_fs: a plain path may hold "::", which is a chain to it.
        filesystem = fsspec.filesystem("file", **{"use_listings_cache": False, **dict(options)})
        return filesystem, filesystem._strip_protocol(uri)
    # In a chain the option would reach one filesystem of several, and not each knows it.
    alone = "::" not in uri
    patience = _PATIENCE.get(uri.partition("://")[0].lower(), {}) if alone else {}
    fresh = {"use_listings_cache": False} if alone else {}
    try:
        filesystem, path = fsspec.url_to_fs(uri, **{**fresh, **patience, **dict(options)})
    except ImportError as missing:
        extra = _EXTRAS.get(uri.partition("://")[0].lower())
        hint = f"; pip install 'melmill[{extra}]'" if extra else ""
        raise error(f"{uri} cannot be opened: {missing}{hint}") from missing
    except Exception as wrong:
        if not isinstance(wrong, (ValueError, TypeError)) and not is_store_error(wrong):
            raise
        kind = UnavailableError if is_transient(wrong) else error
        raise kind(f"{uri} cannot be opened: {explain(wrong)}") from wrong
    return filesystem, path


def absolute_path(path: str) -> str:
    """Make a local path one that workers elsewhere understand, too.

    >>> absolute_path("/data/../songs")
    '/data/../songs'
    """
    named = Path(path)
    return str((named.expanduser() if path.startswith("~/") else named).absolute())


def protocol_of(filesystem: Any) -> str:
    """Give the first name of a filesystem's protocol: ``s3``, ``gs``, ``abfs``, ``file``…"""
    protocol = filesystem.protocol
    first = protocol if isinstance(protocol, str) else protocol[0]
    return {"gcs": "gs", "s3a": "s3", "az": "abfs", "abfss": "abfs"}.get(first, first)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn what goes wrong with a store, or with a file's bytes, into a ``CatalogueError``."""
    try:
        yield
    except FileNotFoundError as error:
        raise CatalogueError(f"{uri} does not exist") from error
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{uri} is not UTF-8 text ({error}); save it as UTF-8") from error
    except Exception as error:
        damaged = isinstance(error, (EOFError, zlib.error, pa.ArrowInvalid))
        if not damaged and not is_store_error(error):
            raise
        kind = UnavailableError if is_transient(error) and not damaged else CatalogueError
        raise kind(f"{uri} cannot be read: {explain(error)}") from error
