"""The endpoint, region and credentials that fsspec's client uses for a store.

fsspec's filesystems read them from options, environment variables and profiles, in the usual
way of each cloud. They are passed on to Delta's own client, so that a user sets them only once.
"""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlsplit

from melmill.transforms.core.errors import UserError
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem, protocol_of
from melmill.transforms.store.retries import explain, is_store_error

_CONNECT_SECONDS = 5.0
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_PORTS = {"http": 80, "https": 443}


def require_reachable(uri: str, options: StorageOptions, error: type[UserError]) -> None:
    """Raise an error at once if a store's server does not answer; its client may try for minutes.

    Raises
    ------
    UserError
        With the type `error`: no server answers.
    """
    if "://" not in uri or "::" in uri:
        return
    filesystem, _ = open_filesystem(uri, options, error)
    try:
        endpoint = urlsplit(endpoint_of(filesystem) or "")
    except Exception as cause:
        if not is_store_error(cause):
            raise
        raise error(f"{uri} cannot be opened: {explain(cause)}") from cause
    if not endpoint.hostname or _is_proxied(endpoint.scheme, endpoint.hostname):
        return
    address = (endpoint.hostname, endpoint.port or _PORTS[endpoint.scheme])
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except OSError as refused:
        raise error(
            f"{uri}: no answer from {endpoint.scheme}://{endpoint.netloc} "
            f"({refused.strerror or refused}); check the endpoint and the network"
        ) from refused


def _is_proxied(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def endpoint_of(filesystem: Any) -> str | None:
    """Return the URL of a filesystem's server; ``None`` if it is not known."""
    match protocol_of(filesystem):
        case "s3":
            filesystem.connect()
            return str(filesystem.s3.meta.endpoint_url)
        case "gs":
            return str(filesystem._location)
        case "abfs":
            return str(filesystem.service_client.url)
    return None


def delta_options(filesystem: Any) -> dict[str, str]:
    """Return delta-rs's options for the store of an fsspec filesystem.

    The options hold the present credentials, which may expire: call this function again for
    each table that is opened.
    """
    options_by_protocol = {"s3": _s3_options, "gs": _gcs_options, "abfs": _azure_options}
    make_options = options_by_protocol.get(protocol_of(filesystem))
    return make_options(filesystem) if make_options else {}


def _s3_options(filesystem: Any) -> dict[str, str]:
    from fsspec.asyn import sync

    filesystem.connect()
    meta, settings = filesystem.s3.meta, filesystem.client_kwargs
    options = {"aws_region": settings.get("region_name") or meta.region_name or "us-east-1"}
    if not (urlsplit(meta.endpoint_url).hostname or "").endswith(_AMAZON):
        options |= _endpoint_options(meta.endpoint_url, "aws_endpoint_url", "aws_allow_http")
    if filesystem.anon:
        return {**options, "aws_skip_signature": "true"}
    keys = (
        filesystem.key or settings.get("aws_access_key_id"),
        filesystem.secret or settings.get("aws_secret_access_key"),
        filesystem.token or settings.get("aws_session_token"),
    )
    if not keys[0]:
        keys = sync(filesystem.loop, _session_keys, filesystem.session)
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return options | {name: key for name, key in zip(names, keys, strict=True) if key}


async def _session_keys(session: Any) -> tuple[str | None, str | None, str | None]:
    credentials = await session.get_credentials()
    if credentials is None:
        return None, None, None
    frozen = await credentials.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def _gcs_options(filesystem: Any) -> dict[str, str]:
    endpoint, login = filesystem._location, filesystem.credentials
    options = {}
    if not (urlsplit(endpoint).hostname or "").endswith(".googleapis.com"):
        options = _endpoint_options(endpoint, "google_base_url", "google_allow_http")
    if login.credentials is None:
        # google_skip_signature alone does not stop delta-rs from asking for a token.
        no_login = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        key = {"gcs_base_url": endpoint, "disable_oauth": True, **no_login}
        return {**options, "google_service_account_key": json.dumps(key)}
    if isinstance(login.token, dict):
        return {**options, "google_service_account_key": json.dumps(login.token)}
    if isinstance(login.token, str) and login.token.endswith(".json"):
        return {**options, "google_application_credentials": login.token}
    # Both clients look for application default credentials in the same places.
    return options


def _azure_options(filesystem: Any) -> dict[str, str]:
    service = filesystem.service_client
    url = urlsplit(service.url)
    options = {"azure_storage_account_name": service.account_name}
    if not (url.hostname or "").endswith(".windows.net"):
        endpoint = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
        options |= _endpoint_options(endpoint, "azure_storage_endpoint", "azure_allow_http")
    if url.query and "sig" in parse_qs(url.query):
        return {**options, "azure_storage_sas_token": url.query}
    if key := getattr(service.credential, "account_key", None):
        return {**options, "azure_storage_account_key": key}
    if filesystem.sync_credential is not None:
        token = filesystem.sync_credential.get_token("https://storage.azure.com/.default").token
        return {**options, "azure_storage_token": token}
    return {**options, "azure_skip_signature": "true"}


def _endpoint_options(endpoint: str, name: str, allow_http: str) -> dict[str, str]:
    http_option = {allow_http: "true"} if endpoint.startswith("http://") else {}
    return {name: endpoint, **http_option}
