"""A report about a dataset in one file: what it holds, what is broken, to see and to hear."""
