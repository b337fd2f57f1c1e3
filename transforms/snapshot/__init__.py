"""Snapshots of a dataset: the commit, its index, its totals and its card."""
