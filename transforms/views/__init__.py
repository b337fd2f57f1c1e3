"""Views of a snapshot for other readers."""
