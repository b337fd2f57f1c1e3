"""Whether the workers have this package, in the launcher's version, before they need it.

Where they have not, a step of ours cannot even be unpickled, and Flink's runner (Beam 2.70) waits
for its answer without end. So the first step is made of nothing but Beam's and Python's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pkgutil import resolve_name

import apache_beam as beam

import melmill
import melmill.transforms.write_shards  # a worker that imports this has what all others import
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem

VERSION = melmill.__version__


@dataclass(eq=False)
class CheckWorkers(beam.PTransform):
    """Import this package on a worker, and the clients of the stores that will be needed.

    Out comes the version, once, for a first step of ours to begin with. Fails where the package,
    or one that it needs, is missing, and where its version is not the launcher's.
    """

    stores: tuple[tuple[str, StorageOptions], ...]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[str]:
        """Import it in a stage of its own."""
        return (
            pipeline
            | "NameVersion" >> beam.Create([f"{__name__}:VERSION"])
            | "ImportPackage" >> beam.Map(resolve_name)
            | "EndStage" >> beam.Reshuffle()
            | "CompareVersions" >> beam.Map(require_version, VERSION)
            | "OpenStores" >> beam.Map(open_stores, self.stores)
        )


def open_stores(version: str, stores: Iterable[tuple[str, StorageOptions]]) -> str:
    """Open each store's filesystem, which asks it nothing; gives the version back.

    Raises
    ------
    ConfigError
        A store's client is not installed here.
    """
    for uri, options in stores:
        try:
            open_filesystem(uri, options, ConfigError)
        except ConfigError as error:
            raise ConfigError(f"on a worker: {error}") from error
    return version


def require_version(found: str, wanted: str) -> str:
    """Give the version if it is the launcher's.

    >>> require_version("0.1.0", "0.1.0")
    '0.1.0'
    """
    if found != wanted:
        raise ConfigError(f"the workers have melmill {found}, and the launcher has {wanted}")
    return found
