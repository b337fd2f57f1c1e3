"""Retries of requests to stores: transient errors are retried, lasting errors are reported.

Only exceptions of stores are handled, that is of the operating system and of the client
libraries below fsspec. Any other exception is a programming error and passes through.
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
_LASTING_ERRNOS = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ESPIPE, errno.EBADMSG}
)
_FORBIDDEN_STATUSES = frozenset({401, 403})
#: A store answers so if it gets too many requests or is too slow.
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
#: 412: precondition failed; 409: AWS got two conditional requests at the same moment.
_CONFLICTS = frozenset({409, 412})
#: The client packages below fsspec; their exceptions may not derive from OSError.
_CLIENTS = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google"}
    | {"huggingface_hub", "httpx", "obstore", "paramiko", "requests", "s3fs", "urllib3"}
)
#: Their exceptions for missing credentials, by name: not every client is installed.
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
    | {"ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError"}
    | {"DefaultCredentialsError", "RefreshError", "CredentialUnavailableError"}
)


def insist(ask: Callable[[], _Result]) -> _Result:
    """Return the result of a request to a store, and retry transient errors.

    A lasting error, and the error of the last attempt, are raised unchanged.
    """
    try:
        return ask()
    except Exception as error:
        if not is_transient(error):
            raise
        first_error: list[Exception] = [error]

    def retry() -> _Result:
        if first_error:
            raise first_error.pop()  # the call above was the first attempt
        return ask()

    return RETRYING(retry)


def patiently(ask: Callable[[], _Result]) -> _Result:
    """Return the result of a request for a recording's bytes, and retry transient errors.

    Raises
    ------
    RecordingError
        With the stage ``read``: the error is lasting, or all attempts failed.
    """
    try:
        return insist(ask)
    except Exception as error:
        if not is_store_error(error):
            raise
        raise describe_store_error(error) from error


def is_store_error(error: BaseException) -> bool:
    """Return whether an exception comes from a store and is not a programming error.

    Examples
    --------
    >>> is_store_error(ConnectionResetError()), is_store_error(TypeError())
    (True, False)
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not packages.isdisjoint(_CLIENTS)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may help.

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
    if is_forbidden(error):
        return False
    return status is None or status >= 500 or status in _TRANSIENT_STATUSES


def is_conflict(error: BaseException) -> bool:
    """Return whether a file was not created because it exists or another writer creates it."""
    return isinstance(error, FileExistsError) or _status(error) in _CONFLICTS


def is_missing(error: BaseException) -> bool:
    """Return whether the file or its bucket does not exist."""
    return isinstance(error, _NOT_FOUND) or _status(error) == 404


def describe_store_error(error: BaseException) -> RecordingError:
    """Return the RecordingError for an error of a store."""
    if isinstance(error, _NOT_FOUND):
        cause = Cause.NOT_FOUND
    elif is_forbidden(error):
        cause = Cause.PERMISSION_DENIED
    elif is_conflict(error):
        cause = Cause.CHANGED
    elif getattr(error, "errno", None) == errno.EBADMSG:
        cause = Cause.CORRUPT
    else:
        cause = Cause.STORAGE_ERROR
    # Not str(error): it repeats the path, which UTF-8 may not be able to encode.
    message = getattr(error, "strerror", None) or " ".join(map(str, error.args))
    return RecordingError(Stage.READ, cause, f"{type(error).__name__}: {message}")


def explain(error: BaseException) -> str:
    """Return the message for an error of a store, with what the user can do, if anything.

    Examples
    --------
    >>> explain(PermissionError("Forbidden"))
    'permission denied (Forbidden); check the credentials and what they allow'
    """
    text = str(error).strip().partition("\n")[0]
    if _lacks_credentials(error):
        return f"no credentials ({text}); set them in the way that the store's own tools use"
    if not is_forbidden(error):
        return text or type(error).__name__
    if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM):
        return "permission denied"  # for a local file
    if code := _code(error):
        text = text if code in text else f"{code}: {text}"
    problem = "the credentials have expired" if "Expired" in text else "permission denied"
    return f"{problem} ({text}); check the credentials and what they allow"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes: s3fs raises its own exceptions from botocore's."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _lacks_credentials(error: BaseException) -> bool:
    return any(kind.__name__ in _NO_CREDENTIALS for kind in type(error).__mro__)


def is_forbidden(error: BaseException) -> bool:
    """Return whether a store refused a request for lack of permission."""
    # gcsfs has neither a class nor a status for this error.
    is_gcsfs = type(error) is OSError and str(error).startswith("Forbidden: ")
    return is_gcsfs or isinstance(error, PermissionError) or _status(error) in _FORBIDDEN_STATUSES


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in a client's exception; each client stores it elsewhere."""
    for cause in _chain(error):
        if type(cause).__module__ == "aiohttp.http_exceptions":
            continue  # aiohttp sets 400 for an incomplete answer; the store did not send it
        response = getattr(cause, "response", None)
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for status in (
            metadata.get("HTTPStatusCode"),
            *(getattr(cause, name, None) for name in ("status", "status_code", "code")),
        ):
            if isinstance(status, int):
                return status
    return None


def _code(error: BaseException) -> str:
    """Return the store's own code for an error; ``""`` if there is none."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if code := getattr(cause, "error_code", None):
            return str(getattr(code, "value", code))
    return ""


#: Three retries: after up to half a second, then up to one second, then up to two.
RETRYING = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(4),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
    retry=tenacity.retry_if_exception(is_transient),
    reraise=True,
)
