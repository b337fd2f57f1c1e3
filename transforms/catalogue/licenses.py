"""``catalogue.require_license``: what becomes of recordings with another licence, or with none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from melmill.transforms.catalogue.table_recordings import with_fault
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.licenses import license_id, license_ids, provenance_columns
from melmill.transforms.core.records import Recording

OTHER_LICENSE = "other_license"

#: What becomes of a recording without an allowed licence.
OtherLicense = Literal["drop", "fail"]


@dataclass(frozen=True, slots=True)
class LicenseRule:
    """The licences that recordings may have.

    Attributes
    ----------
    allowed
        Licences, as the user writes them; see :func:`~melmill.transforms.core.licenses.license_id`.
        Case does not matter. ``()`` allows all recordings.
    column
        Label column that holds the licence of a recording.
    other
        What becomes of other recordings: they are left out, or they fail.
    """

    allowed: tuple[str, ...] = ()
    column: str = ""
    other: OtherLicense = "drop"

    def apply(self, recording: Recording) -> Recording:
        """Return a listed recording; without an allowed licence it is left out, or has a fault.

        If a recording has several licences, all of them must be allowed. A row that could not be
        understood keeps its fault.
        """
        if not self.allowed or recording.change or (recording.fault and not recording.labels):
            return recording
        value = dict(recording.labels).get(self.column)
        names = {name.casefold() for name in license_ids(value)}
        if names and names <= _folded(self.allowed):
            return recording
        if self.other == "drop":
            return replace(recording, change=OTHER_LICENSE)
        license_text = repr(value) if names else "an empty value"
        message = (
            f", column {self.column!r}: {license_text} is not in catalogue.require_license "
            f"({', '.join(self.allowed)}); correct the row, or add the licence to the list"
        )
        return with_fault(recording, Cause.OTHER_LICENSE, message)


@lru_cache(maxsize=8)
def _folded(names: tuple[str, ...]) -> frozenset[str]:
    """Return the identifiers of licences, to compare them; every recording asks for them."""
    return frozenset(license_id(name).casefold() for name in names)


#: All recordings are allowed.
ANY_LICENSE = LicenseRule()


def license_column(uri: str, labels: tuple[str, ...]) -> str:
    """Return the label column that holds the licences; raise ``CatalogueError`` without one."""
    if column := provenance_columns(labels).get("license"):
        return column
    raise CatalogueError(
        f"catalogue.require_license: {uri} has no label column 'license' or 'licence'; its label "
        f"columns are: {', '.join(labels) or 'none'}. Add the column (in JSON lines and archives, "
        "a key that comes late is named in catalogue.label_types), or remove require_license"
    )
