"""Side tables: labels, scores and tokens that are added to a snapshot after its extraction."""
