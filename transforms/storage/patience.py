"""Patience with stores: what fails for a moment is asked again, what lasts is reported.

Only exceptions of stores are handled, that is of the operating system and of the client
libraries below fsspec. Anything else is a programming error and passes through.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import tenacity

from transforms.errors import Cause, RecordingError, Stage

_Result = TypeVar("_Result")

_NOT_FOUND = (FileNotFoundError, NotADirectoryError)
_LASTING = (*_NOT_FOUND, PermissionError, IsADirectoryError)
_LASTING_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ESPIPE})
_FORBIDDEN_STATUSES = frozenset({401, 403})
#: The clients below fsspec, whose exceptions need not be kin of OSError.
_CLIENTS = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google"}
    | {"huggingface_hub", "httpx", "obstore", "paramiko", "requests", "s3fs", "urllib3"}
)


def patiently(ask: Callable[[], _Result]) -> _Result:
    """Ask a store for something, again and again while it fails for a moment.

    Raises
    ------
    RecordingError
        Stage ``read``, when it fails lastingly or too often.
    """
    try:
        return ask()
    except Exception as error:
        if not is_store_error(error):
            raise
        first = error
    if not is_transient(first):
        raise describe_store_error(first) from first
    try:
        return RETRYING(ask)
    except Exception as error:
        if not is_store_error(error):
            raise
        raise describe_store_error(error) from error


def is_store_error(error: BaseException) -> bool:
    """Whether an exception is a store's, not a programming error.

    Examples
    --------
    >>> is_store_error(ConnectionResetError()), is_store_error(TypeError())
    (True, False)
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not packages.isdisjoint(_CLIENTS)


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help.

    Examples
    --------
    >>> is_transient(ConnectionResetError()), is_transient(FileNotFoundError())
    (True, False)
    """
    lasting = isinstance(error, _LASTING) or getattr(error, "errno", None) in _LASTING_ERRNOS
    return is_store_error(error) and not lasting and not _is_forbidden(error)


def describe_store_error(error: BaseException) -> RecordingError:
    """Say in the project's words what went wrong with a store."""
    if isinstance(error, _NOT_FOUND):
        cause = Cause.NOT_FOUND
    elif isinstance(error, PermissionError) or _is_forbidden(error):
        cause = Cause.PERMISSION_DENIED
    else:
        cause = Cause.STORAGE_ERROR
    # Not str(error): it repeats the path, which need not even be encodable.
    said = getattr(error, "strerror", None) or " ".join(map(str, error.args))
    return RecordingError(Stage.READ, cause, f"{type(error).__name__}: {said}")


def _is_forbidden(error: BaseException) -> bool:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return isinstance(status, int) and status in _FORBIDDEN_STATUSES


#: The attempts after the first: up to half a second, then one, then two later.
RETRYING = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
    retry=tenacity.retry_if_exception(is_transient),
    reraise=True,
)
