"""Snapshots of a dataset: the commit, its index, totals and card."""
