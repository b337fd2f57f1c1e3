"""The plan of a run: the job, chunks and shards, and the changes since a snapshot."""
