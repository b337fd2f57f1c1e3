"""The steps of the pipeline, one a file, and the libraries that they call, one a folder."""
