"""The way to a store: its filesystem, and its errors in the user's words."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa

from transforms.errors import CatalogueError

#: Options of a store, as pairs: a mapping that can travel and be compared.
StorageOptions = tuple[tuple[str, Any], ...]


def open_filesystem(uri: str, options: StorageOptions) -> tuple[Any, str]:
    """Find the filesystem of an absolute path or URL, and the path in it.

    Listings are never cached: a run sees what is there now.

    Raises
    ------
    CatalogueError
        If the URL's scheme is unknown, or what it needs is not installed.
    """
    if "://" not in uri:
        # Not url_to_fs: a plain path may hold "::", which is a chain to it.
        return fsspec.filesystem("file", use_listings_cache=False), uri
    # In a chain the option would reach one filesystem of several, and not each knows it.
    fresh = {} if "::" in uri else {"use_listings_cache": False}
    try:
        filesystem, path = fsspec.url_to_fs(uri, **fresh, **dict(options))
    except (ValueError, ImportError) as error:
        raise CatalogueError(f"{uri} cannot be opened: {error}") from error
    return filesystem, path


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn what goes wrong with a store, or with a file's bytes, into a ``CatalogueError``."""
    try:
        yield
    except FileNotFoundError as error:
        raise CatalogueError(f"{uri} does not exist") from error
    except PermissionError as error:
        raise CatalogueError(f"{uri} cannot be read: permission denied") from error
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{uri} is not UTF-8 text ({error}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise CatalogueError(f"{uri} cannot be read: {error}") from error
