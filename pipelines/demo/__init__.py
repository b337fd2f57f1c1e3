"""Synthetic songs, for the demo and the example notebooks."""
