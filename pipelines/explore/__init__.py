"""A web application that shows the recordings of a dataset, on this machine only."""
