"""Where Flink is, and whether what will talk to it is of its version.

A job server and a cluster of different versions of Flink fail with an error in Java that names
neither; what can be known before is looked up before.
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
#: In a job server's jar: which Flink is in it. Flink itself reads it there.
_PROPERTIES = ".flink-runtime.version.properties"
_START = (
    "scripts/flink-cluster start, or Flink's operator (deploy/flink), starts one; "
    "scripts/flink-cluster run COMMAND enters the former's network"
)
#: Those that Beam starts itself, in the launcher.
_EMBEDDED = "[local]"


def settle_flink(options: Any, flags: Sequence[str]) -> None:
    """See that the cluster, or the job server, answers; use the job server of its version.

    Parameters
    ----------
    options
        Beam's; changed in place.
    flags
        What the user said, as on the command line.

    Raises
    ------
    ConfigError
        Nothing is named, or nothing answers there, or it is of another version.
    """
    from apache_beam.options.pipeline_options import (
        FlinkRunnerOptions,
        PortableOptions,
        StandardOptions,
    )

    endpoint = options.view_as(PortableOptions).job_endpoint
    flink = options.view_as(FlinkRunnerOptions)
    if endpoint:
        # Beam's FlinkRunner would start a job server of its own.
        options.view_as(StandardOptions).runner = "PortableRunner"
        _require_listening(endpoint)
    elif not _names(flags, "flink_master"):
        raise ConfigError(
            "--runner flink: where is it? --job_endpoint=HOST:PORT names a job server of Beam, "
            f"--flink_master=HOST:PORT a Flink cluster; {_START}"
        )
    elif flink.flink_master != _EMBEDDED:
        _settle_version(flink, cluster_version(flink.flink_master), flags)


def _names(flags: Sequence[str], option: str) -> bool:
    return any(flag.partition("=")[0] == f"--{option}" for flag in flags)


def _require_listening(endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--job_endpoint {endpoint}: not HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"--job_endpoint {endpoint}: no job server answers there ({error}); {_START}"
        ) from error


def cluster_version(master: str) -> str:
    """Ask a cluster for its version of Flink; ``ConfigError`` where none answers."""
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
                f"and the cluster at {flink.flink_master} is Flink {version}; use a job server "
                f"for {line}"
            )
    elif _names(flags, "flink_version") and flink.flink_version != line:
        raise ConfigError(
            f"--flink_version {flink.flink_version}: the cluster at {flink.flink_master} is "
            f"Flink {version}; leave the option out, or say {line}"
        )
    elif line not in flink.PUBLISHED_FLINK_VERSIONS:
        allowed = ", ".join(flink.PUBLISHED_FLINK_VERSIONS)
        raise ConfigError(
            f"--flink_master {flink.flink_master}: is Flink {version}, for which this Beam has "
            f"no job server, only for {allowed}; name one with --flink_job_server_jar"
        )
    else:
        flink.flink_version = line


def _line(version: str) -> str:
    """Name the line of releases that a version is of.

    >>> _line("1.19.0")
    '1.19'
    """
    return ".".join(version.split(".")[:2])


def _jar_version(jar: str) -> str | None:
    """Find which Flink is in a job server's jar; ``None`` for a URL, or if it does not say."""
    if not Path(jar).is_file():
        return None
    try:
        with zipfile.ZipFile(jar) as archive:
            lines = archive.read(_PROPERTIES).decode().splitlines()
    except KeyError:
        return None
    except zipfile.BadZipFile as error:
        raise ConfigError(f"--flink_job_server_jar {jar}: no jar: {error}") from error
    return dict(line.partition("=")[::2] for line in lines).get("project.version")
