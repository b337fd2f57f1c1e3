"""Patience with stores: what fails for a moment is asked again, what lasts is reported.

Only exceptions of stores are handled, that is of the operating system and of the client
libraries below fsspec. Anything else is a programming error and passes through.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TypeVar

import tenacity

from melmill.transforms.core.errors import Cause, RecordingError, Stage

_Result = TypeVar("_Result")

_NOT_FOUND = (FileNotFoundError, NotADirectoryError)
_LASTING = (*_NOT_FOUND, FileExistsError, PermissionError, IsADirectoryError)
_LASTING_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ESPIPE})
_FORBIDDEN_STATUSES = frozenset({401, 403})
#: What a store says when it is asked too often, or too slow itself.
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
#: Precondition failed, and AWS's word for two such requests at the same moment.
_CONFLICTS = frozenset({409, 412})
#: The clients below fsspec, whose exceptions need not be kin of OSError.
_CLIENTS = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google"}
    | {"huggingface_hub", "httpx", "obstore", "paramiko", "requests", "s3fs", "urllib3"}
)
#: Their exceptions of a user without credentials, by name: not every client is installed.
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
    | {"ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError"}
    | {"DefaultCredentialsError", "RefreshError", "CredentialUnavailableError"}
)


def insist(ask: Callable[[], _Result]) -> _Result:
    """Ask a store for something, again and again while it fails for a moment.

    What it fails with in the end, or lastingly, is raised as it is.
    """
    try:
        return ask()
    except Exception as error:
        if not is_transient(error):
            raise
        failed: list[Exception] = [error]

    def ask_again() -> _Result:
        if failed:
            raise failed.pop()  # the first attempt was that above
        return ask()

    return RETRYING(ask_again)


def patiently(ask: Callable[[], _Result]) -> _Result:
    """Insist on something that a recording's bytes depend on.

    Raises
    ------
    RecordingError
        Stage ``read``, when it fails lastingly or too often.
    """
    try:
        return insist(ask)
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
    if not is_store_error(error) or isinstance(error, _LASTING):
        return False
    if getattr(error, "errno", None) in _LASTING_ERRNOS or _lacks_credentials(error):
        return False
    status = _status(error)
    if _is_forbidden(error):
        return False
    return status is None or status >= 500 or status in _TRANSIENT_STATUSES


def is_conflict(error: BaseException) -> bool:
    """Whether a file was not created because it exists, or is being created by somebody."""
    return isinstance(error, FileExistsError) or _status(error) in _CONFLICTS


def is_missing(error: BaseException) -> bool:
    """Whether there is no such file, or no bucket for it."""
    return isinstance(error, _NOT_FOUND) or _status(error) == 404


def describe_store_error(error: BaseException) -> RecordingError:
    """Say in the project's words what went wrong with a store."""
    if isinstance(error, _NOT_FOUND):
        cause = Cause.NOT_FOUND
    elif _is_forbidden(error):
        cause = Cause.PERMISSION_DENIED
    elif is_conflict(error):
        cause = Cause.CHANGED
    else:
        cause = Cause.STORAGE_ERROR
    # Not str(error): it repeats the path, which need not even be encodable.
    said = getattr(error, "strerror", None) or " ".join(map(str, error.args))
    return RecordingError(Stage.READ, cause, f"{type(error).__name__}: {said}")


def explain(error: BaseException) -> str:
    """Say what went wrong with a store, and what to do where its user can do something.

    Examples
    --------
    >>> explain(PermissionError("Forbidden"))
    'permission denied (Forbidden); check the credentials and what they allow'
    """
    said = str(error).strip().partition("\n")[0]
    if _lacks_credentials(error):
        return f"no credentials ({said}); give them as the store's own tools take them"
    if not _is_forbidden(error):
        return said or type(error).__name__
    if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
        return "permission denied"  # a local file's
    if code := _code(error):
        said = said if code in said else f"{code}: {said}"
    what = "the credentials have expired" if "Expired" in said else "permission denied"
    return f"{what} ({said}); check the credentials and what they allow"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an exception and what it was made from: s3fs makes its own of botocore's."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__


def _lacks_credentials(error: BaseException) -> bool:
    return any(kind.__name__ in _NO_CREDENTIALS for kind in type(error).__mro__)


def _is_forbidden(error: BaseException) -> bool:
    # gcsfs has neither a class nor a status for it.
    by_word = type(error) is OSError and str(error).startswith("Forbidden: ")
    return by_word or isinstance(error, PermissionError) or _status(error) in _FORBIDDEN_STATUSES


def _status(error: BaseException) -> int | None:
    """Find the HTTP status that a client's exception carries, under whatever name."""
    for one in _chain(error):
        if type(one).__module__ == "aiohttp.http_exceptions":
            continue  # 400 for an answer that breaks off, which no store gave
        response = getattr(one, "response", None)
        known = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for status in (
            known.get("HTTPStatusCode"),
            *(getattr(one, name, None) for name in ("status", "status_code", "code")),
        ):
            if isinstance(status, int):
                return status
    return None


def _code(error: BaseException) -> str:
    """Find the store's own word for an error."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if word := getattr(one, "error_code", None):
            return str(getattr(word, "value", word))
    return ""


#: Three attempts after the first: up to half a second, then one, then two later.
RETRYING = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(4),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
    retry=tenacity.retry_if_exception(is_transient),
    reraise=True,
)
