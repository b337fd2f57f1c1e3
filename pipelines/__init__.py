"""The parts that a user starts: the command line, the configuration and the pipelines."""
