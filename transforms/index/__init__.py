"""The index of a snapshot: what became of every recording, failure and shard."""
