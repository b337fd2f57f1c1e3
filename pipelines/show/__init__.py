"""A part of a recording, or a row of a dataset, as a picture for a terminal or a file."""
