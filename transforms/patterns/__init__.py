"""Patterns: which chunks and recordings are unusual, which are alike, and which form groups."""
