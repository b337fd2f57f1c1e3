r"""Local paths as people write them: ``~``, backslashes, drive letters, ``file:`` URLs, accents.

A path that exists is used as it is. Otherwise its other spellings are tried, and the first one that
exists is used. So nothing is guessed, and a path with odd characters keeps its meaning. Names in
object stores are used unchanged: there each of these characters may belong to a name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import resolve_uri
from melmill.transforms.store.archives import (
    COMPRESSED_TAR,
    is_compressed_tar,
    plain_name,
    split_member,
)
from melmill.transforms.store.objects import StoredObject

_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(?=[/~]|[A-Za-z]:)", re.IGNORECASE)
#: What a path with another spelling holds somewhere, or begins with.
_ODD = re.compile(r"^~|^file:|^/?[A-Za-z]:[\\/]|\\|[^\x00-\x7f]", re.IGNORECASE)
_DRIVE = re.compile(r"/?([A-Za-z]):(?=[\\/])")

#: Largest number of spellings that a message names.
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Resolved:
    """A URI of a table, made absolute.

    Attributes
    ----------
    absolute, relative
        Absolute URI, and the URI relative to the root.
    fault
        Message that says which spellings were tried, if no file has any of them; else ``""``.
    """

    absolute: str
    relative: str
    fault: str = ""


def resolve_spelling(root: str, uri: str) -> Resolved:
    """Return the absolute URI for a URI in a table; a local file may be spelled otherwise.

    Parameters
    ----------
    root
        Directory at which relative URIs start.
    uri
        URI in the table.

    Raises
    ------
    CatalogueError
        If ``..`` leads out of the store.
    """
    literal = Resolved(*resolve_uri(root, uri))
    if "#" in uri:
        literal = _of_member(literal)
    if literal.fault:
        return literal
    # Nearly all rows have only one spelling; this test skips the others.
    if not _ODD.search(uri):
        return literal
    is_local = _path(literal.absolute) is not None
    others = other_spellings(uri) if is_local else []
    if not others or _exists(literal.absolute):
        return literal
    tried = [literal.absolute]
    for other in others:
        try:
            resolved = Resolved(*resolve_uri(root, other))
        except CatalogueError:
            continue  # this spelling climbs out of the store, so it names no file of it
        if _exists(resolved.absolute):
            return resolved
        tried.append(resolved.absolute)
    return Resolved(literal.absolute, literal.relative, tried_message(uri, tried))


def _of_member(resolved: Resolved) -> Resolved:
    """Return a URI with the plain name of its member; members of compressed files are a fault."""
    absolute = resolved.absolute
    if is_compressed_tar(absolute) and not _exists(absolute):
        archive = resolved.relative.partition("#")[0]
        fault = f"{archive!r} {COMPRESSED_TAR}"
        return Resolved(absolute, resolved.relative, fault)
    named = split_member(absolute)
    if named is None or (plain := plain_name(named[1])) == named[1]:
        return resolved
    archives = (text.removesuffix(named[1]) for text in (absolute, resolved.relative))
    return Resolved(*(archive + plain for archive in archives))


def other_spellings(uri: str) -> list[str]:
    r"""Return the other spellings of a path; none for a path without odd characters.

    Examples
    --------
    >>> other_spellings("rock/a.wav"), other_spellings("rock\\a.wav")
    ([], ['rock/a.wav'])
    >>> other_spellings("C:\\songs\\a.wav")
    ['C:/songs/a.wav', '/mnt/c\\songs\\a.wav', '/mnt/c/songs/a.wav']
    >>> other_spellings("file:///songs/a%20b.wav")
    ['/songs/a%20b.wav', '/songs/a b.wav']
    """
    if not _ODD.search(uri):
        return []
    spellings = [uri]
    for respell in _RESPELLINGS:
        spellings += [respell(known) for known in spellings]
    return list(dict.fromkeys(other for other in spellings if other != uri and _is_whole(other)))


def tried_message(uri: str, tried: list[str]) -> str:
    """Return the message for a path that exists in none of its spellings."""
    shown = ", ".join(map(repr, dict.fromkeys(tried[:_SHOWN])))
    drive = "; a path of Windows needs catalogue.root and relative paths" if _drive(uri) else ""
    return f"{uri!r} names no file; tried: {shown}{drive}"


def _without_scheme(path: str) -> str:
    return _FILE_URL.sub("", path, count=1) if _FILE_URL.match(path) else path


def _decoded(path: str) -> str:
    # Only in URLs does % begin an escape; their scheme was removed in another spelling.
    return _without_scheme(unquote(path)) if _FILE_URL.match(path) else path


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def _mounted(path: str) -> str:
    """Return a path of Windows as Linux beside it sees it."""
    return _DRIVE.sub(lambda found: f"/mnt/{found[1].lower()}", path, count=1)


def _at_home(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - the path is used literally


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _decomposed(path: str) -> str:
    return unicodedata.normalize("NFD", path)


_RESPELLINGS: tuple[Callable[[str], str], ...] = (
    *(_without_scheme, _decoded, _with_slashes),
    *(lambda path: _mounted(path) if _drive(path) else path, _at_home, _composed, _decomposed),
)


def _drive(path: str) -> bool:
    return _DRIVE.match(path) is not None


def _is_whole(path: str) -> bool:
    """Return whether a spelling can name a file: it is not empty and holds no zero character."""
    return bool(path) and "\0" not in path


def _path(uri: str) -> str | None:
    return StoredObject(uri).local_path


def _exists(uri: str) -> bool:
    path = _path(uri)
    return path is not None and os.path.exists(path)  # noqa: PTH110 - the path is used literally
