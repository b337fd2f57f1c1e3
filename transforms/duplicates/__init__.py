"""Near duplicates: recordings with the same sound, found by their fingerprints."""
