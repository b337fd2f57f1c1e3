"""What fsspec's clients have found out about a store: where its server is, and who asks.

fsspec's filesystems take credentials, regions and endpoints from options, environment and
profiles as each ecosystem does. Delta's own client is told what they found, so that a user
says it once.
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
    """See that the server of a store answers, before its client tries for minutes.

    Raises
    ------
    UserError
        Of the kind `error`: nobody is there.
    """
    if "://" not in uri or "::" in uri:
        return
    filesystem, _ = open_filesystem(uri, options, error)
    try:
        endpoint = urlsplit(endpoint_of(filesystem) or "")
    except Exception as wrong:
        if not is_store_error(wrong):
            raise
        raise error(f"{uri} cannot be opened: {explain(wrong)}") from wrong
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
    """Give the URL of the server that a filesystem asks; ``None`` where that is not known."""
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
    """Give delta-rs's options for the store that an fsspec filesystem is open on.

    Credentials that expire are those of this moment: ask again for each table that is opened.
    """
    makers = {"s3": _s3, "gs": _gcs, "abfs": _azure}
    maker = makers.get(protocol_of(filesystem))
    return maker(filesystem) if maker else {}


def _s3(filesystem: Any) -> dict[str, str]:
    from fsspec.asyn import sync

    filesystem.connect()
    meta, told = filesystem.s3.meta, filesystem.client_kwargs
    options = {"aws_region": told.get("region_name") or meta.region_name or "us-east-1"}
    if not (urlsplit(meta.endpoint_url).hostname or "").endswith(_AMAZON):
        options |= _served_from(meta.endpoint_url, "aws_endpoint_url", "aws_allow_http")
    if filesystem.anon:
        return {**options, "aws_skip_signature": "true"}
    keys = (
        filesystem.key or told.get("aws_access_key_id"),
        filesystem.secret or told.get("aws_secret_access_key"),
        filesystem.token or told.get("aws_session_token"),
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


def _gcs(filesystem: Any) -> dict[str, str]:
    endpoint, found = filesystem._location, filesystem.credentials
    options = {}
    if not (urlsplit(endpoint).hostname or "").endswith(".googleapis.com"):
        options = _served_from(endpoint, "google_base_url", "google_allow_http")
    if found.credentials is None:
        # google_skip_signature alone does not keep delta-rs from asking for a token.
        nobody = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        key = {"gcs_base_url": endpoint, "disable_oauth": True, **nobody}
        return {**options, "google_service_account_key": json.dumps(key)}
    if isinstance(found.token, dict):
        return {**options, "google_service_account_key": json.dumps(found.token)}
    if isinstance(found.token, str) and found.token.endswith(".json"):
        return {**options, "google_application_credentials": found.token}
    # Application default credentials, which both look for in the same places.
    return options


def _azure(filesystem: Any) -> dict[str, str]:
    service = filesystem.service_client
    url = urlsplit(service.url)
    options = {"azure_storage_account_name": service.account_name}
    if not (url.hostname or "").endswith(".windows.net"):
        endpoint = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
        options |= _served_from(endpoint, "azure_storage_endpoint", "azure_allow_http")
    if url.query and "sig" in parse_qs(url.query):
        return {**options, "azure_storage_sas_token": url.query}
    if key := getattr(service.credential, "account_key", None):
        return {**options, "azure_storage_account_key": key}
    if filesystem.sync_credential is not None:
        token = filesystem.sync_credential.get_token("https://storage.azure.com/.default").token
        return {**options, "azure_storage_token": token}
    return {**options, "azure_skip_signature": "true"}


def _served_from(endpoint: str, name: str, allow_http: str) -> dict[str, str]:
    plain = {allow_http: "true"} if endpoint.startswith("http://") else {}
    return {name: endpoint, **plain}
