"""The snapshot that a report is about, with the limits and the command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from melmill.pipelines.profiles import Profile, Rule
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.measures.registry import meters_in, meters_of
from melmill.transforms.plan.job import is_matching
from melmill.transforms.snapshot.delta import require_past
from melmill.transforms.store.folders import Store

if TYPE_CHECKING:
    from melmill.pipelines.duplicates import Duplicates


@dataclass(frozen=True, slots=True)
class ReportedSnapshot:
    """A snapshot, and what is said about it.

    Attributes
    ----------
    opened
        Snapshot.
    committed
        Time of its commit, in UTC, as ISO 8601.
    profile
        Limits of measures.
    command
        Command that makes the report.
    """

    opened: OpenSnapshot
    committed: str
    profile: Profile
    command: str = ""

    @classmethod
    def open(
        cls, store: Store, profile: Profile, version: int | None = None, command: str = ""
    ) -> ReportedSnapshot:
        """Open a dataset's current version, or an earlier one.

        Raises
        ------
        DatasetError
            There is no dataset, or no such version.
        """
        opened = OpenSnapshot.at(store, version)
        seconds = require_past(store, opened.snapshot.version).committed_ms / 1000
        committed = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        return cls(opened, committed, profile, command)

    @property
    def limits(self) -> list[tuple[Rule, bool]]:
        """Rules of the profile, and whether the dataset has the measure of each."""
        meters = {*meters_in(self.opened.recipe.quality)}
        return [(rule, {*meters_of([rule.measure])} <= meters) for rule in self.profile.rules]

    @property
    def measured_profile(self) -> Profile:
        """Profile without the rules whose measures the dataset does not have."""
        rules = tuple(rule for rule, is_measured in self.limits if is_measured)
        return self.profile.model_copy(update={"rules": rules})


def is_searched(opened: OpenSnapshot) -> bool:
    """Return whether the index says which recordings sound the same."""
    recipe = opened.recipe
    return is_matching(recipe.dedupe, recipe.split.keep_together)


def duplicates_of(opened: OpenSnapshot) -> Duplicates | None:
    """Return the duplicates in the index; ``None`` if the recipe does not look for them."""
    if not is_searched(opened):
        return None
    from melmill.pipelines.duplicates import stored_duplicates  # imported here: it loads Beam

    return stored_duplicates(opened)
