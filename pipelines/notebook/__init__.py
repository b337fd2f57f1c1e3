"""A recording in a notebook: play it, see it with its chunks, compute its features."""
