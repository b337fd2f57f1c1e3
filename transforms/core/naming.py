"""What things are called: stable digests, and the URIs that recordings go by.

A digest depends on nothing but its parts: not on the process, the machine, or Python's
hash seed. Shard names, splits and orders that come from it survive retries and reruns.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from melmill.transforms.core.errors import CatalogueError

_DIGEST_BYTES = 16
_ABSOLUTE = re.compile(r"/|[A-Za-z][\w+.:-]*://", re.ASCII)


def digest(*parts: str | bytes) -> str:
    """Name a sequence of parts by 128 bits of BLAKE2b.

    Parameters
    ----------
    *parts
        Text counts as its UTF-8 bytes. Each part is hashed behind its own length, so
        that no two different sequences look alike.

    Returns
    -------
    str
        32 lower-case hexadecimal digits.

    Examples
    --------
    >>> digest("songs/a.wav")
    '3c4d21cea7ea2d3bb4afe4f938cba39e'
    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        # "surrogatepass" keeps any text apart from any other, well-formed or not.
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def fraction(*parts: str | bytes) -> float:
    """Map parts to a number in [0, 1), uniformly and for ever the same.

    Splits compare it with a threshold; seeded orders sort by it.

    Examples
    --------
    >>> fraction("seed 7", "songs/a.wav")
    0.3921553509292548
    >>> 0.0 <= fraction("anything") < 1.0
    True
    """
    # 53 bits are what a float holds exactly: more would round up to 1.0.
    return (int(digest(*parts), 16) >> (8 * _DIGEST_BYTES - 53)) / (1 << 53)


def shard_number(number: int, count: int) -> str:
    """Number one of so many shards, as TFDS and Hugging Face do.

    >>> shard_number(7, 12), shard_number(7, 100_000)
    ('00007-of-00012', '000007-of-100000')
    """
    digits = max(5, len(str(count)))
    return f"{number:0{digits}}-of-{count:0{digits}}"


def bucket(key: str, n: int) -> int:
    """Map a key to one of ``n`` buckets, uniformly.

    Examples
    --------
    >>> bucket("songs/a.wav", 10)
    8

    Raises
    ------
    ValueError
        If ``n`` is not at least 1.
    """
    if n < 1:
        raise ValueError(f"there must be at least one bucket, not {n}")
    return int(digest(key), 16) % n


def recording_id(
    relative_uri: str, start_seconds: float | None = None, end_seconds: float | None = None
) -> str:
    """Name a recording, or one segment of it, wherever the catalogue's root lies.

    Examples
    --------
    >>> recording_id("a.wav") == recording_id("a.wav", 0.0)
    False
    >>> recording_id("a.wav", 1) == recording_id("a.wav", 1.0)
    True
    """
    if start_seconds is None and end_seconds is None:
        return digest(relative_uri)
    return digest(relative_uri, _seconds(start_seconds), _seconds(end_seconds))


def _seconds(value: float | None) -> str:
    # Adding zero turns -0.0 into 0.0, which is the same position.
    return "" if value is None else repr(float(value) + 0.0)


def split_chain(uri: str) -> tuple[str, str]:
    """Split a URL into the part that paths are added to, and what it is chained to.

    A plain path is never a chain, whatever its name.

    Examples
    --------
    >>> split_chain("zip://songs::s3://bucket/a.zip")
    ('zip://songs', '::s3://bucket/a.zip')
    >>> split_chain("/music/live::2024")
    ('/music/live::2024', '')
    """
    if "://" not in uri:
        return uri, ""
    head, separator, rest = uri.partition("::")
    return head, separator + rest


def join_uri(root: str, relative: str) -> str:
    """Name what lies at a relative path below a root.

    Examples
    --------
    >>> join_uri("s3://bucket/songs", "a b#1.wav")
    's3://bucket/songs/a b#1.wav'
    >>> join_uri("/", "a.wav")
    '/a.wav'
    """
    head, chained = split_chain(root)
    return f"{head}{'' if head.endswith('/') else '/'}{relative}{chained}"


def resolve_uri(root: str, uri: str) -> tuple[str, str]:
    """Find where a table's URI points, and what it is called relative to the table.

    Paths that begin with ``/`` and URLs are taken as they are; anything else is relative
    to ``root``, with ``.`` and ``..`` resolved as text (as in a URL). Nothing is decoded.

    Parameters
    ----------
    root
        The directory of the table: an absolute path or a URL.
    uri
        As the table gives it.

    Returns
    -------
    absolute, relative : str
        ``relative`` is the URI as given where it does not lie below ``root``.

    Raises
    ------
    CatalogueError
        If ``..`` climbs out of the store.

    Examples
    --------
    >>> resolve_uri("s3://bucket/songs", "./rock/a.wav")
    ('s3://bucket/songs/rock/a.wav', 'rock/a.wav')
    >>> resolve_uri("/data/tables", "../audio/a%20b.wav")
    ('/data/audio/a%20b.wav', '../audio/a%20b.wav')
    >>> resolve_uri("/data", "/data/a.wav"), resolve_uri("/data", "gs://bucket/a.wav")
    (('/data/a.wav', 'a.wav'), ('gs://bucket/a.wav', 'gs://bucket/a.wav'))
    """
    if _ABSOLUTE.match(uri):
        return uri, _below(root, uri)
    # The test spares nearly every row the work of normalising.
    relative = posixpath.normpath(uri) if "./" in uri or "//" in uri else uri
    if relative.startswith("../"):
        return _climb(root, relative), relative
    return join_uri(root, relative), relative


def _below(root: str, uri: str) -> str:
    head, chained = split_chain(root)
    prefix = head if head.endswith("/") else head + "/"
    if uri.startswith(prefix) and uri.endswith(chained):
        return uri[len(prefix) : len(uri) - len(chained)] or uri
    return uri


def _climb(root: str, relative: str) -> str:
    head, chained = split_chain(root)
    scheme, separator, path = head.rpartition("://")
    absolute = posixpath.normpath(f"{path}/{relative}")
    # What follows "://" is a bucket, a container or a host: no way leads above it.
    if absolute.startswith("..") or (separator and absolute.split("/")[0] != path.split("/")[0]):
        raise CatalogueError(f"{relative!r} climbs out of {root}; give the whole URL instead")
    return f"{scheme}{separator}{absolute}{chained}"
