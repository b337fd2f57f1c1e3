"""Checks that the workers have this package in the launcher's version, before they need it.

Without the package, a worker cannot even unpickle our steps, and Flink's runner (Beam 2.70) waits
forever for an answer. The first step therefore uses only code of Beam and Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pkgutil import resolve_name

import apache_beam as beam

import melmill
import melmill.transforms.write_shards  # imports everything that the other steps import
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem

VERSION = melmill.__version__


@dataclass(eq=False)
class CheckWorkers(beam.PTransform):
    """Import this package, and the clients of the stores in use, on a worker.

    The output is the version, as one element, with which the first real step can start. The step
    fails if the package or one of its dependencies is missing, or if its version is not the
    launcher's version.

    Attributes
    ----------
    stores
        URL and storage options of each store that the run uses.
    """

    stores: tuple[tuple[str, StorageOptions], ...]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[str]:
        """Import the package in a separate stage, then check versions and stores."""
        return (
            pipeline
            | "NameVersion" >> beam.Create([f"{__name__}:VERSION"])
            | "ImportPackage" >> beam.Map(resolve_name)
            | "EndStage" >> beam.Reshuffle()
            | "CompareVersions" >> beam.Map(require_version, VERSION)
            | "OpenStores" >> beam.Map(open_stores, self.stores)
        )


def open_stores(version: str, stores: Iterable[tuple[str, StorageOptions]]) -> str:
    """Open each store's filesystem, without a request to the store; return the version.

    Raises
    ------
    ConfigError
        If a store's client is not installed on this machine.
    """
    for uri, options in stores:
        try:
            open_filesystem(uri, options, ConfigError)
        except ConfigError as error:
            raise ConfigError(f"on a worker: {error}") from error
    return version


def require_version(found: str, wanted: str) -> str:
    """Return the workers' version; raise ``ConfigError`` if it is not the launcher's version.

    >>> require_version("0.1.0", "0.1.0")
    '0.1.0'
    """
    if found != wanted:
        raise ConfigError(
            f"the workers have melmill {found}, but the launcher has {wanted}; "
            "install the same version on both"
        )
    return found
