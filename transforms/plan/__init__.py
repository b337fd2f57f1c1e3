"""What is to be done: the job, chunks and shards, and what changed since a snapshot."""
