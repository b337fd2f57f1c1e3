"""How a recording is decoded, as one word that its probe decides on and every read obeys.

The word is a library's name, ``libsndfile`` or ``pyav``, and what is special: ``+mended``
where the library is given pieces of the file instead of the file (see
:class:`~melmill.transforms.decode.claims.Header`), ``+partial`` where only the frames before a
damage are read.
"""

from __future__ import annotations

_MENDED, _PARTIAL = "+mended", "+partial"


def library(decoder: str) -> str:
    """Name the library that decodes.

    >>> library("pyav+mended")
    'pyav'
    """
    return decoder.partition("+")[0]


def mended(decoder: str) -> str:
    """Name a decoder that is given pieces of the file."""
    return decoder + _MENDED


def partial(decoder: str) -> str:
    """Name a decoder that does not read all of the recording."""
    return decoder if is_partial(decoder) else decoder + _PARTIAL


def is_mended(decoder: str) -> bool:
    """Tell whether a decoder is given pieces of the file."""
    return _MENDED in decoder


def is_partial(decoder: str) -> bool:
    """Tell whether a decoder does not read all of the recording."""
    return _PARTIAL in decoder
