"""Catalogues read, shards and snapshots written; nothing in here imports Beam."""
