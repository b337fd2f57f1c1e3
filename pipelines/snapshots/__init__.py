"""A dataset's snapshots: open, describe, compare, check and clean up."""
