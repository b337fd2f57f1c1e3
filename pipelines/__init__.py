"""What a user launches: the command line, the configuration and the pipelines."""
