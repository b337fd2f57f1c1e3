"""The plan: which chunks of which recordings go into which shard, before anything is decoded.

A plan is a value. The same recordings with the same configuration give the same plan, in
whatever order they are listed. A plan's name is its digest, so a resumed run finds the shards
that it has already written.
"""
