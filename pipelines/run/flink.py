"""Checks for Flink that run before a job is submitted: whether it answers, and its version.

If a job server and a cluster have different versions of Flink, they fail with a Java error that
does not name the versions. So the versions are compared first, if possible.
"""

from __future__ import annotations

import json
import socket
import urllib.request
import zipfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from melmill.transforms.core.errors import ConfigError

_SECONDS = 5.0
#: The file in a job server's jar that holds the version of Flink; Flink itself reads it, too.
_PROPERTIES = ".flink-runtime.version.properties"
_START = (
    "start a cluster with scripts/flink-cluster start or with Flink's operator (deploy/flink); "
    "scripts/flink-cluster run COMMAND runs a command in the network of the former"
)
#: The cluster that Beam starts itself, in the launcher.
_EMBEDDED = "[local]"


def settle_flink(options: Any, flags: Sequence[str]) -> None:
    """Check that the cluster or the job server answers; select the job server for its version.

    Parameters
    ----------
    options
        The options of Beam; changed in place.
    flags
        The user's options, as on the command line.

    Raises
    ------
    ConfigError
        No cluster and no job server is given, it does not answer, or its version is wrong.
    """
    from apache_beam.options.pipeline_options import (
        FlinkRunnerOptions,
        PortableOptions,
        StandardOptions,
    )

    endpoint = options.view_as(PortableOptions).job_endpoint
    flink = options.view_as(FlinkRunnerOptions)
    if endpoint:
        # Beam's FlinkRunner would start its own job server.
        options.view_as(StandardOptions).runner = "PortableRunner"
        _require_listening(endpoint)
    elif not _names(flags, "flink_master"):
        raise ConfigError(
            "--runner flink: no cluster is given; name a Beam job server with "
            "--job_endpoint=HOST:PORT, or a Flink cluster with --flink_master=HOST:PORT; "
            f"{_START}"
        )
    elif flink.flink_master != _EMBEDDED:
        _settle_version(flink, cluster_version(flink.flink_master), flags)


def _names(flags: Sequence[str], option: str) -> bool:
    return any(flag.partition("=")[0] == f"--{option}" for flag in flags)


def _require_listening(endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--job_endpoint {endpoint}: must be HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"--job_endpoint {endpoint}: no job server answers there ({error}); {_START}"
        ) from error


def cluster_version(master: str) -> str:
    """Return the version of Flink of a cluster; raise ``ConfigError`` if it does not answer."""
    url = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{url}/config", timeout=_SECONDS) as reply:
            version: str = json.load(reply)["flink-version"]
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise ConfigError(
            f"--flink_master {master}: no Flink answers there ({error}); {_START}"
        ) from error
    return version


def _settle_version(flink: Any, version: str, flags: Sequence[str]) -> None:
    line = _line(version)
    if flink.flink_job_server_jar:
        built = _jar_version(flink.flink_job_server_jar)
        if built is not None and _line(built) != line:
            raise ConfigError(
                f"--flink_job_server_jar {flink.flink_job_server_jar}: built with Flink {built}, "
                f"but the cluster at {flink.flink_master} is Flink {version}; use a job server "
                f"for {line}"
            )
    elif _names(flags, "flink_version") and flink.flink_version != line:
        raise ConfigError(
            f"--flink_version {flink.flink_version}: the cluster at {flink.flink_master} is "
            f"Flink {version}; remove the option, or set it to {line}"
        )
    elif line not in flink.PUBLISHED_FLINK_VERSIONS:
        allowed = ", ".join(flink.PUBLISHED_FLINK_VERSIONS)
        raise ConfigError(
            f"--flink_master {flink.flink_master}: is Flink {version}, but this Beam has job "
            f"servers only for {allowed}; name a job server with --flink_job_server_jar"
        )
    else:
        flink.flink_version = line


def _line(version: str) -> str:
    """Return the major and minor number of a version.

    >>> _line("1.19.0")
    '1.19'
    """
    return ".".join(version.split(".")[:2])


def _jar_version(jar: str) -> str | None:
    """Return the version of Flink in a job server's jar; ``None`` if it is a URL or not known."""
    if not Path(jar).is_file():
        return None
    try:
        with zipfile.ZipFile(jar) as archive:
            lines = archive.read(_PROPERTIES).decode().splitlines()
    except KeyError:
        return None
    except zipfile.BadZipFile as error:
        raise ConfigError(f"--flink_job_server_jar {jar}: is not a jar file: {error}") from error
    return dict(line.partition("=")[::2] for line in lines).get("project.version")
