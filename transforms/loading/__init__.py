"""The order in which a loader gives the rows of a split, computed from numbers of rows alone."""
