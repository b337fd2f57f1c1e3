"""Stable digests, and the URIs of recordings.

A digest depends only on its parts: not on the process, the machine, or Python's hash
seed. Shard names, splits and orders are made from digests, so they stay the same when
a step is retried or the run is repeated.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from melmill.transforms.core.errors import CatalogueError

_DIGEST_BYTES = 16
_ABSOLUTE = re.compile(r"/|[A-Za-z][\w+.:-]*://", re.ASCII)


def digest(*parts: str | bytes) -> str:
    """Return the digest of a sequence of parts: 128 bits of BLAKE2b.

    Parameters
    ----------
    *parts
        Bytes, or text, which is encoded as UTF-8. The length of each part is hashed before
        the part, so that different sequences never give the same input to the hash.

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
        # With "surrogatepass", different texts give different bytes, even if they are not
        # well-formed.
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def fraction(*parts: str | bytes) -> float:
    """Return a number in [0, 1) that depends only on the parts, uniformly distributed.

    Splits compare the number with a threshold; seeded orders sort by it.

    Examples
    --------
    >>> fraction("seed 7", "songs/a.wav")
    0.3921553509292548
    >>> 0.0 <= fraction("anything") < 1.0
    True
    """
    # A float holds 53 bits exactly; more bits could round up to 1.0.
    return (int(digest(*parts), 16) >> (8 * _DIGEST_BYTES - 53)) / (1 << 53)


def shard_number(number: int, count: int) -> str:
    """Return a shard's number and the number of shards as text, as TFDS and Hugging Face do.

    >>> shard_number(7, 12), shard_number(7, 100_000)
    ('00007-of-00012', '000007-of-100000')
    """
    digits = max(5, len(str(count)))
    return f"{number:0{digits}}-of-{count:0{digits}}"


def bucket(key: str, n: int) -> int:
    """Return the number of the bucket, out of ``n``, that a key belongs to (uniform).

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
    relative_uri: str,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    utterance: str = "",
) -> str:
    """Return the id of a recording or of a segment; it does not depend on the catalogue's root.

    Segments with the same times are different if a manifest gives each its own `utterance`.

    Examples
    --------
    >>> recording_id("a.wav") == recording_id("a.wav", 0.0)
    False
    >>> recording_id("a.wav", 1) == recording_id("a.wav", 1.0)
    True
    """
    if start_seconds is None and end_seconds is None:
        return digest(relative_uri)
    own_name = [utterance] if utterance else []
    return digest(relative_uri, _seconds(start_seconds), _seconds(end_seconds), *own_name)


def _seconds(value: float | None) -> str:
    # Adding zero turns -0.0 into 0.0: both are the same position.
    return "" if value is None else repr(float(value) + 0.0)


def split_chain(uri: str) -> tuple[str, str]:
    """Split a chained URL into its first part, to which paths are added, and the rest.

    A plain path is never a chain, even if it contains ``::``.

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
    """Return the URI of a relative path below a root.

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
    """Return the absolute URI for a URI in a table, and the URI relative to the table.

    Paths that begin with ``/`` and URLs are used unchanged; anything else is relative
    to ``root``, with ``.`` and ``..`` resolved as text (as in a URL). Nothing is decoded.

    Parameters
    ----------
    root
        Directory of the table: an absolute path or a URL.
    uri
        URI in the table.

    Returns
    -------
    absolute, relative : str
        ``relative`` is the unchanged URI if it does not lie below ``root``.

    Raises
    ------
    CatalogueError
        If ``..`` leads out of the store.

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
    # Nearly all rows need no normalising; this test skips it.
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
    # The name after "://" is a bucket, a container or a host: nothing lies above it.
    if absolute.startswith("..") or (separator and absolute.split("/")[0] != path.split("/")[0]):
        raise CatalogueError(
            f"{relative!r} points outside the store of {root}; give the full URL instead"
        )
    return f"{scheme}{separator}{absolute}{chained}"


def number_of(number: float, noun: str) -> str:
    """Return a number with its noun, for messages.

    >>> number_of(1, "row"), number_of(12_345, "row")
    ('1 row', '12,345 rows')
    """
    return f"{number:,.0f} {noun}" + "s" * (round(number) != 1)


def shard_file(form: str, split: str, name: str) -> str:
    """Return the name of a shard's file in a format, relative to the dataset.

    >>> shard_file("parquet", "train", "5f"), shard_file("tfrecord", "train", "5f")
    ('split=train/part-5f.parquet', 'tfrecord/train/part-5f.tfrecord')
    """
    folder = f"split={split}" if form == "parquet" else f"tfrecord/{split}"
    return f"{folder}/part-{name}.{form}"
