"""Shards: written, read, rewritten, merged."""
