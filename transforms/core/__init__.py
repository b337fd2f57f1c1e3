"""Records, errors and names that every other package uses."""
