"""The index of a snapshot: tables of its recordings, failures and shards."""
