"""Decoder names: the probe chooses the decoder of a recording, and each read uses it.

A name is the name of a library, ``libsndfile`` or ``pyav``, with optional suffixes.
``+mended``: the library reads pieces instead of the file (see
:class:`~melmill.transforms.decode.claims.Header`). ``+partial``: only the frames before a
damage are read.
"""

from __future__ import annotations

_MENDED, _PARTIAL = "+mended", "+partial"


def library(decoder: str) -> str:
    """Return the name of the library that decodes.

    >>> library("pyav+mended")
    'pyav'
    """
    return decoder.partition("+")[0]


def mended(decoder: str) -> str:
    """Return the name of the same decoder, reading pieces instead of the file."""
    return decoder + _MENDED


def partial(decoder: str) -> str:
    """Return the name of the same decoder, reading only a part of the recording."""
    return decoder if is_partial(decoder) else decoder + _PARTIAL


def is_mended(decoder: str) -> bool:
    """Return whether a decoder reads pieces instead of the file."""
    return _MENDED in decoder


def is_partial(decoder: str) -> bool:
    """Return whether a decoder reads only a part of the recording."""
    return _PARTIAL in decoder
