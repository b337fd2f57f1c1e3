"""Views of a snapshot: copies in the layouts of other tools."""
