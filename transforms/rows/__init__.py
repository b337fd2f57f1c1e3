"""Rows of a dataset: their columns, and the formats that hold them."""
